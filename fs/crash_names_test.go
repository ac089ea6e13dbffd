package fs

import (
	"slices"
	"strings"
	"syscall"

	"github.com/hanwen/go-fuse/v2/fuse"

	"encfsrun/fs/vault/tree"
)

// The requests of a client that change names and attributes.

func (c *client) randomTruncate() {
	ino, ok := c.file()
	if !ok {
		return
	}
	n := c.tree.nodes[ino]
	size := c.r.IntN(min(largest, len(n.data)+len(n.data)/4+1000))
	in := fuse.SetAttrIn{SetAttrInCommon: fuse.SetAttrInCommon{InHeader: c.header(ino), Valid: fuse.FATTR_SIZE, Size: uint64(size)}}
	if c.oneIn(3) {
		in.Valid |= fuse.FATTR_KILL_SUIDGID
	}
	which := inodeChanged
	if size != len(n.data) {
		which |= modified
	}
	c.note("truncate %d to %d", ino, size)
	c.did(c.fs.SetAttr(nil, &in, new(fuse.AttrOut)), changes{ino: which}, func() {
		if in.Valid&fuse.FATTR_KILL_SUIDGID != 0 {
			c.rewritten(ino).losePrivileges()
		}
		n.resize(size)
	})
}

// any picks an inode that has a name, and knows it.
func (c *client) any() (tree.Ino, bool) {
	return c.one(func(n *shade) bool { return n.Nlink > 0 })
}

func (c *client) randomSetAttr() {
	ino, ok := c.any()
	if !ok {
		return
	}
	n := c.tree.nodes[ino]
	in := fuse.SetAttrIn{SetAttrInCommon: fuse.SetAttrInCommon{InHeader: c.header(ino)}}
	apply := func() {}
	switch c.r.IntN(3) {
	case 0:
		in.Valid, in.Mode = fuse.FATTR_MODE, c.randomMode()
		if isDir(n.Mode) {
			in.Mode = 0o700
		}
		apply = func() { n.Mode = n.Mode&syscall.S_IFMT | in.Mode }
	case 1:
		in.Valid, in.Uid, in.Gid = fuse.FATTR_UID|fuse.FATTR_GID, uint32(c.r.IntN(3)), uint32(c.r.IntN(3))
		apply = func() {
			n.UID, n.GID = in.Uid, in.Gid
			if !isDir(n.Mode) {
				c.rewritten(ino).losePrivileges()
			}
		}
	case 2:
		in.Valid, in.Mtime, in.Mtimensec = fuse.FATTR_ATIME|fuse.FATTR_MTIME, c.r.Uint64N(1<<33), uint32(c.r.IntN(1e9))
		apply = func() { n.Mtime = tree.Time{Sec: int64(in.Mtime), Nsec: in.Mtimensec} }
	}
	c.note("setattr %d, valid %#x", ino, in.Valid)
	c.did(c.fs.SetAttr(nil, &in, new(fuse.AttrOut)), changes{ino: inodeChanged}, apply)
}

func (c *client) randomFallocate() {
	ino, ok := c.file()
	if !ok {
		return
	}
	n := c.tree.nodes[ino]
	length := c.size()
	off := c.offset(n, length)
	in := fuse.FallocateIn{InHeader: c.header(ino), Offset: uint64(off), Length: uint64(length)}
	in.Mode = pick(c.r, []uint32{0, fallocPunchHole | fallocKeepSize, fallocZeroRange, fallocZeroRange | fallocKeepSize})
	c.note("fallocate %d, %d+%d, mode %#x", ino, off, length, in.Mode)
	c.did(c.fs.Fallocate(nil, &in), changes{ino: modified | inodeChanged}, func() {
		c.rewritten(ino)
		if in.Mode&(fallocPunchHole|fallocZeroRange) != 0 {
			n.zero(off, off+length)
		}
		if in.Mode&fallocKeepSize == 0 && off+length > len(n.data) {
			n.resize(off + length)
		}
	})
}

func (c *client) randomCopy() {
	from, ok := c.file()
	to, found := c.file()
	if !ok || !found || from == to {
		return
	}
	a, b := c.tree.nodes[from], c.tree.nodes[to]
	length := min(c.size(), copyPiece) // what is longer is more than one change
	off := c.r.IntN(len(a.data) + 1)
	at := c.offset(b, length)
	in := fuse.CopyFileRangeIn{
		InHeader: c.header(from), OffIn: uint64(off), NodeIdOut: uint64(to), OffOut: uint64(at), Len: uint64(length),
	}
	p := slices.Clone(a.data[off:min(off+length, len(a.data))])
	c.note("copy %d, %d+%d, to %d, %d", from, off, length, to, at)
	n, status := c.fs.CopyFileRange(nil, &in)
	if status.Ok() && int(n) != len(p) {
		c.fail("COPY_FILE_RANGE copied %d bytes, not %d", n, len(p))
	}
	if len(p) == 0 {
		c.accepted(status)
		return
	}
	c.did(status, changes{to: modified | inodeChanged}, func() { c.rewritten(to).write(at, p) })
}

// taken picks a name that is taken, and knows its inode.
func (c *client) taken() (p place, ok bool) {
	all := slices.DeleteFunc(c.tree.places(), func(p place) bool { return c.tree.nodes[p.ino].unsure || c.tree.nodes[p.dir].unsure })
	if len(all) == 0 {
		return p, false
	}
	p = pick(c.r, all)
	return p, c.know(p.ino) && c.know(p.dir)
}

