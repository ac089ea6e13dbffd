package fs

import (
	"errors"

	"github.com/hanwen/go-fuse/v2/fuse"

	"encfsrun/fs/vault/tree"
)

// validSeconds is how long the kernel may keep what it was told, ten years: a read-only tree never changes, and of a writable one
// the kernel sees every change, for it is the only one that asks for any. It drops of what it keeps what it knows to have changed:
// size, times and blocks of a file with each write; the access time with each read; everything of a directory with each name that
// comes or goes; the change time of what is linked, unlinked, renamed or given an extended attribute; everything with an ACL.
const validSeconds = 10 * 365 * 24 * 60 * 60

// Lookup tells the kernel the inode of a name and counts that. A name that is missing is an entry too, without an inode, so that
// the kernel does not ask again: an interpreter looks for each module in every directory of its path.
func (f *FS) Lookup(_ <-chan struct{}, h *fuse.InHeader, name string, out *fuse.EntryOut) fuse.Status {
	if !f.admit(h) {
		return fuse.EACCES
	}
	if len(name) > tree.MaxName {
		return enametoolong // the kernel lets 1024 bytes through
	}
	f.mu.RLock()
	defer f.mu.RUnlock()
	ino, err := f.src.Lookup(tree.Ino(h.NodeId), name)
	if errors.Is(err, tree.ErrNotFound) {
		out.EntryValid = validSeconds
		return fuse.OK
	}
	if err != nil {
		return errno(err)
	}
	return f.tell(ino, out)
}

// tell fills in an entry and counts a look-up, which the kernel gives back with FORGET. f.mu is held, for reading at least: between
// the name and the count nobody may free the inode.
func (f *FS) tell(ino tree.Ino, out *fuse.EntryOut) fuse.Status {
	a, err := f.attr(ino)
	if err != nil {
		return inodeErrno(err)
	}
	f.known.add(uint64(ino))
	out.NodeId = uint64(ino)
	out.EntryValid = validSeconds
	out.AttrValid = f.attrValid(&a)
	f.fill(&out.Attr, &a)
	return fuse.OK
}

// Forget takes look-ups back. BATCH_FORGET comes here too, one call for each inode.
func (f *FS) Forget(ino, n uint64) {
	if f.known.sub(ino, n) == 0 {
		f.mayFree(tree.Ino(ino))
	}
}

// Readlink returns the target of a symlink.
func (f *FS) Readlink(_ <-chan struct{}, h *fuse.InHeader) ([]byte, fuse.Status) {
	if !f.admit(h) {
		return nil, fuse.EACCES
	}
	target, err := f.src.Readlink(tree.Ino(h.NodeId))
	if err != nil {
		return nil, inodeErrno(err)
	}
	f.noteAccess(tree.Ino(h.NodeId), 0)
	return []byte(target), fuse.OK
}
