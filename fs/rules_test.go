package fs

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

var (
	alice = actor{uid: 1001, gid: 1001}
	bob   = actor{uid: 1002, gid: 1002}
)

// onMounts runs a test on writable mounts that every user may use, with and without the kernel's page cache.
func onMounts(t *testing.T, test func(t *testing.T, v *volume, m *mounted)) {
	for _, pageCache := range []bool{false, true} {
		t.Run(fmt.Sprintf("page cache %v", pageCache), func(t *testing.T) {
			v := newVolume(t)
			m := v.mount(t, volumeOptions{Options: Options{PageCache: pageCache}, others: true})
			letThrough(t, m.dir)
			must(t, os.Chmod(m.dir, 0o777))
			old := unix.Umask(0)
			defer unix.Umask(old)
			test(t, v, m)
		})
	}
}

// letThrough lets other users come to a folder of the test.
func letThrough(t testing.TB, dir string) {
	t.Helper()
	for dir = filepath.Dir(dir); dir != filepath.Clean(os.TempDir()) && dir != "/"; dir = filepath.Dir(dir) {
		must(t, os.Chmod(dir, 0o755))
	}
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// wantErr checks which errno a call gave.
func wantErr(t testing.TB, what string, got, want error) {
	t.Helper()
	if errnoOf(got) != errnoOf(want) {
		t.Errorf("%s: %v, want %v", what, describe(got), describe(want))
	}
}

// create makes a file as root, with an owner, a mode and contents.
func create(t testing.TB, path string, owner actor, mode uint32, content string) {
	t.Helper()
	must(t, os.WriteFile(path, []byte(content), 0o600))
	must(t, unix.Lchown(path, owner.uid, owner.gid))
	must(t, unix.Chmod(path, mode))
}

func stat(t testing.TB, path string) unix.Stat_t {
	t.Helper()
	var st unix.Stat_t
	if err := unix.Lstat(path, &st); err != nil {
		t.Fatalf("lstat: %v", err)
	}
	return st
}

// with opens a file, calls f and closes it.
func with(path string, flags int, f func(fd int) error) error {
	fd, err := unix.Open(path, flags|unix.O_CLOEXEC, 0o666)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return f(fd)
}

// ways to change what is in a file.
var writings = map[string]func(path string) error{
	"write": func(path string) error {
		return with(path, unix.O_WRONLY, func(fd int) error { _, err := unix.Write(fd, []byte("new")); return err })
	},
	"append": func(path string) error {
		return with(path, unix.O_WRONLY|unix.O_APPEND, func(fd int) error { _, err := unix.Write(fd, []byte("new")); return err })
	},
	"O_TRUNC":  func(path string) error { return with(path, unix.O_WRONLY|unix.O_TRUNC, func(int) error { return nil }) },
	"truncate": func(path string) error { return unix.Truncate(path, 2) },
	"ftruncate": func(path string) error {
		return with(path, unix.O_RDWR, func(fd int) error { return unix.Ftruncate(fd, 2) })
	},
	"grow": func(path string) error { return unix.Truncate(path, 2000) },
	"fallocate": func(path string) error {
		return with(path, unix.O_RDWR, func(fd int) error { return unix.Fallocate(fd, 0, 0, 9000) })
	},
	"punch": func(path string) error {
		return with(path, unix.O_RDWR, func(fd int) error {
			return unix.Fallocate(fd, unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, 0, 2)
		})
	},
	"copy_file_range": func(path string) error {
		return with(path, unix.O_RDWR, func(fd int) error {
			from, to := int64(0), int64(100)
			_, err := unix.CopyFileRange(fd, &from, fd, &to, 4, 0)
			return err
		})
	},
}

// TestWritingClearsSetID: who is not root takes setuid away from what he writes to, and setgid where the group may execute it.
func TestWritingClearsSetID(t *testing.T) {
	onMounts(t, func(t *testing.T, _ *volume, m *mounted) {
		for name, write := range writings {
			for _, c := range []struct {
				who        actor
				mode, want uint32
			}{
				{alice, 0o6777, 0o777},
				{alice, 0o4755, 0o755},
				{alice, 0o2775, 0o775},
				{bob, 0o6777, 0o777},
				{actor{}, 0o6777, 0o6777},
			} {
				path := m.path("f")
				create(t, path, alice, c.mode, "content")
				c.who.do(t, func() { wantErr(t, name, write(path), nil) })
				if got := stat(t, path).Mode & 0o7777; got != c.want {
					t.Errorf("%s by user %d: mode %o becomes %o, want %o", name, c.who.uid, c.mode, got, c.want)
				}
				must(t, os.Remove(path))
			}
		}
	})
}

// TestChownClearsSetID: a change of owner takes setuid and setgid away from everybody's files, root's too, but not from directories.
func TestChownClearsSetID(t *testing.T) {
	onMounts(t, func(t *testing.T, _ *volume, m *mounted) {
		path, dir := m.path("f"), m.path("d")
		for _, c := range []struct{ uid, gid int }{{1002, -1}, {-1, 1002}, {1001, 1001}, {-1, -1}} {
			create(t, path, alice, 0o6777, "content")
			must(t, unix.Lchown(path, c.uid, c.gid))
			if got := stat(t, path).Mode & 0o7777; got != 0o777 {
				t.Errorf("chown %d:%d of a file: mode 6777 becomes %o, want 777", c.uid, c.gid, got)
			}
			must(t, os.Mkdir(dir, 0o777))
			must(t, unix.Chmod(dir, 0o6777))
			must(t, unix.Lchown(dir, c.uid, c.gid))
			if got := stat(t, dir).Mode & 0o7777; got != 0o6777 {
				t.Errorf("chown %d:%d of a directory: mode 6777 becomes %o", c.uid, c.gid, got)
			}
			must(t, os.Remove(path))
			must(t, os.Remove(dir))
		}
		// A stranger may not clear it with a change of nothing.
		create(t, path, alice, 0o4755, "content")
		bob.do(t, func() { wantErr(t, "chown of nothing by a stranger", unix.Lchown(path, -1, -1), unix.EPERM) })
		if got := stat(t, path).Mode & 0o7777; got != 0o4755 {
			t.Errorf("after that: mode %o, want 4755", got)
		}
	})
}

// TestChangesDropCapabilities: what was granted to a program is not granted to what somebody wrote in its place, be it root.
func TestChangesDropCapabilities(t *testing.T) {
	changes := map[string]func(string) error{"chown": func(path string) error { return unix.Lchown(path, 1002, 1002) }}
	for name, write := range writings {
		changes[name] = write
	}
	value := []byte{1, 0, 0, 2, 0, 32, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0} // CAP_NET_RAW
	onMounts(t, func(t *testing.T, _ *volume, m *mounted) {
		for name, change := range changes {
			for _, who := range []actor{{}, alice} {
				if name == "chown" && who.uid != 0 {
					continue
				}
				path := m.path("f")
				create(t, path, alice, 0o755, "content")
				must(t, unix.Setxattr(path, capabilityXattr, value, 0))
				who.do(t, func() { wantErr(t, name, change(path), nil) })
				if _, err := unix.Getxattr(path, capabilityXattr, make([]byte, 100)); err != unix.ENODATA {
					t.Errorf("%s by user %d: capabilities are left (%v)", name, who.uid, err)
				}
				must(t, os.Remove(path))
			}
		}
	})
}

// TestSetgidDirectory: what is made in it has its group, and directories are setgid too.
func TestSetgidDirectory(t *testing.T) {
	onMounts(t, func(t *testing.T, _ *volume, m *mounted) {
		must(t, os.Mkdir(m.path("d"), 0o777))
		must(t, unix.Lchown(m.path("d"), 0, 4711))
		must(t, unix.Chmod(m.path("d"), 0o2777))
		alice.do(t, func() {
			wantErr(t, "mkdir", unix.Mkdir(m.path("d", "dir"), 0o755), nil)
			wantErr(t, "create", with(m.path("d", "file"), unix.O_CREAT|unix.O_WRONLY, func(int) error { return nil }), nil)
			wantErr(t, "mknod", unix.Mknod(m.path("d", "fifo"), unix.S_IFIFO|0o644, 0), nil)
			wantErr(t, "symlink", unix.Symlink("x", m.path("d", "link")), nil)
			wantErr(t, "setgid file", unix.Mknod(m.path("d", "setgid"), unix.S_IFREG|0o2755, 0), nil)
		})
		for name, want := range map[string]uint32{
			"dir": unix.S_IFDIR | 0o2755, "file": unix.S_IFREG | 0o666, "fifo": unix.S_IFIFO | 0o644, "link": unix.S_IFLNK | 0o777,
			"setgid": unix.S_IFREG | 0o755, // alice is not in the group
		} {
			if st := stat(t, m.path("d", name)); st.Mode != want || st.Uid != 1001 || st.Gid != 4711 {
				t.Errorf("%s: mode %o, owner %d:%d; want %o, 1001:4711", name, st.Mode, st.Uid, st.Gid, want)
			}
		}
	})
}

// TestStickyDirectory: only the owner of a name's inode, or of the directory, removes and renames it.
func TestStickyDirectory(t *testing.T) {
	onMounts(t, func(t *testing.T, _ *volume, m *mounted) {
		must(t, unix.Chmod(m.dir, 0o1777))
		create(t, m.path("f"), alice, 0o666, "content")
		create(t, m.path("mine"), bob, 0o666, "content")
		bob.do(t, func() {
			wantErr(t, "unlink", unix.Unlink(m.path("f")), unix.EPERM)
			wantErr(t, "rename", unix.Rename(m.path("f"), m.path("g")), unix.EPERM)
			wantErr(t, "rename over", unix.Rename(m.path("mine"), m.path("f")), unix.EPERM)
			wantErr(t, "exchange", unix.Renameat2(unix.AT_FDCWD, m.path("mine"), unix.AT_FDCWD, m.path("f"), unix.RENAME_EXCHANGE), unix.EPERM)
		})
		alice.do(t, func() { wantErr(t, "unlink by the owner", unix.Unlink(m.path("f")), nil) })
	})
}

// TestPermissions: what users may not do to what is not theirs.
func TestPermissions(t *testing.T) {
	onMounts(t, func(t *testing.T, _ *volume, m *mounted) {
		create(t, m.path("f"), alice, 0o640, "content")
		must(t, os.Mkdir(m.path("d"), 0o700))
		must(t, unix.Lchown(m.path("d"), 1001, 1001))
		bob.do(t, func() {
			wantErr(t, "read", with(m.path("f"), unix.O_RDONLY, func(int) error { return nil }), unix.EACCES)
			wantErr(t, "write", with(m.path("f"), unix.O_WRONLY, func(int) error { return nil }), unix.EACCES)
			wantErr(t, "truncate", unix.Truncate(m.path("f"), 0), unix.EACCES)
			wantErr(t, "chmod", unix.Chmod(m.path("f"), 0o666), unix.EPERM)
			wantErr(t, "chown", unix.Lchown(m.path("f"), 1002, 1002), unix.EPERM)
			wantErr(t, "utimens", unix.UtimesNanoAt(unix.AT_FDCWD, m.path("f"), make([]unix.Timespec, 2), 0), unix.EPERM)
			wantErr(t, "setxattr", unix.Setxattr(m.path("f"), "user.a", nil, 0), unix.EACCES)
			wantErr(t, "create below", unix.Mkdir(m.path("d", "x"), 0o755), unix.EACCES)
			wantErr(t, "list", func() error { _, err := listing(m.path("d")); return err }(), unix.EACCES)
			wantErr(t, "device", unix.Mknod(m.path("dev"), unix.S_IFCHR|0o666, 0x103), unix.EPERM)
		})
		alice.do(t, func() {
			wantErr(t, "give away", unix.Lchown(m.path("f"), 1002, -1), unix.EPERM)
			wantErr(t, "a group that is not his", unix.Lchown(m.path("f"), -1, 1002), unix.EPERM)
			wantErr(t, "own group", unix.Lchown(m.path("f"), -1, 1001), nil)
		})
		actor{uid: 1001, gid: 1001, groups: []int{1002}}.do(t, func() {
			wantErr(t, "a group that is his", unix.Lchown(m.path("f"), -1, 1002), nil)
		})
	})
}
