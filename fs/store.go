package fs

import (
	"errors"

	"encfsrun/fs/vault/tree"
)

// Store takes the changes of a mount that may be written: a vault's session of writing. The Source shows each change at once,
// committed or not. All methods but Sync are called by one goroutine at a time, which holds the file system's lock; so what is
// done under one hold of that lock comes true together.
type Store interface {
	NewIno() tree.Ino
	// Put makes or changes an inode: all attributes but Nlink and Blocks. A smaller size cuts the file.
	Put(a tree.Attr) error
	SetTarget(ino tree.Ino, target string) error
	Link(dir tree.Ino, name string, ino tree.Ino) error
	// Unlink takes a name away; an inode without names is there until Free.
	Unlink(dir tree.Ino, name string) error
	// Rename moves a name to one that is not taken.
	Rename(dir tree.Ino, name string, newDir tree.Ino, newName string) error
	Free(ino tree.Ino) error
	SetXattr(ino tree.Ino, name string, value []byte) error
	RemoveXattr(ino tree.Ino, name string) error
	// Clear makes n bytes of a file a hole.
	Clear(ino tree.Ino, off, n uint64) error
	// Write writes n bytes of a file that lie below its size; fill is given the places for them, in order.
	Write(ino tree.Ino, off, n uint64, fill func([]byte) error) error

	// Reserve says whether n more bytes of records can be appended and committed.
	Reserve(n uint64) error
	// FreeBytes returns how many bytes of records could be reserved.
	FreeBytes() uint64
	// Prepare appends a commit of all changes so far; Sync returns when it is durable, and may run beside all other methods.
	Prepare() (Point, error)
	Sync(Point) error
	// Maintain does what keeps the log short, where it is due.
	Maintain() error
}

// Point names a commit.
type Point = any

// Errors of a Store.
var (
	ErrNoSpace  = errors.New("no space left for the vault")
	ErrReadOnly = errors.New("the vault can't be written any more")
)

// Chunks hands out guarded memory for what was written and is not in the log yet. *guarded.Pool is one.
type Chunks interface {
	Get() ([]byte, error) // zeroed
	Put([]byte)           // wipes
	BlockSize() int
}
