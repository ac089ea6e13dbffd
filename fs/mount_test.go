package fs

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"encfsrun/fs/guarded"
	"encfsrun/fs/vault"
)

// mountOptions say how a test mounts.
type mountOptions struct {
	Options
	budget int64   // of guarded memory, in bytes; 16 MiB unless set
	flags  uintptr // of mount(2), beside nosuid and nodev
	wrap   func(*FS) fuse.RawFileSystem
	blocks func(*guarded.Cache) Blocks
	alone  bool // one worker
	// processors, unless 0, is how many the loop is to think there are.
	processors int
}

// mounted is a mount that is gone when the test ends.
type mounted struct {
	dir   string
	fs    *FS
	cache *guarded.Cache
	serve *Server
	ended chan struct{}
	pages chan []byte // what the kernel sent of its page cache

	finish func() error // closes a volume
	gone   bool
}

func (m *mounted) path(elem ...string) string {
	return filepath.Join(append([]string{m.dir}, elem...)...)
}

// newFS makes a file system of a model over real guarded memory.
func newFS(t testing.TB, src *model, o mountOptions) (*FS, *guarded.Cache, int64) {
	t.Helper()
	budget := o.budget
	if budget == 0 {
		budget = 16 << 20
	}
	cache, err := newCache(src, budget)
	if err != nil {
		t.Fatal(err)
	}
	if o.blocks != nil {
		return New(src, o.blocks(cache), o.Options), cache, budget
	}
	return New(src, cache, o.Options), cache, budget
}

func newCache(src *model, budget int64) (*guarded.Cache, error) {
	pool, err := guarded.NewPool(vault.PlainSize, budget)
	if err != nil {
		return nil, err
	}
	return guarded.NewCache(pool, src.load), nil
}

// restricted are the flags that encfsrun's own mounts have.
const restricted = unix.MS_NOSUID | unix.MS_NODEV

// openMount mounts a new /dev/fuse at dir.
func openMount(dir string, maxRead int, flags uintptr, extra string) (*os.File, error) {
	fd, err := unix.Open("/dev/fuse", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("/dev/fuse: %w", err)
	}
	options := fmt.Sprintf("fd=%d,rootmode=40000,user_id=%d,group_id=%d,default_permissions,max_read=%d%s",
		fd, os.Geteuid(), os.Getegid(), maxRead, extra)
	source := mountSource
	if extra != "" {
		source = volumeSource
	}
	if err := unix.Mount(source, dir, "fuse."+fsName, flags, options); err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("mounting: %w", err)
	}
	return os.NewFile(uintptr(fd), "/dev/fuse"), nil
}

// mount mounts a model. At the end of the test it unmounts, and checks that nothing is left open, pinned or running.
func mount(t testing.TB, src *model, o mountOptions) *mounted {
	t.Helper()
	f, cache, budget := newFS(t, src, o)
	m := &mounted{dir: t.TempDir(), fs: f, cache: cache, ended: make(chan struct{}), pages: make(chan []byte)}
	dev, err := openMount(m.dir, MaxRead(budget), restricted|o.flags, "")
	if err != nil {
		t.Fatal(err)
	}
	var raw fuse.RawFileSystem = f
	if o.wrap != nil {
		raw = o.wrap(f)
	}
	if m.serve, err = newServer(dev, pollable{raw}, MaxRead(budget), f.capabilities()); err != nil {
		unix.Unmount(m.dir, unix.MNT_DETACH)
		t.Fatal(err)
	}
	m.serve.loop.retrieved, m.serve.loop.full = m.retrieved, o.alone
	if o.processors > 0 {
		m.serve.loop.processors = o.processors
	}
	go func() {
		defer close(m.ended)
		m.serve.Serve()
	}()
	t.Cleanup(func() { m.unmount(t) })
	m.forgoPoll(t)
	return m
}

func (m *mounted) unmount(t testing.TB) {
	t.Helper()
	if m.gone {
		return
	}
	m.gone = true
	// close(2) does not wait for RELEASE, and an unmount loses those that were not answered.
	released := func() bool { s := m.fs.Stats(); return s.OpenFiles == 0 && s.OpenDirs == 0 }
	for end := time.Now().Add(10 * time.Second); !released() && time.Now().Before(end); {
		time.Sleep(time.Millisecond)
	}
	err := unix.Unmount(m.dir, 0)
	for range 100 { // a RELEASE may be on its way
		if err != unix.EBUSY {
			break
		}
		time.Sleep(10 * time.Millisecond)
		err = unix.Unmount(m.dir, 0)
	}
	if err != nil {
		t.Errorf("unmounting: %v", err)
		unix.Unmount(m.dir, unix.MNT_FORCE) // a call of this very process may wait for an answer
		unix.Unmount(m.dir, unix.MNT_DETACH)
	}
	select {
	case <-m.ended:
	case <-time.After(20 * time.Second):
		t.Fatal("Serve does not end after the unmount")
	}
	if n := m.cache.Stats().Pinned; n != 0 {
		t.Errorf("%d blocks are still pinned", n)
	}
	if s := m.fs.Stats(); s.OpenFiles != 0 || s.OpenDirs != 0 || s.FailedDropCalls != 0 {
		t.Errorf("after the unmount: %+v", s)
	}
	if m.finish == nil {
		m.cache.Close()
	} else if err := m.finish(); err != nil {
		t.Errorf("closing the vault: %v", err)
	}
}

// pollName is a file of every mount of these tests that no listing shows, and pollInode its number.
const (
	pollName  = ".poll"
	pollInode = ^uint64(0) - 1
)

// pollable is a file system that has that file.
type pollable struct{ fuse.RawFileSystem }

func (p pollable) attach(k kernel) { p.RawFileSystem.(interface{ attach(kernel) }).attach(k) }

func (p pollable) Lookup(cancel <-chan struct{}, h *fuse.InHeader, name string, out *fuse.EntryOut) fuse.Status {
	if name != pollName {
		return p.RawFileSystem.Lookup(cancel, h, name, out)
	}
	out.NodeId, out.AttrValid = pollInode, validSeconds
	out.Attr = fuse.Attr{Ino: pollInode, Mode: unix.S_IFREG | 0o444, Nlink: 1}
	return fuse.OK
}

func (p pollable) Open(cancel <-chan struct{}, in *fuse.OpenIn, out *fuse.OpenOut) fuse.Status {
	if in.NodeId != pollInode {
		return p.RawFileSystem.Open(cancel, in, out)
	}
	out.OpenFlags = fuse.FOPEN_NOFLUSH
	return fuse.OK
}

func (p pollable) Forget(ino, n uint64) {
	if ino != pollInode {
		p.RawFileSystem.Forget(ino, n)
	}
}

// forgoPoll lets the kernel ask for FUSE_POLL once, in a system call that Go's scheduler knows to be blocking, and learn that
// there is none. Otherwise the runtime's own epoll_ctl would ask, on a thread that it does not replace: this process would wait
// for itself. Only a process that serves its own mount needs this.
func (m *mounted) forgoPoll(t testing.TB) {
	t.Helper()
	fd, err := unix.Open(m.path(pollName), unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 0)
}

// eventually waits until ok, or fails the test after ten seconds.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%s: not within ten seconds", what)
		}
	}
}
