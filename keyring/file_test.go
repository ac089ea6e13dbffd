package keyring

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

const nobody = 65534

// users are those to run a child as: all that this process may.
func users() []int {
	if os.Getuid() == 0 {
		return []int{0, nobody}
	}
	return []int{os.Getuid()}
}

func asUser(t *testing.T, uid int, s Source) outcome {
	t.Helper()
	cmd := withoutTerminal(childCommand(t, "read", s))
	if uid != os.Getuid() {
		cmd.SysProcAttr.Credential = &syscall.Credential{Uid: uint32(uid), Gid: uint32(uid)}
	}
	return runChild(t, cmd)
}

// TestFilePermissions is the matrix of modes, places and users.
func TestFilePermissions(t *testing.T) {
	disk := diskDir(t)
	memory, err := os.MkdirTemp("/dev/shm", "keyring-test-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(memory) })
	credentials := filepath.Join(disk, "credentials")
	for _, err := range []error{os.Chmod(memory, 0o755), os.Mkdir(credentials, 0o755), os.Symlink(credentials, filepath.Join(disk, "link"))} {
		if err != nil {
			t.Fatal(err)
		}
	}
	places := []struct {
		name, dir, credentials string
		exempt                 bool
	}{
		{"disk", disk, "", false},
		{"tmpfs", memory, "", true},
		{"credentials", credentials, credentials, true},
		{"credentials through a link", credentials, filepath.Join(disk, "link"), true},
		{"beside the credentials", disk, credentials, false},
	}
	for _, uid := range users() {
		for _, place := range places {
			for mode, private := range map[os.FileMode]bool{
				0o600: true, 0o400: true, 0o700: true, 0o620: true, 0o602: true, 0o611: true,
				0o640: false, 0o604: false, 0o644: false, 0o440: false, 0o404: false, 0o777: false, 0o660: false,
			} {
				t.Run(fmt.Sprintf("uid %d, %s, %04o", uid, place.name, mode), func(t *testing.T) {
					path := writeFile(t, filepath.Join(place.dir, "key"), "secret\n", mode)
					defer os.Remove(path)
					if err := os.Chown(path, uid, uid); err != nil {
						t.Fatal(err)
					}
					o := asUser(t, uid, Source{FD: -1, File: path, CredentialsDir: place.credentials})
					if private || place.exempt {
						if got := o.passphrase(t); got != "secret" {
							t.Errorf("got %q", got)
						}
						return
					}
					if o.ErrorType != "*keyring.UnsafeFileError" || !strings.Contains(o.Error, fmt.Sprintf("%04o): chmod 600 '%s'", mode, path)) {
						t.Errorf("got %+v", o)
					}
				})
			}
		}
	}
}

// TestFileOfOthers: what a user can't open, and whose file it is.
func TestFileOfOthers(t *testing.T) {
	dir := diskDir(t)
	path := writeFile(t, filepath.Join(dir, "key"), "secret\n", 0o600)
	for _, uid := range users() {
		o := asUser(t, uid, Source{FD: -1, File: path})
		if uid == os.Getuid() {
			if got := o.passphrase(t); got != "secret" {
				t.Errorf("owner got %q", got)
			}
		} else if o.ErrorType != "*keyring.PasskeyError" || !strings.Contains(o.Error, "permission denied") {
			t.Errorf("uid %d: %+v", uid, o)
		}
	}
}

// TestFileLinkOutOfCredentials: the open file counts, not the name that led to
// it.
func TestFileLinkOutOfCredentials(t *testing.T) {
	dir := diskDir(t)
	credentials := filepath.Join(dir, "credentials")
	if err := os.Mkdir(credentials, 0o700); err != nil {
		t.Fatal(err)
	}
	target := writeFile(t, filepath.Join(dir, "key"), "secret\n", 0o644)
	if err := os.Symlink(target, filepath.Join(credentials, CredentialName)); err != nil {
		t.Fatal(err)
	}
	_, err := Source{FD: -1, CredentialsDir: credentials}.Read(t.Context(), "v")
	var unsafe *UnsafeFileError
	if !errors.As(err, &unsafe) {
		t.Errorf("got %v", err)
	}
}

func TestUnder(t *testing.T) {
	dir := diskDir(t)
	for _, c := range []struct {
		path, dir string
		want      bool
	}{
		{dir + "/key", dir, true},
		{dir + "/a/key", dir, true},
		{dir + "/key", dir + "/", true},
		{dir + "x/key", dir, false},
		{dir, dir, false},
		{dir + "/key", "", false},
		{dir + "/key", dir + "/nonexistent", false},
		{"/etc/key", "/", true},
		{"keyring/key", ".", false},
	} {
		if got := under(c.path, c.dir); got != c.want {
			t.Errorf("%s under %s: %v", c.path, c.dir, got)
		}
	}
}

// TestFileReadOnlyMount binds a directory read-only in a mount namespace of
// its own.
func TestFileReadOnlyMount(t *testing.T) {
	dir := diskDir(t)
	path := writeFile(t, filepath.Join(dir, "key"), "secret\n", 0o644)
	cmd := childCommand(t, "read-only", path)
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags:  syscall.CLONE_NEWUSER | syscall.CLONE_NEWNS,
		UidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}},
	}
	if got := runChild(t, cmd).passphrase(t); got != "secret" {
		t.Errorf("got %q", got)
	}
}

