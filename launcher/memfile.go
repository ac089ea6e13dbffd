package launcher

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// memoryFile makes a close-on-exec file in memory that holds text and whose
// offset is at its beginning.
func memoryFile(name string, text []byte) (*os.File, error) {
	fd, err := unix.MemfdCreate(name, unix.MFD_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("make a file in memory: %w", err)
	}
	file := os.NewFile(uintptr(fd), name)
	if _, err = file.WriteAt(text, 0); err != nil {
		file.Close()
		return nil, fmt.Errorf("write to a file in memory: %w", err)
	}
	return file, nil
}
