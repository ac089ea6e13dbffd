package fs

import (
	"sync"

	"github.com/hanwen/go-fuse/v2/fuse"

	"encfsrun/fs/guarded"
	"encfsrun/fs/vault"
)

// copies is a guarded buffer for replies that lie in more pieces than one writev(2) takes, or in more blocks than a request may
// have pinned: those to reads of a file that was written in many little pieces. Such a reply must not be cut, for a short read is
// the end of a file; so its contents are copied together. There is one buffer, as large as the largest such read was, for one
// reply at a time.
type copies struct {
	mu     sync.Mutex
	memory *guarded.Buffer
	used   int
}

// get locks the buffer and returns n bytes of it.
func (c *copies) get(n int) ([]byte, error) {
	c.mu.Lock()
	if len(c.memory.Bytes()) < n {
		c.memory.Destroy()
		var err error
		if c.memory, err = guarded.NewIOBuffer(n); err != nil {
			c.memory = nil
			c.mu.Unlock()
			return nil, err
		}
	}
	c.used = n
	return c.memory.Bytes()[:n], nil
}

// put wipes what get returned, and unlocks the buffer.
func (c *copies) put() {
	guarded.Wipe(c.memory.Bytes()[:c.used])
	c.mu.Unlock()
}

func (c *copies) destroy() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.memory.Destroy()
	c.memory = nil
}

// copy makes the reply of total bytes in r.spans, block by block.
func (r *reply) copy(h *fuse.InHeader, total int) error {
	r.fs.waits(h)
	buf, err := r.fs.copies.get(total)
	if err != nil {
		return err
	}
	r.copied = true
	for _, s := range r.spans {
		if !s.Hole {
			if err := r.copySpan(s, buf[r.size:]); err != nil {
				return err
			}
		}
		r.size += s.Len
	}
	r.slices = append(r.slices, buf)
	return nil
}

// copySpan copies what is not a hole.
func (r *reply) copySpan(s vault.Span, to []byte) (err error) {
	r.numbers = append(r.numbers[:0], s.Block)
	if r.pins, err = r.fs.blocks.Acquire(nil, r.numbers, r.pins); err != nil {
		return err
	}
	b, err := r.bytes(s)
	copy(to, b)
	r.fs.blocks.Release(r.pins)
	r.pins = r.pins[:0]
	return err
}
