package guarded

import (
	"errors"
	"fmt"
	"sync"
)

var (
	// ErrCanceled is what [Cache.Acquire] returns when its cancel channel was
	// closed while it waited.
	ErrCanceled = errors.New("waiting for guarded memory was canceled")
	// ErrClosed is what [Cache.Acquire] returns once [Cache.Close] was called.
	ErrClosed = errors.New("guarded memory is closed")
)

// RequestError says that a request asks for more blocks than can be taken at
// once. Nothing was acquired.
type RequestError struct{ Blocks, Limit int }

func (e *RequestError) Error() string {
	return fmt.Sprintf("a request for %d blocks of guarded memory is refused: its limit is %d, a sixteenth of the budget", e.Blocks, e.Limit)
}

// Loader reads, authenticates and decrypts block number straight into dst, which
// is one block long and zeroed, and returns how many bytes are valid. It must
// keep no reference to dst. It is called by many goroutines at once, but never
// twice at once for the same dst, nor for a block that is cached.
type Loader func(number uint64, dst []byte) (n int, err error)

// Pin holds a block in the cache. The zero Pin holds none.
type Pin struct{ f *frame }

// Bytes returns the valid bytes of the block itself, not a copy. They must not
// be changed, and not be looked at after the Pin was released.
func (p Pin) Bytes() []byte {
	if p.f == nil {
		return nil
	}
	return p.f.data[:p.f.n:p.f.n]
}

// Stats is what a cache holds and did. What it holds is in bytes or blocks as
// it is now, what it did are totals.
type Stats struct {
	Budget int64 // bytes that may be locked
	Used   int64 // bytes that are locked
	Cached int   // blocks that a request would find, or is loading
	Pinned int   // blocks that are pinned, also when they were dropped meanwhile

	Hits      uint64 // blocks asked for that were cached, or being loaded
	Misses    uint64 // blocks asked for that were neither
	Evictions uint64 // blocks that made place for another
	Waits     uint64 // requests that waited for pins to be released
}

// Cache keeps the blocks of a vault, by number, in the memory of a [Pool]. It is
// safe for concurrent use. Its one lock is held for some tens of nanoseconds
// per block; blocks are loaded, and wiped for it, without it.
type Cache struct {
	pool *Pool
	load Loader

	mu     sync.Mutex
	index  map[uint64]*frame // every block that can be found
	clock  []*frame          // every frame there is
	hand   int               // where CLOCK looks next
	spare  []*frame          // wiped frames without a number
	idle   int               // blocks that may be evicted: valid and not pinned
	pinned int               // frames with pins
	queue  []*ticket         // requests that wait for memory, in order of arrival
	closed bool
	drain  chan struct{} // closed when the cache is and the last pin has gone
	counts struct{ hits, misses, evictions, waits uint64 }
}

// NewCache makes an empty cache that uses all of pool.
func NewCache(pool *Pool, load Loader) *Cache {
	return &Cache{
		pool:  pool,
		load:  load,
		index: make(map[uint64]*frame),
		drain: make(chan struct{}),
	}
}

// MaxRequest returns how many blocks one call of Acquire may ask for: those of
// a sixteenth of the budget, or fewer where fewer can be locked, and one at
// least. It never changes.
func (c *Cache) MaxRequest() int { return c.pool.largest }

// Acquire pins the blocks of a request and appends a Pin for each to pins, in
// order. The numbers must be distinct. It takes all or none; those who get
// their memory first are those who asked first. A block is loaded by the first
// that needs it, and the others wait for that.
//
// It returns a *RequestError if there are more than MaxRequest numbers, a
// *LockError if fewer blocks than these can be locked any more, the
// loader's error if a block could not be loaded (it stays uncached, so that the
// next request tries again), ErrCanceled if cancel was closed while it waited
// for memory or for a load (a load that has begun is always finished), and
// ErrClosed. With an error, nothing is appended and nothing stays pinned.
//
// A goroutine must not call Acquire while it holds pins: two of them could wait
// for each other.
func (c *Cache) Acquire(cancel <-chan struct{}, numbers []uint64, pins []Pin) ([]Pin, error) {
	if limit := c.MaxRequest(); len(numbers) > limit {
		return pins, &RequestError{Blocks: len(numbers), Limit: limit}
	}
	base := len(pins)
	c.mu.Lock()
	pins, ready, err := c.admit(cancel, numbers, pins)
	c.mu.Unlock()
	if err != nil || ready {
		return pins, err
	}
	if err := c.settle(cancel, pins[base:]); err != nil {
		return pins[:base], err
	}
	return pins, nil
}

