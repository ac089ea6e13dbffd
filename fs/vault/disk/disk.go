// Package disk is the one door between a vault and the machine's disk: every
// byte of a vault that is read, written, made durable or locked passes through
// an [FS]. OS gives the real one; package memdisk gives one in memory that can
// fail, tear, forget what was not synced, and lose its power at any operation.
//
// # What is durable when
//
// The rules are those of POSIX, and an implementation promises no more:
//
//   - File.Sync makes a file's bytes durable, and its length, but not its name.
//   - FS.SyncDir makes the names in a directory durable, but not what they name.
//   - A name that was renamed, whatever was synced before, is old or new after a
//     crash, never both and never neither, until its directory was synced.
//   - After a Sync that failed nothing is known. Linux marks the pages clean
//     although they never reached the disk: reads go on showing them and the next
//     Sync succeeds. Only DropCache and reading again tells.
//
// # What a hostile directory can do
//
// The adversary may own the folder that a vault lies in. File contents are
// authenticated above this package; here it is only refused to be led astray or
// held up: Open, OpenWrite and Create never follow a symbolic link in the last
// element of a name, never wait for the other end of a FIFO, never take a
// terminal, and give regular files only ([ErrNotRegular]). Directories above the
// last element are followed as usual: whoever may replace those may replace the
// whole vault.
//
// # Concurrency
//
// An FS and its Files are safe for concurrent use. No method waits for a lock.
package disk

import (
	"errors"
	"io"
	"io/fs"
)

// ErrLocked is wrapped by the error of File.Lock when somebody else holds the byte.
var ErrLocked = errors.New("locked by another open file")

// ErrNotRegular is wrapped by the errors of Open and OpenWrite when the name is
// there but is a directory, a symbolic link, a FIFO, a socket or a device.
var ErrNotRegular = errors.New("not a regular file")

// FS is a file system that a vault can lie on. Names are slash-separated paths
// of the host. Errors are *fs.PathError (or *os.LinkError from the renames) and
// match fs.ErrExist, fs.ErrNotExist and, with errors.Is, the errno of the failed
// call: syscall.ENOSPC, syscall.EIO.
type FS interface {
	// Open opens a regular file for reading.
	Open(name string) (File, error)

	// OpenWrite opens a regular file, which must exist, for reading and writing.
	OpenWrite(name string) (File, error)

	// Create makes a regular file that must not exist (else fs.ErrExist, also
	// for a dangling symbolic link) and opens it for reading and writing.
	Create(name string, perm fs.FileMode) (File, error)

	// Mkdir makes a directory that must not exist.
	Mkdir(name string, perm fs.FileMode) error

	// Rename gives oldname the name newname, atomically. A file or an empty
	// directory of that name is replaced by one of its own kind.
	Rename(oldname, newname string) error

	// RenameNoReplace is Rename, but fails with fs.ErrExist when newname exists,
	// whatever it is.
	RenameNoReplace(oldname, newname string) error

	// Remove unlinks a file, or an empty directory.
	Remove(name string) error

	// List gives the names in a directory, sorted, without "." and "..".
	List(dir string) ([]string, error)

	// Lstat describes a name without following it.
	Lstat(name string) (Info, error)

	// SyncDir makes the names in a directory durable.
	SyncDir(dir string) error

	// Space tells how large the disk is that a directory lies on and how much of it this user may still fill, in bytes.
	Space(dir string) (Space, error)
}

// Space is the size of a disk in bytes.
type Space struct{ Total, Free uint64 }

// File is an open regular file.
type File interface {
	// ReadAt is io.ReaderAt's: io.EOF when fewer bytes than asked are left.
	io.ReaderAt
	// WriteAt writes all of p or gives an error, and then any part of p may have
	// been written, whatever the count says (that of package os is 0 when a disk
	// was full halfway). Writing behind the end leaves zeros between.
	io.WriterAt
	// Close releases the locks that were taken through this File, and the file.
	// It makes nothing durable. Every later call fails with fs.ErrClosed.
	io.Closer

	// Size is the present length in bytes.
	Size() (int64, error)

	// Sync is fdatasync: it returns when all that was ever written to the file,
	// through whichever descriptor, and its length are durable. It works on a
	// File that was opened for reading.
	Sync() error

	// DropCache makes later reads come from the disk as far as the system can:
	// pages not yet synced stay, so call Sync first, and a file system that lives
	// in memory has no disk to read from.
	DropCache() error

	// Reserve sets space aside for the file to grow to size bytes, without changing its length: writes below it find room
	// on a disk that is full by then, as far as the file system can promise that. Where it can't, errors.ErrUnsupported is
	// wrapped. A reservation does not outlive a crash.
	Reserve(size int64) error

	// Trim gives back what was reserved beyond the length.
	Trim() error

	// Lock takes a write lock on the one byte at offset, which need not exist, and
	// does not wait: an error that wraps ErrLocked when another open File, of this
	// process or any other, holds it. Taking it again through the same File
	// succeeds. The File must have been opened for writing. Close gives it up.
	Lock(offset int64) error
}

// Kind is what a name stands for.
type Kind uint8

// The kinds that a vault tells apart.
const (
	KindFile Kind = iota + 1
	KindDir
	KindSymlink
	KindOther // FIFO, socket, device
)

// Info is what Lstat tells.
type Info struct {
	Kind Kind
	Size int64       // in bytes; 0 for all but files
	Mode fs.FileMode // the permission bits alone
	Own  bool        // it belongs to the user that this process acts as
}
