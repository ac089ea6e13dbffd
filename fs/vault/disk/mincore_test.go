package disk_test

import (
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

// mincore says of each page of a mapping whether it is in memory (bit 0); x/sys has
// no wrapper for it.
func mincore(mapped []byte) ([]byte, error) {
	page := os.Getpagesize()
	flags := make([]byte, (len(mapped)+page-1)/page)
	_, _, errno := unix.Syscall(unix.SYS_MINCORE, uintptr(unsafe.Pointer(&mapped[0])), uintptr(len(mapped)), uintptr(unsafe.Pointer(&flags[0])))
	if errno != 0 {
		return nil, errno
	}
	return flags, nil
}
