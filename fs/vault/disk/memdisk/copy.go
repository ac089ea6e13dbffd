package memdisk

import (
	"errors"
	"io"
	"io/fs"
	"path"

	"encfsrun/fs/vault/disk"
)

// copyChunk is how much of a file is copied at once, in bytes.
const copyChunk = 1 << 20

// Load copies the file or the tree `from` of another file system to the name `to`
// of d, in place of what is there: durable at once, and unseen by d's hook. Only
// directories and regular files can be copied, else disk.ErrNotRegular.
func (d *Disk) Load(fsys disk.FS, from, to string) error {
	const name = "/loaded"
	loaded := New()
	if err := copyTree(loaded, name, fsys, from); err != nil {
		return err
	}
	n := loaded.Crash(Keep, 0).root.dir.entries[path.Base(name)]

	d.mu.Lock()
	defer d.mu.Unlock()
	elems := elements(to)
	if len(elems) == 0 {
		if n.dir == nil {
			return &fs.PathError{Op: "load", Path: from, Err: errors.New("the root must be a directory")}
		}
		d.root = n
		return nil
	}
	parent, err := d.makeDirs(elems[:len(elems)-1])
	if err != nil {
		return &fs.PathError{Op: "load", Path: to, Err: err}
	}
	parent.settle(elems[len(elems)-1], n)
	return nil
}

// Store copies the file or the tree `from` of d, as reads show it and unseen by its
// hook, to the name `to` of another file system, where it must not exist. Nothing
// is synced.
func (d *Disk) Store(fsys disk.FS, from, to string) error {
	return copyTree(fsys, to, d.Clone(), from)
}

func copyTree(dst disk.FS, to string, src disk.FS, from string) error {
	info, err := src.Lstat(from)
	if err != nil {
		return err
	}
	switch info.Kind {
	case disk.KindFile:
		return copyFile(dst, to, src, from, info.Mode)
	case disk.KindDir:
	default:
		return &fs.PathError{Op: "copy", Path: from, Err: disk.ErrNotRegular}
	}
	if err := dst.Mkdir(to, info.Mode); err != nil {
		return err
	}
	names, err := src.List(from)
	if err != nil {
		return err
	}
	for _, name := range names {
		if err := copyTree(dst, path.Join(to, name), src, path.Join(from, name)); err != nil {
			return err
		}
	}
	return nil
}

func copyFile(dst disk.FS, to string, src disk.FS, from string, perm fs.FileMode) error {
	r, err := src.Open(from)
	if err != nil {
		return err
	}
	defer r.Close()
	w, err := dst.Create(to, perm)
	if err != nil {
		return err
	}
	_, err = io.CopyBuffer(io.NewOffsetWriter(w, 0), io.NewSectionReader(r, 0, 1<<62), make([]byte, copyChunk))
	return errors.Join(err, w.Close())
}
