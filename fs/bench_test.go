package fs

import (
	"fmt"
	"testing"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"encfsrun/fs/vault/tree"
)

// benchTree makes a tree with a directory of 1000 small files and a large one.
func benchTree(b testing.TB) (f *FS, m *model, dir tree.Ino) {
	b.Helper()
	m = newModel()
	dir = m.dir(tree.Root, "d")
	for i := range 1000 {
		m.file(dir, fmt.Sprintf("f%d", i), m.random(1<<10, false))
	}
	m.file(dir, "large", m.random(1<<20, false))
	f, cache, _ := newFS(b, m, mountOptions{})
	b.Cleanup(func() { cache.Close() })
	return f, m, dir
}

// hotPaths are the operations that must not allocate, called as go-fuse calls them.
func hotPaths(f *FS, m *model, dir tree.Ino) map[string]func() {
	large := m.nodes[dir].names["large"]
	h := fuse.InHeader{NodeId: uint64(dir), Caller: fuse.Caller{Pid: 1}}
	file := fuse.InHeader{NodeId: uint64(large), Caller: fuse.Caller{Pid: 1}}
	var entry fuse.EntryOut
	var attr fuse.AttrOut
	read := fuse.ReadIn{InHeader: file, Size: 128 << 10, Offset: 100_000, ReadFlags: fuse.READ_LOCKOWNER}
	f.known.add(uint64(large)) // held, as an open file is
	f.files.acquire(large, false)
	return map[string]func(){
		"lookup":  func() { f.Lookup(nil, &h, "large", &entry); f.Forget(entry.NodeId, 1) },
		"missing": func() { f.Lookup(nil, &h, "missing", &entry) },
		"getattr": func() { f.GetAttr(nil, &fuse.GetAttrIn{InHeader: file}, &attr) },
		"open": func() {
			f.Open(nil, &fuse.OpenIn{InHeader: file}, &fuse.OpenOut{})
			f.Release(nil, &fuse.ReleaseIn{InHeader: file})
		},
		"read": func() {
			r, status := f.Read(nil, &read, nil)
			if status != fuse.OK || r.Size() != 128<<10 {
				panic(status)
			}
			r.Done()
		},
	}
}

// TestHotPathsDoNotAllocate fails when a look-up, stat, open or read makes garbage.
func TestHotPathsDoNotAllocate(t *testing.T) {
	f, m, dir := benchTree(t)
	for name, do := range hotPaths(f, m, dir) {
		if n := testing.AllocsPerRun(200, do); n >= 1 {
			t.Errorf("%s: %v allocations", name, n)
		}
	}
}

func BenchmarkHandlers(b *testing.B) {
	f, m, dir := benchTree(b)
	for name, do := range hotPaths(f, m, dir) {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				do()
			}
		})
	}
}

// BenchmarkMount measures through the kernel.
func BenchmarkMount(b *testing.B) {
	m := newModel()
	const size = 8 << 20
	m.file(tree.Root, "f", m.random(size, false))
	mnt := mount(b, m, mountOptions{budget: 64 << 20, flags: unix.MS_RDONLY})
	fd := opened(b, mnt.path("f"))
	for _, n := range []int{4 << 10, 128 << 10, 1 << 20} {
		b.Run(fmt.Sprintf("read-%dK", n>>10), func(b *testing.B) {
			buf := make([]byte, n)
			b.SetBytes(int64(n))
			b.ReportAllocs()
			off := 0
			for b.Loop() {
				if k, err := unix.Pread(fd, buf, int64(off)); k != n || err != nil {
					b.Fatalf("read %d bytes, %v", k, err)
				}
				off = (off + n) % (size - n)
			}
		})
	}
	b.Run("open-close", func(b *testing.B) {
		for b.Loop() {
			fd, err := unix.Open(mnt.path("f"), unix.O_RDONLY, 0)
			if err != nil {
				b.Fatal(err)
			}
			unix.Close(fd)
		}
	})
}
