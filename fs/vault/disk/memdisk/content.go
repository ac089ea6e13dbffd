package memdisk

import (
	"io"
	"maps"
	"slices"
)

// pageSize is the unit in which a page cache writes to a medium, sectorSize that
// in which the medium itself is atomic; in bytes.
const (
	pageSize   = 4096
	sectorSize = 512
)

// page is never changed once it stands in a content: tables of pages are shared
// between Disks.
type page [pageSize]byte

var zeroPage page

// content is what a file holds: on the medium, and in the cache before it.
//
// What a read shows of a page is the last version in dirty, else lost, else
// stable, else zeros. Bytes of a page behind the length are zero.
type content struct {
	stable     []*page // on the medium; nil is a page of zeros
	stableSize int64
	shared     bool // stable is also another Disk's: copy it before a change

	size   int64
	growth []int64           // the lengths since the last Sync, growing; the last is size
	dirty  map[int64][]*page // the versions of each page since the last Sync, oldest first
	lost   map[int64]*page   // pages that a failed Sync left clean in the cache alone
}

func (c *content) visible(i int64) *page {
	if versions := c.dirty[i]; len(versions) > 0 {
		return versions[len(versions)-1]
	}
	if p := c.lost[i]; p != nil {
		return p
	}
	return c.onMedium(i)
}

// onMedium gives a page as it would be read behind the cache.
func (c *content) onMedium(i int64) *page {
	if i < int64(len(c.stable)) && c.stable[i] != nil {
		return c.stable[i]
	}
	return &zeroPage
}

func (c *content) readAt(p []byte, off int64) (int, error) {
	n := 0
	for n < len(p) && off < c.size {
		from := c.visible(off / pageSize)[off%pageSize:]
		from = from[:min(int64(len(from)), c.size-off)]
		k := copy(p[n:], from)
		n, off = n+k, off+int64(k)
	}
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

func (c *content) writeAt(p []byte, off int64) {
	for len(p) > 0 {
		i := off / pageSize
		fresh := new(page)
		if off%pageSize != 0 || len(p) < pageSize {
			*fresh = *c.visible(i)
		}
		k := copy(fresh[off%pageSize:], p)
		if c.dirty == nil {
			c.dirty = make(map[int64][]*page)
		}
		c.dirty[i] = append(c.dirty[i], fresh)
		delete(c.lost, i)
		p, off = p[k:], off+int64(k)
		if off > c.size { // the kernel too moves the end page by page through a write
			c.size = off
			c.growth = append(c.growth, off)
		}
	}
}

// setStable changes a page on the medium.
func (c *content) setStable(i int64, p *page) {
	if c.shared {
		c.stable = slices.Clone(c.stable)
		c.shared = false
	}
	if missing := i + 1 - int64(len(c.stable)); missing > 0 {
		c.stable = append(c.stable, make([]*page, missing)...)
	}
	c.stable[i] = p
}

// sync makes everything durable but what an earlier failed Sync lost: those pages
// are clean, so that the kernel sees nothing to write.
func (c *content) sync() {
	for i, versions := range c.dirty {
		c.setStable(i, versions[len(versions)-1])
	}
	c.dirty, c.growth = nil, nil
	c.stableSize = c.size
}

// failSync leaves what a failed fdatasync does: each page clean and only the chosen
// ones on the medium. The length is not lost: the journal still has it to write.
func (c *content) failSync(reached Choose) {
	for _, i := range slices.Sorted(maps.Keys(c.dirty)) {
		versions := c.dirty[i]
		if k := reached(len(versions) + 1); k > 0 {
			c.setStable(i, versions[k-1])
		}
		if c.lost == nil {
			c.lost = make(map[int64]*page)
		}
		c.lost[i] = versions[len(versions)-1]
	}
	c.dirty = nil
}

// dropCache forgets the clean pages; the dirty ones stay, as under Linux.
func (c *content) dropCache() { c.lost = nil }

// clone copies c; pages are shared.
func (c *content) clone() content {
	c.shared = true
	copied := *c
	copied.growth = slices.Clone(c.growth)
	copied.dirty = maps.Clone(c.dirty)
	for i, versions := range copied.dirty {
		copied.dirty[i] = slices.Clone(versions)
	}
	copied.lost = maps.Clone(c.lost)
	return copied
}

// equal says whether reads of both show the same.
func (c *content) equal(other *content) bool {
	if c.size != other.size {
		return false
	}
	for i := int64(0); i*pageSize < c.size; i++ {
		a, b := c.visible(i), other.visible(i)
		if a != b && *a != *b {
			return false
		}
	}
	return true
}
