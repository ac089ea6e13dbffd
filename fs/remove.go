package fs

import (
	"github.com/hanwen/go-fuse/v2/fuse"

	"encfsrun/fs/vault/tree"
)

// Unlink removes a name. What it named stays while it has other names, or while somebody has it open.
func (f *FS) Unlink(_ <-chan struct{}, h *fuse.InHeader, name string) fuse.Status {
	return f.removeName(h, name, false)
}

// Rmdir removes a directory, which must be empty.
func (f *FS) Rmdir(_ <-chan struct{}, h *fuse.InHeader, name string) fuse.Status {
	return f.removeName(h, name, true)
}

func (f *FS) removeName(h *fuse.InHeader, name string, directory bool) fuse.Status {
	if status := f.mayChange(h); !status.Ok() {
		return status
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	dir := tree.Ino(h.NodeId)
	ino, err := f.src.Lookup(dir, name)
	if err != nil {
		return errno(err)
	}
	a, err := f.attr(ino)
	switch {
	case err != nil:
		return inodeErrno(err)
	case directory && !isDir(a.Mode):
		return fuse.ENOTDIR
	case !directory && isDir(a.Mode):
		return fuse.EISDIR
	}
	if err := f.reserveRemoval(4, len(name)); err != nil {
		return errno(err)
	}
	if err := f.takeName(dir, name, ino); err != nil {
		return errno(err)
	}
	f.touch(dir, modified|inodeChanged, now())
	return fuse.OK
}

// takeName takes a name away from an inode. Its last one makes it an orphan, which goes when nobody uses it.
func (f *FS) takeName(dir tree.Ino, name string, ino tree.Ino) error {
	if err := f.store.Unlink(dir, name); err != nil {
		return err
	}
	f.touch(ino, inodeChanged, now())
	a, err := f.src.Attr(ino)
	if err != nil || a.Nlink > 0 {
		return err
	}
	f.orphans[ino] = struct{}{}
	return f.freeOrphan(ino)
}

// freeOrphan frees an inode without names that neither the kernel knows nor anybody has open.
func (f *FS) freeOrphan(ino tree.Ino) error {
	if _, orphan := f.orphans[ino]; !orphan || f.known.get(uint64(ino)) > 0 || f.files.isOpen(ino) {
		return nil
	}
	f.dirty.drop(ino)
	delete(f.pending, ino)
	delete(f.orphans, ino)
	f.changed()
	return f.store.Free(ino)
}

// mayFree is called when the kernel let go of an inode.
func (f *FS) mayFree(ino tree.Ino) {
	if f.store == nil {
		return
	}
	f.mu.RLock()
	_, orphan := f.orphans[ino]
	f.mu.RUnlock()
	if orphan {
		f.mu.Lock()
		defer f.mu.Unlock()
		f.freeOrphan(ino) // a store that fails says so to whoever syncs; recovery drops orphans
	}
}

// freeOrphans frees what the kernel has not forgotten: at an unmount it does so without saying.
func (f *FS) freeOrphans() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	for ino := range f.orphans {
		f.dirty.drop(ino)
		delete(f.pending, ino)
		delete(f.orphans, ino)
		if err := f.store.Free(ino); err != nil {
			return err
		}
	}
	return nil
}
