package transfer

import (
	"errors"
	"io"

	"golang.org/x/sys/unix"

	"encfsrun/fs/guarded"
)

// descriptor reads an open file.
type descriptor struct {
	fd  int
	pos int64
}

// Read is io.Reader's.
func (d *descriptor) Read(b []byte) (int, error) {
	if len(b) == 0 {
		return 0, nil
	}
	n, err := retry(func() (int, error) { return unix.Pread(d.fd, b, d.pos) })
	if errors.Is(err, unix.EFAULT) {
		n, err = d.readDirect(b)
	}
	if err != nil {
		return 0, err
	}
	if n == 0 {
		return 0, io.EOF
	}
	d.pos += int64(n)
	return n, nil
}

// directSize in bytes is what readDirect takes at once.
const directSize = 128 << 10

// readDirect reads into b from a file system that wants to put data into our memory by itself, as FUSE and network file systems
// with direct I/O do: the kernel refuses them memfd_secret memory. It reads into locked memory of the ordinary kind, and copies.
func (d *descriptor) readDirect(b []byte) (int, error) {
	page, err := unix.Mmap(-1, 0, directSize, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	if err != nil {
		return 0, err
	}
	defer unix.Munmap(page)
	if err := unix.Madvise(page, unix.MADV_DONTDUMP); err != nil {
		return 0, err
	}
	if err := unix.Mlock(page); err != nil {
		return 0, err
	}
	defer guarded.Wipe(page)
	n, err := retry(func() (int, error) { return unix.Pread(d.fd, page[:min(len(page), len(b))], d.pos) })
	if err != nil {
		return 0, err
	}
	return copy(b, page[:n]), nil
}

// span is a part of a file that holds data: [start, end).
type span struct{ start, end int64 }

// nextData returns the first part of a file from off on that holds data, cut at size; at the end an empty one.
func nextData(fd int, off, size int64) (span, error) {
	if off >= size {
		return span{size, size}, nil
	}
	start, err := unix.Seek(fd, off, unix.SEEK_DATA)
	switch {
	case errors.Is(err, unix.ENXIO):
		return span{size, size}, nil
	case errors.Is(err, unix.EINVAL): // a file system that knows no holes
		return span{off, size}, nil
	case err != nil:
		return span{}, err
	case start >= size:
		return span{size, size}, nil
	}
	end, err := unix.Seek(fd, start, unix.SEEK_HOLE)
	if errors.Is(err, unix.ENXIO) { // cut meanwhile; reading will notice
		end, err = size, nil
	}
	return span{start, min(end, size)}, err
}
