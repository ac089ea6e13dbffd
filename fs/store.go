package fs

import (
	"encfsrun/fs/guarded"
	"encfsrun/fs/vault"
	"encfsrun/fs/vault/disk"
	"encfsrun/fs/vault/tree"
)

var (
	_ Store  = (*vault.Session)(nil)
	_ Chunks = (*guarded.Pool)(nil)
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

	// Reserve sees to it that n more bytes of records can be appended, beside all that was reserved since the last Prepare, and
	// committed: vault.ErrNoSpace if not. What removes more than it adds may use what is set aside for that.
	Reserve(n int64, removes bool) error
	// Space tells the size of the disk and how many bytes of files may still be written.
	Space() (disk.Space, error)
	// Prepare appends a commit of all changes so far; Sync returns when it is durable, and may run beside all other methods.
	Prepare() (vault.Point, error)
	Sync(vault.Point) error
	// Maintain does what keeps the log short, where it is due; Reclaim what frees space on a full disk, and says whether it did.
	// Both commit.
	Maintain() error
	Reclaim() (bool, error)
}

// Chunks hands out guarded memory for what was written and is not in the log yet. *guarded.Pool is one.
type Chunks interface {
	Get() ([]byte, error) // zeroed
	Put([]byte)           // wipes
	BlockSize() int
}