// TryAcquire is Acquire for blocks that are all there: it pins them without
// waiting for anything but the cache's lock. Otherwise it returns false, and
// has pinned none; also when others wait for memory, who would have to wait
// longer.
func (c *Cache) TryAcquire(numbers []uint64, pins []Pin) ([]Pin, bool) {
	base := len(pins)
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed || len(c.queue) > 0 || len(numbers) > c.MaxRequest() {
		return pins, false
	}
	for _, n := range numbers {
		f := c.index[n]
		if f == nil || f.state != valid {
			clear(pins[base:])
			return pins[:base], false
		}
		pins = append(pins, Pin{f})
	}
	for _, p := range pins[base:] {
		c.pin(p.f)
		p.f.recent = true
	}
	c.counts.hits += uint64(len(numbers))
	return pins, true
}

// settle returns when every block of a request is valid, or with the first
// error and the pins released, as also after a panic of the loader. It loads those that nobody has begun to load, and then waits for those
// that others do, who never wait for anybody while they load: no circle.
func (c *Cache) settle(cancel <-chan struct{}, pins []Pin) error {
	settled := false
	defer func() {
		if !settled {
			c.Release(pins)
		}
	}()
	for _, p := range pins {
		if isClosed(cancel) {
			return ErrCanceled
		}
		if err := c.fill(p.f); err != nil {
			return err
		}
	}
	for _, p := range pins {
		if err := c.await(cancel, p.f); err != nil {
			return err
		}
	}
	settled = true
	return nil
}

// Release unpins blocks and clears pins, so that they can't be used again. The
// blocks stay cached.
func (c *Cache) Release(pins []Pin) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for i := range pins {
		if f := pins[i].f; f != nil {
			c.unpin(f)
		}
		pins[i] = Pin{}
	}
	c.wakeFirst()
}

// Drop makes the cache forget blocks and wipes them: at once, or if somebody
// has pinned them with the last Release. Whoever acquires such a number
// afterwards gets it loaded anew.
func (c *Cache) Drop(numbers []uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, n := range numbers {
		if f := c.index[n]; f != nil {
			c.forget(f)
		}
	}
}

// Close refuses all further requests, also those that wait for memory, waits
// until every Pin is released, and then wipes all blocks and gives them back to
// the pool. It does wait, without a limit of time, because a block that is
// pinned is being sent to somebody: wiping it under the reply would serve zeros
// for code. Calling it again waits in the same way.
func (c *Cache) Close() {
	c.mu.Lock()
	if !c.closed {
		c.closed = true
		for _, t := range c.queue {
			t.wake()
		}
		c.drained()
	}
	c.mu.Unlock()
	<-c.drain
}

// Stats returns the present figures, all of the same instant.
func (c *Cache) Stats() Stats {
	c.mu.Lock()
	defer c.mu.Unlock()
	return Stats{
		Budget:    c.pool.budget,
		Used:      c.pool.Used(),
		Cached:    len(c.index),
		Pinned:    c.pinned,
		Hits:      c.counts.hits,
		Misses:    c.counts.misses,
		Evictions: c.counts.evictions,
		Waits:     c.counts.waits,
	}
}

// isClosed tells whether a channel is closed; a nil channel never is.
func isClosed(cancel <-chan struct{}) bool {
	select {
	case <-cancel:
		return true
	default:
		return false
	}
}
