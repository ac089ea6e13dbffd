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

// asUser makes a child run as another user.
func asUser(uid int, cmd *exec.Cmd) *exec.Cmd {
	if uid != os.Getuid() {
		cmd.SysProcAttr.Credential = &syscall.Credential{Uid: uint32(uid), Gid: uint32(uid)}
	}
	return cmd
}

func readAs(t *testing.T, uid int, s Source) outcome {
	t.Helper()
	return runChild(t, asUser(uid, withoutTerminal(childCommand(t, "read", s))))
}

// TestHardenedReader: a process that is not dumpable, whose /proc/self is
// root's, can read every kind of source too.
func TestHardenedReader(t *testing.T) {
	dir := diskDir(t)
	for _, uid := range users() {
		path := writeFile(t, filepath.Join(dir, CredentialName), "secret\n", 0o644)
		r, w, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close()
		fmt.Fprint(w, "secret\n")
		w.Close()
		for _, s := range []Source{
			{FD: -1, File: "/dev/fd/3"},
			{FD: -1, File: path, CredentialsDir: dir},
			{FD: -1, CredentialsDir: dir},
			{FD: -1, Command: "echo secret"},
		} {
			cmd := asUser(uid, withoutTerminal(childCommand(t, "hardened", s)))
			if s.File == "/dev/fd/3" {
				cmd.ExtraFiles = []*os.File{r}
				if err := r.Chown(uid, uid); err != nil {
					t.Fatal(err)
				}
			}
			if o := runChild(t, cmd); o.ErrorType != "" || o.passphrase(t) != "secret" {
				t.Errorf("uid %d, %+v: %+v", uid, s, o)
			}
		}
	}
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
		{"tmpfs that is open to everybody", memory, "", false},
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
					o := readAs(t, uid, Source{FD: -1, File: path, CredentialsDir: place.credentials})
					if private || place.exempt {
						if got := o.passphrase(t); got != "secret" {
							t.Errorf("got %q", got)
						}
						return
					}
					if o.ErrorType != "*keyring.UnsafeFileError" || !strings.HasSuffix(o.Error, fmt.Sprintf("%q can be read by others (mode %04o)", path, mode)) {
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
		o := readAs(t, uid, Source{FD: -1, File: path})
		if uid == os.Getuid() {
			if got := o.passphrase(t); got != "secret" {
				t.Errorf("owner got %q", got)
			}
		} else if o.ErrorType != "*keyring.PasskeyError" || !strings.Contains(o.Error, "permission denied") {
			t.Errorf("uid %d: %+v", uid, o)
		}
	}
}

// TestFileOwner: a passkey is taken from files of the caller and of root, and
// from nobody's else, wherever they are; a pipe without a name may be anybody's.
func TestFileOwner(t *testing.T) {
	if os.Getuid() != 0 { // who can give files to nobody: the caller's own and root's are what is left to show
		for path, want := range map[string]string{"/etc/passwd": "*keyring.UnsafeFileError", writeFile(t, filepath.Join(diskDir(t), "key"), "secret\n", 0o600): ""} {
			if o := readAs(t, os.Getuid(), Source{FD: -1, File: path}); o.ErrorType != want || strings.Contains(o.Error, "another user") {
				t.Errorf("%s: %+v", path, o)
			}
		}
		return
	}
	dir := diskDir(t)
	fifo := filepath.Join(dir, "fifo")
	if err := unix.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	file := writeFile(t, filepath.Join(dir, "key"), "secret\n", 0o600)
	for _, path := range []string{fifo, file} {
		if err := os.Chown(path, nobody, nobody); err != nil {
			t.Fatal(err)
		}
		for _, credentials := range []string{"", dir} {
			o := readAs(t, 0, Source{FD: -1, File: path, CredentialsDir: credentials})
			if o.ErrorType != "*keyring.UnsafeFileError" || !strings.Contains(o.Error, "another user (uid 65534)") {
				t.Errorf("root, nobody's %s, credentials %q: %+v", path, credentials, o)
			}
		}
	}
	if got := readAs(t, nobody, Source{FD: -1, File: file}).passphrase(t); got != "secret" {
		t.Errorf("nobody, its own: %q", got)
	}
	roots := writeFile(t, filepath.Join(dir, "root's"), "secret\n", 0o644)
	if got := readAs(t, nobody, Source{FD: -1, File: roots, CredentialsDir: dir}).passphrase(t); got != "secret" {
		t.Errorf("nobody, root's: %q", got)
	}
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	fmt.Fprint(w, "secret\n")
	w.Close()
	if err := r.Chown(nobody, nobody); err != nil {
		t.Fatal(err)
	}
	cmd := withoutTerminal(childCommand(t, "read", Source{FD: 3}))
	cmd.ExtraFiles = []*os.File{r}
	if got := runChild(t, cmd).passphrase(t); got != "secret" {
		t.Errorf("root, nobody's pipe: %q", got)
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
