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

// TestCacheQueue: with all memory pinned, requests get theirs in the order in
// which they came, those for cached blocks too; one that is canceled leaves the
// queue; when pins go the rest moves on.
func TestCacheQueue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newTestCache(t, 64, load)
		var held [][]Pin
		for n := uint64(0); n < uint64(c.pool.capacity); n += 4 {
			held = append(held, mustAcquire(t, c, n, n+1, n+2, n+3))
		}
		var order []string
		ask := func(name string, cancel <-chan struct{}, numbers ...uint64) {
			go func() {
				pins, err := c.Acquire(cancel, numbers, nil)
				if err != nil {
					name += ": " + err.Error()
				}
				order = append(order, name)
				c.Release(pins)
			}()
			synctest.Wait()
		}
		cancel := make(chan struct{})
		ask("canceled first", cancel, 98, 99)
		ask("four", nil, 100, 101, 102, 103)
		ask("canceled later", cancel, 200)
		ask("cached", nil, 5)
		ask("one", nil, 300)
		if len(order) != 0 {
			t.Fatalf("not waiting: %q", order)
		}
		close(cancel)
		synctest.Wait()
		if len(order) != 2 {
			t.Fatalf("not canceled: %q", order)
		}
		slices.Sort(order)
		c.Release(held[0][:3])
		synctest.Wait()
		if len(order) != 2 {
			t.Fatalf("three blocks were enough: %q", order)
		}
		c.Release(held[0][3:])
		synctest.Wait()
		want := []string{"canceled first: " + ErrCanceled.Error(), "canceled later: " + ErrCanceled.Error(), "four", "cached", "one"}
		if !slices.Equal(order[:3], want[:3]) || len(order) != 5 {
			t.Errorf("order %q, want %q", order, want)
		}
		for _, h := range held {
			c.Release(h)
		}
		if s := c.Stats(); s.Pinned != 0 || s.Waits != 5 || len(c.queue) != 0 || c.idle != s.Cached {
			t.Errorf("%+v, idle %d", s, c.idle)
		}
	})
}

// TestCacheQueueMovesOn: one release is enough for all whose requests it
// satisfies, and when the first gives up the next has its turn.
func TestCacheQueueMovesOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newTestCache(t, 64, load)
		var held [][]Pin
		for n := uint64(0); n < uint64(c.pool.capacity); n += 4 {
			held = append(held, mustAcquire(t, c, n, n+1, n+2, n+3))
		}
		got := make(chan []Pin, 4)
		ask := func(cancel <-chan struct{}, numbers ...uint64) {
			go func() {
				pins, err := c.Acquire(cancel, numbers, nil)
				if err != nil && err != ErrCanceled {
					t.Error(err)
				}
				got <- pins
			}()
			synctest.Wait()
		}
		ask(nil, 100)
		ask(nil, 101, 102)
		c.Release(held[0])
		synctest.Wait()
		if len(got) != 2 {
			t.Errorf("%d of two requests were served", len(got))
		}
		cancel := make(chan struct{})
		ask(cancel, 200, 201, 202, 203) // one block is left
		ask(nil, 300)
		if len(got) != 2 {
			t.Error("somebody was served out of turn")
		}
		close(cancel)
		synctest.Wait()
		if len(got) != 4 {
			t.Error("the next was not served when the first gave up")
		}
		for range len(got) {
			c.Release(<-got)
		}
		for _, h := range held {
			c.Release(h)
		}
	})
}

// TestCacheCancelWhileLoading: a waiter gives up; the load goes on and its block
// stays. A loader that is canceled between two blocks leaves the second to those
// who want it too, or to nobody.
func TestCacheCancelWhileLoading(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		gate := make(chan struct{})
		var loaded []uint64
		c := newTestCache(t, 64, func(number uint64, dst []byte) (int, error) {
			<-gate
			loaded = append(loaded, number)
			return load(number, dst)
		})
		ask := func(cancel <-chan struct{}, numbers ...uint64) <-chan error {
			result := make(chan error, 1)
			go func() {
				pins, err := c.Acquire(cancel, numbers, nil)
				c.Release(pins)
				result <- err
			}()
			synctest.Wait()
			return result
		}
		cancelLoader, cancelWaiter := make(chan struct{}), make(chan struct{})
		loader := ask(cancelLoader, 1, 2, 3)
		waiter := ask(cancelWaiter, 1)
		other := ask(nil, 1) // keeps block 1 wanted
		close(cancelWaiter)
		synctest.Wait()
		if err := <-waiter; err != ErrCanceled {
			t.Errorf("the waiter got %v", err)
		}
		close(cancelLoader)
		synctest.Wait()
		if len(loader) != 0 {
			t.Error("the loader abandoned its block")
		}
		close(gate)
		if err := <-loader; err != ErrCanceled {
			t.Errorf("the loader got %v", err)
		}
		if err := <-other; err != nil {
			t.Error(err)
		}
		synctest.Wait()
		if s := c.Stats(); s.Cached != 1 || s.Pinned != 0 || !slices.Equal(loaded, []uint64{1}) {
			t.Errorf("%+v, loaded %v", s, loaded)
		}
		c.Release(mustAcquire(t, c, 1, 2, 3))
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

// TestCacheClose: those who wait are refused, those who hold pins keep them, and
// when the last is released everything is wiped.
func TestCacheClose(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newTestCache(t, 16, load)
		var held []Pin
		for n := range uint64(c.pool.capacity) {
			held = append(held, mustAcquire(t, c, n)...)
		}
		waiting, closed := make(chan error, 2), make(chan struct{}, 2)
		for range cap(waiting) {
			go func() {
				_, err := c.Acquire(nil, []uint64{500}, nil)
				waiting <- err
			}()
		}
		synctest.Wait()
		for range cap(closed) {
			go func() { c.Close(); closed <- struct{}{} }()
		}
		synctest.Wait()
		if e1, e2 := <-waiting, <-waiting; e1 != ErrClosed || e2 != ErrClosed {
			t.Errorf("those who waited got %v and %v", e1, e2)
		}
		if _, err := c.Acquire(nil, []uint64{0}, nil); err != ErrClosed {
			t.Errorf("a closed cache says %v", err)
		}
		var memory [][]byte
		for n, p := range held {
			if !right(uint64(n), p.Bytes()) {
				t.Errorf("block %d is wrong while the cache is being closed", n)
			}
			memory = append(memory, p.f.data)
		}
		c.Release(held[1:])
		synctest.Wait()
		if len(closed) != 0 || !right(0, held[0].Bytes()) {
			t.Error("Close did not wait for a pin")
		}
		c.Release(held[:1])
		<-closed
		<-closed
		for n, b := range memory {
			if !zero(b) {
				t.Errorf("block %d was not wiped", n)
			}
		}
		if s := c.Stats(); s.Cached != 0 || s.Pinned != 0 {
			t.Errorf("%+v", s)
		}
	})
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