func (c *client) randomRename() {
	p, ok := c.taken()
	dir, found := c.dir()
	if !ok || !found {
		return
	}
	name := c.name()
	if p.dir == dir && p.name == name {
		return
	}
	target := c.tree.nodes[dir].names[name]
	in := fuse.RenameIn{InHeader: c.header(p.dir), Newdir: uint64(dir)}
	switch {
	case target == 0 && c.oneIn(4):
		in.Flags = renameNoReplace
	case target != 0 && c.oneIn(2):
		in.Flags = renameExchange
	}
	if !c.fits(p, dir, target, in.Flags) {
		return
	}
	changed := changes{p.dir: modified | inodeChanged, dir: modified | inodeChanged, p.ino: inodeChanged}
	if target != 0 {
		c.know(target)
		changed[target] = inodeChanged
	}
	for _, ino := range []tree.Ino{p.ino, target} { // a directory's own times change where names in it move
		if ino == p.dir || ino == dir {
			changed[ino] = modified | inodeChanged
		}
	}
	c.note("rename %.20q of %d to %.20q of %d, flags %d", p.name, p.dir, name, dir, in.Flags)
	c.did(c.fs.Rename(nil, &in, p.name, name), changed, func() {
		c.tree.unlink(p.dir, p.name)
		if target != 0 {
			c.tree.unlink(dir, name)
		}
		c.tree.link(dir, name, p.ino)
		if in.Flags == renameExchange {
			c.tree.link(p.dir, p.name, target)
		}
	})
	if target != 0 {
		c.gone(target)
	}
}

// fits says whether a kernel would pass on such a rename.
func (c *client) fits(p place, dir, target tree.Ino, flags uint32) bool {
	moves := func(ino, dir tree.Ino) bool { return !isDir(c.tree.nodes[ino].Mode) || !c.tree.below(dir, ino) }
	if target == 0 || !moves(p.ino, dir) {
		return moves(p.ino, dir)
	}
	b := c.tree.nodes[target]
	if flags == renameExchange {
		return target != p.ino && moves(target, p.dir)
	}
	return target != p.ino && isDir(c.tree.nodes[p.ino].Mode) == isDir(b.Mode) && len(b.names) == 0
}

func (c *client) randomRemove() {
	p, ok := c.taken()
	if !ok || len(c.tree.nodes[p.ino].names) > 0 {
		return
	}
	c.remove(p)
}

// remove is UNLINK and RMDIR.
func (c *client) remove(p place) bool {
	h := c.header(p.dir)
	remove := c.fs.Unlink
	if isDir(c.tree.nodes[p.ino].Mode) {
		remove = c.fs.Rmdir
	}
	c.note("remove %.20q of %d, which is %d", p.name, p.dir, p.ino)
	changed := changes{p.dir: modified | inodeChanged, p.ino: inodeChanged}
	done := c.did(remove(nil, &h, p.name), changed, func() { c.tree.unlink(p.dir, p.name) })
	c.gone(p.ino)
	return done
}

// randomLink gives a file another name, or a first one.
func (c *client) randomLink() {
	dir, name, ok := c.freeName()
	all := c.tree.inos(func(n *shade) bool { return !isDir(n.Mode) && !n.unsure && (n.Nlink > 0 || c.isOpen(n.Ino)) })
	if !ok || len(all) == 0 {
		return
	}
	ino := pick(c.r, all)
	if nameless := c.tree.inos(func(n *shade) bool { return isFile(n.Mode) && n.Nlink == 0 && !n.unsure }); len(nameless) > 0 {
		ino = pick(c.r, nameless)
	}
	if c.know(ino) {
		c.link(ino, dir, name)
	}
}

// link is LINK.
func (c *client) link(ino, dir tree.Ino, name string) {
	var out fuse.EntryOut
	c.note("link %d as %.20q in %d", ino, name, dir)
	status := c.fs.Link(nil, &fuse.LinkIn{InHeader: c.header(dir), Oldnodeid: uint64(ino)}, name, &out)
	c.did(status, changes{dir: modified | inodeChanged, ino: inodeChanged}, func() {
		c.told(&out)
		c.tree.link(dir, name, ino)
	})
}

func (c *client) randomXattr() {
	ino, ok := c.any()
	if !ok {
		return
	}
	n := c.tree.nodes[ino]
	h := c.header(ino)
	if len(n.xattrs) > 0 && c.oneIn(3) {
		names := make([]string, 0, len(n.xattrs))
		for name := range n.xattrs {
			names = append(names, name)
		}
		slices.Sort(names)
		name := pick(c.r, names)
		c.note("removexattr %s of %d", name, ino)
		c.did(c.fs.RemoveXAttr(nil, &h, name), changes{ino: inodeChanged}, func() { delete(n.xattrs, name) })
		return
	}
	name, value := pick(c.r, []string{"user.a", "user.b", capabilityXattr}), strings.Repeat("v", c.r.IntN(2000))
	if name == capabilityXattr && !isFile(n.Mode) {
		return
	}
	c.note("setxattr %s of %d", name, ino)
	status := c.fs.SetXAttr(nil, &fuse.SetXAttrIn{InHeader: h, Size: uint32(len(value))}, name, []byte(value))
	c.did(status, changes{ino: inodeChanged}, func() { n.xattrs[name] = value })
}
