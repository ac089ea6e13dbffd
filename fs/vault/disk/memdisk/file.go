package memdisk

import (
	"errors"
	"io/fs"
	"syscall"

	"encfsrun/fs/vault/disk"
)

// file is an open file. It goes on after the file was unlinked.
type file struct {
	disk     *Disk
	node     *node
	name     string
	writable bool
	closed   bool
}

var _ disk.File = (*file)(nil)

// start begins an operation on an open file, and holds the Disk's lock in every
// case. The fault of the hook is returned bare.
func (f *file) start(op Op) error {
	fault := f.disk.start(op)
	if f.closed {
		return fs.ErrClosed
	}
	return fault
}

// ReadAt implements disk.File.
func (f *file) ReadAt(p []byte, off int64) (int, error) {
	op := Op{Kind: OpRead, Name: f.name, Offset: off, Len: len(p)}
	err := f.start(op)
	defer f.disk.mu.Unlock()
	if err == nil && off < 0 {
		err = syscall.EINVAL
	}
	if err != nil {
		return 0, op.fail(err)
	}
	return f.node.content.readAt(p, off)
}

// WriteAt implements disk.File.
func (f *file) WriteAt(p []byte, off int64) (int, error) {
	op := Op{Kind: OpWrite, Name: f.name, Offset: off, Len: len(p)}
	err := f.start(op)
	defer f.disk.mu.Unlock()
	var short *ShortWrite
	errors.As(err, &short)
	switch {
	case err != nil && short == nil:
	case off < 0:
		err = syscall.EINVAL
	case !f.writable:
		err = syscall.EBADF
	case f.disk.grow(f.node, off+int64(len(p))) != nil:
		err = syscall.ENOSPC
	case short == nil:
		f.node.content.writeAt(p, off)
		return len(p), nil
	default:
		n := min(short.N, len(p))
		f.node.content.writeAt(p[:n], off)
		return n, op.fail(err)
	}
	return 0, op.fail(err)
}

// Size implements disk.File.
func (f *file) Size() (int64, error) {
	op := Op{Kind: OpSize, Name: f.name}
	err := f.start(op)
	defer f.disk.mu.Unlock()
	if err != nil {
		return 0, op.fail(err)
	}
	return f.node.content.size, nil
}

// Sync implements disk.File.
func (f *file) Sync() error {
	op := Op{Kind: OpSync, Name: f.name}
	err := f.start(op)
	defer f.disk.mu.Unlock()
	if err == nil {
		f.node.content.sync()
		return nil
	}
	if !isPowerCut(err) && !f.closed {
		reached := Choose(Lose)
		var partial *PartialSync
		if errors.As(err, &partial) {
			reached = partial.Reached
		}
		f.node.content.failSync(reached)
	}
	return op.fail(err)
}

// DropCache implements disk.File.
func (f *file) DropCache() error {
	op := Op{Kind: OpDropCache, Name: f.name}
	err := f.start(op)
	defer f.disk.mu.Unlock()
	if err != nil {
		return op.fail(err)
	}
	f.node.content.dropCache()
	return nil
}

// Reserve implements disk.File.
func (f *file) Reserve(size int64) error {
	op := Op{Kind: OpReserve, Name: f.name, Len: int(size)}
	err := f.start(op)
	defer f.disk.mu.Unlock()
	switch {
	case err != nil:
	case size <= 0:
		err = syscall.EINVAL
	case !f.writable:
		err = syscall.EBADF
	default:
		err = f.disk.grow(f.node, size)
	}
	if err != nil {
		return op.fail(err)
	}
	f.node.reserved = max(f.node.reserved, size)
	return nil
}

// Trim implements disk.File.
func (f *file) Trim() error {
	op := Op{Kind: OpTrim, Name: f.name}
	err := f.start(op)
	defer f.disk.mu.Unlock()
	if err == nil && !f.writable {
		err = syscall.EINVAL
	}
	if err != nil {
		return op.fail(err)
	}
	f.node.reserved = 0
	return nil
}

// Lock implements disk.File.
func (f *file) Lock(offset int64) error {
	op := Op{Kind: OpLock, Name: f.name, Offset: offset}
	err := f.start(op)
	defer f.disk.mu.Unlock()
	holder := f.node.locks[offset]
	switch {
	case err != nil:
	case offset < 0:
		err = syscall.EINVAL
	case !f.writable:
		err = syscall.EBADF
	case holder != nil && holder != f:
		err = disk.ErrLocked
	}
	if err != nil {
		return op.fail(err)
	}
	if f.node.locks == nil {
		f.node.locks = make(map[int64]*file)
	}
	f.node.locks[offset] = f
	return nil
}

// Close implements disk.File. Whatever a hook says, the File is closed after it.
func (f *file) Close() error {
	op := Op{Kind: OpClose, Name: f.name}
	err := f.start(op)
	defer f.disk.mu.Unlock()
	if !f.closed {
		f.closed = true
		for offset, holder := range f.node.locks {
			if holder == f {
				delete(f.node.locks, offset)
			}
		}
	}
	if err != nil {
		return op.fail(err)
	}
	return nil
}
