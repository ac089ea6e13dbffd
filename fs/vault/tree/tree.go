// Package tree holds the tree of an open vault in memory: inodes, names, symlink targets, extended attributes and the
// extents that say in which blocks of the log a file's bytes lie. The vault replays its records into a Tree and the
// file system reads from it; nothing here touches a disk or knows how a record looks.
//
// # Slabs without pointers
//
// Everything lies in slabs: tables of fixed chunks whose rows are linked by 32-bit row numbers (slots; 0 is "none"). A
// slab holds no pointer, so the garbage collector has nothing to trace in a million files, and pointers to rows stay
// valid while the tables grow. Byte strings lie in an arena (arena.go), inodes and names are found through hash tables
// that grow by one bucket at a time (index.go), and what has to stay in order - the extents of a file, the entries of
// a directory - hangs in treaps (treap.go). A file with one name and one extent costs 172 bytes and its name. What is
// removed is used again for the next of its kind, but never given back to the system.
//
// # Life of an inode
//
// Put makes an inode without a name (an orphan), Link names it, Unlink takes a name away, Free forgets an orphan. The
// caller hands out the numbers, and never one at or below MaxIno twice: the tree can't tell a number that was freed
// from one that it has not met yet, because a checkpoint lists inodes in the order of the tree and not of numbers.
// The root is the inode Root; it appears with its own Put and never goes.
//
// # Bad input
//
// All that arrives comes out of a decoder, so nothing here panics: each call checks its arguments and either does all
// of its work or returns one of the package's errors and has changed nothing. Hashes and treap priorities are seeded
// for each Tree: whoever chooses names or numbers can't choose them so that they collide. No cost grows with the
// value of a number, only with the amount of what was stored.
//
// # Concurrency
//
// A Tree has no lock. The vault guards it with a sync.RWMutex: methods that read (Lookup, Attr, Target, Parent,
// Entries, Xattr, Xattrs, Extents, SeekData, SeekHole, Inodes, Orphans, Stats, MaxIno) change nothing at all and may
// run beside each other; the others want the tree for themselves. A yield function must not change the tree.
package tree

import (
	"errors"
	"hash/maphash"
	"math/rand/v2"
)

// Ino is the number of an inode: 1 to MaxInoValue.
type Ino uint64

const (
	// Root is the number of the root directory.
	Root Ino = 1
	// MaxInoValue is the greatest number an inode may have: what programs keep in a signed 64-bit integer.
	MaxInoValue Ino = 1<<63 - 1
	// MaxSize is the greatest size of a file in bytes, the kernel's loff_t.
	MaxSize = 1<<63 - 1
	// MaxName is the greatest length of a file's or an extended attribute's name in bytes (the kernel's NAME_MAX and XATTR_NAME_MAX).
	MaxName = 255
	// MaxTarget is the greatest length of a symlink's target in bytes: PATH_MAX less its final NUL.
	MaxTarget = 4095
	// MaxXattrValue is the greatest length of an extended attribute's value in bytes (XATTR_SIZE_MAX).
	MaxXattrValue = 65536
	// MaxXattrList is the greatest sum over one inode's extended attributes of the name's length plus one: beyond
	// it listxattr(2) could not answer (XATTR_LIST_MAX).
	MaxXattrList = 65536
)

// The errors of this package; each is returned as it is.
var (
	ErrNotFound    = errors.New("no such inode or name")
	ErrNotDir      = errors.New("not a directory")
	ErrIsDir       = errors.New("is a directory")
	ErrExists      = errors.New("the name exists already")
	ErrNotEmpty    = errors.New("the directory is not empty")
	ErrNoXattr     = errors.New("no such extended attribute")
	ErrNoData      = errors.New("no data or hole at or after the offset")
	ErrNameTooLong = errors.New("the name is too long")
	ErrTooBig      = errors.New("too much for the extended attributes of one inode")
	ErrFull        = errors.New("the tree is full")
	ErrInvalid     = errors.New("invalid argument")
)