func childReadOnlyMount() {
	var path string
	childArg(&path)
	dir := filepath.Dir(path)
	must := func(err error) {
		if err != nil {
			panic(err)
		}
	}
	must(unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""))
	must(unix.Mount(dir, dir, "", unix.MS_BIND, ""))
	// Through the name on the writable mount it is refused first.
	if _, err := (Source{FD: -1, File: path}).Read(context.Background(), "v"); err == nil {
		panic("a readable file on a writable mount was taken")
	}
	var mount unix.Statfs_t
	must(unix.Statfs(dir, &mount))
	kept := uintptr(mount.Flags) & (unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC | unix.MS_NOATIME | unix.MS_NODIRATIME)
	if mount.Flags&unix.ST_RELATIME != 0 {
		kept |= unix.MS_RELATIME
	}
	must(unix.Mount("", dir, "", unix.MS_REMOUNT|unix.MS_BIND|unix.MS_RDONLY|kept, ""))
	passkey, err := Source{FD: -1, File: path}.Read(context.Background(), "v")
	report(passkey, false, err)
}

func TestFileKinds(t *testing.T) {
	dir := diskDir(t)
	fifo := filepath.Join(dir, "fifo")
	open := filepath.Join(dir, "open-fifo")
	for path, mode := range map[string]uint32{fifo: 0o600, open: 0o644} {
		if err := unix.Mkfifo(path, mode); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(path, os.FileMode(mode)); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []struct{ name, path, errorType string }{
		{"directory", dir, "*keyring.PasskeyError"},
		{"device", "/dev/null", "*keyring.PasskeyError"},
		{"missing", filepath.Join(dir, "none"), "*keyring.PasskeyError"},
		{"FIFO that others can read", open, "*keyring.UnsafeFileError"},
	} {
		_, err := Source{FD: -1, File: c.path}.Read(t.Context(), "v")
		if got := fmt.Sprintf("%T", err); got != c.errorType {
			t.Errorf("%s: %v", c.name, err)
		}
	}
	t.Run("FIFO with a late writer", func(t *testing.T) {
		go func() {
			time.Sleep(50 * time.Millisecond)
			w, err := os.OpenFile(fifo, os.O_WRONLY, 0)
			if err != nil {
				t.Error(err)
				return
			}
			defer w.Close()
			for _, part := range []string{"sec", "ret", "\n"} {
				fmt.Fprint(w, part)
				time.Sleep(10 * time.Millisecond)
			}
		}()
		expectPassphrase(t, Source{FD: -1, File: fifo}, "secret")
	})
	t.Run("FIFO without a writer", func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		defer cancel()
		if _, err := (Source{FD: -1, File: fifo}).Read(ctx, "v"); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got %v", err)
		}
	})
}

