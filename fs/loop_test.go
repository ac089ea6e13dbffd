package fs

import (
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"encfsrun/fs/guarded"
	"encfsrun/fs/vault/tree"
)

// slowBlocks are not there, and come when they are let.
type slowBlocks struct {
	*guarded.Cache
	waiting atomic.Int64
	let     chan struct{}
}

func (s *slowBlocks) TryAcquire(_ []uint64, pins []guarded.Pin) ([]guarded.Pin, bool) {
	return pins, false
}

func (s *slowBlocks) Acquire(cancel <-chan struct{}, numbers []uint64, pins []guarded.Pin) ([]guarded.Pin, error) {
	s.waiting.Add(1)
	<-s.let
	s.waiting.Add(-1)
	return s.Cache.Acquire(cancel, numbers, pins)
}

// slowMount is a mount of a directory d with 100 files whose blocks are slow.
func slowMount(t *testing.T) (*mounted, *slowBlocks, *readers) {
	t.Helper()
	m := newModel()
	d := m.dir(tree.Root, "d")
	for i := range 100 {
		m.file(d, fmt.Sprint(i), []byte("content"))
	}
	s := &slowBlocks{let: make(chan struct{})}
	mnt := mount(t, m, mountOptions{blocks: func(c *guarded.Cache) Blocks { s.Cache = c; return s }})
	r := &readers{t: t, mnt: mnt, fd: opened(t, mnt.path("d", "0"))}
	return mnt, s, r
}

// readers read a file, each in a goroutine.
type readers struct {
	t    *testing.T
	mnt  *mounted
	fd   int
	wait sync.WaitGroup
}

func (r *readers) start(n int) {
	for range n {
		r.wait.Go(func() {
			buf := make([]byte, 100)
			if n, err := unix.Pread(r.fd, buf, 0); n != 7 || err != nil {
				r.t.Errorf("read %d bytes, %v", n, err)
			}
		})
	}
}

// TestWaitingLetsOthersGoOn lets reads wait for blocks, as many as but one can be answered at once, and meanwhile does all else.
func TestWaitingLetsOthersGoOn(t *testing.T) {
	mnt, s, r := slowMount(t)
	const most = maxWorkers - 1
	r.start(most)
	eventually(t, "all reads wait for their blocks", func() bool { return s.waiting.Load() == most })
	for i := range 100 {
		var st unix.Stat_t
		if err := unix.Lstat(mnt.path("d", fmt.Sprint(i)), &st); err != nil || st.Size != 7 {
			t.Errorf("stat: size %d, %v", st.Size, err)
		}
		fd, err := unix.Open(mnt.path("d", fmt.Sprint(i)), unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		unix.Close(fd)
	}
	if list, _ := names(t, mnt.path("d"), 4096); len(list) != 102 {
		t.Errorf("%d names listed, want 100 and the dots", len(list))
	}
	if known := mnt.fs.Stats().KnownInodes; known < 100 {
		t.Errorf("%d inodes are known", known)
	}
	eventually(t, "the kernel's FORGETs are taken", func() bool {
		// A remount prunes the dentries of this one mount.
		if err := unix.Mount("", mnt.dir, "", unix.MS_REMOUNT|unix.MS_NOSUID|unix.MS_NODEV, ""); err != nil {
			t.Fatal(err)
		}
		return mnt.fs.Stats().KnownInodes <= 2 // what is open, and its directory
	})
	if n := s.waiting.Load(); n != most {
		t.Errorf("%d reads wait now", n)
	}
	close(s.let)
	r.wait.Wait()
}

// TestMoreRequestsThanWorkers lets more reads wait than there are workers: what comes then waits in the kernel, and is answered.
func TestMoreRequestsThanWorkers(t *testing.T) {
	mnt, s, r := slowMount(t)
	r.start(3 * maxWorkers)
	eventually(t, "all workers wait", func() bool { return s.waiting.Load() == maxWorkers })
	var found atomic.Bool
	r.wait.Go(func() {
		if err := unix.Lstat(mnt.path("d", "77"), &unix.Stat_t{}); err != nil {
			t.Error(err)
		}
		found.Store(true)
	})
	for range 3 * maxWorkers {
		if s.waiting.Load() > maxWorkers {
			t.Fatal("there are more workers than there may be")
		}
		s.let <- struct{}{}
	}
	r.wait.Wait()
	if !found.Load() {
		t.Error("the other call was not answered")
	}
	l := mnt.serve.loop
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.workers) != maxWorkers || l.leaders < 1 {
		t.Errorf("%d workers, %d of them lead", len(l.workers), l.leaders)
	}
}

