package fs

import (
	"errors"
	"strings"

	"github.com/hanwen/go-fuse/v2/fuse"

	"encfsrun/fs/vault/tree"
)

// Flags of setxattr(2).
const (
	xattrCreate  = 1
	xattrReplace = 2
)

// SetXAttr sets an extended attribute.
func (f *FS) SetXAttr(_ <-chan struct{}, in *fuse.SetXAttrIn, name string, value []byte) fuse.Status {
	if status := f.mayChange(&in.InHeader); !status.Ok() {
		return status
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	return inodeErrno(f.setXattr(in, name, value))
}

// checkXattrName refuses namespaces that Linux does not have.
func checkXattrName(name string) error {
	if name == accessACL || name == defaultACL {
		return nil
	}
	for _, space := range []string{"user.", "trusted.", "security."} {
		if rest, ok := strings.CutPrefix(name, space); ok {
			if rest == "" {
				return tree.ErrInvalid
			}
			return nil
		}
	}
	return errNotSupported
}

func (f *FS) setXattr(in *fuse.SetXAttrIn, name string, value []byte) error {
	if err := checkXattrName(name); err != nil {
		return err
	}
	ino := tree.Ino(in.NodeId)
	a, err := f.attr(ino)
	if err != nil {
		return err
	}
	_, err = f.src.GetXattr(ino, name)
	exists := err == nil
	switch {
	case !exists && !errors.Is(err, tree.ErrNoXattr):
		return err
	case exists && in.Flags&xattrCreate != 0:
		return tree.ErrExists
	case !exists && in.Flags&xattrReplace != 0:
		return tree.ErrNoXattr
	}
	if err := f.reserve(2, len(name)+len(value)); err != nil {
		return err
	}
	if err := f.makePendingRoom(); err != nil {
		return err
	}
	store := true
	if name == accessACL {
		if store, err = f.setAccessACL(&a, value, in.SetXAttrFlags&fuse.SETXATTR_ACL_KILL_SGID != 0); err != nil {
			return err
		}
	}
	switch {
	case store:
		err = f.store.SetXattr(ino, name, value)
	case exists:
		err = f.store.RemoveXattr(ino, name)
	}
	if err != nil {
		return err
	}
	inodeChanged.set(&a, now())
	f.pend(a)
	return nil
}

// RemoveXAttr removes an extended attribute.
func (f *FS) RemoveXAttr(_ <-chan struct{}, h *fuse.InHeader, name string) fuse.Status {
	if status := f.mayChange(h); !status.Ok() {
		return status
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	return inodeErrno(f.removeXattr(tree.Ino(h.NodeId), name))
}

func (f *FS) removeXattr(ino tree.Ino, name string) error {
	if err := checkXattrName(name); err != nil {
		return err
	}
	if err := f.reserveRemoval(2, len(name)); err != nil {
		return err
	}
	err := f.store.RemoveXattr(ino, name)
	if noACL := errors.Is(err, tree.ErrNoXattr) && (name == accessACL || name == defaultACL); err != nil && !noACL {
		return err
	}
	f.touch(ino, inodeChanged, now())
	return nil
}
