package fs

import "github.com/hanwen/go-fuse/v2/fuse"

// What would change the tree is EROFS. Where the mount has MS_RDONLY the kernel says so itself; a mount without it asks.

// changes refuses a request that would change something.
func (f *FS) changes() fuse.Status {
	return fuse.EROFS
}

// SetAttr is chmod, chown, truncate and utimens.
func (f *FS) SetAttr(<-chan struct{}, *fuse.SetAttrIn, *fuse.AttrOut) fuse.Status { return f.changes() }

// Mknod makes a file, FIFO, socket or device.
func (f *FS) Mknod(<-chan struct{}, *fuse.MknodIn, string, *fuse.EntryOut) fuse.Status {
	return f.changes()
}

// Mkdir makes a directory.
func (f *FS) Mkdir(<-chan struct{}, *fuse.MkdirIn, string, *fuse.EntryOut) fuse.Status {
	return f.changes()
}

// Unlink removes a name.
func (f *FS) Unlink(<-chan struct{}, *fuse.InHeader, string) fuse.Status { return f.changes() }

// Rmdir removes a directory.
func (f *FS) Rmdir(<-chan struct{}, *fuse.InHeader, string) fuse.Status { return f.changes() }

// Rename moves a name; RENAME2 comes here too.
func (f *FS) Rename(<-chan struct{}, *fuse.RenameIn, string, string) fuse.Status { return f.changes() }

// Link adds a name.
func (f *FS) Link(<-chan struct{}, *fuse.LinkIn, string, *fuse.EntryOut) fuse.Status {
	return f.changes()
}

// Symlink makes a symlink.
func (f *FS) Symlink(<-chan struct{}, *fuse.InHeader, string, string, *fuse.EntryOut) fuse.Status {
	return f.changes()
}

// SetXAttr sets an extended attribute.
func (f *FS) SetXAttr(<-chan struct{}, *fuse.SetXAttrIn, string, []byte) fuse.Status {
	return f.changes()
}

// RemoveXAttr removes an extended attribute.
func (f *FS) RemoveXAttr(<-chan struct{}, *fuse.InHeader, string) fuse.Status { return f.changes() }

// Create makes a file and opens it.
func (f *FS) Create(<-chan struct{}, *fuse.CreateIn, string, *fuse.CreateOut) fuse.Status {
	return f.changes()
}

// Tmpfile makes a file without a name.
func (f *FS) Tmpfile(<-chan struct{}, *fuse.CreateIn, *fuse.CreateOut) fuse.Status {
	return f.changes()
}

// Write is never asked, since nothing is opened for writing.
func (f *FS) Write(<-chan struct{}, *fuse.WriteIn, []byte) (uint32, fuse.Status) {
	return 0, f.changes()
}

// Writev is what go-fuse calls for WRITE.
func (f *FS) Writev(<-chan struct{}, *fuse.WriteIn, [][]byte) (uint32, fuse.Status) {
	return 0, f.changes()
}

// CopyFileRange writes too.
func (f *FS) CopyFileRange(<-chan struct{}, *fuse.CopyFileRangeIn) (uint32, fuse.Status) {
	return 0, f.changes()
}

// Fallocate reserves space or makes holes.
func (f *FS) Fallocate(<-chan struct{}, *fuse.FallocateIn) fuse.Status { return f.changes() }

// Fsync has nothing to do: all that can be read is durable.
func (f *FS) Fsync(<-chan struct{}, *fuse.FsyncIn) fuse.Status {
	return fuse.OK
}

// Flush is a close(2) of a kernel that does not know FOPEN_NOFLUSH.
func (f *FS) Flush(<-chan struct{}, *fuse.FlushIn) fuse.Status {
	return fuse.OK
}

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
