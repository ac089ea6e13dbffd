package guarded

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"runtime"
	"runtime/pprof"
	"sync"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// TestCacheModel runs single requests against a model that knows which blocks
// are cached, pinned and dropped.
func TestCacheModel(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		budget := budgetFor(rapid.IntRange(minBlocks, 80).Draw(rt, "blocks"))
		pool, err := NewPool(testBlock, budget)
		if errors.As(err, new(*BudgetError)) {
			rt.Skip() // 16 blocks do not fill their pages
		} else if err != nil {
			rt.Fatal(err)
		}
		var loaded []uint64
		c := NewCache(pool, func(number uint64, dst []byte) (int, error) {
			if !zero(dst) {
				rt.Fatal("a block was not wiped before it was used again")
			}
			loaded = append(loaded, number)
			return load(number, dst)
		})
		type request struct {
			numbers []uint64
			pins    []Pin
		}
		var held []request
		pinned := func() int {
			frames := map[*frame]bool{}
			for _, r := range held {
				for _, p := range r.pins {
					frames[p.f] = true
				}
			}
			return len(frames)
		}
		cached := map[uint64]bool{} // what the model knows to be cached, before evictions
		canceled := make(chan struct{})
		close(canceled)
		rt.Repeat(map[string]func(*rapid.T){
			"acquire": func(rt *rapid.T) {
				numbers := rapid.SliceOfNDistinct(rapid.Uint64Range(0, 150), 1, c.MaxRequest(), rapid.ID[uint64]).Draw(rt, "numbers")
				if pinned()+len(numbers) > pool.capacity {
					return // could wait for ever
				}
				before := c.Stats()
				loaded = loaded[:0]
				pins, err := c.Acquire(nil, numbers, nil)
				if err != nil {
					rt.Fatal(err)
				}
				after := c.Stats()
				missing := 0
				for _, n := range numbers {
					if !cached[n] {
						missing++
					}
					cached[n] = true
				}
				if after.Evictions == 0 && missing != len(loaded) || missing > len(loaded) {
					rt.Fatalf("%d blocks were missing, %d were loaded", missing, len(loaded))
				}
				if got := after.Misses - before.Misses; got != uint64(len(loaded)) {
					rt.Fatalf("%d misses, %d loads", got, len(loaded))
				}
				if after.Evictions > before.Evictions && pool.blocks < pool.capacity {
					rt.Fatal("a block was evicted while the pool could grow")
				}
				held = append(held, request{numbers, pins})
			},
			"release": func(rt *rapid.T) {
				if len(held) > 0 {
					i := rapid.IntRange(0, len(held)-1).Draw(rt, "which")
					c.Release(held[i].pins)
					held = append(held[:i], held[i+1:]...)
				}
			},
			"drop": func(rt *rapid.T) {
				numbers := rapid.SliceOfN(rapid.Uint64Range(0, 150), 0, 20).Draw(rt, "numbers")
				c.Drop(numbers)
				for _, n := range numbers {
					delete(cached, n)
					if c.index[n] != nil {
						rt.Fatalf("block %d was dropped and can be found", n)
					}
				}
			},
			"": func(rt *rapid.T) {
				for _, r := range held {
					for i, p := range r.pins {
						if !right(r.numbers[i], p.Bytes()) {
							rt.Fatalf("block %d is wrong while it is pinned", r.numbers[i])
						}
					}
				}
				checkCache(rt, c, pinned())
			},
		})
		for _, r := range held {
			c.Release(r.pins)
		}
		c.Close()
		if err := pool.Close(); err != nil {
			rt.Fatal(err)
		}
	})
}

// checkCache compares the cache's books with its frames.
func checkCache(t rapid.TB, c *Cache, pinned int) {
	t.Helper()
	c.mu.Lock()
	defer c.mu.Unlock()
	idle, found, seen := 0, 0, map[*byte]bool{}
	for _, f := range c.clock {
		if f.indexed {
			found++
			if c.index[f.number] != f {
				t.Fatalf("block %d leads elsewhere", f.number)
			}
			if f.pins == 0 {
				idle++
			}
		} else if f.pins == 0 && !zero(f.data) {
			t.Fatal("a block that can't be found was not wiped")
		}
		if seen[&f.data[0]] {
			t.Fatal("two frames share a block")
		}
		seen[&f.data[0]] = true
	}
	if idle != c.idle || found != len(c.index) || pinned != c.pinned {
		t.Fatalf("%d idle, %d found, %d pinned; the cache counts %d, %d, %d", idle, found, pinned, c.idle, len(c.index), c.pinned)
	}
	if used := c.pool.Used(); used > c.pool.budget {
		t.Fatalf("%d bytes are used of a budget of %d", used, c.pool.budget)
	}
}

