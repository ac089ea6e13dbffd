package fs

import (
	"sync/atomic"
	"testing"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"encfsrun/fs/vault/tree"
)

// asked counts look-ups, and says what size files have.
type asked struct {
	*FS
	n    *atomic.Int64
	size *atomic.Uint64
}

func (a asked) Lookup(cancel <-chan struct{}, h *fuse.InHeader, name string, out *fuse.EntryOut) fuse.Status {
	a.n.Add(1)
	status := a.FS.Lookup(cancel, h, name, out)
	out.Size = a.size.Load()
	return status
}

func (a asked) GetAttr(cancel <-chan struct{}, in *fuse.GetAttrIn, out *fuse.AttrOut) fuse.Status {
	status := a.FS.GetAttr(cancel, in, out)
	out.Size = a.size.Load()
	return status
}

// TestNotifications tells the kernel to forget names and attributes, and sees that it asks again.
func TestNotifications(t *testing.T) {
	m := newModel()
	f := m.file(tree.Root, "f", []byte("content"))
	a := asked{n: new(atomic.Int64), size: new(atomic.Uint64)}
	a.size.Store(7)
	var dev *device
	t.Cleanup(func() { // after the unmount
		if status := dev.InodeNotify(uint64(f), 0, 0); status != fuse.EBADF {
			t.Errorf("InodeNotify after the end: %v", status)
		}
	})
	mnt := mount(t, m, mountOptions{wrap: func(f *FS) fuse.RawFileSystem { a.FS = f; return a }})
	stat := func(name string) (st unix.Stat_t) {
		t.Helper()
		if err := unix.Lstat(mnt.path(name), &st); err != nil && (err != unix.ENOENT || name != "missing") {
			t.Fatal(err)
		}
		return st
	}
	dev = mnt.serve.loop.dev
	for _, c := range []struct {
		what, name string
		tell       func() fuse.Status
	}{
		{"EntryNotify", "f", func() fuse.Status { return dev.EntryNotify(1, "f") }},
		{"EntryNotify of a missing name", "missing", func() fuse.Status { return dev.EntryNotify(1, "missing") }},
		{"DeleteNotify", "f", func() fuse.Status { return dev.DeleteNotify(1, uint64(f), "f") }},
	} {
		stat(c.name)
		before := a.n.Load()
		stat(c.name)
		if n := a.n.Load(); n != before {
			t.Errorf("%s: the kernel asked before it was told", c.what)
		}
		if status := c.tell(); !status.Ok() {
			t.Errorf("%s: %v", c.what, status)
		}
		stat(c.name)
		if n := a.n.Load(); n != before+1 {
			t.Errorf("%s: the kernel looked up %d times after it, want once", c.what, n-before)
		}
	}
	a.size.Store(3)
	if st := stat("f"); st.Size != 7 {
		t.Errorf("before InodeNotify the size is %d", st.Size)
	}
	if status := dev.InodeNotify(uint64(f), 0, 0); !status.Ok() {
		t.Error(status)
	}
	if st := stat("f"); st.Size != 3 {
		t.Errorf("after InodeNotify the size is %d", st.Size)
	}
	if status := dev.InodeNotify(12345, 0, 0); status != fuse.ENOENT {
		t.Errorf("InodeNotify of an inode that the kernel does not know: %v", status)
	}
}
