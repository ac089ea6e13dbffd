package fs

import (
	"fmt"
	"testing"

	"golang.org/x/sys/unix"

	"encfsrun/fs/vault/tree"
)

// TestWritingIsRefused tries every call that writes, on a mount where only the file system refuses it and on one where the
// kernel does.
func TestWritingIsRefused(t *testing.T) {
	for _, flags := range []uintptr{0, unix.MS_RDONLY} {
		t.Run(fmt.Sprintf("flags %#x", flags), func(t *testing.T) {
			m := newModel()
			m.nodes[m.file(tree.Root, "f", []byte("content"))].xattrs = map[string][]byte{"user.a": []byte("b")}
			m.dir(tree.Root, "d")
			mnt := mount(t, m, mountOptions{flags: flags})
			f, d, other := mnt.path("f"), mnt.path("d"), mnt.path("new")
			open := func(path string, flags int) error {
				fd, err := unix.Open(path, flags|unix.O_CLOEXEC, 0o644)
				if err == nil {
					unix.Close(fd)
				}
				return err
			}
			for call, err := range map[string]error{
				"open O_WRONLY":         open(f, unix.O_WRONLY),
				"open O_RDWR":           open(f, unix.O_RDWR),
				"open O_APPEND":         open(f, unix.O_WRONLY|unix.O_APPEND),
				"open O_TRUNC":          open(f, unix.O_RDONLY|unix.O_TRUNC),
				"open O_CREAT":          open(other, unix.O_CREAT|unix.O_WRONLY),
				"open O_CREAT, reading": open(other, unix.O_CREAT|unix.O_RDONLY),
				"open O_TMPFILE":        open(mnt.dir, unix.O_TMPFILE|unix.O_RDWR),
				"truncate":              unix.Truncate(f, 1),
				"mkdir":                 unix.Mkdir(other, 0o755),
				"mknod":                 unix.Mknod(other, unix.S_IFIFO|0o644, 0),
				"symlink":               unix.Symlink("x", other),
				"link":                  unix.Link(f, other),
				"unlink":                unix.Unlink(f),
				"rmdir":                 unix.Rmdir(d),
				"rename":                unix.Rename(f, other),
				"rename over":           unix.Rename(f, mnt.path("d", "f")),
				"exchange":              unix.Renameat2(unix.AT_FDCWD, f, unix.AT_FDCWD, d, unix.RENAME_EXCHANGE),
				"chmod":                 unix.Chmod(f, 0o600),
				"chown":                 unix.Lchown(f, 1, 1),
				"utimens":               unix.UtimesNanoAt(unix.AT_FDCWD, f, make([]unix.Timespec, 2), 0),
				"setxattr":              unix.Setxattr(f, "user.b", []byte("x"), 0),
				"removexattr":           unix.Removexattr(f, "user.a"),
			} {
				if err != unix.EROFS {
					t.Errorf("%s: %v, want EROFS", call, err)
				}
			}
			compare(t, m, tree.Root, mnt.dir)
		})
	}
}

// TestHarmlessCalls are those that change nothing, or that the kernel answers.
func TestHarmlessCalls(t *testing.T) {
	m := newModel()
	m.file(tree.Root, "f", []byte("content"))
	mnt := mount(t, m, mountOptions{})
	fd, err := unix.Open(mnt.path("f"), unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	dir, err := unix.Open(mnt.dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(dir)
	_, ioctl := unix.IoctlGetInt(fd, unix.FS_IOC_GETFLAGS)
	for _, c := range []struct {
		call      string
		got, want error
	}{
		{"access", unix.Access(mnt.path("f"), unix.R_OK), nil},
		{"access for writing", unix.Access(mnt.path("f"), unix.W_OK), nil}, // root's; MS_RDONLY would refuse
		{"fsync", unix.Fsync(fd), nil},
		{"fsync of the directory", unix.Fsync(dir), nil},
		{"syncfs", unix.Syncfs(fd), nil},
		{"flock", unix.Flock(fd, unix.LOCK_EX|unix.LOCK_NB), nil},
		{"lock", unix.FcntlFlock(uintptr(fd), unix.F_SETLK, &unix.Flock_t{Type: unix.F_RDLCK}), nil},
		{"ioctl", ioctl, unix.ENOTTY},
		{"fallocate", unix.Fallocate(fd, 0, 0, 1), unix.EBADF},
		{"ftruncate", unix.Ftruncate(fd, 0), unix.EINVAL},
	} {
		if c.got != c.want {
			t.Errorf("%s: %v, want %v", c.call, c.got, c.want)
		}
	}
	if _, err := unix.Pwrite(fd, []byte("x"), 0); err != unix.EBADF {
		t.Errorf("write: %v, want EBADF", err)
	}
}
