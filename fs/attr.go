package fs

import (
	"github.com/hanwen/go-fuse/v2/fuse"

	"encfsrun/fs/vault/tree"
)

const (
	// preferredIO is st_blksize in bytes, from which stdio and Python take the size of their buffers: without a page cache
	// every read(2) is a round trip of some 30 µs, so larger than a page. A power of two.
	preferredIO = 64 << 10
	// statfsBlock is the unit of statfs in bytes.
	statfsBlock = 4 << 10
	// maxInodes is how many inodes a tree holds at most.
	maxInodes = 1<<32 - 1
)

// fill translates the attributes of an inode.
func (f *FS) fill(out *fuse.Attr, a *tree.Attr) {
	out.Ino = uint64(a.Ino)
	out.Size = a.Size
	out.Blocks = a.Blocks
	out.Atime, out.Atimensec = uint64(a.Atime.Sec), a.Atime.Nsec
	out.Mtime, out.Mtimensec = uint64(a.Mtime.Sec), a.Mtime.Nsec
	out.Ctime, out.Ctimensec = uint64(a.Ctime.Sec), a.Ctime.Nsec
	out.Mode = a.Mode
	out.Nlink = a.Nlink
	out.Uid, out.Gid = a.UID, a.GID
	if f.opts.Owner != nil {
		out.Uid, out.Gid = f.opts.Owner.UID, f.opts.Owner.GID
	}
	out.Rdev = a.Rdev
	out.Blksize = preferredIO
}

// GetAttr answers stat(2) where the kernel has not kept the answer.
func (f *FS) GetAttr(_ <-chan struct{}, in *fuse.GetAttrIn, out *fuse.AttrOut) fuse.Status {
	if !f.admit(&in.InHeader) {
		return fuse.EACCES
	}
	f.mu.RLock()
	defer f.mu.RUnlock()
	a, err := f.attr(tree.Ino(in.NodeId))
	if err != nil {
		return inodeErrno(err)
	}
	f.show(out, &a)
	return fuse.OK
}

// show answers with attributes.
func (f *FS) show(out *fuse.AttrOut, a *tree.Attr) {
	out.AttrValid = f.attrValid(a)
	f.fill(&out.Attr, a)
}

// attrValid returns for how many seconds the kernel may keep attributes. A file's number of blocks is exact to one while parts of
// it wait to be flushed beside others that lie in the log, and the kernel does not see the flush.
func (f *FS) attrValid(a *tree.Attr) uint64 {
	if d := f.dirty.files[a.Ino]; d != nil && d.fresh > 0 && a.Blocks > d.fresh/512+1 {
		return 0
	}
	return validSeconds
}

// Statx would add a time of creation, which a vault does not store. After ENOSYS the kernel asks by GETATTR for good.
func (f *FS) Statx(<-chan struct{}, *fuse.StatxIn, *fuse.StatxOut) fuse.Status { return fuse.ENOSYS }

// Access is never asked under default_permissions. If the mount lacks that, nobody has checked anything: refuse.
func (f *FS) Access(<-chan struct{}, *fuse.AccessIn) fuse.Status { return fuse.EACCES }

// StatFs tells the size of the tree and what is free: in a read-only mount, nothing.
func (f *FS) StatFs(_ <-chan struct{}, h *fuse.InHeader, out *fuse.StatfsOut) fuse.Status {
	if !f.admit(h) {
		return fuse.EACCES
	}
	size := f.src.Stats()
	out.Bsize = statfsBlock
	out.Frsize = statfsBlock
	out.Blocks = size.Bytes/statfsBlock + min(size.Bytes%statfsBlock, 1)
	out.Files = size.Inodes
	if f.store != nil {
		out.Bfree = f.freeBytes() / statfsBlock
		out.Bavail = out.Bfree
		out.Blocks += out.Bfree
		out.Ffree = maxInodes - min(size.Inodes, maxInodes)
		out.Files += out.Ffree
	}
	out.NameLen = tree.MaxName
	return fuse.OK
}
