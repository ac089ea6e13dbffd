package fs

import (
	"syscall"

	"github.com/hanwen/go-fuse/v2/fuse"

	"encfsrun/fs/vault/tree"
)

// changesAttr are the bits of SetAttrIn.Valid that name an attribute.
const changesAttr = fuse.FATTR_MODE | fuse.FATTR_UID | fuse.FATTR_GID | fuse.FATTR_SIZE | fuse.FATTR_ATIME | fuse.FATTR_MTIME

// SetAttr is chmod, chown, truncate and utimens. The kernel has checked who may.
func (f *FS) SetAttr(_ <-chan struct{}, in *fuse.SetAttrIn, out *fuse.AttrOut) fuse.Status {
	if status := f.mayChange(&in.InHeader); !status.Ok() {
		return status
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.setAttr(in); err != nil {
		return inodeErrno(err)
	}
	a, err := f.attr(tree.Ino(in.NodeId))
	if err != nil {
		return inodeErrno(err)
	}
	f.show(out, &a)
	return fuse.OK
}

func (f *FS) setAttr(in *fuse.SetAttrIn) error {
	a, err := f.attr(tree.Ino(in.NodeId))
	if err != nil {
		return err
	}
	old := a
	if err := f.checkSetAttr(in, &a); err != nil {
		return err
	}
	shrinks := in.Valid&fuse.FATTR_SIZE != 0 && in.Size <= a.Size
	if err := f.reserveFor(3, f.aclSize(a.Ino), shrinks); err != nil {
		return err
	}
	if err := f.makePendingRoom(); err != nil {
		return err
	}
	f.apply(in, &a)
	if in.Valid&fuse.FATTR_MODE != 0 {
		if err := f.chmodACL(&a); err != nil {
			return err
		}
	}
	if clearsPrivileges(in, &a) {
		if err := f.dropCapabilities(a.Ino); err != nil {
			return err
		}
	}
	if in.Valid&fuse.FATTR_SIZE != 0 {
		a.Size = old.Size
		return f.resize(a, in.Size)
	}
	f.pend(a)
	return nil
}

// checkSetAttr refuses what can't be.
func (f *FS) checkSetAttr(in *fuse.SetAttrIn, a *tree.Attr) error {
	if owner := f.opts.Owner; owner != nil {
		// Everything is shown as his, and stays it.
		if in.Valid&fuse.FATTR_UID != 0 && in.Uid != owner.UID || in.Valid&fuse.FATTR_GID != 0 && in.Gid != owner.GID {
			return errNotPermitted
		}
	}
	if in.Valid&changesAttr == 0 && a.Mode&(syscall.S_ISUID|syscall.S_ISGID) != 0 && !isDir(a.Mode) && !f.mayClear(in, a) {
		return errNotPermitted
	}
	if in.Valid&fuse.FATTR_SIZE != 0 {
		switch {
		case isDir(a.Mode):
			return tree.ErrIsDir
		case !isFile(a.Mode):
			return tree.ErrInvalid
		case in.Size > tree.MaxSize:
			return errTooLarge
		}
	}
	if in.Atimensec >= 1e9 && in.Valid&fuse.FATTR_ATIME != 0 || in.Mtimensec >= 1e9 && in.Valid&fuse.FATTR_MTIME != 0 {
		return tree.ErrInvalid
	}
	return nil
}

// mayClear says whether a request that names no attribute may clear setuid. It is chown(f, -1, -1), for which that is refused to
// all but the owner and root, by us alone; or the kernel does it before the contents change, for somebody who has the file open.
func (f *FS) mayClear(in *fuse.SetAttrIn, a *tree.Attr) bool {
	owner := a.UID
	if f.opts.Owner != nil {
		owner = f.opts.Owner.UID
	}
	return in.InHeader.Uid == 0 || in.InHeader.Uid == owner || f.files.isWritten(a.Ino)
}

// apply makes the changes that are attributes alone.
func (f *FS) apply(in *fuse.SetAttrIn, a *tree.Attr) {
	t := now()
	if in.Valid&fuse.FATTR_MODE != 0 {
		a.Mode = a.Mode&syscall.S_IFMT | in.Mode&0o7777
		f.dropForeignSetID(a)
	}
	if f.opts.Owner == nil {
		if in.Valid&fuse.FATTR_UID != 0 {
			a.UID = in.Uid
		}
		if in.Valid&fuse.FATTR_GID != 0 {
			a.GID = in.Gid
		}
	}
	if clearsPrivileges(in, a) && in.Valid&fuse.FATTR_MODE == 0 {
		dropSetID(a)
	}
	// ftruncate(2) always sets times, truncate(2) where the size changes; the kernel sends them with neither.
	if in.Valid&fuse.FATTR_SIZE != 0 {
		if in.Size == a.Size && in.Valid&(changesAttr|fuse.FATTR_FH) == fuse.FATTR_SIZE {
			return
		}
		a.Mtime = t
	}
	if in.Valid&fuse.FATTR_ATIME != 0 {
		a.Atime = tree.Time{Sec: int64(in.Atime), Nsec: in.Atimensec}
		if in.Valid&fuse.FATTR_ATIME_NOW != 0 {
			a.Atime = t
		}
	}
	if in.Valid&fuse.FATTR_MTIME != 0 {
		a.Mtime = tree.Time{Sec: int64(in.Mtime), Nsec: in.Mtimensec}
		if in.Valid&fuse.FATTR_MTIME_NOW != 0 {
			a.Mtime = t
		}
	}
	a.Ctime = t
}

// clearsPrivileges says whether a request takes away setuid, setgid and capabilities, as FUSE_HANDLE_KILLPRIV_V2 leaves it to us:
// chown always, truncate where the kernel says so. A request that names no attribute is what is left of chown(f, -1, -1), or of
// the kernel's own attempt to clear them before fallocate(2) and the like.
func clearsPrivileges(in *fuse.SetAttrIn, a *tree.Attr) bool {
	return !isDir(a.Mode) &&
		(in.Valid&(fuse.FATTR_UID|fuse.FATTR_GID|fuse.FATTR_KILL_SUIDGID) != 0 || in.Valid&changesAttr == 0)
}

// resize gives a file, whose other attributes are given too, another size. A smaller one is put at once, so that what is cut off is a
// hole when the file grows again.
func (f *FS) resize(a tree.Attr, size uint64) error {
	if size >= a.Size {
		a.Size = size
		f.pend(a)
		return nil
	}
	f.dirty.truncate(a.Ino, size)
	a.Size = size
	f.pend(a)
	return f.flush(a.Ino)
}
