package guarded

import (
	"bufio"
	"fmt"
	"math"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

// LockError says that the kernel would not lock memory. All sizes are in bytes.
type LockError struct {
	Wanted int64 // what should have been locked
	Locked int64 // what the process has locked already; 0 if that is unknown
	Limit  int64 // RLIMIT_MEMLOCK, math.MaxInt64 if there is none
	Err    error // the kernel's answer
}

func (e *LockError) Error() string {
	if e.Limit == math.MaxInt64 {
		return fmt.Sprintf("can't lock %d KiB of memory: %v", e.Wanted>>10, e.Err)
	}
	return fmt.Sprintf("can't lock %d KiB of memory: %d KiB are locked and `ulimit -l` allows %d: %v",
		e.Wanted>>10, e.Locked>>10, e.Limit>>10, e.Err)
}

func (e *LockError) Unwrap() error { return e.Err }

func newLockError(wanted int, err error) *LockError {
	return &LockError{Wanted: int64(wanted), Locked: lockedBytes(), Limit: memlockLimit(), Err: err}
}

// memlockLimit returns the soft RLIMIT_MEMLOCK in bytes, math.MaxInt64 if there
// is none.
func memlockLimit() int64 {
	var r unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_MEMLOCK, &r); err != nil {
		return 0 // can't happen with a valid address; nothing may be locked then
	}
	if r.Cur > math.MaxInt64 {
		return math.MaxInt64
	}
	return int64(r.Cur)
}

// lockedBytes returns what counts towards RLIMIT_MEMLOCK in this process, 0 if
// that can't be read. It serves messages only; decisions are left to tryLock.
func lockedBytes() int64 {
	f, err := os.Open("/proc/self/status")
	if err != nil {
		return 0
	}
	defer f.Close()
	for s := bufio.NewScanner(f); s.Scan(); {
		var kib int64
		if n, _ := fmt.Sscanf(s.Text(), "VmLck: %d kB", &kib); n == 1 {
			return kib << 10
		}
	}
	return 0
}

// tryLock tells whether the kernel would lock size bytes more in this process,
// by asking it: the bytes are mapped and locked, but no page is made, and all
// is undone. That is the only answer that is right under every combination of
// RLIMIT_MEMLOCK, capabilities and user namespaces (where CAP_IPC_LOCK shows in
// /proc but counts for nothing).
func tryLock(size int, prot, flags int) error {
	b, err := unix.Mmap(-1, 0, size, prot, flags|unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	if err != nil {
		return err
	}
	defer unix.Munmap(b)
	return mlockOnFault(b)
}

// lockUnlimited tells whether the process may lock more than its
// RLIMIT_MEMLOCK, as CAP_IPC_LOCK in the first user namespace allows.
func lockUnlimited() bool {
	limit := memlockLimit()
	if limit > math.MaxInt64>>1 {
		return true
	}
	page := int64(os.Getpagesize())
	return tryLock(int((limit/page+1)*page), unix.PROT_NONE, unix.MAP_NORESERVE) == nil
}

// mlockOnFault is mlock2(2) with MLOCK_ONFAULT: pages are locked when they are
// touched, and none is made now.
func mlockOnFault(b []byte) error {
	_, _, errno := unix.Syscall(unix.SYS_MLOCK2, uintptr(unsafe.Pointer(unsafe.SliceData(b))), uintptr(len(b)), unix.MLOCK_ONFAULT)
	if errno != 0 {
		return errno
	}
	return nil
}
