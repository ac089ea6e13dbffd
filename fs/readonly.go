package fs

import "github.com/hanwen/go-fuse/v2/fuse"

// Ioctl knows no request.
func (f *FS) Ioctl(<-chan struct{}, *fuse.IoctlIn, []byte, *fuse.IoctlOut, []byte) fuse.Status {
	return enotty
}

// GetLk and its kind are left to the kernel, which keeps locks itself when they are not negotiated. One that asks nonetheless is
// told so.
func (f *FS) GetLk(<-chan struct{}, *fuse.LkIn, *fuse.LkOut) fuse.Status { return fuse.ENOSYS }

// SetLk is left to the kernel, see GetLk.
func (f *FS) SetLk(<-chan struct{}, *fuse.LkIn) fuse.Status { return fuse.ENOSYS }

// SetLkw is left to the kernel, see GetLk.
func (f *FS) SetLkw(<-chan struct{}, *fuse.LkIn) fuse.Status { return fuse.ENOSYS }
