package fs

import (
	"encfsrun/fs/guarded"
	"encfsrun/fs/vault"
	"encfsrun/fs/vault/tree"
)

var (
	_ Source = (*vault.Vault)(nil)
	_ Blocks = (*guarded.Cache)(nil)
)

// Source is the tree that is served. Its methods are called from many goroutines at once. *vault.Vault is one.
type Source interface {
	// Lookup returns the inode of a name: tree.ErrNotFound, tree.ErrNotDir.
	Lookup(parent tree.Ino, name string) (tree.Ino, error)
	Attr(ino tree.Ino) (tree.Attr, error)
	Readlink(ino tree.Ino) (string, error)
	// ReadDir yields the entries whose cookie is above after, in the order of their cookies, without "." and "..". Cookies
	// begin at 3. Yield must not call the Source.
	ReadDir(dir tree.Ino, after uint64, yield func(tree.Entry) bool) error
	// Parent returns the directory that holds dir; the root's is the root.
	Parent(dir tree.Ino) (tree.Ino, error)
	ListXattr(ino tree.Ino) ([]string, error)
	// GetXattr returns the value of an extended attribute: tree.ErrNoXattr.
	GetXattr(ino tree.Ino, name string) ([]byte, error)
	// Spans appends where n bytes from off on lie, in file order, without gaps, cut at the end of the file.
	Spans(ino tree.Ino, off int64, n int, spans []vault.Span) ([]vault.Span, error)
	// SeekData and SeekHole return the first offset, not before off, of data and of a hole (the end of the file is one):
	// tree.ErrNoData where there is none.
	SeekData(ino tree.Ino, off uint64) (uint64, error)
	SeekHole(ino tree.Ino, off uint64) (uint64, error)
	// Stats counts, for statfs.
	Stats() tree.Stats
}

// Blocks hands out decrypted blocks by their numbers. *guarded.Cache is one.
type Blocks interface {
	// Acquire pins distinct blocks, all or none, and appends them to pins in the order of numbers.
	Acquire(cancel <-chan struct{}, numbers []uint64, pins []guarded.Pin) ([]guarded.Pin, error)
	// TryAcquire is Acquire without waiting, or else pins none and returns false.
	TryAcquire(numbers []uint64, pins []guarded.Pin) ([]guarded.Pin, bool)
	// Release unpins them and zeroes the Pins.
	Release(pins []guarded.Pin)
	// MaxRequest returns how many blocks one Acquire may ask for.
	MaxRequest() int
}
