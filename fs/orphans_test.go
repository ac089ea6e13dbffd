package fs

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"testing"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"encfsrun/fs/vault/tree"
)

// inodes returns how many inodes the tree has.
func (m *mounted) inodes() uint64 { return m.fs.src.Stats().Inodes }

// TestUnlinkedButOpen: a file without a name is written and read as before, and freed with its last close.
func TestUnlinkedButOpen(t *testing.T) {
	onMounts(t, func(t *testing.T, v *volume, m *mounted) {
		before := m.inodes()
		f, err := os.Create(m.path("f"))
		must(t, err)
		second, err := os.Open(m.path("f"))
		must(t, err)
		_, err = f.Write([]byte("before"))
		must(t, err)
		must(t, os.Remove(m.path("f")))
		big := bytes.Repeat([]byte("after"), 500_000) // more than is kept in memory
		_, err = f.WriteAt(big, 6)
		must(t, err)
		must(t, f.Sync())
		got := make([]byte, 6+len(big))
		if n, err := second.ReadAt(got, 0); err != nil || string(got[:n]) != "before"+string(big) {
			t.Errorf("read %d bytes, %v", n, err)
		}
		var st unix.Stat_t
		must(t, unix.Fstat(int(f.Fd()), &st))
		if st.Nlink != 0 || st.Size != int64(len(got)) {
			t.Errorf("%d links, %d bytes; want 0, %d", st.Nlink, st.Size, len(got))
		}
		must(t, f.Chmod(0o600))
		must(t, errors.Join(f.Close(), second.Close()))
		eventually(t, "freeing the inode", func() bool { return m.inodes() == before })
		if n := m.fs.Stats().DirtyBytes; n != 0 {
			t.Errorf("%d bytes are still dirty", n)
		}
	})
}

// TestRemovedWorkingDirectory: a directory that somebody is in is there until he leaves.
func TestRemovedWorkingDirectory(t *testing.T) {
	m := newVolume(t).mount(t, volumeOptions{})
	before := m.inodes()
	must(t, os.Mkdir(m.path("d"), 0o755))
	fd, err := unix.Open(m.path("d"), unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	must(t, err)
	must(t, os.Remove(m.path("d")))
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil || st.Nlink != 0 {
		t.Errorf("%d links, %v", st.Nlink, err)
	}
	wantErr(t, "create in it", unix.Mkdirat(fd, "x", 0o755), unix.ENOENT)
	wantErr(t, "look up in it", unix.Fstatat(fd, "x", &st, 0), unix.ENOENT)
	must(t, unix.Close(fd))
	eventually(t, "freeing the inode", func() bool { return m.inodes() == before })
}

// TestTmpfile makes files without a name, gives one to some of them, and looks what is there after a remount.
func TestTmpfile(t *testing.T) {
	onMounts(t, func(t *testing.T, v *volume, m *mounted) {
		before := m.inodes()
		open := func(flags int) int {
			fd, err := unix.Open(m.dir, unix.O_TMPFILE|unix.O_RDWR|unix.O_CLOEXEC|flags, 0o640)
			must(t, err)
			return fd
		}
		named, gone, forbidden := open(0), open(0), open(unix.O_EXCL)
		for _, fd := range []int{named, gone, forbidden} {
			_, err := unix.Write(fd, []byte("contents"))
			must(t, err)
		}
		link := func(fd int, name string) error {
			return unix.Linkat(unix.AT_FDCWD, fmt.Sprintf("/proc/self/fd/%d", fd), unix.AT_FDCWD, m.path(name), unix.AT_SYMLINK_FOLLOW)
		}
		must(t, link(named, "named"))
		wantErr(t, "naming one that was made with O_EXCL", link(forbidden, "forbidden"), unix.ENOENT)
		must(t, unix.Fsync(named))
		durable, err := v.durable("")
		must(t, err)
		if e := durable["/named"]; e == nil || e.Size != 8 || e.Nlink != 1 || len(durable) != 2 {
			t.Errorf("durable is %v", durable)
		}
		must(t, errors.Join(unix.Close(named), unix.Close(gone), unix.Close(forbidden)))
		eventually(t, "freeing the others", func() bool { return m.inodes() == before+1 })
		m.unmount(t)
		m = v.mount(t, volumeOptions{})
		if b, err := os.ReadFile(m.path("named")); err != nil || string(b) != "contents" || m.inodes() != before+1 {
			t.Errorf("after a remount: %q, %v, %d inodes", b, err, m.inodes())
		}
	})
}

// TestOrphansGoWithTheMount: what is open when the mount is taken away is freed, and is not in the vault.
func TestOrphansGoWithTheMount(t *testing.T) {
	v := newVolume(t)
	m := v.mount(t, volumeOptions{})
	f, err := os.Create(m.path("f"))
	must(t, err)
	_, err = f.Write([]byte("contents"))
	must(t, err)
	must(t, os.Remove(m.path("f")))
	must(t, unix.Unmount(m.dir, unix.MNT_DETACH))
	_, err = f.Write([]byte(" that go on")) // still served
	must(t, err)
	must(t, f.Close())
	<-m.ended
	m.gone = true
	must(t, m.finish())
	m = v.mount(t, volumeOptions{})
	if n := m.inodes(); n != 1 {
		t.Errorf("%d inodes after a remount, want the root alone", n)
	}
}

// TestForgetBeforeRelease: the kernel sends both without waiting, and the FORGET may be answered first.
func TestForgetBeforeRelease(t *testing.T) {
	m := newVolume(t).mount(t, volumeOptions{})
	before := m.inodes()
	root := fuse.InHeader{NodeId: uint64(tree.Root)}
	var out fuse.CreateOut
	status := m.fs.Create(nil, &fuse.CreateIn{InHeader: root, Flags: unix.O_RDWR, Mode: 0o644}, "f", &out)
	if !status.Ok() {
		t.Fatal(status)
	}
	if status := m.fs.Unlink(nil, &root, "f"); !status.Ok() {
		t.Fatal(status)
	}
	m.fs.Forget(out.NodeId, 1)
	if m.inodes() != before+1 {
		t.Error("the inode was freed while it was open")
	}
	m.fs.Release(nil, &fuse.ReleaseIn{InHeader: fuse.InHeader{NodeId: out.NodeId}, Flags: unix.O_RDWR})
	if m.inodes() != before {
		t.Error("the inode was not freed with its last close")
	}
}
