package memdisk

import (
	"io/fs"
	"maps"
	"path"
	"slices"
	"strings"
	"syscall"
)

// node is a file or a directory, whatever its names.
type node struct {
	perm    fs.FileMode
	dir     *directory // nil: a file
	content content
	locks   map[int64]*file // who holds which byte

	reserved int64 // bytes set aside for it; no crash and no copy keeps them
}

// allocated gives the bytes that a file takes of the disk's capacity.
func (n *node) allocated() int64 { return roundUp(max(n.content.size, n.reserved)) }

// directory is a directory's entries, and what the medium knows of them.
type directory struct {
	entries map[string]*node // as look-ups show them
	durable map[string]*node // on the medium; nil when nothing is pending
	pending []change         // from durable to entries, oldest first
}

// change is one change of one entry that was not synced yet.
type change struct {
	name   string
	node   *node   // nil: the entry goes
	rename *rename // what this is one half of, or nil
}

// rename ties the two halves of a rename together. Once the directory of one half
// was synced the other half is durable too.
type rename struct {
	synced bool
}

func newDir(perm fs.FileMode) *node {
	return &node{perm: perm, dir: &directory{entries: make(map[string]*node)}}
}

// set changes an entry; n is nil to remove it.
func (d *directory) set(name string, n *node, r *rename) {
	if d.durable == nil {
		d.durable = maps.Clone(d.entries)
	}
	d.pending = append(d.pending, change{name, n, r})
	apply(d.entries, name, n)
}

// settle changes an entry in the cache and on the medium at once.
func (d *directory) settle(name string, n *node) {
	d.pending = slices.DeleteFunc(d.pending, func(c change) bool { return c.name == name })
	apply(d.entries, name, n)
	if len(d.pending) == 0 {
		d.durable = nil
	} else {
		apply(d.durable, name, n)
	}
}

func (d *directory) sync() {
	for _, c := range d.pending {
		if c.rename != nil {
			c.rename.synced = true
		}
	}
	d.durable, d.pending = nil, nil
}

func apply(entries map[string]*node, name string, n *node) {
	if n == nil {
		delete(entries, name)
	} else {
		entries[name] = n
	}
}

// elements splits a name into what leads from the root to it.
func elements(name string) []string {
	name = strings.TrimPrefix(path.Clean("/"+name), "/")
	if name == "" {
		return nil
	}
	return strings.Split(name, "/")
}

// walk goes down from the root. Errors: ENOENT, ENOTDIR.
func (d *Disk) walk(elems []string) (*node, error) {
	n := d.root
	for _, elem := range elems {
		if n.dir == nil {
			return nil, syscall.ENOTDIR
		}
		n = n.dir.entries[elem]
		if n == nil {
			return nil, syscall.ENOENT
		}
	}
	return n, nil
}

func (d *Disk) lookup(name string) (*node, error) {
	return d.walk(elements(name))
}

// lookupParent gives the directory that a name lies in, the last element of the
// name, and the node of that name or nil. The root lies in none: EBUSY.
func (d *Disk) lookupParent(name string) (parent *directory, base string, n *node, err error) {
	elems := elements(name)
	if len(elems) == 0 {
		return nil, "", nil, syscall.EBUSY
	}
	base = elems[len(elems)-1]
	p, err := d.walk(elems[:len(elems)-1])
	if err == nil && p.dir == nil {
		err = syscall.ENOTDIR
	}
	if err != nil {
		return nil, "", nil, err
	}
	return p.dir, base, p.dir.entries[base], nil
}
