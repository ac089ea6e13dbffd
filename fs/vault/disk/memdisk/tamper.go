package memdisk

import (
	"io"
	"io/fs"
	"maps"
	"path"
	"slices"
	"syscall"
)

// What stands here is done to the disk from outside: by the adversary who holds it,
// or by a test. It is not counted, no hook sees it, it works after a power cut, and
// its changes are durable at once.

// ReadFile gives a file as reads show it.
func (d *Disk) ReadFile(name string) ([]byte, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	n, err := d.lookup(name)
	if err == nil && n.dir != nil {
		err = syscall.EISDIR
	}
	if err != nil {
		return nil, &fs.PathError{Op: "readfile", Path: name, Err: err}
	}
	data := make([]byte, n.content.size)
	if _, err := n.content.readAt(data, 0); err != nil && err != io.EOF {
		return nil, &fs.PathError{Op: "readfile", Path: name, Err: err}
	}
	return data, nil
}

// WriteFile gives a file these bytes alone; it and the directories above it are
// made where they are missing.
func (d *Disk) WriteFile(name string, data []byte) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	elems := elements(name)
	if len(elems) == 0 {
		return &fs.PathError{Op: "writefile", Path: name, Err: syscall.EISDIR}
	}
	dir, err := d.makeDirs(elems[:len(elems)-1])
	if err != nil {
		return &fs.PathError{Op: "writefile", Path: name, Err: err}
	}
	base := elems[len(elems)-1]
	n := dir.entries[base]
	if n == nil {
		n = &node{perm: 0o644}
	}
	if n.dir != nil {
		return &fs.PathError{Op: "writefile", Path: name, Err: syscall.EISDIR}
	}
	n.content = content{}
	n.content.writeAt(data, 0)
	n.content.sync()
	dir.settle(base, n)
	return nil
}

// makeDirs goes down from the root and makes what is missing; every directory on the
// way is durable afterwards.
func (d *Disk) makeDirs(elems []string) (*directory, error) {
	dir := d.root.dir
	for _, elem := range elems {
		next := dir.entries[elem]
		if next == nil {
			next = newDir(0o755)
		}
		if next.dir == nil {
			return nil, syscall.ENOTDIR
		}
		dir.settle(elem, next)
		dir = next.dir
	}
	return dir, nil
}

// Delete removes a file, or a directory with all that is in it.
func (d *Disk) Delete(name string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	parent, base, n, err := d.lookupParent(name)
	if err == nil && n == nil {
		err = syscall.ENOENT
	}
	if err != nil {
		return &fs.PathError{Op: "delete", Path: name, Err: err}
	}
	parent.settle(base, nil)
	return nil
}

// Files gives the full names of all regular files, sorted, each beginning with "/".
func (d *Disk) Files() []string {
	d.mu.Lock()
	defer d.mu.Unlock()
	var names []string
	var visit func(at string, n *node)
	visit = func(at string, n *node) {
		if n.dir == nil {
			names = append(names, at)
			return
		}
		for base, child := range n.dir.entries {
			visit(path.Join(at, base), child)
		}
	}
	visit("/", d.root)
	slices.Sort(names)
	return names
}

// Equal says whether look-ups and reads show the same names, kinds and bytes on
// both disks, durable or not. Permission bits are not compared.
func (d *Disk) Equal(other *Disk) bool {
	// A copy each, so that two disks compared both ways at once can't wait for
	// each other's lock.
	return equal(d.Clone().root, other.Clone().root)
}

func equal(a, b *node) bool {
	if a.dir == nil || b.dir == nil {
		return a.dir == nil && b.dir == nil && a.content.equal(&b.content)
	}
	return maps.EqualFunc(a.dir.entries, b.dir.entries, equal)
}
