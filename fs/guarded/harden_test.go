package guarded

import (
	"errors"
	"fmt"
	"os"
	"runtime/debug"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

func init() {
	children["harden"] = childHarden
	children["all locked"] = childAllLocked
}

func TestHarden(t *testing.T) {
	t.Run("as we are", func(t *testing.T) { runChild(t, "harden", false) })
	t.Run("unprivileged", func(t *testing.T) { runChild(t, "harden", true) })
}

func TestAllLocked(t *testing.T) {
	t.Run("as we are", func(t *testing.T) { runChild(t, "all locked", false) })
	t.Run("unprivileged", func(t *testing.T) { runChild(t, "all locked", true) })
}

// childHarden compares the report with what the kernel says afterwards.
func childHarden() error {
	h := Harden()
	if err := h.Err(); err != nil {
		return err
	}
	if d, err := unix.PrctlRetInt(unix.PR_GET_DUMPABLE, 0, 0, 0, 0); err != nil || d != 0 {
		return fmt.Errorf("dumpable: %d, %v", d, err)
	}
	var st syscall.Stat_t
	if err := syscall.Stat("/proc/self/mem", &st); err != nil || st.Uid != 0 {
		return fmt.Errorf("/proc/self/mem belongs to %d: %v", st.Uid, err)
	}
	var core unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_CORE, &core); err != nil || core != (unix.Rlimit{}) {
		return fmt.Errorf("core limit: %+v, %v", core, err)
	}
	page := make([]byte, os.Getpagesize())
	all, err := lockedEverywhere(page)
	if err != nil {
		return err
	}
	if all != (h.NoSwap == nil) {
		return fmt.Errorf("the heap is locked: %v, and the report says: %v", all, h.NoSwap)
	}
	if h.NoSwap != nil && !errors.Is(h.NoSwap, unix.EPERM) {
		return h.NoSwap
	}
	if h.NoSwap == nil && memlockLimit() < 1<<62 {
		return fmt.Errorf("all is locked under a limit of %d", memlockLimit())
	}
	return work()
}

// childAllLocked works in a process in which all memory is locked. An ordinary
// user can't have that, and must be told so before anything is locked.
func childAllLocked() error {
	if !lockUnlimited() {
		if err := lockAll(); !errors.Is(err, unix.EPERM) || lockedBytes() != 0 {
			return fmt.Errorf("without CAP_IPC_LOCK %d bytes are locked: %v", lockedBytes(), err)
		}
		return work()
	}
	if err := mlockallOnFault(); err != nil {
		return err
	}
	if all, err := lockedEverywhere(make([]byte, 10<<20)); err != nil || !all {
		return fmt.Errorf("the heap is locked: %v, %v", all, err)
	}
	return work()
}

// lockedEverywhere tells whether a piece of the heap is locked.
func lockedEverywhere(heap []byte) (bool, error) {
	all, err := mappings()
	if err != nil {
		return false, err
	}
	m, _, err := mappingOf(all, addr(heap))
	return m.has("lo"), err
}

// work uses guarded memory and the heap, and lets the heap shrink again: the
// runtime gives memory back with madvise, which locked memory refuses.
func work() error {
	var keep [][]byte
	for range 8 {
		keep = append(keep, make([]byte, 8<<20))
		for i := range keep[len(keep)-1] {
			keep[len(keep)-1][i] = 1
		}
	}
	keep = nil
	debug.FreeOSMemory()
	b, err := NewBuffer(32)
	if err != nil {
		return err
	}
	defer b.Destroy()
	copy(b.Bytes(), "a key")
	pool, err := NewPool(4096, 256<<10)
	if err != nil {
		return err
	}
	c := NewCache(pool, func(_ uint64, dst []byte) (int, error) { return len(dst), nil })
	for n := range uint64(200) {
		pins, err := c.Acquire(nil, []uint64{n}, nil)
		if err != nil {
			return err
		}
		c.Release(pins)
	}
	c.Close()
	return pool.Close()
}