// Time is a point in time: seconds since 1970 (negative before) and nanoseconds, less than 1e9, after them.
type Time struct {
	Sec  int64
	Nsec uint32
}

// Attr describes an inode. Mode holds a type (S_IFMT) and 12 bits of permission.
type Attr struct {
	Ino                         Ino
	Mode, UID, GID, Nlink, Rdev uint32
	// Size is in bytes for a regular file and a symlink (its target's length), the number of entries for a
	// directory, and 0 for all else.
	Size uint64
	// Blocks counts what extents map, in units of 512 bytes, rounded up.
	Blocks              uint64
	Atime, Mtime, Ctime Time
}

// Extent says where bytes of a file lie: [Off, Off+Len) of the file are the bytes of the payload stream that begin at
// byte At of block Block and go on over consecutive blocks.
type Extent struct {
	Off, Len uint64
	Block    uint64
	At       uint32
}

// Entry is a name in a directory. Mode is the whole mode of what it names.
type Entry struct {
	Name   string
	Ino    Ino
	Mode   uint32
	Cookie uint64
}

// Tree is the tree of one vault.
type Tree struct {
	payloadStart uint32
	payloadLen   uint64
	seed         uint64       // of inode numbers' hashes
	nameSeed     maphash.Seed // of names' hashes

	inodes     rows[inode]
	inodeSlots slots
	byIno      index // chained by inode.next
	maxIno     Ino

	order   treap        // of the entries of each directory, by cookie; its slots are those of dirents
	dirents rows[dirent] // beside order
	byName  index        // chained by dirent.next

	ranges  treap        // of the extents of each file, by offset; its slots are those of extents
	extents rows[extent] // beside ranges
	mapped  uint64       // bytes mapped by all extents; wraps where a hostile vault maps more than 16 EiB
	xattrs  rows[xattr]  // chained by xattr.next, per inode
	xslots  slots
	bytes   arena
}

// New returns an empty tree, without even a root. In every block, the payload stream's bytes are the payloadLen ones
// that begin at payloadStart; extents are cut by that arithmetic.
func New(payloadStart, payloadLen uint32) *Tree {
	t := &Tree{
		payloadStart: payloadStart,
		payloadLen:   uint64(payloadLen),
		seed:         rand.Uint64(),
		nameSeed:     maphash.MakeSeed(),
		inodeSlots:   newSlots(),
		order:        newTreap(),
		ranges:       newTreap(),
		xslots:       newSlots(),
		bytes:        newArena(),
	}
	t.byIno.init()
	t.byName.init()
	return t
}

// Stats counts what a tree holds.
type Stats struct {
	Inodes, Names, Extents, Xattrs uint64
	Bytes                          uint64 // of files, mapped by extents
	Strings                        uint64 // bytes of names, targets and attributes, at most
	Memory                         uint64 // bytes of heap that the tree's tables take
}

// Stats returns the counts at once; it walks nothing.
func (t *Tree) Stats() Stats {
	return Stats{
		Inodes:  t.inodeSlots.live(),
		Names:   t.order.slots.live(),
		Extents: t.ranges.slots.live(),
		Xattrs:  t.xslots.live(),
		Bytes:   t.mapped,
		Strings: t.bytes.next * unit,
		Memory: t.inodes.memory() + t.inodeSlots.memory() + t.byIno.memory() +
			t.order.memory() + t.dirents.memory() + t.byName.memory() +
			t.ranges.memory() + t.extents.memory() +
			t.xattrs.memory() + t.xslots.memory() + t.bytes.memory(),
	}
}

// MaxIno returns the greatest inode number that the tree has ever held or was told of, 0 when none.
func (t *Tree) MaxIno() Ino { return t.maxIno }

// RaiseMaxIno tells the tree of a number that was used before its time: a checkpoint carries MaxIno, so that the
// number of an inode that was freed before the checkpoint is not handed out again. A smaller number changes nothing.
func (t *Tree) RaiseMaxIno(ino Ino) error {
	if ino > MaxInoValue {
		return ErrInvalid
	}
	t.maxIno = max(t.maxIno, ino)
	return nil
}
