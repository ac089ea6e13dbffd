package tree

import (
	"slices"
	"strings"
)

// The model is the tree as anybody would write it: maps, slices, and a file's mapping byte by byte. Its blocks carry 7
// bytes of payload at offset 5, so that nearly every extent crosses blocks and cuts fall everywhere.
const (
	modelStart = 5
	modelLen   = 7
	modelSize  = 160 // greatest size of a file
	modelInos  = 14
	hole       = -1
)

type modelEntry struct {
	name   string
	ino    Ino
	cookie uint64
}

type modelXattr struct {
	name  string
	value []byte
}

type modelInode struct {
	attr    Attr // Nlink and Blocks unset
	target  string
	xattrs  []modelXattr
	entries []modelEntry
	cookie  uint64
	data    []int // position in the stream of each byte, or hole
}

func (n *modelInode) is(kind uint32) bool { return n.attr.Mode&typeMask == kind }

// pair runs each operation on a tree and on the model and compares what they say.
type pair struct {
	tree   *Tree
	inodes map[Ino]*modelInode
	maxIno Ino
}

func newPair() *pair {
	return &pair{tree: New(modelStart, modelLen), inodes: map[Ino]*modelInode{}}
}

func (p *pair) names(ino Ino) (count int, parent Ino) {
	for d, n := range p.inodes {
		for _, e := range n.entries {
			if e.ino == ino {
				count, parent = count+1, d
			}
		}
	}
	return count, parent
}

// below reports whether ino is dir or lies above it.
func (p *pair) below(dir, ino Ino) bool {
	for dir != 0 {
		if dir == ino {
			return true
		}
		_, dir = p.names(dir)
	}
	return false
}

func (p *pair) attr(ino Ino) Attr {
	n := p.inodes[ino]
	a := n.attr
	links, _ := p.names(ino)
	a.Nlink = uint32(links)
	switch a.Mode & typeMask {
	case typeFile:
		mapped := 0
		for _, pos := range n.data {
			if pos != hole {
				mapped++
			}
		}
		a.Size, a.Blocks = uint64(len(n.data)), uint64(mapped+511)/512
	case typeDir:
		a.Size = uint64(len(n.entries))
		if links != 0 || ino == Root {
			a.Nlink = 2
			for _, e := range n.entries {
				if p.inodes[e.ino].is(typeDir) {
					a.Nlink++
				}
			}
		}
	case typeLink:
		a.Size = uint64(len(n.target))
	}
	return a
}

// file returns an inode of the model, with the error that a method on regular files gives for it.
func (p *pair) file(ino Ino) (*modelInode, error) {
	n := p.inodes[ino]
	switch {
	case n == nil:
		return nil, ErrNotFound
	case n.is(typeDir):
		return nil, ErrIsDir
	case !n.is(typeFile):
		return nil, ErrInvalid
	}
	return n, nil
}

func (p *pair) dir(ino Ino) (*modelInode, error) {
	n := p.inodes[ino]
	switch {
	case n == nil:
		return nil, ErrNotFound
	case !n.is(typeDir):
		return nil, ErrNotDir
	}
	return n, nil
}

func (n *modelInode) entry(name string) int {
	return slices.IndexFunc(n.entries, func(e modelEntry) bool { return e.name == name })
}

func (n *modelInode) xattr(name string) int {
	return slices.IndexFunc(n.xattrs, func(x modelXattr) bool { return x.name == name })
}

func (p *pair) put(a Attr) error {
	n := p.inodes[a.Ino]
	if a.Ino == 0 || a.Ino == Root && a.Mode&typeMask != typeDir || n != nil && !n.is(a.Mode&typeMask) {
		return ErrInvalid
	}
	if n == nil {
		n = &modelInode{cookie: firstCookie - 1}
		p.inodes[a.Ino] = n
		p.maxIno = max(p.maxIno, a.Ino)
	}
	for a.Mode&typeMask == typeFile && len(n.data) < int(a.Size) {
		n.data = append(n.data, hole)
	}
	if a.Mode&typeMask == typeFile {
		n.data = n.data[:a.Size]
	}
	a.Size, a.Nlink, a.Blocks = 0, 0, 0
	if !isDevice(a.Mode) {
		a.Rdev = 0
	}
	n.attr = a
	return nil
}

