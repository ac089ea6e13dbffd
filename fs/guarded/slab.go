package guarded

import (
	"os"
	"sync"

	"github.com/awnumar/memguard/core"
	"golang.org/x/sys/unix"
)

// locking serialises all that counts towards RLIMIT_MEMLOCK. The limit belongs
// to the process and memguard's list of buffers is global, so this is too: what
// tryLock found must still hold when memguard locks.
var locking sync.Mutex

// slab is a piece of memory from memguard: mlocked, MADV_DONTDUMP, between two
// guard pages. This file is the only one that knows memguard, and of that only
// its core, without the signal handlers, the exits and the finalizers (which
// would unmap a buffer under a slice that is still in use).
type slab struct {
	buffer *core.Buffer
	data   []byte // zeroed when new
}

// newSlab locks size bytes, rounded up to pages, or returns a *LockError.
func newSlab(size int) (*slab, error) {
	locking.Lock()
	defer locking.Unlock()
	// A failed lock inside memguard destroys every buffer of the process and
	// panics, so this asks first.
	if err := rehearse(size); err != nil {
		return nil, newLockError(size, err)
	}
	b, err := core.NewBuffer(size)
	if err != nil {
		return nil, err
	}
	return &slab{buffer: b, data: b.Data()}, nil
}

// rehearse does what memguard will do for a buffer of size bytes, as far as it
// can be undone.
func rehearse(size int) error {
	return tryLock(roundUp(size, os.Getpagesize()), unix.PROT_READ|unix.PROT_WRITE, 0)
}

// lockable tells whether size bytes more could be locked now.
func lockable(size int) bool {
	locking.Lock()
	defer locking.Unlock()
	return rehearse(size) == nil
}

// destroy wipes the slab and gives its memory back to the kernel.
func (s *slab) destroy() {
	s.data = nil
	locking.Lock()
	defer locking.Unlock()
	s.buffer.Destroy()
}

// roundUp returns the smallest multiple of unit that is not below n.
func roundUp(n, unit int) int { return (n + unit - 1) / unit * unit }
