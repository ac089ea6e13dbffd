package fs

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"sync"
	"testing"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"encfsrun/fs/vault/tree"
)

// cached asks the kernel what it has of a file in the page cache, and returns all of that in one piece. Opening the file to look
// (mincore, cachestat) would tell nothing: open(2) itself empties the cache of a file that is opened for direct I/O.
func (m *mounted) cached(t testing.TB, ino tree.Ino, size int) (found []byte) {
	t.Helper()
	for off := 0; off < size; {
		ask := fuse.NotifyRetrieveOut{Nodeid: uint64(ino), Offset: uint64(off), Size: maxWrite}
		status := m.serve.loop.dev.notify(fuse.NOTIFY_RETRIEVE_CACHE, bytesOf(&ask))
		var pages []byte // up to the first page that is missing
		switch status {
		case fuse.OK:
			pages = <-m.pages
		case fuse.ENOENT:
		default:
			t.Fatalf("asking for the page cache: %v", status)
		}
		found = append(found, pages...)
		off += max(len(pages), os.Getpagesize())
	}
	return found
}

// retrieved gets what cached asked for.
func (m *mounted) retrieved(_ *fuse.NotifyRetrieveIn, pages []byte) { m.pages <- bytes.Clone(pages) }

// deaf is a kernel that hears no notification; without them contents stay in the page cache.
type deaf struct{ *FS }

func (d deaf) attach(kernel) { d.drops.start(d) }

func (deaf) InodeNotify(uint64, int64, int64) fuse.Status { return fuse.OK }

// TestPageCacheIsEmptyAfterLastClose fills the page cache by mappings and by execution, once without the notifications, so that
// it is known to be seen when it is there.
func TestPageCacheIsEmptyAfterLastClose(t *testing.T) {
	program, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	m := newModel()
	data := m.random(700_000, false)
	mapped := m.file(tree.Root, "mapped", data)
	executed := m.file(tree.Root, "executed", program)
	use := func(mnt *mounted) {
		run(t, "mmap", "private", mnt.path("mapped"))
		run(t, "mmap", "shared", mnt.path("mapped"))
		cmd := exec.Command("/bin/sh", "-c", `"$0"; exit`, mnt.path("executed"))
		cmd.Env = append(os.Environ(), childVariable+"=hello")
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("executing: %v %s", err, out)
		}
		eventually(t, "all files are released", func() bool { return mnt.fs.Stats().OpenFiles == 0 })
	}

	without := mount(t, m, mountOptions{wrap: func(f *FS) fuse.RawFileSystem { return deaf{f} }})
	// The kernel takes pages back whenever it likes: when memory is short, when DAMON finds them cold, when somebody writes
	// drop_caches. It does not do so each time.
	for tries := 10; ; tries-- {
		use(without)
		m, x := len(without.cached(t, mapped, len(data))), len(without.cached(t, executed, len(program)))
		if m >= len(data)*9/10 && x > 0 {
			break
		}
		if tries == 1 {
			t.Fatalf("without notifications the page cache holds %d bytes of the mapped file, want nearly all %d, and %d of the executed one", m, len(data), x)
		}
	}

	with := mount(t, m, mountOptions{})
	use(with)
	for ino, size := range map[tree.Ino]int{mapped: len(data), executed: len(program)} {
		eventually(t, fmt.Sprintf("the page cache of inode %d is empty", ino), func() bool { return len(with.cached(t, ino, size)) == 0 })
	}
}

