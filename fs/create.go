package fs

import (
	"errors"
	"syscall"

	"github.com/hanwen/go-fuse/v2/fuse"

	"encfsrun/fs/vault/tree"
)

// mayChange says whether a request may change something: EROFS where the mount has no store, or one that failed.
func (f *FS) mayChange(h *fuse.InHeader) fuse.Status {
	if f.store == nil || f.lost.Load() {
		return fuse.EROFS
	}
	if !f.admit(h) {
		return fuse.EACCES
	}
	return fuse.OK
}

// node is an inode to be made.
type newNode struct {
	dir    tree.Ino
	name   string // empty: an orphan
	mode   uint32 // with the type, before the umask
	umask  uint32
	rdev   uint32
	target string // of a symlink
	caller *fuse.InHeader
}

// Mknod makes a file, FIFO, socket or device.
func (f *FS) Mknod(_ <-chan struct{}, in *fuse.MknodIn, name string, out *fuse.EntryOut) fuse.Status {
	return f.enter(out, newNode{dir: tree.Ino(in.NodeId), name: name, mode: in.Mode, umask: in.Umask, rdev: in.Rdev, caller: &in.InHeader})
}

// Mkdir makes a directory.
func (f *FS) Mkdir(_ <-chan struct{}, in *fuse.MkdirIn, name string, out *fuse.EntryOut) fuse.Status {
	mode := in.Mode&07777 | syscall.S_IFDIR
	return f.enter(out, newNode{dir: tree.Ino(in.NodeId), name: name, mode: mode, umask: in.Umask, caller: &in.InHeader})
}

// Symlink makes a symlink.
func (f *FS) Symlink(_ <-chan struct{}, h *fuse.InHeader, target, name string, out *fuse.EntryOut) fuse.Status {
	if len(target) > tree.MaxTarget {
		return enametoolong
	}
	return f.enter(out, newNode{dir: tree.Ino(h.NodeId), name: name, mode: syscall.S_IFLNK | 0o777, target: target, caller: h})
}

// enter makes an inode and tells the kernel of it.
func (f *FS) enter(out *fuse.EntryOut, n newNode) fuse.Status {
	if status := f.mayChange(n.caller); !status.Ok() {
		return status
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	ino, err := f.make(n)
	if err != nil {
		return errno(err)
	}
	return f.tell(ino, out)
}

// Create makes a file and opens it.
func (f *FS) Create(_ <-chan struct{}, in *fuse.CreateIn, name string, out *fuse.CreateOut) fuse.Status {
	return f.createOpen(in, name, out)
}

// Tmpfile makes a file without a name and opens it. link(2) may give it one.
func (f *FS) Tmpfile(_ <-chan struct{}, in *fuse.CreateIn, out *fuse.CreateOut) fuse.Status {
	return f.createOpen(in, "", out)
}

func (f *FS) createOpen(in *fuse.CreateIn, name string, out *fuse.CreateOut) fuse.Status {
	if status := f.mayChange(&in.InHeader); !status.Ok() {
		return status
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	mode := in.Mode&07777 | syscall.S_IFREG
	ino, err := f.make(newNode{dir: tree.Ino(in.NodeId), name: name, mode: mode, umask: in.Umask, caller: &in.InHeader})
	if err != nil {
		return errno(err)
	}
	if status := f.tell(ino, &out.EntryOut); !status.Ok() {
		return status
	}
	f.files.acquire(ino, writes(in.Flags))
	out.OpenFlags = f.openFlags()
	return fuse.OK
}

// make makes an inode and its name. All that can be refused is refused before anything changes.
func (f *FS) make(n newNode) (tree.Ino, error) {
	dir, err := f.attr(n.dir)
	if err != nil {
		return 0, err
	}
	if !isDir(dir.Mode) {
		return 0, tree.ErrNotDir
	}
	if n.name != "" {
		if err := f.free(n.dir, n.name); err != nil {
			return 0, err
		}
		if dir.Nlink == 0 {
			return 0, tree.ErrNotFound
		}
	}
	t := now()
	a := tree.Attr{Mode: n.mode, Rdev: n.rdev, Atime: t, Mtime: t, Ctime: t}
	f.own(&a, &dir, n.caller)
	f.dropForeignSetID(&a)
	acls, err := f.inherit(&a, &dir, n.umask)
	if err != nil {
		return 0, err
	}
	// The inode, its target, two ACLs and its name; the directory; and that it goes again, where it has no name.
	if err := f.reserve(7, len(n.name)+len(n.target)+acls.size()); err != nil {
		return 0, err
	}
	if err := f.makePendingRoom(); err != nil {
		return 0, err
	}
	a.Ino = f.store.NewIno()
	if err := f.place(a, n, acls); err != nil {
		return 0, err
	}
	if n.name == "" {
		f.orphans[a.Ino] = struct{}{}
	} else {
		f.touch(n.dir, modified|inodeChanged, t)
	}
	return a.Ino, nil
}

// place puts a new inode into the tree. Where the tree is full, nothing of it stays.
func (f *FS) place(a tree.Attr, n newNode, acls inherited) error {
	if err := f.put(a); err != nil {
		return err
	}
	err := acls.set(f.store, a.Ino)
	if err == nil && n.target != "" {
		err = f.store.SetTarget(a.Ino, n.target)
	}
	if err == nil && n.name != "" {
		err = f.store.Link(n.dir, n.name, a.Ino)
	}
	if err != nil {
		return errors.Join(err, f.store.Free(a.Ino))
	}
	return nil
}

// free says whether a name can be made in a directory.
func (f *FS) free(dir tree.Ino, name string) error {
	_, err := f.src.Lookup(dir, name)
	switch {
	case err == nil:
		return tree.ErrExists
	case errors.Is(err, tree.ErrNotFound):
		return nil
	}
	return err
}

// own gives a new inode its owner: the caller, and the directory's group where the directory is setgid. Where everything is shown
// as somebody's, what is stored goes on as it is in the directory: ids of this machine, or of a sandbox, mean nothing in the vault.
func (f *FS) own(a, dir *tree.Attr, caller *fuse.InHeader) {
	a.UID, a.GID = caller.Uid, caller.Gid
	if f.opts.Owner != nil {
		a.UID, a.GID = dir.UID, dir.GID
	}
	if dir.Mode&syscall.S_ISGID != 0 {
		a.GID = dir.GID
		if isDir(a.Mode) {
			a.Mode |= syscall.S_ISGID
		}
	}
}

// writes says whether a file is opened for writing.
func writes(flags uint32) bool { return flags&syscall.O_ACCMODE != syscall.O_RDONLY }
