package guarded

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// Hardening reports what [Harden] could not have: a field is nil if the process
// has that protection, else it says why not.
type Hardening struct {
	NoTrace error // not dumpable: no core, no ptrace and no /proc/PID/mem for others of the same user
	NoCore  error // RLIMIT_CORE 0, soft and hard
	NoSwap  error // all of the process's memory locked; needs an unlimited RLIMIT_MEMLOCK, or the capabilities for it
}

// Err returns what makes it unsafe to hold a secret: all but NoSwap, which an
// ordinary user can't have. Guarded memory is locked without it.
func (h Hardening) Err() error {
	return errors.Join(h.NoTrace, h.NoCore)
}

var errMemlock = errors.New("RLIMIT_MEMLOCK can't be lifted, and locking all memory under it would end the process once it lost CAP_IPC_LOCK")

// Harden protects the memory of the whole process, the Go heap and the stacks
// included, for the rest of its life. A process that will hold a secret calls
// it before it does anything else. It is undone by exec, and PR_SET_DUMPABLE
// also by a change of the process's ids.
func Harden() Hardening {
	var h Hardening
	// Against another process of the same user, who else may trace this one and
	// read its memory, and against cores that go through a pipe, which
	// RLIMIT_CORE does not stop.
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
		h.NoTrace = fmt.Errorf("the process can't be made undumpable: %w", err)
	}
	if err := unix.Setrlimit(unix.RLIMIT_CORE, &unix.Rlimit{}); err != nil {
		h.NoCore = fmt.Errorf("core dumps can't be switched off: %w", err)
	}
	if err := lockAll(); err != nil {
		h.NoSwap = fmt.Errorf("the process's memory can't be locked: %w", err)
	}
	return h
}

// lockAll locks every page that the process has and will have, against secrets
// in swap that passed through the Go heap or a stack. Pages are locked as they
// are touched: the runtime's address space is far larger than its memory.
func lockAll() error {
	if !lockUnlimited() {
		return unix.EPERM
	}
	// From here on every mapping counts towards the limit. A process that gives
	// up CAP_IPC_LOCK later, to confine itself, would have its next mmap refused
	// and die, so the limit goes first or nothing is locked.
	infinite := unix.Rlimit{Cur: unix.RLIM_INFINITY, Max: unix.RLIM_INFINITY}
	if err := unix.Setrlimit(unix.RLIMIT_MEMLOCK, &infinite); err != nil {
		return fmt.Errorf("%w: %w", errMemlock, err)
	}
	return mlockallOnFault()
}

func mlockallOnFault() error {
	return unix.Mlockall(unix.MCL_CURRENT | unix.MCL_FUTURE | unix.MCL_ONFAULT)
}
