package fs

import (
	"fmt"
	"os/exec"
	"sync"
	"testing"
	"time"

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

// BenchmarkMount measures through the kernel, with programs of their own, alone, four at once, and beside two that want all
// there is of the processors. cpu-ns/op is what the server took of them.
func BenchmarkMount(b *testing.B) {
	m := newModel()
	const size = 8 << 20
	m.file(tree.Root, "large", m.random(size, false))
	m.file(tree.Root, "module", m.random(20_000, false))
	mnt := mount(b, m, mountOptions{budget: 64 << 20, flags: unix.MS_RDONLY})
	for _, what := range []string{"ioctl", "open", "module", "read-4K", "read-128K", "read-1M"} {
		b.Run(what, func(b *testing.B) { mnt.clients(b, what, 1) })
	}
	for _, what := range []string{"ioctl", "module", "read-128K"} {
		b.Run(what+"/four", func(b *testing.B) { mnt.clients(b, what, 4) })
	}
	for _, what := range []string{"ioctl", "module", "read-128K"} {
		b.Run(what+"/hogs", func(b *testing.B) {
			stop := hogs(b, 2)
			mnt.clients(b, what, 1)
			stop()
		})
	}
}

// clients lets n programs do something b.N times each, and reports how long once took a program.
func (m *mounted) clients(b *testing.B, what string, n int) {
	var before, after unix.Rusage
	unix.Getrusage(unix.RUSAGE_SELF, &before)
	took := make([]time.Duration, n)
	var wait sync.WaitGroup
	for i := range n {
		wait.Go(func() {
			out := run(b, "client", what, m.dir, fmt.Sprint(b.N))
			took[i], _ = time.ParseDuration(out)
		})
	}
	wait.Wait()
	unix.Getrusage(unix.RUSAGE_SELF, &after)
	var all time.Duration
	for _, t := range took {
		all += t
	}
	cpu := after.Utime.Nano() + after.Stime.Nano() - before.Utime.Nano() - before.Stime.Nano()
	b.ReportMetric(float64(all.Nanoseconds())/float64(n*b.N), "ns/op")
	b.ReportMetric(float64(cpu)/float64(n*b.N), "cpu-ns/op")
}

// hogs starts n programs that want a processor each.
func hogs(b *testing.B, n int) (stop func()) {
	b.Helper()
	var list []*exec.Cmd
	for range n {
		hog := child("hog")
		if err := hog.Start(); err != nil {
			b.Fatal(err)
		}
		list = append(list, hog)
	}
	return func() {
		for _, hog := range list {
			hog.Process.Kill()
			hog.Wait()
		}
	}
}
