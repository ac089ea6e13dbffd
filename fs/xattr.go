package fs

import (
	"slices"
	"strings"

	"github.com/hanwen/go-fuse/v2/fuse"

	"encfsrun/fs/vault/tree"
)

// noXattrs is the answer where nothing in the tree has an extended attribute. After it the kernel does not ask again, which ls -l
// would let it do two times for each file.
const noXattrs = fuse.ENOSYS

// GetXAttr copies the value of an extended attribute into dest and returns its size; an empty dest asks for the size alone.
func (f *FS) GetXAttr(_ <-chan struct{}, h *fuse.InHeader, name string, dest []byte) (uint32, fuse.Status) {
	if !f.admit(h) {
		return 0, fuse.EACCES
	}
	if f.plain {
		return 0, noXattrs
	}
	value, err := f.src.GetXattr(tree.Ino(h.NodeId), name)
	if err != nil {
		return 0, inodeErrno(err)
	}
	size := uint32(len(value))
	switch {
	case len(dest) == 0:
		return size, fuse.OK
	case len(dest) < len(value):
		return size, fuse.ERANGE
	}
	copy(dest, value)
	return size, fuse.OK
}

// ListXAttr puts the names of an inode's extended attributes into dest, each with a NUL behind it, and returns their size; an
// empty dest asks for the size alone.
func (f *FS) ListXAttr(_ <-chan struct{}, h *fuse.InHeader, dest []byte) (uint32, fuse.Status) {
	if !f.admit(h) {
		return 0, fuse.EACCES
	}
	if f.plain {
		return 0, noXattrs
	}
	names, err := f.src.ListXattr(tree.Ino(h.NodeId))
	if err != nil {
		return 0, inodeErrno(err)
	}
	if h.Uid != 0 { // names too are told to nobody else
		names = slices.DeleteFunc(names, func(name string) bool { return strings.HasPrefix(name, "trusted.") })
	}
	size := 0
	for _, name := range names {
		size += len(name) + 1
	}
	switch {
	case len(dest) == 0:
		return uint32(size), fuse.OK
	case len(dest) < size:
		return uint32(size), fuse.ERANGE
	}
	at := 0
	for _, name := range names {
		at += copy(dest[at:], name)
		dest[at] = 0
		at++
	}
	return uint32(size), fuse.OK
}
