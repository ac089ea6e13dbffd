package transfer

import (
	"golang.org/x/sys/unix"
)

// The disk is asked for the next files while one is read. Measured: 7,500 files of 20 KB that were not in the page cache took 2.3 s
// without it and 1.1 s with it. Files that are in the page cache would take a fifth longer, so one of each group is tried.
const (
	aheadFiles = 16      // a group
	aheadBytes = 1 << 20 // of each file; the kernel reads on by itself
)

// readAhead is called before the i-th file of the batch is read. It opens files only for a moment, and what fails here is
// found again when the file's turn comes.
func (m *importer) readAhead(dir, i int) {
	if i%aheadFiles != 0 {
		return
	}
	from := i + aheadFiles
	if i == 0 {
		from = 0
	}
	tried := false
	for j := from; j < min(i+2*aheadFiles, len(m.files)); j++ {
		f := &m.files[j]
		if f.st.Blocks == 0 {
			continue
		}
		fd, err := openat(dir, f.name, 0)
		if err != nil {
			continue
		}
		if !tried && cached(fd) {
			unix.Close(fd)
			return
		}
		tried = true
		unix.Fadvise(fd, 0, aheadBytes, unix.FADV_WILLNEED)
		unix.Close(fd)
	}
}

// cached says whether the beginning of a file can be read without waiting for a disk.
func cached(fd int) bool {
	var b [1]byte
	_, err := unix.Preadv2(fd, [][]byte{b[:]}, 0, unix.RWF_NOWAIT)
	return err == nil
}
