package tree

import "math/rand/v2"

// treap keeps many ordered sets in one slab: binary search trees by key that are heaps by priority (Seidel and Aragon
// 1996). A priority is a hash of the row's own number under a seed, so that it costs no memory and the depth is
// logarithmic whatever the order of the keys: about 1.4 times 2·log2(n) at worst in practice. A set is named by its
// root row, 0 when empty. Finding, inserting and removing are O(log n); a walk is O(log n) and then O(1) per row.
type treap struct {
	nodes rows[node]
	slots slots
	seed  uint64
}

// node is 16 bytes.
type node struct {
	key         uint64
	left, right uint32
}

func newTreap() treap { return treap{slots: newSlots(), seed: rand.Uint64()} }

// mix spreads a number over 64 bits (the finalizer of splitmix64).
func mix(x uint64) uint64 {
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}

func (t *treap) priority(i uint32) uint64 { return mix(t.seed ^ uint64(i)) }

// make takes a row for a key, in no set yet; room must have been asked for.
func (t *treap) make(key uint64) uint32 {
	i := t.slots.take()
	t.nodes.ensure(i)
	*t.nodes.at(i) = node{key: key}
	return i
}

// insert puts row i into the set; its key must not be there.
func (t *treap) insert(root *uint32, i uint32) {
	n, p := t.nodes.at(i), t.priority(i)
	link := root
	for *link != 0 && t.priority(*link) >= p {
		c := t.nodes.at(*link)
		if c.key < n.key {
			link = &c.right
		} else {
			link = &c.left
		}
	}
	n.left, n.right = t.split(*link, n.key)
	*link = i
}

// remove takes the row with the key out of the set; the row itself stays taken.
func (t *treap) remove(root *uint32, key uint64) {
	for link := root; *link != 0; {
		n := t.nodes.at(*link)
		switch {
		case n.key < key:
			link = &n.right
		case n.key > key:
			link = &n.left
		default:
			*link = t.merge(n.left, n.right)
			return
		}
	}
}

// split cuts a set in two: keys less than key, and the others.
func (t *treap) split(root uint32, key uint64) (left, right uint32) {
	l, r := &left, &right
	for root != 0 {
		n := t.nodes.at(root)
		if n.key < key {
			*l, l, root = root, &n.right, n.right
		} else {
			*r, r, root = root, &n.left, n.left
		}
	}
	*l, *r = 0, 0
	return left, right
}

// merge joins two sets, all keys of the first less than all of the second.
func (t *treap) merge(a, b uint32) (root uint32) {
	link := &root
	for a != 0 && b != 0 {
		if t.priority(a) >= t.priority(b) {
			n := t.nodes.at(a)
			*link, link, a = a, &n.right, n.right
		} else {
			n := t.nodes.at(b)
			*link, link, b = b, &n.left, n.left
		}
	}
	*link = a | b // one of them is none
	return root
}

// last returns the row with the greatest key, 0 when the set is empty.
func (t *treap) last(root uint32) uint32 {
	for root != 0 {
		n := t.nodes.at(root)
		if n.right == 0 {
			break
		}
		root = n.right
	}
	return root
}

// floor returns the row with the greatest key not above key, 0 when there is none.
func (t *treap) floor(root uint32, key uint64) uint32 {
	var best uint32
	for root != 0 {
		n := t.nodes.at(root)
		if n.key <= key {
			best, root = root, n.right
		} else {
			root = n.left
		}
	}
	return best
}

// walk yields the rows with keys not below from, in order, until yield says false. A row that was yielded may be given
// back, but not used again, before the walk goes on.
func (t *treap) walk(root uint32, from uint64, yield func(uint32) bool) {
	var space [48]uint32
	path := space[:0] // rows still to be yielded, the next one last
	for root != 0 {
		n := t.nodes.at(root)
		if n.key >= from {
			path = append(path, root)
			root = n.left
		} else {
			root = n.right
		}
	}
	for len(path) > 0 {
		i := path[len(path)-1]
		path = path[:len(path)-1]
		if !yield(i) {
			return
		}
		for c := t.nodes.at(i).right; c != 0; c = t.nodes.at(c).left {
			path = append(path, c)
		}
	}
}

func (t *treap) memory() uint64 { return t.nodes.memory() + t.slots.memory() }
