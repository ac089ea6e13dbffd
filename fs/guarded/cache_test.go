package guarded

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
)

const testBlock = 1000 // bytes; not a multiple of anything that matters

// plain writes what block number holds and returns how much that is.
func plain(number uint64, dst []byte) int {
	n := len(dst) - int(number%7)
	var word [8]byte
	for i := 0; i < n; i += 8 {
		x := (number+1)*0x9E3779B97F4A7C15 + uint64(i)*0xBF58476D1CE4E5B9
		binary.LittleEndian.PutUint64(word[:], x|0x0101010101010101) // no byte is zero
		copy(dst[i:n], word[:])
	}
	return n
}

// right tells whether b is the whole of block number.
func right(number uint64, b []byte) bool {
	want := make([]byte, testBlock)
	return bytes.Equal(b, want[:plain(number, want)])
}

func load(number uint64, dst []byte) (int, error) { return plain(number, dst), nil }

// budgetFor returns a budget for that many test blocks.
func budgetFor(blocks int) int64 { return int64(blocks * roundUp(testBlock, blockAlign)) }

func newTestCache(t testing.TB, blocks int, l Loader) *Cache {
	t.Helper()
	c := NewCache(newTestPool(t, testBlock, budgetFor(blocks)), l)
	t.Cleanup(c.Close)
	return c
}

func mustAcquire(t testing.TB, c *Cache, numbers ...uint64) []Pin {
	t.Helper()
	pins, err := c.Acquire(nil, numbers, nil)
	if err != nil {
		t.Fatal(err)
	}
	if len(pins) != len(numbers) {
		t.Fatalf("%d pins for %d numbers", len(pins), len(numbers))
	}
	for i, n := range numbers {
		if !right(n, pins[i].Bytes()) {
			t.Fatalf("block %d has wrong content", n)
		}
	}
	return pins
}

func TestCacheHitsAndMisses(t *testing.T) {
	loads := map[uint64]int{}
	c := newTestCache(t, 64, func(number uint64, dst []byte) (int, error) {
		if len(dst) != testBlock || cap(dst) != testBlock {
			t.Errorf("dst has len %d and cap %d", len(dst), cap(dst))
		}
		loads[number]++
		return load(number, dst)
	})
	pins := mustAcquire(t, c, 5, 3)
	more, err := c.Acquire(nil, []uint64{3, 9}, pins)
	if err != nil || len(more) != 4 || !right(5, more[0].Bytes()) || !right(3, more[2].Bytes()) || !right(9, more[3].Bytes()) {
		t.Fatalf("pins are not appended in order: %v", err)
	}
	if b := more[3].Bytes(); cap(b) != len(b) {
		t.Errorf("%d bytes behind the valid ones can be reached", cap(b)-len(b))
	}
	s := c.Stats()
	want := Stats{Budget: budgetFor(64), Used: s.Used, Cached: 3, Pinned: 3, Hits: 1, Misses: 3}
	if s != want || loads[5] != 1 || loads[3] != 1 || loads[9] != 1 {
		t.Errorf("%+v, want %+v; loads %v", s, want, loads)
	}
	c.Release(more)
	if more[0].Bytes() != nil {
		t.Error("a released pin still shows its block")
	}
	c.Release(more) // cleared: does nothing
	c.Release(mustAcquire(t, c, 9, 5, 3))
	if s := c.Stats(); s.Pinned != 0 || s.Cached != 3 || s.Misses != 3 || s.Hits != 4 {
		t.Errorf("after releasing: %+v", s)
	}
	if pins, err := c.Acquire(nil, nil, nil); err != nil || len(pins) != 0 {
		t.Errorf("a request for nothing: %v, %v", pins, err)
	}
}

func TestCacheNamedTwice(t *testing.T) {
	c := newTestCache(t, 64, load)
	for range 2 { // missing, then cached
		pins := mustAcquire(t, c, 1, 1)
		c.Release(pins)
	}
	if s := c.Stats(); s.Cached != 1 || s.Pinned != 0 {
		t.Errorf("%+v", s)
	}
}

// TestCacheEvicts fills the cache several times over. What is evicted is wiped
// before the loader sees it, pinned blocks stay, and of the others those that
// were asked for again stay longer.
func TestCacheEvicts(t *testing.T) {
	const blocks = 32
	c := newTestCache(t, blocks, func(number uint64, dst []byte) (int, error) {
		if !zero(dst) {
			t.Error("the loader was given a block that was not wiped")
		}
		return load(number, dst)
	})
	pinned := mustAcquire(t, c, 1000)
	for n := range uint64(10 * blocks) {
		c.Release(mustAcquire(t, c, n))
		c.Release(mustAcquire(t, c, 2000)) // used all the time
	}
	if !right(1000, pinned[0].Bytes()) {
		t.Error("a pinned block was changed")
	}
	s := c.Stats()
	if s.Used > s.Budget || s.Cached != c.pool.capacity || s.Evictions != s.Misses-uint64(s.Cached) {
		t.Errorf("%+v", s)
	}
	if want := uint64(10*blocks + 2); s.Misses != want {
		t.Errorf("%d misses, want %d: the block in constant use was evicted", s.Misses, want)
	}
	c.Release(pinned)
}

