package tree

import (
	"fmt"
	"math/rand/v2"
	"runtime"
	"testing"
	"time"
)

// names are made once, so that the figures below are the tree's own.
func benchNames(n int) []string {
	names := make([]string, n)
	for i := range names {
		names[i] = fmt.Sprintf("module_%06d.py", i)
	}
	return names
}

// build makes a tree of so many files of one extent, in directories of so many entries under the root.
func build(tb testing.TB, files, perDir int, names []string) *Tree {
	tree := New(40, 32728)
	must(tb, tree.Put(Attr{Ino: Root, Mode: typeDir | 0o755}))
	ino, dir, pos := Root, Root, uint64(0)
	for i := range files {
		if i%perDir == 0 {
			ino++
			dir = ino
			if tree.Put(Attr{Ino: dir, Mode: typeDir | 0o755}) != nil || tree.Link(Root, names[i/perDir], dir) != nil {
				tb.Fatal("a directory can't be made")
			}
		}
		ino++
		when := Time{1700000000 + int64(i), uint32(i)}
		if tree.Put(Attr{Ino: ino, Mode: typeFile | 0o644, UID: 1000, GID: 1000, Size: 5000, Atime: when, Mtime: when, Ctime: when}) != nil ||
			tree.Link(dir, names[i%perDir], ino) != nil ||
			tree.Map(ino, Extent{0, 5000, pos / 32728, 40 + uint32(pos%32728)}) != nil {
			tb.Fatal("a file can't be made")
		}
		pos += 5060
	}
	return tree
}

// heap returns the bytes in use after a collection, and how long a collection takes and stops all else.
func heap() (bytes uint64, whole, pause time.Duration) {
	runtime.GC()
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	start := time.Now()
	runtime.GC()
	whole = time.Since(start)
	runtime.ReadMemStats(&after)
	return after.HeapAlloc, whole, time.Duration(after.PauseTotalNs - before.PauseTotalNs)
}

// TestMillionFiles holds the tree to its 200 bytes for a file with a name of 16 bytes, directories included.
func TestMillionFiles(t *testing.T) {
	const files = 1_000_000
	names := benchNames(files)
	for _, perDir := range []int{10, 1000, files} {
		before, _, _ := heap()
		start := time.Now()
		tree := build(t, files, perDir, names)
		took := time.Since(start)
		after, whole, pause := heap()
		perFile := float64(after-before) / files
		t.Logf("%d per directory: %.0f bytes and %d ns per file; a collection takes %v, stops for %v",
			perDir, perFile, took.Nanoseconds()/files, whole, pause)
		if limit := 200 + 200/float64(perDir); perFile > limit {
			t.Errorf("%d per directory: %.1f bytes per file, more than %.0f", perDir, perFile, limit)
		}
		if m := tree.Stats().Memory; float64(m) < 0.98*float64(after-before) || m > after-before+1<<20 {
			t.Errorf("%d per directory: Memory says %d, the heap %d", perDir, m, after-before)
		}
		seen, last := 0, uint64(0)
		for more := true; more; { // in steps as a kernel would; quadratic, this would take hours
			more = false
			must(t, tree.Entries(2, last, func(e Entry) bool {
				seen, last, more = seen+1, e.Cookie, true
				return seen%100 != 0
			}))
		}
		if seen != perDir {
			t.Errorf("%d per directory: %d listed", perDir, seen)
		}
	}
}

func BenchmarkBuildMillion(b *testing.B) {
	const files = 1_000_000
	names := benchNames(files)
	for _, perDir := range []int{1, 10, 100, 1000, 10000, files} {
		b.Run(fmt.Sprint(perDir, "perDir"), func(b *testing.B) {
			before, _, _ := heap()
			var tree *Tree
			for b.Loop() {
				tree = build(b, files, perDir, names)
			}
			b.StopTimer()
			after, whole, pause := heap()
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/files, "ns/file")
			b.ReportMetric(float64(after-before)/files, "B/file")
			b.ReportMetric(float64(whole.Microseconds())/1000, "gc-ms")
			b.ReportMetric(float64(pause.Microseconds()), "gc-stop-µs")
			runtime.KeepAlive(tree)
		})
	}
}

// BenchmarkRead measures what the file system asks of a tree of a million files, at random.
func BenchmarkRead(b *testing.B) {
	const files, perDir = 1_000_000, 100
	names := benchNames(files)
	tree := build(b, files, perDir, names)
	rnd := rand.New(rand.NewPCG(1, 1))
	dir := func() Ino { return Ino(2 + rnd.IntN(files/perDir)*(perDir+1)) }
	b.Run("Lookup", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, err := tree.Lookup(dir(), names[rnd.IntN(perDir)]); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("LookupMissing", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, err := tree.Lookup(dir(), "no such name"); err != ErrNotFound {
				b.Fatal(err)
			}
		}
	})
	b.Run("Attr", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, err := tree.Attr(dir() + 1); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("Extents", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if err := tree.Extents(dir()+1, 0, 5000, func(Extent) bool { return true }); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("EntriesOf100", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if err := tree.Entries(dir(), 0, func(Entry) bool { return true }); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("InodesMillion", func(b *testing.B) {
		for b.Loop() {
			tree.Inodes(func(Attr) bool { return true })
		}
	})
}

// BenchmarkOverwrite replaces 4 KiB at random in a file of 100,000 extents.
func BenchmarkOverwrite(b *testing.B) {
	const extents = 100_000
	tree := newTree(b)
	must(b, tree.Put(Attr{Ino: 2, Mode: typeFile, Size: extents * 4096}))
	for i := range uint64(extents) {
		must(b, tree.Map(2, Extent{i * 4096, 4096, i, 10}))
	}
	rnd := rand.New(rand.NewPCG(1, 1))
	for b.Loop() {
		if err := tree.Map(2, Extent{rnd.Uint64N((extents - 1) * 4096), 4096, 7, 10}); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(tree.Stats().Extents), "extents")
}

func TestReadsDoNotAllocate(t *testing.T) {
	tree := build(t, 1000, 100, benchNames(1000))
	for what, read := range map[string]func(){
		"Lookup":   func() { tree.Lookup(2, "module_000007.py") },
		"Attr":     func() { tree.Attr(7) },
		"Parent":   func() { tree.Parent(2) },
		"SeekData": func() { tree.SeekData(7, 0) },
		"Extents":  func() { tree.Extents(7, 0, 5000, func(Extent) bool { return true }) },
	} {
		if n := testing.AllocsPerRun(100, read); n != 0 {
			t.Errorf("%s: %v allocations", what, n)
		}
	}
}
