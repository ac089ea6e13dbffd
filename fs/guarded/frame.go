package guarded

import (
	"errors"
	"fmt"
)

// state is how far the content of a frame is.
type state uint8

const (
	empty   state = iota // has a number perhaps, but nobody has begun to load it
	loading              // belongs to the one who loads it
	valid                // n bytes of data are the block's
	failed               // err is why; not in the index
)

// frame is a block of memory and what it is used for. All fields but data are
// guarded by the cache's lock; those who have it pinned may read data and n
// once it was valid, and whoever set it to loading may write data.
type frame struct {
	data    []byte
	number  uint64
	n       int
	pins    int
	state   state
	indexed bool          // the cache's index leads here
	recent  bool          // asked for since CLOCK's hand passed
	dirty   bool          // data may hold contents
	err     error         // why the load failed
	done    chan struct{} // closed when the load ends; made by the first that waits
}

var errPanicked = errors.New("loading a block into guarded memory ended in a panic")

// pin adds a pin. c.mu must be held, as for all that follow unless said.
func (c *Cache) pin(f *frame) {
	if f.pins == 0 {
		c.pinned++
		if f.state == valid {
			c.idle--
		}
	}
	f.pins++
}

// unpin takes a pin away. With the last one the block becomes idle or, if it
// can't be found or was never loaded, is wiped.
func (c *Cache) unpin(f *frame) {
	if f.pins == 0 {
		panic("guarded: a pin was released twice")
	}
	f.pins--
	if f.pins > 0 {
		return
	}
	c.pinned--
	if f.state == valid && f.indexed {
		c.idle++
	} else {
		c.retire(f)
	}
	c.drained()
}

// retire wipes a frame that nobody has pinned and makes it spare.
func (c *Cache) retire(f *frame) {
	c.unindex(f)
	f.wipe()
	*f = frame{data: f.data}
	c.spare = append(c.spare, f)
}

// forget makes a block unfindable, and wipes it if it is idle.
func (c *Cache) forget(f *frame) {
	if f.pins > 0 {
		c.unindex(f)
		return
	}
	c.idle--
	c.retire(f)
}

func (c *Cache) unindex(f *frame) {
	if f.indexed {
		delete(c.index, f.number)
		f.indexed = false
	}
}

// reserve sees to it that n frames can be assigned: spare ones, new ones while
// the pool has any, and else blocks that can be evicted.
func (c *Cache) reserve(n int) bool {
	for len(c.spare) < n {
		b, err := c.pool.Get()
		if err != nil {
			break // used up or no more to be locked: evict
		}
		f := &frame{data: b}
		c.clock = append(c.clock, f)
		c.spare = append(c.spare, f)
	}
	return len(c.spare)+c.idle >= n
}

// assign gives a block that is missing a frame, and pins it. reserve must have
// succeeded.
func (c *Cache) assign(number uint64) *frame {
	f := c.index[number]
	if f != nil { // the request names it twice
		c.pin(f)
		return f
	}
	if last := len(c.spare) - 1; last >= 0 {
		f = c.spare[last]
		c.spare = c.spare[:last]
	} else {
		f = c.evict()
	}
	*f = frame{data: f.data, dirty: f.dirty, number: number, indexed: true}
	c.index[number] = f
	c.pin(f)
	return f
}

// evict finds an idle block by CLOCK: the first that was not asked for since
// the hand passed it last. There must be one. It is wiped by the one who loads
// into it, without the lock.
func (c *Cache) evict() *frame {
	for {
		f := c.clock[c.hand]
		c.hand = (c.hand + 1) % len(c.clock)
		if f.pins > 0 || f.state != valid || !f.indexed {
			continue
		}
		if f.recent {
			f.recent = false
			continue
		}
		c.unindex(f)
		c.idle--
		c.counts.evictions++
		return f
	}
}

// fill loads the block if nobody has begun to. It takes c.mu itself.
func (c *Cache) fill(f *frame) error {
	c.mu.Lock()
	if f.state != empty {
		c.mu.Unlock()
		return nil
	}
	f.state = loading
	number := f.number
	c.mu.Unlock()

	n, err := 0, errPanicked
	defer func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.finish(f, n, err)
	}()
	f.wipe()
	f.dirty = true
	n, err = c.load(number, f.data)
	if err == nil && (n < 0 || n > len(f.data)) {
		err = fmt.Errorf("loading block %d gave %d bytes, a block has %d", number, n, len(f.data))
	}
	return err
}

// finish ends a load and tells those who wait for it.
func (c *Cache) finish(f *frame, n int, err error) {
	f.n, f.err, f.state = n, err, valid
	if err != nil {
		f.state = failed
		c.unindex(f) // the next request tries again
	}
	if f.done != nil {
		close(f.done)
		f.done = nil
	}
}

// await returns when the block is valid or with the error of its load. It takes
// c.mu itself.
func (c *Cache) await(cancel <-chan struct{}, f *frame) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if f.state == loading {
		if f.done == nil {
			f.done = make(chan struct{})
		}
		done := f.done
		c.mu.Unlock()
		select {
		case <-done:
		case <-cancel:
			c.mu.Lock()
			return ErrCanceled
		}
		c.mu.Lock()
	}
	return f.err
}

// wipe wipes the data if there can be contents in it.
func (f *frame) wipe() {
	if f.dirty {
		Wipe(f.data)
		f.dirty = false
	}
}

// drained ends the life of a closed cache when nothing is pinned: all blocks
// are wiped and go back to the pool.
func (c *Cache) drained() {
	if !c.closed || c.pinned > 0 || isClosed(c.drain) {
		return
	}
	for _, f := range c.clock {
		c.pool.Put(f.data) // wipes
		f.data = nil
	}
	clear(c.index)
	c.clock, c.spare, c.idle = nil, nil, 0
	close(c.drain)
}
