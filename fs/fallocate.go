package fs

import (
	"github.com/hanwen/go-fuse/v2/fuse"

	"encfsrun/fs/vault"
	"encfsrun/fs/vault/tree"
)

// Modes of fallocate(2).
const (
	fallocKeepSize  = 0x01
	fallocPunchHole = 0x02
	fallocZeroRange = 0x10
)

// Fallocate makes files longer and makes holes. Space can't be set aside in a log for the bytes of one file, so that of a plain
// request is only asked for.
func (f *FS) Fallocate(_ <-chan struct{}, in *fuse.FallocateIn) fuse.Status {
	if status := f.mayChange(&in.InHeader); !status.Ok() {
		return status
	}
	keepSize := in.Mode&fallocKeepSize != 0
	switch in.Mode &^ fallocKeepSize {
	case 0, fallocZeroRange:
	case fallocPunchHole:
		if !keepSize {
			return enotsup
		}
	default:
		return enotsup
	}
	if in.Length == 0 || in.Offset > tree.MaxSize {
		return fuse.EINVAL
	}
	if in.Length > tree.MaxSize-in.Offset {
		return efbig
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	return inodeErrno(f.fallocate(in, keepSize))
}

func (f *FS) fallocate(in *fuse.FallocateIn, keepSize bool) error {
	a, err := f.regular(tree.Ino(in.NodeId))
	if err != nil {
		return err
	}
	holes := in.Mode&(fallocPunchHole|fallocZeroRange) != 0
	if !holes {
		if space, err := f.store.Space(); err == nil && in.Length > space.Free {
			return vault.ErrNoSpace
		}
	}
	if err := f.reserveFor(3, 0, in.Mode&fallocPunchHole != 0); err != nil {
		return err
	}
	if err := f.makePendingRoom(); err != nil {
		return err
	}
	if holes {
		if err := f.flush(a.Ino); err != nil {
			return err
		}
		if in.Offset < a.Size {
			f.changed()
			if err := f.store.Clear(a.Ino, in.Offset, min(in.Length, a.Size-in.Offset)); err != nil {
				return err
			}
		}
	}
	if err := f.written(&a, false); err != nil {
		return err
	}
	if !keepSize {
		a.Size = max(a.Size, in.Offset+in.Length)
	}
	f.pend(a)
	return nil
}