// stuck is a file system in which looking up "stuck" waits, and does not say so.
type stuck struct {
	*FS
	begun, let chan struct{}
}

func (s stuck) Lookup(cancel <-chan struct{}, h *fuse.InHeader, name string, out *fuse.EntryOut) fuse.Status {
	if name == "stuck" {
		s.begun <- struct{}{}
		<-s.let
	}
	return s.FS.Lookup(cancel, h, name, out)
}

// TestWaitingUnsaid lets handlers wait that do not say so: others go on all the same. Between them nothing is asked for so long that
// nobody watches any more.
func TestWaitingUnsaid(t *testing.T) {
	m := newModel()
	for i := range 3 {
		m.file(m.dir(tree.Root, fmt.Sprint(i)), "stuck", nil)
	}
	s := stuck{begun: make(chan struct{}), let: make(chan struct{})}
	mnt := mount(t, m, mountOptions{wrap: func(f *FS) fuse.RawFileSystem { s.FS = f; return s }})
	var wait sync.WaitGroup
	for i := range 3 {
		eventually(t, "nobody watches", func() bool { return mnt.serve.loop.watch.asleep.Load() })
		wait.Go(func() {
			if err := unix.Lstat(mnt.path(fmt.Sprint(i), "stuck"), &unix.Stat_t{}); err != nil {
				t.Error(err)
			}
		})
		<-s.begun
		for k := range 10 {
			if err := unix.Lstat(mnt.path(fmt.Sprint("missing", i, k)), &unix.Stat_t{}); err != unix.ENOENT {
				t.Error(err)
			}
		}
	}
	close(s.let)
	wait.Wait()
}

// busy is a file system whose look-ups take some time of a processor, and that knows how many it answers at once.
type busy struct {
	*FS
	now, most atomic.Int64
}

func (b *busy) Lookup(cancel <-chan struct{}, h *fuse.InHeader, name string, out *fuse.EntryOut) fuse.Status {
	if n := b.now.Add(1); n > b.most.Load() {
		b.most.Store(n)
	}
	for began := time.Now(); time.Since(began) < time.Millisecond; {
	}
	b.now.Add(-1)
	return b.FS.Lookup(cancel, h, name, out)
}

// TestBacklog lets requests wait in the kernel: then more than one worker reads, and when it is over one again.
func TestBacklog(t *testing.T) {
	b := &busy{}
	mnt := mount(t, newModel(), mountOptions{processors: 4, wrap: func(f *FS) fuse.RawFileSystem { b.FS = f; return b }})
	var wait sync.WaitGroup
	for w := range 8 {
		wait.Go(func() {
			for i := range 50 {
				if err := unix.Lstat(mnt.path(fmt.Sprint(w, i)), &unix.Stat_t{}); err != unix.ENOENT {
					t.Error(err)
				}
			}
		})
	}
	wait.Wait()
	if n := b.most.Load(); n != 2 {
		t.Errorf("%d look-ups were answered at once, want 2", n)
	}
	l := mnt.serve.loop
	eventually(t, "one worker leads", func() bool {
		l.mu.Lock()
		defer l.mu.Unlock()
		return l.leaders == 1 && len(l.parked) == len(l.workers)-1
	})
}