func TestCacheRequestLimit(t *testing.T) {
	c := newTestCache(t, 64, load)
	if c.MaxRequest() != 4 {
		t.Fatalf("a request may have %d of 64 blocks", c.MaxRequest())
	}
	_, err := c.Acquire(nil, []uint64{1, 2, 3, 4, 5}, nil)
	var e *RequestError
	if !errors.As(err, &e) || e.Blocks != 5 || e.Limit != 4 {
		t.Errorf("5 of 64 blocks: %v", err)
	}
	if s := c.Stats(); s.Cached != 0 || s.Pinned != 0 {
		t.Errorf("%+v", s)
	}
	c.Release(mustAcquire(t, c, 1, 2, 3, 4))
}

// TestCacheLoadFails: nothing stays, every waiter gets the error, the next
// request tries again. The same for a count that can't be, and a panic.
func TestCacheLoadFails(t *testing.T) {
	broken := errors.New("broken")
	for name, fail := range map[string]func([]byte) (int, error){
		"error":    func(dst []byte) (int, error) { return len(dst), broken },
		"too much": func(dst []byte) (int, error) { return len(dst) + 1, nil },
		"negative": func(dst []byte) (int, error) { return -1, nil },
		"panic":    func(dst []byte) (int, error) { panic(broken) },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				gate := make(chan struct{})
				failing := true
				var seen []byte
				c := newTestCache(t, 64, func(number uint64, dst []byte) (int, error) {
					if number == 7 && failing {
						plain(number, dst)
						seen = dst
						<-gate
						return fail(dst)
					}
					return load(number, dst)
				})
				results := make(chan error, 8)
				for range cap(results) {
					go func() {
						defer func() {
							if p := recover(); p != nil {
								results <- fmt.Errorf("%w: %v", errPanicked, p)
							}
						}()
						pins, err := c.Acquire(nil, []uint64{3, 7}, nil)
						if len(pins) > 0 {
							t.Error("pins come with the error")
						}
						results <- err
					}()
				}
				synctest.Wait()
				close(gate)
				for range cap(results) {
					err := <-results
					if err == nil || name == "error" && err != broken || name == "panic" && !errors.Is(err, errPanicked) {
						t.Errorf("a waiter got %v", err)
					}
				}
				synctest.Wait()
				s := c.Stats()
				if s.Pinned != 0 || s.Cached != 1 {
					t.Errorf("%+v", s)
				}
				if !zero(seen) {
					t.Error("what the loader left is not wiped")
				}
				failing = false
				c.Release(mustAcquire(t, c, 3, 7))
			})
		})
	}
}

// TestCacheLoadsAgainAfterFailure: whoever asks after a load failed gets a new
// one, also while an earlier request still has the failed block pinned.
func TestCacheLoadsAgainAfterFailure(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		gate := map[uint64]chan struct{}{7: make(chan struct{}), 8: make(chan struct{})}
		broken, loads := errors.New("broken"), 0
		c := newTestCache(t, 64, func(number uint64, dst []byte) (int, error) {
			<-gate[number]
			if number == 7 {
				if loads++; loads == 1 {
					return 0, broken
				}
			}
			return load(number, dst)
		})
		results := make(chan error, 2)
		for _, numbers := range [][]uint64{{7}, {7, 8}} {
			go func() {
				pins, err := c.Acquire(nil, numbers, nil)
				c.Release(pins)
				results <- err
			}()
			synctest.Wait()
		}
		close(gate[7])
		synctest.Wait()
		if len(results) != 1 {
			t.Fatalf("%d requests ended", len(results))
		}
		c.Release(mustAcquire(t, c, 7))
		close(gate[8])
		if e1, e2 := <-results, <-results; e1 != broken || e2 != broken || loads != 2 {
			t.Errorf("%v, %v, %d loads", e1, e2, loads)
		}
	})
}

// TestCacheLoadsOnce has many ask for the same blocks at the same time.
func TestCacheLoadsOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		gate := make(chan struct{})
		c := newTestCache(t, 64, func(number uint64, dst []byte) (int, error) {
			<-gate
			return load(number, dst)
		})
		done := make(chan struct{}, 100)
		for range cap(done) {
			go func() {
				c.Release(mustAcquire(t, c, 1, 2, 3))
				done <- struct{}{}
			}()
		}
		synctest.Wait()
		if len(done) > 0 {
			t.Error("somebody got a block that is being loaded")
		}
		if s := c.Stats(); s.Misses != 3 || s.Pinned != 3 || s.Waits != 0 {
			t.Errorf("%+v", s)
		}
		close(gate)
		for range cap(done) {
			<-done
		}
		if s := c.Stats(); s.Misses != 3 || s.Pinned != 0 {
			t.Errorf("%+v", s)
		}
	})
}

