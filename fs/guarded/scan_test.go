package guarded

import (
	"bytes"
	"encoding/binary"
	"math/rand/v2"
	"os"
	"runtime"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

// canary is a secret that this process can look for without holding it: only
// its complement is kept.
type canary [32]byte

func newCanary() *canary {
	k := new(canary)
	for i := 0; i < len(k); i += 8 {
		binary.LittleEndian.PutUint64(k[i:], rand.Uint64())
	}
	return k
}

// plant fills dst with canaries, byte by byte so that there is no other copy.
func (k *canary) plant(dst []byte) {
	for i := range dst {
		dst[i] = ^k[i%len(k)]
	}
}

// scanner reads all memory of the process through a window of its own, which it
// leaves out.
type scanner struct {
	window []byte
	mem    *os.File
	pages  *os.File

	entries []byte // of pagemap
}

func newScanner(t *testing.T) *scanner {
	t.Helper()
	s := &scanner{entries: make([]byte, 8<<16)}
	var err error
	if s.window, err = unix.Mmap(-1, 0, 1<<20, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Munmap(s.window) })
	for name, f := range map[string]**os.File{"/proc/self/mem": &s.mem, "/proc/self/pagemap": &s.pages} {
		if *f, err = os.Open(name); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { (*f).Close() })
	}
	return s
}

// count returns how many blocks in guarded memory (locked, not dumped) begin
// with a canary, and how many canaries lie elsewhere.
func (s *scanner) count(t *testing.T, k *canary) (inside, outside int) {
	t.Helper()
	all, err := mappings()
	if err != nil {
		t.Fatal(err)
	}
	scanned := 0
	for _, m := range all {
		if !m.resident || m.perms[0] != 'r' || m.name == "[vvar]" || m.name == "[vsyscall]" || m.name == "[vvar_vclock]" ||
			m.start <= addr(s.window) && addr(s.window) < m.end {
			continue
		}
		for at := m.start; at < m.end; {
			skip, run := s.present(t, at, m.end)
			at += uintptr(skip)
			w := s.window[:run]
			if _, err := s.mem.ReadAt(w, int64(at)); err != nil {
				t.Fatalf("%s at %#x: %v", m.name, at, err)
			}
			for i := range w {
				w[i] = ^w[i]
			}
			n := bytes.Count(w, k[:])
			if m.has("lo") && m.has("dd") {
				inside += n
			} else {
				outside += n
			}
			scanned += run
			at += uintptr(run)
		}
	}
	clear(s.window)
	if scanned < 1<<20 {
		t.Fatalf("only %d bytes were scanned", scanned)
	}
	return inside, outside
}

// present looks at 64 Ki pages from at on and returns how many bytes are not in
// memory, and how many of those that follow are, a window at most.
func (s *scanner) present(t *testing.T, at, end uintptr) (skip, run int) {
	t.Helper()
	page := uintptr(os.Getpagesize())
	entries := s.entries[:min((end-at)/page, uintptr(len(s.entries)/8))*8]
	if _, err := s.pages.ReadAt(entries, int64(at/page*8)); err != nil {
		t.Fatal(err)
	}
	absent := 0
	is := func(n int) bool { return binary.LittleEndian.Uint64(entries[n*8:])>>62 != 0 } // present or swapped
	for absent*8 < len(entries) && !is(absent) {
		absent++
	}
	n := absent
	for n*8 < len(entries) && is(n) {
		n++
	}
	return absent * int(page), min((n-absent)*int(page), len(s.window))
}

// TestScan looks for contents in the memory of the whole process: in the slabs
// and nowhere else while blocks are cached, nowhere once they were dropped,
// evicted, or failed to load.
func TestScan(t *testing.T) {
	s := newScanner(t)
	k := newCanary()
	heap := make([]byte, 1<<20) // too large for a stack, which might be moved and leave a copy
	k.plant(heap[:len(k)])
	if in, out := s.count(t, k); in != 0 || out == 0 {
		t.Fatalf("the scan is blind: %d found in guarded memory, %d elsewhere, one is on the heap", in, out)
	}
	clear(heap)
	runtime.KeepAlive(heap)

	const size = 4096
	pool, err := NewPool(size, 64*size)
	if err != nil {
		t.Fatal(err)
	}
	c := NewCache(pool, func(number uint64, dst []byte) (int, error) {
		if number >= 1000 {
			return 0, nil // empty: evicts what is there
		}
		k.plant(dst)
		if number >= 500 {
			return 0, os.ErrInvalid
		}
		return len(dst), nil
	})
	acquire := func(from, to uint64) {
		for n := from; n < to; n++ {
			if pins, err := c.Acquire(nil, []uint64{n}, nil); err == nil {
				c.Release(pins)
			}
		}
	}
	expect := func(when string, blocks int) {
		t.Helper()
		if in, out := s.count(t, k); in != blocks*size/len(k) || out != 0 {
			t.Errorf("%s: %d canaries in guarded memory, want %d, and %d elsewhere", when, in, blocks*size/len(k), out)
		}
	}
	acquire(0, 40)
	expect("with 40 blocks cached", 40)
	acquire(500, 600)
	expect("after loads that failed", 40)
	c.Drop([]uint64{0, 1, 2, 3, 4, 5, 6, 7, 8, 9})
	expect("after dropping 10", 30)
	acquire(1000, 1200)
	expect("after evicting the rest", 0)
	acquire(100, 164)
	expect("full", 64)
	slab := unsafe.Pointer(unsafe.SliceData(pool.slabs[0].data))
	c.Close()
	expect("after Close", 0)
	if err := pool.Close(); err != nil {
		t.Fatal(err)
	}
	expect("after closing the pool", 0)
	checkUnmapped(t, uintptr(slab))
}
