package fs

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"golang.org/x/sys/unix"
	"pgregory.net/rapid"

	"encfsrun/fs/guarded"
	"encfsrun/fs/vault"
	"encfsrun/fs/vault/tree"
)

func opened(t testing.TB, path string) int {
	t.Helper()
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatalf("open: %v", err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	return fd
}

// TestReads reads at random places of files with and without holes.
func TestReads(t *testing.T) {
	m := newModel()
	sizes := []int{0, 1, 4095, vault.PlainSize, 100_000, 3_000_000}
	files := map[string][]byte{}
	for _, size := range sizes {
		for _, holes := range []bool{false, true} {
			name := fmt.Sprintf("%d-%v", size, holes)
			files[name] = m.random(size, holes)
			m.file(tree.Root, name, files[name])
		}
	}
	files["hole"] = make([]byte, 1<<20)
	m.file(tree.Root, "hole", files["hole"])
	mnt := mount(t, m, mountOptions{})
	for name, want := range files {
		got, err := os.ReadFile(mnt.path(name))
		if err != nil || !bytes.Equal(got, want) {
			t.Fatalf("%s: %d bytes of %d, %v", name, len(got), len(want), err)
		}
		fd := opened(t, mnt.path(name))
		rapid.Check(t, func(r *rapid.T) {
			off := rapid.IntRange(0, len(want)+5000).Draw(r, "offset")
			n := rapid.OneOf(rapid.IntRange(0, 5000), rapid.IntRange(0, 600_000)).Draw(r, "length")
			buf := make([]byte, n)
			n, err := unix.Pread(fd, buf, int64(off))
			expected := want[min(off, len(want)):min(off+len(buf), len(want))]
			if err != nil || !bytes.Equal(buf[:max(n, 0)], expected) {
				r.Fatalf("%s: read %d of %d bytes at %d, %v", name, n, len(expected), off, err)
			}
		})
	}
}

// TestManyPieces reads files that lie in more pieces than one writev(2) takes, and in more blocks than one request may pin.
func TestManyPieces(t *testing.T) {
	m := newModel()
	want := map[string][]byte{}
	for name, apart := range map[string]bool{"pieces": false, "blocks": true} {
		n := &node{data: m.random(150_000, false)}
		n.attr.Size = uint64(len(n.data))
		for off := 0; off < len(n.data); off += 50 {
			if off%1000 == 0 {
				clear(n.data[off : off+50])
				n.layout = append(n.layout, vault.Span{Len: 50, Hole: true})
				continue
			}
			if apart && off%500 == 0 {
				m.at = vault.PlainSize // a block of its own
			}
			m.lay(n, n.data[off:off+50])
		}
		m.put(tree.Root, name, unix.S_IFREG, n)
		want[name] = n.data
	}
	mnt := mount(t, m, mountOptions{budget: 4 << 20})
	var wg sync.WaitGroup
	for name, data := range want {
		for range 3 {
			wg.Go(func() {
				for range 5 {
					if got, err := os.ReadFile(mnt.path(name)); err != nil || !bytes.Equal(got, data) {
						t.Errorf("%s: read %d bytes, %v; equal %v", name, len(got), err, bytes.Equal(got, data))
					}
				}
			})
		}
	}
	wg.Wait()
	c := &mnt.fs.copies
	c.mu.Lock() // the last reply has been sent, but may not be wiped yet
	defer c.mu.Unlock()
	if b := c.memory.Bytes(); len(b) == 0 || !isZero(b) {
		t.Errorf("the buffer for copies has %d bytes; all zero: %v", len(b), isZero(b))
	}
}

// forgetful wipes blocks as soon as they are released.
type forgetful struct {
	*guarded.Cache
	numbers []uint64
}

func (f forgetful) Release(pins []guarded.Pin) {
	f.Cache.Release(pins)
	f.Drop(f.numbers)
}

// TestPinsOutliveTheWrite wipes blocks at Done: if that came before the reply was written, programs would read zeros.
func TestPinsOutliveTheWrite(t *testing.T) {
	m := newModel()
	data := m.random(1_000_000, false)
	m.file(tree.Root, "f", data)
	f := forgetful{}
	for i := range m.blocks {
		f.numbers = append(f.numbers, uint64(i+1))
	}
	mnt := mount(t, m, mountOptions{blocks: func(c *guarded.Cache) Blocks { f.Cache = c; return f }})
	for range 20 {
		if got, err := os.ReadFile(mnt.path("f")); err != nil || !bytes.Equal(got, data) {
			t.Fatalf("read %d bytes, %v; equal %v", len(got), err, bytes.Equal(got, data))
		}
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.loads < 20*len(m.blocks) {
		t.Errorf("%d loads of %d blocks: they were not wiped", m.loads, len(m.blocks))
	}
}

func TestSeek(t *testing.T) {
	m := newModel()
	ino := m.file(tree.Root, "f", m.random(500_000, true))
	mnt := mount(t, m, mountOptions{})
	fd := opened(t, mnt.path("f"))
	rapid.Check(t, func(r *rapid.T) {
		off := rapid.Uint64Range(0, 510_000).Draw(r, "offset")
		hole := rapid.Bool().Draw(r, "hole")
		whence := unix.SEEK_DATA
		if hole {
			whence = unix.SEEK_HOLE
		}
		want, wantErr := m.seek(ino, off, hole)
		if wantErr != nil {
			wantErr = unix.ENXIO
		}
		got, err := unix.Seek(fd, int64(off), whence)
		if err != wantErr || err == nil && uint64(got) != want {
			r.Fatalf("seek(%d, hole %v): %d, %v; want %d, %v", off, hole, got, err, want, wantErr)
		}
	})
}

func TestMmap(t *testing.T) {
	m := newModel()
	data := m.random(2_000_001, true)
	m.file(tree.Root, "f", data)
	mnt := mount(t, m, mountOptions{})
	want := fmt.Sprintf("%x", sha256.Sum256(data))
	for _, kind := range []string{"private", "shared"} {
		if got := run(t, "mmap", kind, mnt.path("f")); got != want {
			t.Errorf("%s mapping: hash %s, want %s", kind, got, want)
		}
	}
}

// TestExec runs a program out of the mount. A shell starts it, since a process must not exec from the mount that it serves.
func TestExec(t *testing.T) {
	program, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	m := newModel()
	m.file(tree.Root, "program", program)
	m.file(tree.Root, "script", []byte("#!"+"/bin/sh\necho script $1\n"))
	mnt := mount(t, m, mountOptions{flags: unix.MS_RDONLY})
	for command, want := range map[string]string{"program": "hello a b\n", "script": "script a\n"} {
		cmd := exec.Command("/bin/sh", "-c", `"$0" a b`, mnt.path(command))
		cmd.Env = append(os.Environ(), childVariable+"=hello")
		if out, err := cmd.CombinedOutput(); err != nil || string(out) != want {
			t.Errorf("%s printed %q, %v; want %q", command, out, err, want)
		}
	}
}

// TestDamage reads blocks that can't be loaded, and then can.
func TestDamage(t *testing.T) {
	m := newModel()
	data := m.random(200_000, false)
	ino := m.file(tree.Root, "secret-name", data)
	var mu sync.Mutex
	var list []string
	reports := func() []string {
		mu.Lock()
		defer mu.Unlock()
		return slices.Clone(list)
	}
	mnt := mount(t, m, mountOptions{Options: Options{OnIntegrity: func(ino tree.Ino, err *vault.IntegrityError) {
		mu.Lock()
		defer mu.Unlock()
		list = append(list, fmt.Sprint(ino, err))
	}}})
	fd := opened(t, mnt.path("secret-name"))
	for _, c := range []struct {
		err     error
		reports int
	}{
		{errors.New("the disk fails"), 0},
		{fmt.Errorf("reading: %w", &vault.IntegrityError{Object: "block 1", Detail: "was altered"}), 1},
		{&vault.IntegrityError{Object: "block 1", Detail: "was altered"}, 1},
	} {
		m.breakBlocks(ino, c.err)
		if n, err := unix.Pread(fd, make([]byte, 100), 100_000); err != unix.EIO {
			t.Errorf("read %d bytes, %v where loading fails with %q; want EIO", n, err, c.err)
		}
		if got := reports(); len(got) != c.reports {
			t.Errorf("%d reports after %q, want %d: %q", len(got), c.err, c.reports, got)
		}
	}
	m.breakBlocks(ino, nil)
	if got, err := os.ReadFile(mnt.path("secret-name")); err != nil || !bytes.Equal(got, data) {
		t.Errorf("after the failure: %d bytes, %v", len(got), err)
	}
	if got := reports(); strings.Contains(got[0], "secret") || mnt.fs.Stats().DamagedFiles != 1 {
		t.Errorf("reports %q, %d damaged files", got, mnt.fs.Stats().DamagedFiles)
	}
}

// TestSmallBudget lets 8 readers read 24 MB at random places out of 4 MiB of guarded memory, while a block fails to load.
func TestSmallBudget(t *testing.T) {
	m := newModel()
	const files, size = 8, 3 << 20
	var data [files][]byte
	for i := range files {
		data[i] = m.random(size, i%2 == 1)
		m.file(tree.Root, fmt.Sprint(i), data[i])
	}
	m.at = vault.PlainSize // a block of its own
	bad := m.file(tree.Root, "bad", m.random(100_000, false))
	m.breakBlocks(bad, &vault.IntegrityError{Object: "block", Detail: "was altered"})
	mnt := mount(t, m, mountOptions{budget: 4 << 20})
	var wg sync.WaitGroup
	var failures atomic.Int64
	for w := range 8 {
		fd := opened(t, mnt.path(fmt.Sprint(w)))
		other := opened(t, mnt.path("bad"))
		rng := rand.New(rand.NewPCG(uint64(w), 1))
		wg.Go(func() {
			buf := make([]byte, 600_000)
			for range 100 {
				off := rng.IntN(size)
				n, err := unix.Pread(fd, buf[:rng.IntN(len(buf))+1], int64(off))
				if err != nil || !bytes.Equal(buf[:n], data[w][off:off+n]) {
					t.Errorf("file %d: read %d bytes at %d, %v", w, n, off, err)
					return
				}
				if _, err := unix.Pread(other, buf[:10], 0); err == unix.EIO {
					failures.Add(1)
				}
			}
		})
	}
	wg.Wait()
	if n := failures.Load(); n != 800 {
		t.Errorf("%d of 800 reads of a bad file were EIO", n)
	}
	if s := mnt.cache.Stats(); s.Used > 4<<20 || s.Evictions == 0 {
		t.Errorf("after it: %+v", s)
	}
}

// TestLoads shows when a reader that needs blocks lets others be read before it gets them.
func TestLoads(t *testing.T) {
	var l loads
	l.took(slowLoad - 1)
	if l.slow() {
		t.Error("loads are slow after a quick one")
	}
	l.took(slowLoad)
	for range staysSlow {
		if !l.slow() {
			t.Fatal("loads are quick too soon after a slow one")
		}
		l.took(1)
	}
	if l.took(1); l.slow() {
		t.Error("loads are slow for ever")
	}
}
