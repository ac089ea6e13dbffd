package disk

import (
	"errors"
	"io"
	"io/fs"
	"os"

	"golang.org/x/sys/unix"
)

// osFile is a regular file of the machine.
type osFile struct {
	f *os.File
}

func (o *osFile) ReadAt(p []byte, off int64) (int, error)  { return o.f.ReadAt(p, off) }
func (o *osFile) WriteAt(p []byte, off int64) (int, error) { return o.f.WriteAt(p, off) }
func (o *osFile) Close() error                             { return o.f.Close() }

func (o *osFile) Size() (int64, error) {
	info, err := o.f.Stat()
	if err != nil {
		return 0, err
	}
	return info.Size(), nil
}

func (o *osFile) Sync() error {
	return o.control("fdatasync", unix.Fdatasync)
}

func (o *osFile) DropCache() error {
	return o.control("fadvise", func(fd int) error {
		return unix.Fadvise(fd, 0, 0, unix.FADV_DONTNEED)
	})
}

func (o *osFile) Reserve(size int64) error {
	return o.control("fallocate", func(fd int) error {
		err := unix.Fallocate(fd, unix.FALLOC_FL_KEEP_SIZE, 0, size)
		if err == unix.EOPNOTSUPP || err == unix.ENOSYS {
			return errors.ErrUnsupported
		}
		return err
	})
}

// Trim cuts the file to the length that it has, which makes Linux free what fallocate set aside behind.
func (o *osFile) Trim() error {
	return o.control("ftruncate", func(fd int) error {
		var st unix.Stat_t
		if err := unix.Fstat(fd, &st); err != nil {
			return err
		}
		return unix.Ftruncate(fd, st.Size)
	})
}

// Lock takes an open-file-description lock: unlike a POSIX record lock it
// excludes other Files of this same process and is not lost when some other
// descriptor of the file is closed, and unlike flock it works on NFS.
func (o *osFile) Lock(offset int64) error {
	return o.control("lock", func(fd int) error {
		lock := unix.Flock_t{Type: unix.F_WRLCK, Whence: io.SeekStart, Start: offset, Len: 1}
		err := unix.FcntlFlock(uintptr(fd), unix.F_OFD_SETLK, &lock)
		if err == unix.EAGAIN || err == unix.EACCES {
			return ErrLocked
		}
		return err
	})
}

// control makes a system call on the descriptor while it is held open, so that a
// Close at the same time can't hand its number to another file in between.
func (o *osFile) control(op string, call func(fd int) error) error {
	raw, err := o.f.SyscallConn()
	if err != nil {
		return &fs.PathError{Op: op, Path: o.f.Name(), Err: fs.ErrClosed}
	}
	var failed error
	err = raw.Control(func(fd uintptr) {
		failed = retryInterrupted(func() error { return call(int(fd)) })
	})
	if err != nil {
		failed = fs.ErrClosed // the only error of Control
	}
	if failed != nil {
		return &fs.PathError{Op: op, Path: o.f.Name(), Err: failed}
	}
	return nil
}