// TestOneWorker serves where no second buffer can be locked.
func TestOneWorker(t *testing.T) {
	m := newModel()
	randomTree(m, 100)
	mnt := mount(t, m, mountOptions{alone: true})
	var wait sync.WaitGroup
	for range 4 {
		wait.Go(func() { compare(t, m, tree.Root, mnt.dir) })
	}
	wait.Wait()
	if n := len(mnt.serve.loop.workers); n != 1 {
		t.Errorf("%d workers", n)
	}
}

// patient is a file system whose statfs lasts until somebody interrupts it.
type patient struct {
	*FS
	begun chan struct{}
}

func (p patient) StatFs(cancel <-chan struct{}, _ *fuse.InHeader, _ *fuse.StatfsOut) fuse.Status {
	p.begun <- struct{}{}
	<-cancel
	return fuse.EINTR
}

func patientMount(t *testing.T) (*mounted, patient, int) {
	t.Helper()
	m := newModel()
	m.file(tree.Root, "f", []byte("content"))
	p := patient{begun: make(chan struct{}, 1)}
	mnt := mount(t, m, mountOptions{wrap: func(f *FS) fuse.RawFileSystem { p.FS = f; return p }})
	return mnt, p, opened(t, mnt.path("f"))
}

// inThread runs a system call in a thread of its own, and returns the thread and where the result will come.
func inThread(call func() error) (tid int, result chan error) {
	result = make(chan error, 1)
	started := make(chan int)
	go func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		started <- unix.Gettid()
		result <- call()
	}()
	return <-started, result
}

// TestInterrupt sends a signal to a thread that waits for an answer: a handler that can be interrupted learns of it.
func TestInterrupt(t *testing.T) {
	_, p, fd := patientMount(t)
	tid, result := inThread(func() error { return unix.Fstatfs(fd, &unix.Statfs_t{}) })
	<-p.begun
	if err := unix.Tgkill(unix.Getpid(), tid, unix.SIGURG); err != nil { // which Go takes for a hint to its scheduler
		t.Fatal(err)
	}
	select {
	case err := <-result:
		if err != unix.EINTR {
			t.Errorf("statfs: %v, want EINTR", err)
		}
	case <-time.After(10 * time.Second):
		t.Fatal("the handler does not learn of the signal")
	}
}

// TestReadsAreNotInterrupted sends signals to a thread that waits for a read, which goes on as if none had come.
func TestReadsAreNotInterrupted(t *testing.T) {
	_, s, r := slowMount(t)
	tid, result := inThread(func() error {
		n, err := unix.Pread(r.fd, make([]byte, 100), 0)
		if err == nil && n != 7 {
			return fmt.Errorf("read %d bytes", n)
		}
		return err
	})
	eventually(t, "the read waits", func() bool { return s.waiting.Load() == 1 })
	for range 10 {
		if err := unix.Tgkill(unix.Getpid(), tid, unix.SIGURG); err != nil {
			t.Fatal(err)
		}
	}
	// The read's INTERRUPT was read before what comes after it is answered.
	if err := unix.Lstat(r.mnt.path("d", "50"), &unix.Stat_t{}); err != nil {
		t.Error(err)
	}
	close(s.let)
	if err := <-result; err != nil {
		t.Error(err)
	}
}

// TestAbort aborts a mount while handlers wait: what can be interrupted is, and Serve ends.
func TestAbort(t *testing.T) {
	mnt, p, fd := patientMount(t)
	_, result := inThread(func() error { return unix.Fstatfs(fd, &unix.Statfs_t{}) })
	<-p.begun
	if err := unix.Unmount(mnt.dir, unix.MNT_FORCE); err != nil && err != unix.EBUSY {
		t.Fatal(err)
	}
	select {
	case <-mnt.ended:
	case <-time.After(10 * time.Second):
		t.Fatal("Serve does not end")
	}
	if err := <-result; err != unix.ECONNABORTED && err != unix.ENOTCONN {
		t.Errorf("statfs: %v", err)
	}
	mnt.fs.Release(nil, &fuse.ReleaseIn{InHeader: fuse.InHeader{NodeId: uint64(2)}}) // nobody will say so any more
}