// storm is a run of many goroutines on one cache.
type storm struct {
	t      rapid.TB
	c      *Cache
	keys   uint64
	fails  int  // one load in so many fails; 0: none
	drops  bool // blocks are dropped while they are used
	cancel bool // some requests are canceled

	mu      sync.Mutex
	loading map[*byte]bool  // blocks that a loader writes to
	holders map[*byte]int   // blocks that were handed out
	numbers map[uint64]bool // numbers being loaded
	loads   uint64
}

var errStorm = errors.New("this load was made to fail")

func (s *storm) load(number uint64, dst []byte) (int, error) {
	s.mu.Lock()
	if !zero(dst) {
		s.t.Errorf("block %d was not wiped before it was used again", number)
	}
	if s.loading[&dst[0]] || s.holders[&dst[0]] > 0 {
		s.t.Errorf("block %d is loaded into memory that is in use", number)
	}
	if s.numbers[number] && !s.drops {
		s.t.Errorf("block %d is loaded twice at once", number)
	}
	s.loading[&dst[0]], s.numbers[number] = true, true
	s.loads++
	s.mu.Unlock()
	half := len(dst) / 2
	copy(dst, make([]byte, half))
	for range rand.IntN(4) {
		runtime.Gosched()
	}
	n, err := load(number, dst)
	if s.fails > 0 && rand.IntN(s.fails) == 0 {
		err = errStorm
	}
	s.mu.Lock()
	delete(s.loading, &dst[0])
	delete(s.numbers, number)
	s.mu.Unlock()
	return n, err
}

// hold notes that blocks are handed out (or given back), and checks them.
func (s *storm) hold(numbers []uint64, pins []Pin, delta int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i, p := range pins {
		b := p.Bytes()
		if s.loading[&b[0]] {
			s.t.Errorf("block %d is handed out while it is loaded", numbers[i])
		}
		if !right(numbers[i], b) {
			s.t.Errorf("block %d has wrong content", numbers[i])
		}
		s.holders[&b[0]] += delta
	}
}

// work makes requests.
func (s *storm) work(requests int) {
	pins := make([]Pin, 0, s.c.MaxRequest())
	for range requests {
		first, n := rand.Uint64N(s.keys), 1+rand.IntN(s.c.MaxRequest())
		numbers := make([]uint64, n)
		for i := range numbers {
			numbers[i] = (first + uint64(i)) % (s.keys + uint64(n)) // distinct
		}
		var cancel chan struct{}
		if s.cancel && rand.IntN(3) == 0 {
			cancel = make(chan struct{})
			go func() {
				runtime.Gosched()
				close(cancel)
			}()
		}
		got, err := s.c.Acquire(cancel, numbers, pins)
		if err != nil {
			if len(got) != 0 || !(errors.Is(err, errStorm) && s.fails > 0) && !(err == ErrCanceled && cancel != nil) {
				s.t.Errorf("a request ended with %d pins and %v", len(got), err)
			}
			continue
		}
		s.hold(numbers, got, 1)
		if s.drops && rand.IntN(3) == 0 {
			s.c.Drop(numbers[:1])
		}
		for range rand.IntN(3) {
			runtime.Gosched()
		}
		s.hold(numbers, got, -1)
		s.c.Release(got)
		if st := s.c.Stats(); st.Used > st.Budget {
			s.t.Errorf("%d bytes are used of a budget of %d", st.Used, st.Budget)
		}
	}
}

// TestCacheStorm: whatever many goroutines do at once, contents are right, no
// block is handed out while it is loaded or loaded while it is in use, each is
// loaded once, the budget holds, and all of them come to an end.
func TestCacheStorm(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		pool, err := NewPool(testBlock, budgetFor(rapid.IntRange(20, 120).Draw(rt, "blocks")))
		if err != nil {
			rt.Fatal(err)
		}
		s := &storm{
			t:       rt,
			keys:    rapid.Uint64Range(1, 300).Draw(rt, "keys"),
			drops:   rapid.Bool().Draw(rt, "drops"),
			cancel:  rapid.Bool().Draw(rt, "cancel"),
			fails:   rapid.SampledFrom([]int{0, 0, 5, 50}).Draw(rt, "fails"),
			loading: map[*byte]bool{},
			holders: map[*byte]int{},
			numbers: map[uint64]bool{},
		}
		s.c = NewCache(pool, s.load)
		workers := rapid.IntRange(2, 40).Draw(rt, "workers")
		var wg sync.WaitGroup
		for range workers {
			wg.Go(func() { s.work(50) })
		}
		done := make(chan struct{})
		go func() { wg.Wait(); close(done) }()
		select {
		case <-done:
		case <-time.After(time.Minute):
			pprof.Lookup("goroutine").WriteTo(os.Stderr, 1)
			panic(fmt.Sprintf("deadlock: %+v", s.c.Stats()))
		}
		checkCache(rt, s.c, 0)
		if st := s.c.Stats(); st.Misses < s.loads || !s.cancel && s.fails == 0 && st.Misses != s.loads {
			rt.Errorf("%d loads, %+v", s.loads, st)
		}
		s.c.Close()
		if err := pool.Close(); err != nil {
			rt.Error(err)
		}
	})
}
