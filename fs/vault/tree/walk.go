package tree

// Inodes yields every inode once, until yield says false: the root, then directory after directory, each before its
// entries and the entries of one together in the order of their cookies; at the end the orphans, likewise. Read back
// in this order, what is listed together lies together, and each directory is there before what is linked into it.
// It takes a bit of memory per inode.
func (t *Tree) Inodes(yield func(Attr) bool) {
	w := walker{t: t, seen: make([]uint64, t.inodeSlots.used/64+1), yield: yield}
	if i, n := t.find(Root); n != nil && !w.from(i) {
		return
	}
	t.orphans(w.from)
}

// Orphans yields every inode to which no name leads, the root excepted, until yield says false. It looks at every row
// of the table.
func (t *Tree) Orphans(yield func(Ino) bool) {
	t.orphans(func(i uint32) bool { return yield(t.inodes.at(i).ino) })
}

func (t *Tree) orphans(yield func(uint32) bool) {
	for i := uint32(1); i <= t.inodeSlots.used; i++ {
		if n := t.inodes.at(i); n.ino != 0 && !n.linked() && !yield(i) {
			return
		}
	}
}

// walker is one run of Inodes.
type walker struct {
	t     *Tree
	seen  []uint64 // a bit per row: hard links lead to an inode more than once
	yield func(Attr) bool
	dirs  []uint32 // directories whose entries are still to be yielded, the next one last
}

// from yields the inode of a row and all below it.
func (w *walker) from(i uint32) bool {
	if !w.visit(i) {
		return false
	}
	for len(w.dirs) > 0 {
		d := w.dirs[len(w.dirs)-1]
		w.dirs = w.dirs[:len(w.dirs)-1]
		first, ok := len(w.dirs), true
		w.t.order.walk(w.t.inodes.at(d).body, 0, func(e uint32) bool {
			ok = w.visit(w.t.dirents.at(e).inode)
			return ok
		})
		if !ok {
			return false
		}
		for a, b := first, len(w.dirs)-1; a < b; a, b = a+1, b-1 {
			w.dirs[a], w.dirs[b] = w.dirs[b], w.dirs[a]
		}
	}
	return true
}

// visit yields the inode of a row, unless it was before, and notes a directory.
func (w *walker) visit(i uint32) bool {
	if w.seen[i/64]&(1<<(i%64)) != 0 {
		return true
	}
	w.seen[i/64] |= 1 << (i % 64)
	n := w.t.inodes.at(i)
	if n.isDir() {
		w.dirs = append(w.dirs, i)
	}
	return w.yield(n.attr())
}
