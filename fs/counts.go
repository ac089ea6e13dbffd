package fs

import "sync"

const (
	pageInodes  = 64 // counts in a page: 512 bytes
	countShards = 16 // locks, so that look-ups on several cores don't wait for each other
)

// counts holds how often the kernel was told of each inode: 8 bytes per inode where numbers lie close together, as the importer
// gives them. Pages come with the first count above zero and go with the last.
type counts struct {
	shards [countShards]countShard
}

type countShard struct {
	mu    sync.Mutex
	pages map[uint64]*countPage
	known int64 // inodes with a count above zero
}

type countPage struct {
	live int // counts above zero
	n    [pageInodes]uint64
}

func (c *counts) shard(ino uint64) (s *countShard, page uint64, at int) {
	page = ino / pageInodes
	return &c.shards[page%countShards], page, int(ino % pageInodes)
}

// add counts one look-up.
func (c *counts) add(ino uint64) {
	s, number, at := c.shard(ino)
	s.mu.Lock()
	defer s.mu.Unlock()
	p := s.pages[number]
	if p == nil {
		if s.pages == nil {
			s.pages = make(map[uint64]*countPage)
		}
		p = new(countPage)
		s.pages[number] = p
	}
	if p.n[at] == 0 {
		p.live++
		s.known++
	}
	p.n[at]++
}

// sub takes n look-ups back. It returns what is left, and 0 where the kernel takes back more than it was given.
func (c *counts) sub(ino, n uint64) uint64 {
	s, number, at := c.shard(ino)
	s.mu.Lock()
	defer s.mu.Unlock()
	p := s.pages[number]
	if p == nil || p.n[at] == 0 {
		return 0
	}
	p.n[at] -= min(n, p.n[at])
	left := p.n[at]
	if left == 0 {
		s.known--
		if p.live--; p.live == 0 {
			delete(s.pages, number)
		}
	}
	return left
}

// get returns an inode's count.
func (c *counts) get(ino uint64) uint64 {
	s, number, at := c.shard(ino)
	s.mu.Lock()
	defer s.mu.Unlock()
	if p := s.pages[number]; p != nil {
		return p.n[at]
	}
	return 0
}

// inodes returns the number of inodes with a count above zero.
func (c *counts) inodes() (n int64) {
	for i := range c.shards {
		s := &c.shards[i]
		s.mu.Lock()
		n += s.known
		s.mu.Unlock()
	}
	return n
}