// TestManyMappings maps the same few files in many processes at once, so that releases, notifications and page faults meet.
func TestManyMappings(t *testing.T) {
	m := newModel()
	var inos []tree.Ino
	for i := range 4 {
		inos = append(inos, m.file(tree.Root, fmt.Sprint(i), m.random(300_000, false)))
	}
	mnt := mount(t, m, mountOptions{budget: 4 << 20})
	var wg sync.WaitGroup
	for w := range 6 {
		wg.Go(func() {
			for i := range 10 {
				if out, err := child("mmap", "private", mnt.path(fmt.Sprint((w+i)%4))).CombinedOutput(); err != nil {
					t.Errorf("mapping: %v %s", err, out)
				}
			}
		})
	}
	wg.Wait()
	eventually(t, "all files are released", func() bool { return mnt.fs.Stats().OpenFiles == 0 })
	for _, ino := range inos {
		eventually(t, "the page cache is empty", func() bool { return len(mnt.cached(t, ino, 300_000)) == 0 })
	}
	if n := len(mnt.fs.files.files); n != 0 {
		t.Errorf("%d files are still in the table of open files", n)
	}
}

// TestReadsLeaveNoPageCache shows that read(2) does not go through the page cache, and needs no notification.
func TestReadsLeaveNoPageCache(t *testing.T) {
	m := newModel()
	data := m.random(300_000, false)
	ino := m.file(tree.Root, "f", data)
	mnt := mount(t, m, mountOptions{wrap: func(f *FS) fuse.RawFileSystem { return deaf{f} }})
	if got, err := os.ReadFile(mnt.path("f")); err != nil || !bytes.Equal(got, data) {
		t.Fatalf("read %d bytes, %v", len(got), err)
	}
	if n := len(mnt.cached(t, ino, len(data))); n != 0 {
		t.Errorf("after read(2) the page cache holds %d bytes", n)
	}
}

// recorder notes notifications; each waits until it is let go.
type recorder struct {
	told chan uint64
	next chan fuse.Status
}

func (r *recorder) InodeNotify(ino uint64, off, length int64) fuse.Status {
	if off != 0 || length != 0 {
		panic("not the whole file")
	}
	r.told <- ino
	return <-r.next
}

func TestDropper(t *testing.T) {
	var files openFiles
	var d dropper
	d.init(&files)
	kernel := &recorder{told: make(chan uint64, 100), next: make(chan fuse.Status)}
	d.start(kernel)
	release := func(ino tree.Ino) {
		if _, drop := files.release(ino, false); drop {
			d.push(ino)
		}
	}
	cycle := func(ino tree.Ino, cached bool) {
		files.acquire(ino, false)
		if cached {
			files.markCached(ino)
		}
		release(ino)
	}
	cycle(1, false) // only read: nobody is told
	files.acquire(7, false)
	files.acquire(7, false)
	files.markCached(7)
	release(7) // still open
	cycle(2, true)
	if ino := <-kernel.told; ino != 2 {
		t.Fatalf("told of %d, want 2", ino)
	}
	// While that notification waits:
	cycle(2, true)
	cycle(2, true) // once in the queue is enough
	cycle(3, true)
	files.acquire(3, false) // opened again: not yet
	release(7)
	kernel.next <- fuse.OK
	for _, want := range []uint64{2, 7} {
		if ino := <-kernel.told; ino != want {
			t.Fatalf("told of %d, want %d", ino, want)
		}
		kernel.next <- fuse.ENOENT
	}
	release(3) // what was cached before is remembered
	if ino := <-kernel.told; ino != 3 {
		t.Fatalf("told of %d, want 3", ino)
	}
	cycle(4, true)
	stopped := make(chan struct{})
	go func() { d.stop(); close(stopped) }()
	kernel.next <- fuse.Status(unix.EPERM)
	if ino := <-kernel.told; ino != 4 {
		t.Fatalf("stopping lost 4, told of %d", ino)
	}
	kernel.next <- fuse.ENODEV
	<-stopped
	if len(kernel.told) != 0 || len(files.files) != 0 || files.open() != 0 {
		t.Errorf("at the end: %d more told, table %v, %d open", len(kernel.told), files.files, files.open())
	}
	if n := d.failed.Load(); n != 1 {
		t.Errorf("%d failures counted, want 1", n)
	}
}
