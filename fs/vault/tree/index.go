package tree

// index is a hash table of row numbers: chains that run through the rows' own next fields, headed by buckets. It grows
// by linear hashing (Litwin 1980): each row added beyond one per bucket adds one bucket and splits one chain in two.
// So there is no moment at which a million rows are hashed anew or two tables exist, and a chain is one or two long.
type index struct {
	heads rows[uint32]
	size  uint32 // buckets in use
	mask  uint64 // the smallest 2^k-1 that covers them
	count uint32 // rows chained
}

// maxBuckets keeps size and its doubling within 32 bits; beyond it chains get longer.
const maxBuckets = 1 << 31

func (x *index) init() {
	x.heads.ensure(chunkRows - 1)
	x.size = chunkRows
	x.mask = chunkRows - 1
}

// head returns the head of the chain for a hash.
func (x *index) head(hash uint64) *uint32 {
	b := hash & x.mask
	if b >= uint64(x.size) {
		b &= x.mask >> 1 // not split yet
	}
	return x.heads.at(uint32(b))
}

// add puts row i, whose hash is given, at the head of its chain. next and hash give the link and the hash of any row.
func (x *index) add(i uint32, hash uint64, next func(uint32) *uint32, hashOf func(uint32) uint64) {
	head := x.head(hash)
	*next(i) = *head
	*head = i
	x.count++
	if x.count > x.size && x.size < maxBuckets {
		x.split(next, hashOf)
	}
}

// split adds one bucket and moves to it what belongs there.
func (x *index) split(next func(uint32) *uint32, hashOf func(uint32) uint64) {
	if uint64(x.size) > x.mask {
		x.mask = x.mask<<1 | 1
	}
	to := x.size
	x.size++
	x.heads.ensure(to)
	keep, move := x.heads.at(to&uint32(x.mask>>1)), x.heads.at(to)
	for i := *keep; i != 0; {
		link := next(i)
		if hashOf(i)&x.mask == uint64(to) {
			*move = i
			move = link
		} else {
			*keep = i
			keep = link
		}
		i = *link
	}
	*keep, *move = 0, 0
}

// remove takes row i, whose hash is given, out of its chain.
func (x *index) remove(i uint32, hash uint64, next func(uint32) *uint32) {
	for link := x.head(hash); *link != 0; link = next(*link) {
		if *link == i {
			*link = *next(i)
			x.count--
			return
		}
	}
}

func (x *index) memory() uint64 { return x.heads.memory() }
