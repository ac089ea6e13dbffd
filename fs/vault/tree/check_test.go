package tree

import (
	"errors"
	"fmt"
	"slices"
)

// checkTree looks inside a tree for what its methods would not show: order and heap of the treaps, rows and bytes that
// leaked or are used twice, chains that miss a row.
func checkTree(t *Tree) error {
	c := checker{t: t, used: map[string]map[uint32]bool{"name": {}, "extent": {}, "xattr": {}}}
	inodes, mapped := uint64(0), uint64(0)
	for i := uint32(1); i <= t.inodeSlots.used; i++ {
		n := t.inodes.at(i)
		if n.ino == 0 {
			continue
		}
		inodes++
		if j, _ := t.find(n.ino); j != i {
			c.fail("inode %d in row %d is found in row %d", n.ino, i, j)
		}
		for x := n.xattr; x != 0; x = t.xattrs.at(x).next {
			c.use("xattr", x)
			c.name(t.xattrs.at(x).name)
			c.bytes(t.xattrs.at(x).value, int(t.xattrs.at(x).size))
		}
		switch {
		case n.isDir():
			c.dir(i, n)
		case n.isFile():
			mapped += c.file(n)
		case n.kind() == typeLink:
			c.bytes(n.body, int(n.size))
		}
	}
	c.count("inodes", inodes, t.inodeSlots.live(), uint64(t.byIno.count))
	c.count("names", uint64(len(c.used["name"])), t.order.slots.live(), uint64(t.byName.count))
	c.count("extents", uint64(len(c.used["extent"])), t.ranges.slots.live())
	c.count("xattrs", uint64(len(c.used["xattr"])), t.xslots.live())
	c.count("mapped", mapped, t.mapped)
	c.arena()
	return errors.Join(c.errs...)
}

type checker struct {
	t     *Tree
	used  map[string]map[uint32]bool
	spans [][2]uint64 // places in the arena that are in use or in a free list, and their ends
	errs  []error
}

func (c *checker) fail(format string, args ...any) {
	if len(c.errs) < 10 {
		c.errs = append(c.errs, fmt.Errorf(format, args...))
	}
}

func (c *checker) count(what string, counts ...uint64) {
	for _, n := range counts {
		if n != counts[0] {
			c.fail("counts of %s differ: %d", what, counts)
			return
		}
	}
}

func (c *checker) use(kind string, i uint32) {
	if c.used[kind][i] {
		c.fail("%s row %d is used twice", kind, i)
	}
	c.used[kind][i] = true
}

func (c *checker) bytes(ref uint32, n int) {
	if ref != 0 {
		_, units := sizeOf(n)
		c.spans = append(c.spans, [2]uint64{uint64(ref), uint64(ref) + units})
	}
}

func (c *checker) name(ref uint32) { c.bytes(ref, 1+len(c.t.bytes.name(ref))) }

// treap checks a set and returns its rows in order.
func (c *checker) treap(x *treap, root uint32) []uint32 {
	if root == 0 {
		return nil
	}
	n := x.nodes.at(root)
	for _, child := range []uint32{n.left, n.right} {
		if child != 0 && x.priority(child) > x.priority(root) {
			c.fail("row %d is above %d in a treap", root, child)
		}
	}
	rows := append(append(c.treap(x, n.left), root), c.treap(x, n.right)...)
	for i := 1; i < len(rows); i++ {
		if x.nodes.at(rows[i-1]).key >= x.nodes.at(rows[i]).key {
			c.fail("keys of a treap are out of order")
		}
	}
	return rows
}

func (c *checker) dir(i uint32, n *inode) {
	dirs := uint32(0)
	for _, e := range c.treap(&c.t.order, n.body) {
		c.use("name", e)
		d := c.t.dirents.at(e)
		c.name(d.name)
		child := c.t.inodes.at(d.inode)
		if child.isDir() {
			dirs++
			if child.up != e {
				c.fail("directory %d does not lead back to its name", child.ino)
			}
		}
		if j, _ := c.t.findName(i, string(c.t.bytes.name(d.name)), c.t.hashOfName(e)); j != e || d.dir != i {
			c.fail("name row %d is found as %d", e, j)
		}
		n.size-- // put back below
	}
	if n.size != 0 || dirs != n.links {
		c.fail("directory %d counts %d entries too many, %d subdirectories of %d", n.ino, int64(n.size), n.links, dirs)
	}
	n.size += uint64(len(c.treap(&c.t.order, n.body)))
}

func (c *checker) file(n *inode) (mapped uint64) {
	end := uint64(0)
	for _, i := range c.treap(&c.t.ranges, n.body) {
		c.use("extent", i)
		if c.t.ranges.nodes.at(i).key < end || c.t.extents.at(i).len == 0 {
			c.fail("extents of %d overlap or are empty", n.ino)
		}
		end = c.t.end(i)
		mapped += c.t.extents.at(i).len
	}
	if end > n.size || mapped != n.extra {
		c.fail("file %d of size %d is mapped to %d, %d bytes counted as %d", n.ino, n.size, end, mapped, n.extra)
	}
	return mapped
}

// arena checks that all bytes ever handed out are in use or in a list, once, but for what was left at a chunk's end.
func (c *checker) arena() {
	a := &c.t.bytes
	for n := 1; n < 64<<10+256; n += unit {
		number, units := sizeOf(n)
		if number2, _ := sizeOf(max(n-unit, 1)); n > 1 && number2 == number {
			continue // one length for each size
		}
		for ref := a.free[number]; ref != 0; {
			c.spans = append(c.spans, [2]uint64{uint64(ref), uint64(ref) + units})
			b := a.at(ref, unit)
			ref = uint32(b[0]) | uint32(b[1])<<8 | uint32(b[2])<<16 | uint32(b[3])<<24
		}
	}
	slices.SortFunc(c.spans, func(x, y [2]uint64) int { return int(int64(x[0]) - int64(y[0])) })
	next := uint64(1)
	for _, s := range c.spans {
		const perChunk = arenaChunk / unit
		if s[0] < next || s[0] > next && s[0]%perChunk != 0 {
			c.fail("arena: %d follows %d", s[0], next)
		}
		next = s[1]
	}
	if next != a.next {
		c.fail("arena: ends at %d, not %d", next, a.next)
	}
}
