package fs

import (
	"cmp"
	"fmt"
	"hash/maphash"
	"maps"
	"slices"
	"strings"
	"syscall"

	"encfsrun/fs/vault"
	"encfsrun/fs/vault/tree"
)

// shadow is what the tree should be.
type shadow struct {
	nodes map[tree.Ino]*shade
}

// shade is an inode. Its Size is exact, its Blocks and access time are nobody's business.
type shade struct {
	tree.Attr
	data   []byte
	target string
	xattrs map[string]string
	names  map[string]tree.Ino // of a directory
	parent tree.Ino            // likewise
	unsure bool                // a request failed that may have changed it
	sum    uint64              // of data; 0 where it is not known
}

// place is a name.
type place struct {
	dir  tree.Ino
	name string
	ino  tree.Ino
}

// places lists all names, in an order that depends on the tree alone.
func (s *shadow) places() (all []place) {
	for _, dir := range s.inos(func(n *shade) bool { return isDir(n.Mode) }) {
		for _, name := range slices.Sorted(maps.Keys(s.nodes[dir].names)) {
			all = append(all, place{dir, name, s.nodes[dir].names[name]})
		}
	}
	return all
}

// inos lists the inodes that are wanted, by number.
func (s *shadow) inos(wanted func(*shade) bool) (all []tree.Ino) {
	for ino, n := range s.nodes {
		if wanted(n) {
			all = append(all, ino)
		}
	}
	slices.Sort(all)
	return all
}

// link gives an inode a name, unlink takes one away.
func (s *shadow) link(dir tree.Ino, name string, ino tree.Ino) {
	d, n := s.nodes[dir], s.nodes[ino]
	d.names[name] = ino
	d.Size = uint64(len(d.names))
	if isDir(n.Mode) {
		d.Nlink++
		n.Nlink, n.parent = uint32(2+n.subdirs(s)), dir
		return
	}
	n.Nlink++
}

func (s *shadow) unlink(dir tree.Ino, name string) {
	d := s.nodes[dir]
	n := s.nodes[d.names[name]]
	delete(d.names, name)
	d.Size = uint64(len(d.names))
	if isDir(n.Mode) {
		d.Nlink--
		n.Nlink = 0
		return
	}
	n.Nlink--
}

func (n *shade) subdirs(s *shadow) (count int) {
	for _, ino := range n.names {
		if isDir(s.nodes[ino].Mode) {
			count++
		}
	}
	return count
}

// below says whether a directory is an inode or lies somewhere below it.
func (s *shadow) below(dir, ino tree.Ino) bool {
	for dir != ino && dir != tree.Root {
		dir = s.nodes[dir].parent
	}
	return dir == ino
}

// write puts bytes into a file.
func (n *shade) write(off int, p []byte) {
	n.resize(max(len(n.data), off+len(p)))
	copy(n.data[off:], p)
}

func (n *shade) resize(size int) {
	n.sum = 0
	n.Size = uint64(size)
	if size <= len(n.data) {
		n.data = n.data[:size:size] // what is cut off is zeros when the file grows again
		return
	}
	n.data = append(n.data, make([]byte, size-len(n.data))...)
}

// zero makes a hole.
func (n *shade) zero(from, to int) {
	n.sum = 0
	clear(n.data[min(from, len(n.data)):min(to, len(n.data))])
}

// loosePrivileges is what a change of contents or owner does to a file.
func (n *shade) losePrivileges() {
	if isDir(n.Mode) {
		return
	}
	n.Mode &^= syscall.S_ISUID
	if n.Mode&syscall.S_IXGRP != 0 {
		n.Mode &^= syscall.S_ISGID
	}
}

var dumpSeed = maphash.MakeSeed()

func (n *shade) hash() uint64 {
	if n.sum == 0 {
		n.sum = maphash.Bytes(dumpSeed, n.data) | 1
	}
	return n.sum
}

// dump describes all that a name leads to.
func (s *shadow) dump() string {
	var out strings.Builder
	s.dumpBelow(&out, map[tree.Ino]string{}, "/", tree.Root)
	return out.String()
}

