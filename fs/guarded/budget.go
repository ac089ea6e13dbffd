package guarded

import (
	"fmt"
	"math"
	"os"

	"golang.org/x/sys/unix"
)

const (
	// readBudget is the default for a read-only mount, in bytes: the working set
	// of a large application.
	readBudget = 64 << 20
	// writeBudget is the default for a writable one, in bytes: it holds what was
	// written and not yet flushed, too.
	writeBudget = 256 << 20
)

// DefaultBudget returns the bytes that guarded memory may have on this machine:
// the smallest of 64 MiB (256 MiB when writable), a quarter of RAM (or of the
// memory limit of the process's cgroup, where that is smaller) and, without
// CAP_IPC_LOCK, half of RLIMIT_MEMLOCK.
func DefaultBudget(writable bool) (int64, error) {
	var info unix.Sysinfo_t
	if err := unix.Sysinfo(&info); err != nil {
		return 0, fmt.Errorf("the size of RAM can't be read: %w", err)
	}
	ram := int64(min(info.Totalram*uint64(info.Unit), math.MaxInt64))
	groups, err := cgroupMemory(os.DirFS("/"))
	if err != nil {
		return 0, fmt.Errorf("the memory limit of this process can't be read: %w", err)
	}
	memlock := int64(math.MaxInt64)
	if !lockUnlimited() {
		memlock = memlockLimit()
	}
	return budget(writable, min(ram, groups.limit), memlock), nil
}

// budget applies the rule to a machine with ram bytes that lets memlock bytes
// be locked.
func budget(writable bool, ram, memlock int64) int64 {
	most := int64(readBudget)
	if writable {
		most = writeBudget
	}
	if memlock != math.MaxInt64 {
		most = min(most, memlock/2)
	}
	return min(most, ram/4)
}