func expectPassphrase(t *testing.T, s Source, want string) {
	t.Helper()
	passkey, err := s.Read(t.Context(), "v")
	if err != nil {
		t.Error(err)
		return
	}
	defer passkey.Destroy()
	if got := string(passkey.Passphrase().Bytes()); got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

// TestProcessSubstitution uses a real shell's <(…).
func TestProcessSubstitution(t *testing.T) {
	child := childCommand(t, "read", nil)
	cmd := exec.Command("bash", "-c", `exec env `+childArgs+`='{"FD":-1,"File":"'<(sleep 0.05; echo secret)'"}' /proc/`+fmt.Sprint(os.Getpid())+`/exe`)
	cmd.Env, cmd.Stderr = child.Env, os.Stderr
	if got := runChild(t, withoutTerminal(cmd)).passphrase(t); got != "secret" {
		t.Errorf("got %q", got)
	}
}

// TestDescriptor: what a descriptor delivers is a passkey, and the descriptor
// is gone then.
func TestDescriptor(t *testing.T) {
	dir := diskDir(t)
	private := writeFile(t, filepath.Join(dir, "private"), "secret\n", 0o600)
	public := writeFile(t, filepath.Join(dir, "public"), "secret\n", 0o644)
	run := func(name string, fd int, f *os.File) outcome {
		cmd := withoutTerminal(childCommand(t, "read", Source{FD: fd}))
		if fd == 0 {
			cmd.Stdin = f
		} else {
			cmd.ExtraFiles = []*os.File{f}
		}
		defer f.Close()
		return runChild(t, cmd)
	}
	openFile := func(path string) *os.File {
		f, err := os.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		return f
	}
	pipe := func() *os.File {
		r, w, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprint(w, "secret\n")
		w.Close()
		return r
	}
	socket := func() *os.File {
		fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		_, _ = unix.Write(fds[0], []byte("secret\n"))
		unix.Close(fds[0])
		return os.NewFile(uintptr(fds[1]), "socket")
	}
	for _, c := range []struct {
		name string
		fd   int
		file *os.File
	}{
		{"file", 3, openFile(private)}, {"pipe", 3, pipe()}, {"socket", 3, socket()},
		{"file on standard input", 0, openFile(private)}, {"pipe on standard input", 0, pipe()},
	} {
		o := run(c.name, c.fd, c.file)
		if got := o.passphrase(t); got != "secret" {
			t.Errorf("%s: got %q", c.name, got)
		}
		for _, fd := range o.OpenFDs {
			if strings.HasPrefix(fd, "3=") && c.fd == 3 && !strings.Contains(fd, "anon_inode") && !strings.Contains(fd, "pipe:") || strings.Contains(fd, private) {
				t.Errorf("%s: %s is still open", c.name, fd)
			}
		}
		if c.fd == 0 && (len(o.OpenFDs) == 0 || o.OpenFDs[0] != "0=/dev/null") {
			t.Errorf("%s: descriptors %v", c.name, o.OpenFDs)
		}
	}
	if o := run("public", 3, openFile(public)); o.ErrorType != "*keyring.UnsafeFileError" {
		t.Errorf("a file that others can read: %+v", o)
	}
	if o := run("device", 3, openFile("/dev/zero")); o.ErrorType != "*keyring.PasskeyError" {
		t.Errorf("a device: %+v", o)
	}
	cmd := withoutTerminal(childCommand(t, "read", Source{FD: 77}))
	if o := runChild(t, cmd); o.ErrorType != "*keyring.PasskeyError" || !strings.Contains(o.Error, "--passkey-fd 77") {
		t.Errorf("a descriptor that is not open: %+v", o)
	}
}

// TestSourceOrder: each source counts only when none before it is set.
func TestSourceOrder(t *testing.T) {
	dir := diskDir(t)
	file := writeFile(t, filepath.Join(dir, "file"), "from the file", 0o600)
	env := writeFile(t, filepath.Join(dir, "env"), "from the environment", 0o600)
	writeFile(t, filepath.Join(dir, CredentialName), "from the credential", 0o600)
	empty := t.TempDir()
	for _, c := range []struct {
		name string
		s    Source
		want string
	}{
		{"file first", Source{FD: -1, File: file, EnvFile: env, CredentialsDir: dir}, "from the file"},
		{"command first", Source{FD: -1, Command: "echo from a command", EnvFile: env, CredentialsDir: dir}, "from a command"},
		{"environment", Source{FD: -1, EnvFile: env, CredentialsDir: dir}, "from the environment"},
		{"credential", Source{FD: -1, CredentialsDir: dir}, "from the credential"},
	} {
		t.Run(c.name, func(t *testing.T) { expectPassphrase(t, c.s, c.want) })
	}
	for _, c := range []struct {
		name, errorType string
		s               Source
	}{
		{"nothing", "*keyring.NoTerminalError", Source{FD: -1}},
		{"credentials without ours", "*keyring.NoTerminalError", Source{FD: -1, CredentialsDir: empty}},
		{"environment names a missing file", "*keyring.PasskeyError", Source{FD: -1, EnvFile: empty + "/x", CredentialsDir: dir}},
		{"file and command", "*keyring.UsageError", Source{FD: -1, File: file, Command: "echo x"}},
		{"descriptor and file", "*keyring.UsageError", Source{FD: 0, File: file}},
		{"descriptor and command", "*keyring.UsageError", Source{FD: 5, Command: "echo x"}},
		{"standard output", "*keyring.UsageError", Source{FD: 1}},
		{"quote not closed", "*keyring.UsageError", Source{FD: -1, Command: "echo 'x"}},
	} {
		// With a passphrase on standard input, which nobody asked for.
		cmd := withoutTerminal(childCommand(t, "read", c.s))
		cmd.Stdin = strings.NewReader("from standard input\n")
		o := runChild(t, cmd)
		if o.ErrorType != c.errorType {
			t.Errorf("%s: %+v", c.name, o)
		}
		if c.errorType == "*keyring.NoTerminalError" {
			for _, other := range []string{"--passkey-file", "--passkey-fd", "--passkey-command", "$ENCFSRUN_PASSKEY_FILE", "$CREDENTIALS_DIRECTORY/encfsrun.passkey"} {
				if !strings.Contains(o.Error, other) {
					t.Errorf("%s: %q lacks %s", c.name, o.Error, other)
				}
			}
		}
	}
}

// TestNewSourceFromFile: a new passphrase may be 32 bytes of text, not a
// machine key.
func TestNewSourceFromFile(t *testing.T) {
	dir := diskDir(t)
	for _, c := range []struct{ name, content, want string }{
		{"line", "secret\n", "secret"},
		{"32 bytes of text", strings.Repeat("é", 16), strings.Repeat("é", 16)},
		{"32 bytes with NUL", strings.Repeat("a\x00", 16), ""},
		{"32 random bytes without NUL", strings.Repeat("\xfe\x80", 16), ""},
		{"32 bytes with a control character", strings.Repeat("a\x1b", 16), ""},
		{"empty", "", ""},
	} {
		path := writeFile(t, filepath.Join(dir, "key"), c.content, 0o600)
		passkey, generated, err := NewSource{FD: -1, File: path}.Read(t.Context(), "v")
		if c.want == "" {
			var refused *PasskeyError
			if !errors.As(err, &refused) {
				t.Errorf("%s: %v", c.name, err)
			}
			continue
		}
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
			continue
		}
		if string(passkey.Passphrase().Bytes()) != c.want || passkey.MachineKey() != nil || generated {
			t.Errorf("%s: %q", c.name, passkey.Passphrase().Bytes())
		}
		passkey.Destroy()
	}
	if err := (NewSource{FD: 3, File: "x"}).Validate(); err == nil || !strings.Contains(err.Error(), "--new-passkey-fd and --new-passkey-file") {
		t.Errorf("got %v", err)
	}
}

