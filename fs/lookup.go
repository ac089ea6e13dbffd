package fs

import (
	"errors"

	"github.com/hanwen/go-fuse/v2/fuse"

	"encfsrun/fs/vault/tree"
)

// validSeconds is how long the kernel may keep what it was told, ten years: a read-only tree never changes.
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

// tell fills in an entry and counts a look-up, which the kernel gives back with FORGET.
func (f *FS) tell(ino tree.Ino, out *fuse.EntryOut) fuse.Status {
	a, err := f.src.Attr(ino)
	if err != nil {
		return inodeErrno(err)
	}
	f.known.add(uint64(ino))
	out.NodeId = uint64(ino)
	out.EntryValid = validSeconds
	out.AttrValid = validSeconds
	f.fill(&out.Attr, &a)
	return fuse.OK
}

// Forget takes look-ups back. BATCH_FORGET comes here too, one call for each inode.
func (f *FS) Forget(ino, n uint64) {
	f.known.sub(ino, n)
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
	return []byte(target), fuse.OK
}
