package guarded

import (
	"errors"
	"fmt"
	"os"
	"sync"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Buffer is one small secret in locked memory of its own, between two guard
// pages. It costs a page of RLIMIT_MEMLOCK at least, and no descriptor. Its
// methods may be called on a nil Buffer. What Bytes returned must not be used
// during or after Destroy: the memory is gone, and touching it is a fault.
type Buffer struct {
	mu     sync.Mutex
	data   []byte         // what the user sees; nil after Destroy
	slab   *slab          // where memguard holds it, else nil
	mapped unsafe.Pointer // where memfd_secret holds it: the first guard page
	length uintptr        // of the mapping at mapped, with both guard pages
}

// NewBuffer returns a zeroed buffer of size bytes. It uses memfd_secret(2)
// memory if the kernel gives any, else a memguard buffer; if neither can be
// locked it returns a *LockError.
func NewBuffer(size int) (*Buffer, error) {
	if size <= 0 {
		return nil, fmt.Errorf("a guarded buffer of %d bytes can't be made", size)
	}
	b, err := newSecretBuffer(size)
	for _, unavailable := range []error{
		unix.ENOSYS, // an old kernel, or booted without secretmem.enable
		unix.EPERM,  // a seccomp profile
		unix.EAGAIN, // RLIMIT_MEMLOCK
		unix.ENOMEM,
	} {
		if errors.Is(err, unavailable) {
			return newSlabBuffer(size)
		}
	}
	if err != nil {
		return nil, fmt.Errorf("a guarded buffer of %d bytes can't be made: %w", size, err)
	}
	return b, nil
}

// NewIOBuffer returns a zeroed buffer of size bytes, rounded up to pages, that
// begins on a page and that the kernel reads and writes in place. It refuses
// that (EFAULT) for memfd_secret memory, so this is always a memguard buffer. If
// it can't be locked the error is a *LockError.
func NewIOBuffer(size int) (*Buffer, error) {
	if size <= 0 {
		return nil, fmt.Errorf("a guarded buffer of %d bytes can't be made", size)
	}
	return newSlabBuffer(roundUp(size, os.Getpagesize()))
}

// newSlabBuffer makes a Buffer of a memguard slab, or returns a *LockError.
func newSlabBuffer(size int) (*Buffer, error) {
	s, err := newSlab(size)
	if err != nil {
		return nil, err
	}
	return &Buffer{data: s.data, slab: s}, nil
}

// newSecretBuffer makes a Buffer of memfd_secret(2) memory. The kernel locks it,
// keeps it out of core dumps and zeroes it when it is freed.
func newSecretBuffer(size int) (*Buffer, error) {
	locking.Lock()
	defer locking.Unlock()
	fd, err := unix.MemfdSecret(unix.O_CLOEXEC)
	if err != nil {
		return nil, err
	}
	defer unix.Close(fd) // the mapping keeps the memory
	return mapBuffer(fd, size)
}

// mapBuffer maps an empty memory file between two inaccessible pages.
func mapBuffer(fd, size int) (*Buffer, error) {
	page := os.Getpagesize()
	inner := roundUp(size, page)
	if err := unix.Ftruncate(fd, int64(inner)); err != nil {
		return nil, err
	}
	length := uintptr(inner + 2*page)
	start, err := unix.MmapPtr(-1, 0, nil, length, unix.PROT_NONE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	if err != nil {
		return nil, err
	}
	data, err := unix.MmapPtr(fd, 0, unsafe.Add(start, page), uintptr(inner), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED|unix.MAP_FIXED)
	if err != nil {
		unix.MunmapPtr(start, length)
		return nil, err
	}
	// The secret ends where the guard page begins, so that a read beyond its
	// end is a fault.
	secret := unsafe.Slice((*byte)(unsafe.Add(data, inner-size)), size)
	return &Buffer{data: secret, mapped: start, length: length}, nil
}

// Bytes returns the secret itself, not a copy; its capacity is its length. It
// returns nil after Destroy.
func (b *Buffer) Bytes() []byte {
	if b == nil {
		return nil
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.data
}

// Destroy wipes the secret and frees its memory. Calling it again does nothing.
func (b *Buffer) Destroy() {
	if b == nil {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.data == nil {
		return
	}
	Wipe(b.data)
	b.data = nil
	if b.slab != nil {
		b.slab.destroy()
		return
	}
	unix.MunmapPtr(b.mapped, b.length)
}
