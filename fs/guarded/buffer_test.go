package guarded

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"sync"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

func addr(b []byte) uintptr { return uintptr(unsafe.Pointer(unsafe.SliceData(b))) }

func TestWipe(t *testing.T) {
	b := bytes.Repeat([]byte{7}, 1000)
	Wipe(b[1:999])
	if !zero(b[1:999]) || b[0] != 7 || b[999] != 7 {
		t.Errorf("wiping 1:999 of a thousand sevens left %v", b)
	}
	Wipe(nil)
}

func TestDo(t *testing.T) {
	ran := 0
	Do(func() { Do(func() { ran++ }) })
	if ran != 1 {
		t.Errorf("f was called %d times", ran)
	}
	defer func() {
		if recover() != "through" {
			t.Error("a panic in f did not come through")
		}
	}()
	Do(func() { panic("through") })
}

// TestBuffer tries both kinds: size, zeros, the kernel's flags, guard pages, and
// that Destroy unmaps.
func TestBuffer(t *testing.T) {
	kinds := map[string]func(int) (*Buffer, error){"any": NewBuffer, "memguard": newSlabBuffer}
	if secretMemory() {
		kinds["memfd_secret"] = newSecretBuffer
	}
	page := os.Getpagesize()
	for kind, make := range kinds {
		for _, size := range []int{1, 32, 33, page - 1, page, page + 1, 3 * page} {
			t.Run(fmt.Sprint(kind, " ", size), func(t *testing.T) {
				b, err := make(size)
				if err != nil {
					t.Fatal(err)
				}
				s := b.Bytes()
				if len(s) != size || cap(s) != size || !zero(s) {
					t.Errorf("len %d, cap %d, want %d zeros", len(s), cap(s), size)
				}
				for i := range s {
					s[i] = byte(i) | 1
				}
				checkFenced(t, s)
				start := addr(s)
				b.Destroy()
				b.Destroy()
				if b.Bytes() != nil {
					t.Error("the bytes are still there after Destroy")
				}
				checkUnmapped(t, start)
			})
		}
	}
}

func secretMemory() bool {
	fd, err := unix.MemfdSecret(0)
	if err == nil {
		unix.Close(fd)
	}
	return err == nil
}

// checkFenced checks that s is locked and not dumped, and lies between
// inaccessible mappings.
func checkFenced(t *testing.T, s []byte) {
	t.Helper()
	all, err := mappings()
	if err != nil {
		t.Fatal(err)
	}
	m, i, err := mappingOf(all, addr(s))
	if err != nil {
		t.Fatal(err)
	}
	if !m.has("lo") || !m.has("dd") {
		t.Errorf("the memory is not locked or may be dumped: %+v", m)
	}
	if m.end < addr(s)+uintptr(len(s)) {
		t.Errorf("the memory is not in one mapping")
	}
	before, after := all[i-1], all[i+1]
	if before.end != m.start || before.perms[:3] != "---" {
		t.Errorf("no guard page before it: %+v", before)
	}
	if after.start != m.end || after.perms[:3] != "---" {
		t.Errorf("no guard page behind it: %+v", after)
	}
	if end := addr(s) + uintptr(len(s)); m.end-end >= blockAlign {
		t.Errorf("%d bytes between the end and the guard page", m.end-end)
	}
}

func checkUnmapped(t *testing.T, at uintptr) {
	t.Helper()
	all, err := mappings()
	if err != nil {
		t.Fatal(err)
	}
	if m, _, err := mappingOf(all, at); err == nil && m.has("lo") {
		t.Errorf("the memory is still mapped: %+v", m)
	}
}

