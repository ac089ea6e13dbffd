package fs

import (
	"syscall"

	"github.com/hanwen/go-fuse/v2/fuse"

	"encfsrun/fs/vault/tree"
)

// Flags of open(2) that come with requests.
const (
	oSync    = syscall.O_SYNC | syscall.O_DSYNC
	oNoAtime = syscall.O_NOATIME
)

// Write is never called: go-fuse has Writev.
func (f *FS) Write(cancel <-chan struct{}, in *fuse.WriteIn, data []byte) (uint32, fuse.Status) {
	return f.Writev(cancel, in, [][]byte{data})
}

// Writev is WRITE. The payload goes into dirty chunks and is wiped where it came in. Where the file is open for O_APPEND the
// kernel, which knows the size, has chosen the offset.
//
// The kernel sends pages of shared mappings without a caller (WRITE_CACHE). They are of somebody who was let in when he opened the
// file.
func (f *FS) Writev(_ <-chan struct{}, in *fuse.WriteIn, data [][]byte) (uint32, fuse.Status) {
	defer wipe(data)
	if f.store == nil || f.lost.Load() {
		return 0, fuse.EROFS
	}
	cached := in.WriteFlags&fuse.WRITE_CACHE != 0
	if !cached && !f.admit(&in.InHeader) {
		return 0, fuse.EACCES
	}
	n := 0
	for _, p := range data {
		n += len(p)
	}
	ino := tree.Ino(in.NodeId)
	if in.Offset > tree.MaxSize || uint64(n) > tree.MaxSize-in.Offset {
		return 0, efbig
	}
	if n > 0 {
		if err := f.write(&in.InHeader, ino, in.Offset, n, data, in.WriteFlags&fuse.WRITE_KILL_SUIDGID != 0); err != nil {
			return 0, inodeErrno(err)
		}
	}
	if in.Flags&oSync != 0 {
		f.waits(&in.InHeader)
		if err := f.Sync(); err != nil {
			return 0, errno(err)
		}
	}
	return uint32(n), fuse.OK
}

func (f *FS) write(h *fuse.InHeader, ino tree.Ino, off uint64, n int, data [][]byte, unprivileged bool) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	a, err := f.regular(ino)
	if err != nil {
		return err
	}
	// What is dirty already has its space.
	if err := f.reserve(3, n-int(f.dirty.dirtyIn(ino, off, uint64(n)))); err != nil {
		return err
	}
	if err := f.makePendingRoom(); err != nil {
		return err
	}
	if err := f.written(&a, unprivileged); err != nil {
		return err
	}
	a.Size = max(a.Size, off+uint64(n))
	f.pend(a)
	return f.keep(h, ino, off, data)
}

// regular returns the attributes of a regular file.
func (f *FS) regular(ino tree.Ino) (tree.Attr, error) {
	a, err := f.attr(ino)
	switch {
	case err != nil:
		return a, err
	case isDir(a.Mode):
		return a, tree.ErrIsDir
	case !isFile(a.Mode):
		return a, tree.ErrInvalid
	}
	return a, nil
}

// written notes in the attributes of a file that its contents changed: times, and the privileges that go with that.
func (f *FS) written(a *tree.Attr, unprivileged bool) error {
	if unprivileged {
		dropSetID(a)
	}
	f.dropForeignSetID(a)
	(modified | inodeChanged).set(a, now())
	return f.dropCapabilities(a.Ino)
}

// dropSetID clears setuid, and setgid of what the group may execute; without that bit it meant mandatory locks once.
func dropSetID(a *tree.Attr) {
	a.Mode &^= syscall.S_ISUID
	if a.Mode&syscall.S_IXGRP != 0 {
		a.Mode &^= syscall.S_ISGID
	}
}

// dropForeignSetID clears setuid and setgid of what is shown as somebody's but stored as another's. Who is shown as the owner may set
// them, and change the contents through a mapping, which clears nothing: so a program in a sandbox could leave a file that is setuid
// to its packed owner, root as a rule, and that an export by root would make one of the host's. Of a sandbox none are stored at all:
// its ids are not the host's.
func (f *FS) dropForeignSetID(a *tree.Attr) {
	owner := f.opts.Owner
	if owner == nil || isDir(a.Mode) {
		return
	}
	if a.UID != owner.UID || f.opts.RefuseOutsiders {
		a.Mode &^= syscall.S_ISUID
	}
	if a.GID != owner.GID || f.opts.RefuseOutsiders {
		a.Mode &^= syscall.S_ISGID
	}
}

const capabilityXattr = "security.capability"

// dropCapabilities takes a file's capabilities away when it changes: else whoever may write a file could gain them.
func (f *FS) dropCapabilities(ino tree.Ino) error {
	if f.src.Stats().Xattrs == 0 {
		return nil
	}
	if _, err := f.src.GetXattr(ino, capabilityXattr); err != nil {
		return nil
	}
	f.changed()
	return f.store.RemoveXattr(ino, capabilityXattr)
}

func isFile(mode uint32) bool { return mode&syscall.S_IFMT == syscall.S_IFREG }
func isDir(mode uint32) bool  { return mode&syscall.S_IFMT == syscall.S_IFDIR }