func TestMachineKeyFile(t *testing.T) {
	dir := diskDir(t)
	path := filepath.Join(dir, "machine.key")
	old := syscall.Umask(0)
	made, err := GenerateMachineKey(path)
	syscall.Umask(old)
	if err != nil {
		t.Fatal(err)
	}
	defer made.Destroy()
	st, err := os.Stat(path)
	if err != nil || st.Mode() != 0o600 || st.Size() != MachineKeySize {
		t.Fatalf("%v, %v", st, err)
	}
	read, err := ReadMachineKey(t.Context(), path, "")
	if err != nil {
		t.Fatal(err)
	}
	defer read.Destroy()
	if string(read.MachineKey().Bytes()) != string(made.MachineKey().Bytes()) || read.Passphrase() != nil {
		t.Error("another key came back")
	}
	before, _ := os.ReadFile(path)
	if _, err := GenerateMachineKey(path); !errors.Is(err, os.ErrExist) {
		t.Errorf("overwriting: %v", err)
	}
	if after, _ := os.ReadFile(path); string(after) != string(before) {
		t.Error("the key was overwritten")
	}
	dangling := filepath.Join(dir, "link")
	if err := os.Symlink(filepath.Join(dir, "target"), dangling); err != nil {
		t.Fatal(err)
	}
	if _, err := GenerateMachineKey(dangling); !errors.Is(err, os.ErrExist) {
		t.Errorf("through a link: %v", err)
	}
	if _, err := GenerateMachineKey(filepath.Join(dir, "none", "key")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("in a missing directory: %v", err)
	}
	for _, c := range []struct{ content, errorType string }{
		{"a passphrase\n", "*keyring.PasskeyError"},
		{"", "*keyring.PasskeyError"},
		{strings.Repeat("x", 33), "*keyring.PasskeyError"},
	} {
		bad := writeFile(t, filepath.Join(dir, "bad"), c.content, 0o600)
		if _, err := ReadMachineKey(t.Context(), bad, ""); fmt.Sprintf("%T", err) != c.errorType {
			t.Errorf("%q: %v", c.content, err)
		}
	}
	if err := os.Chmod(path, 0o640); err != nil {
		t.Fatal(err)
	}
	if _, err := ReadMachineKey(t.Context(), path, ""); fmt.Sprintf("%T", err) != "*keyring.UnsafeFileError" {
		t.Errorf("readable by the group: %v", err)
	}
}
