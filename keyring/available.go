package keyring

import (
	"errors"
	"os"
	"strconv"
	"strings"

	"encfsrun/fs/guarded"
)

// AvailableMemory returns how many bytes can be taken without swapping or
// being killed: the least of what the kernel deems available and of what the
// memory limits of this process's cgroups leave.
func AvailableMemory() (int64, error) {
	meminfo, err := os.ReadFile("/proc/meminfo")
	if err != nil {
		return 0, err
	}
	available, err := memAvailable(string(meminfo))
	if err != nil {
		return 0, err
	}
	left, err := guarded.CgroupMemoryLeft()
	if err != nil {
		return 0, err
	}
	return min(available, left), nil
}

// memAvailable finds the kernel's estimate in /proc/meminfo, in bytes.
func memAvailable(meminfo string) (int64, error) {
	for line := range strings.Lines(meminfo) {
		words := strings.Fields(line)
		if len(words) == 3 && words[0] == "MemAvailable:" && words[2] == "kB" {
			kib, err := strconv.ParseInt(words[1], 10, 53) // so that bytes fit
			return kib * 1024, err
		}
	}
	return 0, errors.New("/proc/meminfo does not say how much memory is available")
}