func (p *pair) link(dir Ino, name string, ino Ino) error {
	if err := checkName(name); err != nil {
		return err
	}
	d, err := p.dir(dir)
	if err != nil {
		return err
	}
	n := p.inodes[ino]
	if n == nil {
		return ErrNotFound
	}
	if d.entry(name) >= 0 {
		return ErrExists
	}
	if n.is(typeDir) {
		links, _ := p.names(ino)
		switch {
		case ino == Root || dir == ino:
			return ErrInvalid
		case links != 0:
			return ErrIsDir
		case p.below(dir, ino):
			return ErrInvalid
		}
	}
	d.cookie++
	d.entries = append(d.entries, modelEntry{name, ino, d.cookie})
	return nil
}

func (p *pair) unlink(dir Ino, name string) error {
	d, err := p.dir(dir)
	if err != nil {
		return err
	}
	if len(name) > MaxName {
		return ErrNameTooLong
	}
	i := d.entry(name)
	if i < 0 {
		return ErrNotFound
	}
	if len(p.inodes[d.entries[i].ino].entries) != 0 {
		return ErrNotEmpty
	}
	d.entries = slices.Delete(d.entries, i, i+1)
	return nil
}

func (p *pair) rename(dir Ino, name string, newDir Ino, newName string) error {
	if err := checkName(newName); err != nil {
		return err
	}
	from, err := p.dir(dir)
	if err != nil {
		return err
	}
	to, err := p.dir(newDir)
	if err != nil {
		return err
	}
	if len(name) > MaxName {
		return ErrNameTooLong
	}
	i := from.entry(name)
	if i < 0 {
		return ErrNotFound
	}
	ino := from.entries[i].ino
	switch {
	case to.entry(newName) >= 0:
		return ErrExists
	case p.inodes[ino].is(typeDir) && p.below(newDir, ino):
		return ErrInvalid
	}
	from.entries = slices.Delete(from.entries, i, i+1)
	to.cookie++
	to.entries = append(to.entries, modelEntry{newName, ino, to.cookie})
	return nil
}

func (p *pair) free(ino Ino) error {
	n := p.inodes[ino]
	if n == nil {
		return ErrNotFound
	}
	if links, _ := p.names(ino); links != 0 || ino == Root {
		return ErrInvalid
	}
	if len(n.entries) != 0 {
		return ErrNotEmpty
	}
	delete(p.inodes, ino)
	return nil
}

func (p *pair) mapExtent(ino Ino, e Extent) error {
	n, err := p.file(ino)
	if err != nil {
		return err
	}
	if e.Len == 0 || e.Off+e.Len > uint64(len(n.data)) || e.At < modelStart || e.At >= modelStart+modelLen {
		return ErrInvalid
	}
	for i := range e.Len {
		n.data[e.Off+i] = int(e.Block*modelLen + uint64(e.At-modelStart) + i)
	}
	return nil
}

func (p *pair) clear(ino Ino, off, length uint64) error {
	n, err := p.file(ino)
	if err != nil {
		return err
	}
	for i := off; i < min(off+length, uint64(len(n.data))); i++ {
		n.data[i] = hole
	}
	return nil
}

func (p *pair) setTarget(ino Ino, target string) error {
	n := p.inodes[ino]
	switch {
	case n == nil:
		return ErrNotFound
	case !n.is(typeLink) || target == "" || len(target) > MaxTarget || strings.Contains(target, "\x00"):
		return ErrInvalid
	}
	n.target = target
	return nil
}

func (p *pair) setXattr(ino Ino, name string, value []byte) error {
	n := p.inodes[ino]
	switch {
	case n == nil:
		return ErrNotFound
	case len(name) > MaxName:
		return ErrNameTooLong
	case name == "" || strings.Contains(name, "\x00"):
		return ErrInvalid
	case len(value) > MaxXattrValue:
		return ErrTooBig
	}
	if i := n.xattr(name); i >= 0 {
		n.xattrs[i].value = value
	} else {
		n.xattrs = append(n.xattrs, modelXattr{name, value})
	}
	return nil
}

func (p *pair) removeXattr(ino Ino, name string) error {
	n := p.inodes[ino]
	if n == nil {
		return ErrNotFound
	}
	i := n.xattr(name)
	if i < 0 {
		return ErrNoXattr
	}
	n.xattrs = slices.Delete(n.xattrs, i, i+1)
	return nil
}
