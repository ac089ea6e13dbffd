package guarded

import (
	"slices"
	"sync"
	"testing"
	"testing/synctest"
)

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
		var mu sync.Mutex
		var order []string // of those who had theirs
		ask := func(name string, cancel <-chan struct{}, numbers ...uint64) {
			go func() {
				pins, err := c.Acquire(cancel, numbers, nil)
				if err != nil {
					name += ": " + err.Error()
				}
				mu.Lock()
				order = append(order, name)
				mu.Unlock()
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
		// "cached" gets its block after "four", but while that loads, may be told
		// so first; "one" has to wait for the memory of "four".
		at := func(name string) int { return slices.Index(order, name) }
		if len(order) != 5 || at("canceled first: "+ErrCanceled.Error()) != 0 || at("canceled later: "+ErrCanceled.Error()) != 1 || at("cached") < 0 || at("four") < 0 || at("one") < at("four") {
			t.Errorf("order %q", order)
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