// TestCacheDrop looks at the memory: idle blocks are wiped at once, pinned ones
// are right until their release and are wiped then.
func TestCacheDrop(t *testing.T) {
	loads := 0
	c := newTestCache(t, 64, func(number uint64, dst []byte) (int, error) {
		loads++
		return load(number, dst)
	})
	pins := mustAcquire(t, c, 1, 2)
	one, two := pins[0].f.data, pins[1].f.data
	again := mustAcquire(t, c, 2)
	c.Release(pins)
	if zero(one) || zero(two) {
		t.Fatal("released blocks do not stay cached")
	}
	c.Drop([]uint64{1, 2, 3})
	if !zero(one) {
		t.Error("an idle block was dropped and not wiped")
	}
	if !right(2, again[0].Bytes()) {
		t.Error("a pinned block was wiped")
	}
	if s := c.Stats(); s.Cached != 0 || s.Pinned != 1 {
		t.Errorf("%+v", s)
	}
	fresh := mustAcquire(t, c, 2)
	if loads != 3 || fresh[0].f == again[0].f {
		t.Error("a dropped block was found")
	}
	c.Release(again)
	if !zero(two) {
		t.Error("a dropped block was not wiped with its last release")
	}
	c.Release(fresh)
}

func TestCacheReleasedTwice(t *testing.T) {
	c := newTestCache(t, 16, load)
	pins := mustAcquire(t, c, 1)
	copied := slices.Clone(pins)
	c.Release(pins)
	defer func() {
		if recover() == nil {
			t.Error("a pin was released twice, and nobody noticed")
		}
		c.Release(mustAcquire(t, c, 1)) // the lock is free
	}()
	c.Release(copied)
}

func TestCacheHitAllocatesNothing(t *testing.T) {
	c := newTestCache(t, 64, load)
	numbers := []uint64{1, 2, 3, 4}
	pins := make([]Pin, 0, 4)
	cancel := make(chan struct{})
	c.Release(mustAcquire(t, c, numbers...))
	if n := testing.AllocsPerRun(1000, func() {
		p, err := c.Acquire(cancel, numbers, pins[:0])
		if err != nil {
			t.Fatal(err)
		}
		c.Release(p)
	}); n != 0 {
		t.Errorf("a hit allocates %v times", n)
	}
}

// TestTryAcquire asks for blocks that are there, and for such as would have to be waited for.
func TestTryAcquire(t *testing.T) {
	loading, let := make(chan struct{}), make(chan struct{})
	c := newTestCache(t, 64, func(number uint64, dst []byte) (int, error) {
		if number == 99 {
			close(loading)
			<-let
		}
		return load(number, dst)
	})
	c.Release(mustAcquire(t, c, 1, 2))
	pins, ok := c.TryAcquire([]uint64{2, 1}, nil)
	if !ok || len(pins) != 2 || !right(2, pins[0].Bytes()) || !right(1, pins[1].Bytes()) {
		t.Fatal("two blocks that are there are not given")
	}
	if s := c.Stats(); s.Hits != 2 || s.Pinned != 2 {
		t.Errorf("after it: %+v", s)
	}
	done := make(chan struct{})
	go func() { c.Release(mustAcquire(t, c, 99)); close(done) }()
	<-loading
	many := make([]uint64, c.MaxRequest()+1)
	for i := range many {
		many[i] = 1
	}
	for what, numbers := range map[string][]uint64{"missing": {1, 3}, "being loaded": {1, 99}, "too many": many} {
		if got, ok := c.TryAcquire(numbers, pins); ok || len(got) != 2 {
			t.Errorf("%s: %d pins, %v", what, len(got), ok)
		}
	}
	close(let)
	<-done
	c.Release(pins)
	if s := c.Stats(); s.Pinned != 0 || s.Misses != 3 {
		t.Errorf("at the end: %+v", s)
	}
	c.mu.Lock()
	c.queue = []*ticket{{ready: make(chan struct{}, 1)}} // somebody waits for memory
	c.mu.Unlock()
	if _, ok := c.TryAcquire([]uint64{1}, nil); ok {
		t.Error("given before somebody who waits")
	}
	c.mu.Lock()
	c.queue = nil
	c.mu.Unlock()
	c.Close()
	if _, ok := c.TryAcquire([]uint64{1}, nil); ok {
		t.Error("given by a closed cache")
	}
}
