package memdisk

import (
	"errors"
	"io/fs"
	"maps"
	"slices"
	"strings"
	"syscall"

	"encfsrun/fs/vault/disk"
)

// Open implements disk.FS.
func (d *Disk) Open(name string) (disk.File, error) {
	return d.open(Op{Kind: OpOpen, Name: name})
}

// OpenWrite implements disk.FS.
func (d *Disk) OpenWrite(name string) (disk.File, error) {
	return d.open(Op{Kind: OpOpenWrite, Name: name})
}

func (d *Disk) open(op Op) (disk.File, error) {
	err := d.start(op)
	defer d.mu.Unlock()
	if err != nil {
		return nil, op.fail(err)
	}
	n, err := d.lookup(op.Name)
	if err == nil && n.dir != nil {
		err = disk.ErrNotRegular
	}
	if err != nil {
		return nil, op.fail(err)
	}
	return &file{disk: d, node: n, name: op.Name, writable: op.Kind == OpOpenWrite}, nil
}

// Create implements disk.FS.
func (d *Disk) Create(name string, perm fs.FileMode) (disk.File, error) {
	op := Op{Kind: OpCreate, Name: name}
	n := &node{perm: perm.Perm()}
	if err := d.add(op, n); err != nil {
		return nil, err
	}
	return &file{disk: d, node: n, name: name, writable: true}, nil
}

// Mkdir implements disk.FS.
func (d *Disk) Mkdir(name string, perm fs.FileMode) error {
	return d.add(Op{Kind: OpMkdir, Name: name}, newDir(perm.Perm()))
}

// add puts a new node under a name that is free.
func (d *Disk) add(op Op, n *node) error {
	err := d.start(op)
	defer d.mu.Unlock()
	if err != nil {
		return op.fail(err)
	}
	parent, base, present, err := d.lookupParent(op.Name)
	if errors.Is(err, syscall.EBUSY) || present != nil {
		err = syscall.EEXIST
	}
	if err != nil {
		return op.fail(err)
	}
	parent.set(base, n, nil)
	return nil
}

// Rename implements disk.FS.
func (d *Disk) Rename(oldname, newname string) error {
	return d.rename(Op{Kind: OpRename, Name: oldname, NewName: newname})
}

// RenameNoReplace implements disk.FS.
func (d *Disk) RenameNoReplace(oldname, newname string) error {
	return d.rename(Op{Kind: OpRenameNoReplace, Name: oldname, NewName: newname})
}

func (d *Disk) rename(op Op) error {
	err := d.start(op)
	defer d.mu.Unlock()
	if err != nil {
		return op.fail(err)
	}
	from, oldBase, moved, err := d.lookupParent(op.Name)
	if err != nil {
		return op.fail(err)
	}
	to, newBase, replaced, err := d.lookupParent(op.NewName)
	if err != nil {
		return op.fail(err)
	}
	if err := checkRename(op, moved, replaced); err != nil {
		return op.fail(err)
	}
	if moved == replaced {
		return nil
	}
	r := new(rename)
	to.set(newBase, moved, r)
	from.set(oldBase, nil, r)
	return nil
}

// checkRename refuses what rename(2) refuses, with its errors.
func checkRename(op Op, moved, replaced *node) error {
	switch {
	case moved == nil:
		return syscall.ENOENT
	case replaced != nil && op.Kind == OpRenameNoReplace:
		return syscall.EEXIST
	case moved.dir != nil && isBelow(op.NewName, op.Name):
		return syscall.EINVAL
	case replaced == nil || moved == replaced:
		return nil
	case moved.dir == nil && replaced.dir != nil:
		return syscall.EISDIR
	case moved.dir != nil && replaced.dir == nil:
		return syscall.ENOTDIR
	case replaced.dir != nil && len(replaced.dir.entries) > 0:
		return syscall.ENOTEMPTY
	}
	return nil
}

// isBelow says whether name lies inside dir.
func isBelow(name, dir string) bool {
	return strings.HasPrefix(strings.Join(elements(name), "/"), strings.Join(elements(dir), "/")+"/")
}

// Remove implements disk.FS.
func (d *Disk) Remove(name string) error {
	op := Op{Kind: OpRemove, Name: name}
	err := d.start(op)
	defer d.mu.Unlock()
	if err != nil {
		return op.fail(err)
	}
	parent, base, n, err := d.lookupParent(name)
	switch {
	case err != nil:
	case n == nil:
		err = syscall.ENOENT
	case n.dir != nil && len(n.dir.entries) > 0:
		err = syscall.ENOTEMPTY
	}
	if err != nil {
		return op.fail(err)
	}
	parent.set(base, nil, nil)
	return nil
}

// List implements disk.FS.
func (d *Disk) List(dir string) ([]string, error) {
	n, err := d.startDir(Op{Kind: OpList, Name: dir})
	defer d.mu.Unlock()
	if err != nil {
		return nil, err
	}
	return slices.Sorted(maps.Keys(n.dir.entries)), nil
}

// SyncDir implements disk.FS. When a hook makes it fail the changes stay pending,
// as in a file system's journal.
func (d *Disk) SyncDir(dir string) error {
	n, err := d.startDir(Op{Kind: OpSyncDir, Name: dir})
	defer d.mu.Unlock()
	if err != nil {
		return err
	}
	n.dir.sync()
	return nil
}

// startDir starts an operation on a directory, and holds d.mu in every case.
func (d *Disk) startDir(op Op) (*node, error) {
	if err := d.start(op); err != nil {
		return nil, op.fail(err)
	}
	n, err := d.lookup(op.Name)
	if err == nil && n.dir == nil {
		err = syscall.ENOTDIR
	}
	if err != nil {
		return nil, op.fail(err)
	}
	return n, nil
}

// Lstat implements disk.FS.
func (d *Disk) Lstat(name string) (disk.Info, error) {
	op := Op{Kind: OpLstat, Name: name}
	err := d.start(op)
	defer d.mu.Unlock()
	if err != nil {
		return disk.Info{}, op.fail(err)
	}
	n, err := d.lookup(name)
	if err != nil {
		return disk.Info{}, op.fail(err)
	}
	if n.dir != nil {
		return disk.Info{Kind: disk.KindDir, Mode: n.perm, Own: true}, nil
	}
	return disk.Info{Kind: disk.KindFile, Size: n.content.size, Mode: n.perm, Own: true}, nil
}
