package fs

import (
	"errors"
	"fmt"

	"github.com/hanwen/go-fuse/v2/fuse"

	"encfsrun/fs/vault/tree"
)

// Flags of renameat2(2).
const (
	renameNoReplace = 1 << 0
	renameExchange  = 1 << 1
)

// Rename moves a name; RENAME2 comes here too. The kernel has checked permissions, that types fit and that no directory would
// come below itself.
func (f *FS) Rename(_ <-chan struct{}, in *fuse.RenameIn, oldName, newName string) fuse.Status {
	if status := f.mayChange(&in.InHeader); !status.Ok() {
		return status
	}
	if in.Flags&^(renameNoReplace|renameExchange) != 0 || in.Flags == renameNoReplace|renameExchange {
		return fuse.EINVAL
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	m := move{dir: tree.Ino(in.NodeId), name: oldName, newDir: tree.Ino(in.Newdir), newName: newName}
	if in.Flags == renameExchange {
		return errno(f.exchange(m))
	}
	return errno(f.rename(m, in.Flags == renameNoReplace))
}

type move struct {
	dir     tree.Ino
	name    string
	newDir  tree.Ino
	newName string
}

// ends looks up what a move is about; target is 0 where the new name is free.
func (f *FS) ends(m move) (ino, target tree.Ino, err error) {
	if ino, err = f.src.Lookup(m.dir, m.name); err != nil {
		return 0, 0, err
	}
	target, err = f.src.Lookup(m.newDir, m.newName)
	if errors.Is(err, tree.ErrNotFound) {
		target, err = 0, nil
	}
	return ino, target, err
}

func (f *FS) rename(m move, noReplace bool) error {
	ino, target, err := f.ends(m)
	if err != nil || ino == target && !noReplace {
		return err
	}
	if target != 0 {
		if noReplace {
			return tree.ErrExists
		}
		if err := f.replaceable(ino, target); err != nil {
			return err
		}
	}
	if below, err := f.isBelow(m.newDir, ino); err != nil || below {
		return errors.Join(err, tree.ErrInvalid)
	}
	if err := f.reserve(7, len(m.name)+2*len(m.newName)); err != nil {
		return err
	}
	if err := f.makePendingRoom(); err != nil {
		return err
	}
	if target != 0 {
		if err := f.takeName(m.newDir, m.newName, target); err != nil {
			return err
		}
	}
	if err := f.store.Rename(m.dir, m.name, m.newDir, m.newName); err != nil {
		return err
	}
	f.moved(m, ino)
	return nil
}

// replaceable says whether a rename may put one inode in the place of another.
func (f *FS) replaceable(ino, target tree.Ino) error {
	a, err := f.attr(ino)
	if err != nil {
		return err
	}
	b, err := f.attr(target)
	switch {
	case err != nil:
		return err
	case isDir(a.Mode) && !isDir(b.Mode):
		return tree.ErrNotDir
	case !isDir(a.Mode) && isDir(b.Mode):
		return tree.ErrIsDir
	case isDir(b.Mode) && b.Size > 0:
		return tree.ErrNotEmpty
	}
	return nil
}

// isBelow says whether a directory is an inode or lies somewhere below it.
func (f *FS) isBelow(dir, ino tree.Ino) (bool, error) {
	if a, err := f.attr(ino); err != nil || !isDir(a.Mode) {
		return false, err
	}
	for dir != ino && dir != tree.Root {
		var err error
		if dir, err = f.src.Parent(dir); err != nil {
			return false, err
		}
	}
	return dir == ino, nil
}

// exchange swaps what two names name, by way of a third that nobody sees: the lock is held.
func (f *FS) exchange(m move) error {
	ino, target, err := f.ends(m)
	switch {
	case err != nil || ino == target:
		return err
	case target == 0:
		return tree.ErrNotFound
	}
	for _, end := range []struct{ dir, ino tree.Ino }{{m.newDir, ino}, {m.dir, target}} {
		if below, err := f.isBelow(end.dir, end.ino); err != nil || below {
			return errors.Join(err, tree.ErrInvalid)
		}
	}
	aside, err := f.unusedName(m.dir)
	if err != nil {
		return err
	}
	if err := f.reserve(7, 2*(len(aside)+len(m.name)+len(m.newName))); err != nil {
		return err
	}
	if err := f.makePendingRoom(); err != nil {
		return err
	}
	if err := f.store.Rename(m.dir, m.name, m.dir, aside); err != nil {
		return err
	}
	if err := f.store.Rename(m.newDir, m.newName, m.dir, m.name); err != nil {
		return err
	}
	if err := f.store.Rename(m.dir, aside, m.newDir, m.newName); err != nil {
		return err
	}
	f.moved(m, ino, target)
	return nil
}

// unusedName returns a name that a directory does not have.
func (f *FS) unusedName(dir tree.Ino) (string, error) {
	for i := 0; ; i++ {
		name := fmt.Sprintf(".%d", i)
		if err := f.free(dir, name); !errors.Is(err, tree.ErrExists) {
			return name, err
		}
	}
}

// moved sets the times after a rename.
func (f *FS) moved(m move, inos ...tree.Ino) {
	t := now()
	f.touch(m.dir, modified|inodeChanged, t)
	f.touch(m.newDir, modified|inodeChanged, t)
	for _, ino := range inos {
		f.touch(ino, inodeChanged, t)
	}
}

// Link adds a name.
func (f *FS) Link(_ <-chan struct{}, in *fuse.LinkIn, name string, out *fuse.EntryOut) fuse.Status {
	if status := f.mayChange(&in.InHeader); !status.Ok() {
		return status
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	ino, dir := tree.Ino(in.Oldnodeid), tree.Ino(in.NodeId)
	if err := f.link(dir, name, ino); err != nil {
		return errno(err)
	}
	return f.tell(ino, out)
}

func (f *FS) link(dir tree.Ino, name string, ino tree.Ino) error {
	if err := f.free(dir, name); err != nil {
		return err
	}
	a, err := f.attr(ino)
	if err != nil {
		return err
	}
	d, err := f.attr(dir)
	switch {
	case err != nil:
		return err
	case isDir(a.Mode):
		return errNotPermitted
	case d.Nlink == 0:
		return tree.ErrNotFound
	}
	if err := f.reserve(3, len(name)); err != nil {
		return err
	}
	if err := f.makePendingRoom(); err != nil {
		return err
	}
	if err := f.store.Link(dir, name, ino); err != nil {
		return err
	}
	delete(f.orphans, ino)
	t := now()
	f.touch(dir, modified|inodeChanged, t)
	f.touch(ino, inodeChanged, t)
	return nil
}