// TestBufferWipes looks at the same pages through a second mapping, which stays
// when Destroy removes the first. An ordinary memory file will do for it where
// the kernel has no memfd_secret.
func TestBufferWipes(t *testing.T) {
	kinds := map[string]func() (int, error){
		"memfd": func() (int, error) { return unix.MemfdCreate("guarded test", unix.MFD_CLOEXEC) },
	}
	if secretMemory() {
		kinds["memfd_secret"] = func() (int, error) { return unix.MemfdSecret(unix.O_CLOEXEC) }
	}
	for kind, open := range kinds {
		fd, err := open()
		if err != nil {
			t.Fatal(err)
		}
		b, err := mapBuffer(fd, 100)
		if err != nil {
			t.Fatal(err)
		}
		same, err := unix.Mmap(fd, 0, os.Getpagesize(), unix.PROT_READ, unix.MAP_SHARED)
		if err := errors.Join(err, unix.Close(fd)); err != nil {
			t.Fatal(err)
		}
		copy(b.Bytes(), bytes.Repeat([]byte("secret"), 100))
		if !bytes.Contains(same, []byte("secretsecret")) {
			t.Fatalf("%s: the second mapping does not show the secret", kind)
		}
		b.Destroy()
		if !zero(same) {
			t.Errorf("%s: the secret is still in the memory that Destroy gave back", kind)
		}
		if err := unix.Munmap(same); err != nil {
			t.Error(err)
		}
	}
}

func TestBufferOfNothing(t *testing.T) {
	for _, size := range []int{0, -1} {
		if b, err := NewBuffer(size); err == nil {
			t.Errorf("a buffer of %d bytes was made: %v", size, b)
		}
	}
	var none *Buffer
	none.Destroy()
	if none.Bytes() != nil {
		t.Error("a nil buffer has bytes")
	}
}

// TestBuffersCostNoDescriptors makes many at once, by many goroutines.
func TestBuffersCostNoDescriptors(t *testing.T) {
	before := descriptors(t)
	var all [64]*Buffer
	var wg sync.WaitGroup
	for i := range all {
		wg.Go(func() {
			b, err := NewBuffer(32)
			if err != nil {
				t.Error(err)
				return
			}
			copy(b.Bytes(), bytes.Repeat([]byte{byte(i)}, 32))
			all[i] = b
		})
	}
	wg.Wait()
	if n := descriptors(t); n > before {
		t.Errorf("64 buffers hold %d descriptors", n-before)
	}
	for i, b := range all {
		if !bytes.Equal(b.Bytes(), bytes.Repeat([]byte{byte(i)}, 32)) {
			t.Errorf("buffer %d was changed", i)
		}
		wg.Go(b.Destroy)
		wg.Go(b.Destroy)
	}
	wg.Wait()
}

func descriptors(t *testing.T) int {
	t.Helper()
	d, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(d)
}

// TestIOBuffer lets the kernel write to and read from a buffer that begins on a page.
func TestIOBuffer(t *testing.T) {
	page := os.Getpagesize()
	if b, err := NewIOBuffer(0); err == nil {
		t.Errorf("a buffer of %d bytes was made", len(b.Bytes()))
	}
	b, err := NewIOBuffer(page + 1)
	if err != nil {
		t.Fatal(err)
	}
	defer b.Destroy()
	s := b.Bytes()
	if len(s) != 2*page || addr(s)%uintptr(page) != 0 || !zero(s) {
		t.Fatalf("%d bytes at %#x", len(s), addr(s))
	}
	checkFenced(t, s)
	var ends [2]int
	if err := unix.Pipe(ends[:]); err != nil {
		t.Fatal(err)
	}
	defer unix.Close(ends[0])
	defer unix.Close(ends[1])
	want := bytes.Repeat([]byte{5}, page)
	if n, err := unix.Write(ends[1], want); n != page || err != nil {
		t.Fatal(n, err)
	}
	if n, err := unix.Read(ends[0], s[10:]); n != page || err != nil || !bytes.Equal(s[10:10+page], want) {
		t.Errorf("read %d bytes, %v", n, err)
	}
	if n, err := unix.Write(ends[1], s[10:10+page]); n != page || err != nil {
		t.Errorf("wrote %d bytes, %v", n, err)
	}
}
