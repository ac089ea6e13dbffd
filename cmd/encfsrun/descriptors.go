package main

import (
	"math"
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// keepDescriptors keeps what this process inherited from the processes that it starts, but for the standard three and what is
// handed over on purpose. A daemon lives long: with a caller's pipe it would keep whoever waits for the pipe's end waiting, and
// with the passkey's descriptor it would hold the passkey for all its life.
func keepDescriptors() {
	if unix.CloseRange(3, math.MaxInt32, unix.CLOSE_RANGE_CLOEXEC) == nil {
		return
	}
	open, _ := os.ReadDir("/proc/self/fd") // before Linux 5.11
	for _, entry := range open {
		if fd, err := strconv.Atoi(entry.Name()); err == nil && fd >= 3 {
			unix.CloseOnExec(fd)
		}
	}
}