func (s *shadow) dumpBelow(out *strings.Builder, seen map[tree.Ino]string, path string, ino tree.Ino) {
	n := s.nodes[ino]
	fmt.Fprintf(out, "%.60q #%d", path, ino)
	if first, found := seen[ino]; found {
		fmt.Fprintf(out, " = %.60q\n", first)
		return
	}
	seen[ino] = path
	fmt.Fprintf(out, " mode %o owner %d:%d size %d links %d rdev %d mtime %v ctime %v", n.Mode, n.UID, n.GID, n.Size, n.Nlink, n.Rdev, n.Mtime, n.Ctime)
	if isFile(n.Mode) {
		fmt.Fprintf(out, " holds %x", n.hash())
	}
	if n.target != "" {
		fmt.Fprintf(out, " target %.60q", n.target)
	}
	for _, name := range slices.Sorted(maps.Keys(n.xattrs)) {
		fmt.Fprintf(out, " %s=%x", name, maphash.String(dumpSeed, n.xattrs[name]))
	}
	out.WriteString("\n")
	for _, name := range slices.Sorted(maps.Keys(n.names)) {
		s.dumpBelow(out, seen, path+name+"/", n.names[name])
	}
}

// shadowOf reads the whole tree of a vault.
func shadowOf(v *vault.Vault) (*shadow, error) {
	s := &shadow{nodes: map[tree.Ino]*shade{}}
	if err := s.read(v, tree.Root, tree.Root, make([]byte, vault.PlainSize)); err != nil {
		return nil, err
	}
	if n := v.Stats().Inodes; n != uint64(len(s.nodes)) {
		return nil, fmt.Errorf("the vault has %d inodes, and names lead to %d", n, len(s.nodes))
	}
	return s, nil
}

func (s *shadow) read(v *vault.Vault, ino, parent tree.Ino, plain []byte) error {
	if s.nodes[ino] != nil {
		return nil
	}
	a, err := v.Attr(ino)
	if err != nil {
		return err
	}
	n := &shade{Attr: a, xattrs: map[string]string{}}
	s.nodes[ino] = n
	xattrs, err := v.ListXattr(ino)
	if err != nil {
		return err
	}
	for _, name := range xattrs {
		value, err := v.GetXattr(ino, name)
		if err != nil {
			return err
		}
		n.xattrs[name] = string(value)
	}
	switch a.Mode & syscall.S_IFMT {
	case syscall.S_IFREG:
		n.data, err = contentOf(v, a, plain)
	case syscall.S_IFLNK:
		n.target, err = v.Readlink(ino)
	case syscall.S_IFDIR:
		n.names, n.parent = map[string]tree.Ino{}, parent
		if err := v.ReadDir(ino, 0, func(e tree.Entry) bool { n.names[e.Name] = e.Ino; return true }); err != nil {
			return err
		}
		for _, child := range n.names {
			if err := s.read(v, child, ino, plain); err != nil {
				return err
			}
		}
	}
	return err
}

func contentOf(v *vault.Vault, a tree.Attr, plain []byte) (data []byte, err error) {
	spans, err := v.Spans(a.Ino, 0, int(a.Size), nil)
	if err != nil {
		return nil, err
	}
	loaded := uint64(0)
	for _, p := range spans {
		if p.Hole {
			data = append(data, make([]byte, p.Len)...)
			continue
		}
		if p.Block != loaded {
			if _, err := v.LoadBlock(p.Block, plain); err != nil {
				return nil, err
			}
			loaded = p.Block
		}
		data = append(data, plain[p.At:][:p.Len]...)
	}
	if uint64(len(data)) != a.Size {
		return nil, fmt.Errorf("inode %d holds %d bytes, not %d", a.Ino, len(data), a.Size)
	}
	return data, nil
}

// difference shows in which lines two dumps differ.
func difference(want, got string) string {
	a, b := strings.Split(want, "\n"), strings.Split(got, "\n")
	only := func(x, y []string, mark string) (out []string) {
		for _, line := range x {
			if !slices.Contains(y, line) {
				out = append(out, mark+line)
			}
		}
		return out
	}
	lines := append(only(a, b, "- "), only(b, a, "+ ")...)
	slices.SortStableFunc(lines, func(x, y string) int { return cmp.Compare(x[2:min(len(x), 12)], y[2:min(len(y), 12)]) })
	return strings.Join(lines[:min(len(lines), 20)], "\n")
}
