package keyring

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// TestFileReadOnlyMount binds a directory read-only in a mount namespace of
// its own.
func TestFileReadOnlyMount(t *testing.T) {
	dir := diskDir(t)
	path := writeFile(t, filepath.Join(dir, "key"), "secret\n", 0o644)
	if got := runChild(t, inNamespace(childCommand(t, "read-only", path))).passphrase(t); got != "secret" {
		t.Errorf("got %q", got)
	}
}

// inNamespace gives a child user and mount namespaces, where it may mount.
func inNamespace(cmd *exec.Cmd) *exec.Cmd {
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags:  syscall.CLONE_NEWUSER | syscall.CLONE_NEWNS,
		UidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}},
	}
	return cmd
}

// tmpfsCase is a file that others can read, in a folder of a new tmpfs.
type tmpfsCase struct {
	Dir       string // where the tmpfs is mounted
	Root, Sub uint32 // modes of its root and of the folder
}

// TestFileTmpfs: what makes a tmpfs a place for secrets.
func TestFileTmpfs(t *testing.T) {
	dir := diskDir(t)
	if err := os.Chmod(dir, 0o777); err != nil { // what is above the tmpfs does not count
		t.Fatal(err)
	}
	for _, c := range []struct {
		name      string
		root, sub uint32
		safe      bool
	}{
		{"a service manager's", 0o755, 0o755, true},
		{"its owner's", 0o700, 0o700, true},
		{"a group's", 0o775, 0o770, true},
		{"such as /tmp", 0o1777, 0o1777, false},
		{"a user's folder in /tmp", 0o1777, 0o755, false},
		{"a public folder", 0o755, 0o1777, false},
		{"a public folder that is not sticky", 0o755, 0o777, false},
	} {
		o := runChild(t, inNamespace(childCommand(t, "tmpfs", tmpfsCase{dir, c.root, c.sub})))
		if safe := o.ErrorType == "" && o.passphrase(t) == "secret"; safe != c.safe || !safe && o.ErrorType != "*keyring.UnsafeFileError" {
			t.Errorf("%s: %+v", c.name, o)
		}
	}
}

func childTmpfs() {
	var c tmpfsCase
	childArg(&c)
	folder := filepath.Join(c.Dir, "folder")
	path := filepath.Join(folder, "key")
	for _, f := range []func() error{
		func() error { return unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, "") },
		func() error { return unix.Mount("none", c.Dir, "tmpfs", 0, fmt.Sprintf("mode=%o", c.Root)) },
		func() error { return os.Mkdir(folder, 0o700) },
		func() error { return unix.Chmod(folder, c.Sub) },
		func() error { return os.WriteFile(path, []byte("secret\n"), 0o600) },
		func() error { return os.Chmod(path, 0o644) },
	} {
		if err := f(); err != nil {
			panic(err)
		}
	}
	passkey, err := Source{FD: -1, File: path}.Read(context.Background(), "v")
	report(passkey, false, err)
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
