package guarded

import "slices"

// ticket is the place of a request in the queue for memory.
type ticket struct{ ready chan struct{} } // one slot: a wake-up is never lost

func (t *ticket) wake() {
	select {
	case t.ready <- struct{}{}:
	default:
	}
}

// admit pins all blocks of a request as soon as there is memory for those that
// are missing and nobody who came earlier waits. It tells whether all of them
// are valid already. c.mu is held, and given up while it waits.
func (c *Cache) admit(cancel <-chan struct{}, numbers []uint64, pins []Pin) ([]Pin, bool, error) {
	if c.closed {
		return pins, false, ErrClosed
	}
	if len(c.queue) == 0 { // the usual case, without a ticket
		if pins, ready, ok := c.take(numbers, pins); ok {
			return pins, ready, nil
		}
	}
	t := &ticket{ready: make(chan struct{}, 1)}
	c.queue = append(c.queue, t)
	c.counts.waits++
	// Whoever comes next may have enough with what is left, or must learn that
	// it is the first now.
	defer func() {
		c.queue = slices.DeleteFunc(c.queue, func(o *ticket) bool { return o == t })
		c.wakeFirst()
	}()
	for {
		if c.queue[0] == t {
			if pins, ready, ok := c.take(numbers, pins); ok {
				return pins, ready, nil
			}
			if err := c.pool.Capped(); err != nil && c.pinned == 0 {
				return pins, false, err // nothing to wait for: there is no more memory than this
			}
		}
		c.mu.Unlock()
		var canceled bool
		select {
		case <-t.ready:
		case <-cancel:
			canceled = true
		}
		c.mu.Lock()
		if c.closed {
			return pins, false, ErrClosed
		}
		if canceled {
			return pins, false, ErrCanceled
		}
	}
}

// wakeFirst lets the first of the queue try again. c.mu must be held.
func (c *Cache) wakeFirst() {
	if len(c.queue) > 0 {
		c.queue[0].wake()
	}
}

// take pins all the blocks or, if there is not enough memory for those that are
// missing, none. c.mu must be held.
func (c *Cache) take(numbers []uint64, pins []Pin) (_ []Pin, ready, ok bool) {
	base := len(pins)
	missing, ready := 0, true
	for _, n := range numbers {
		f := c.index[n]
		if f == nil {
			missing++
		} else {
			// Pinned before anything is evicted, so that the request does not
			// evict its own blocks.
			c.pin(f)
			f.recent = true
			ready = ready && f.state == valid
		}
		pins = append(pins, Pin{f})
	}
	if missing == 0 {
		c.counts.hits += uint64(len(numbers))
		return pins, ready, true
	}
	if !c.reserve(missing) {
		for i := range pins[base:] {
			if f := pins[base+i].f; f != nil {
				c.unpin(f)
			}
			pins[base+i] = Pin{}
		}
		return pins[:base], false, false
	}
	for i, n := range numbers {
		if pins[base+i].f == nil {
			pins[base+i].f = c.assign(n)
		}
	}
	c.counts.hits += uint64(len(numbers) - missing)
	c.counts.misses += uint64(missing)
	return pins, false, true
}
