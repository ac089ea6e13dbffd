package guarded

import (
	"errors"
	"os"
	"testing"

	"pgregory.net/rapid"
)

func newTestPool(t testing.TB, blockSize int, budget int64) *Pool {
	t.Helper()
	p, err := NewPool(blockSize, budget)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := p.Close(); err != nil {
			t.Error(err)
		}
	})
	return p
}

// TestPool takes, dirties and gives back blocks in any order: never over the
// budget, never a block twice, always zeroed, all of the budget used in the end.
func TestPool(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		blockSize := rapid.IntRange(1, 9000).Draw(rt, "block size")
		blocks := rapid.IntRange(minBlocks+4, 100).Draw(rt, "blocks")
		extra := rapid.IntRange(0, 5000).Draw(rt, "extra")
		budget := int64(blocks*roundUp(blockSize, blockAlign) + extra)
		p, err := NewPool(blockSize, budget)
		if small := new(BudgetError); errors.As(err, &small) {
			// A few tiny blocks do not fill a page.
			if small.Minimum <= budget || budget > int64(os.Getpagesize()) && int64(minBlocks*roundUp(blockSize, blockAlign)+os.Getpagesize()) < budget {
				rt.Fatalf("%v for a budget of %d", err, budget)
			}
			return
		} else if err != nil {
			rt.Fatal(err)
		}
		out := map[*byte][]byte{}
		rt.Repeat(map[string]func(*rapid.T){
			"get": func(rt *rapid.T) {
				b, err := p.Get()
				if err != nil {
					if err != errExhausted || len(out) != p.capacity {
						rt.Fatalf("%d of %d blocks are out: %v", len(out), p.capacity, err)
					}
					rt.Skip()
				}
				if len(b) != blockSize || cap(b) != blockSize || !zero(b) || out[&b[0]] != nil {
					rt.Fatalf("not a fresh block: len %d cap %d", len(b), cap(b))
				}
				for i := range b {
					b[i] = 0xA5
				}
				out[&b[0]] = b
			},
			"put": func(rt *rapid.T) {
				for k, b := range out {
					delete(out, k)
					p.Put(b)
					if !zero(b) {
						rt.Fatal("the block was not wiped")
					}
					break
				}
			},
			"": func(rt *rapid.T) {
				if p.Used() > budget {
					rt.Fatalf("%d bytes locked, the budget is %d", p.Used(), budget)
				}
				for _, b := range out {
					if b[0] != 0xA5 || b[blockSize-1] != 0xA5 {
						rt.Fatal("a block in use was changed")
					}
				}
				if len(out) > 0 && p.Close() == nil {
					rt.Fatal("closed while blocks are in use")
				}
			},
		})
		for len(out) < p.capacity {
			b, err := p.Get()
			if err != nil {
				rt.Fatalf("block %d of %d: %v", len(out), p.capacity, err)
			}
			out[&b[0]] = b
		}
		if wasted := budget - p.Used(); wasted >= int64(max(os.Getpagesize(), p.slabSize(1))) {
			rt.Fatalf("%d bytes of the budget of %d can't be used", wasted, budget)
		}
		for _, b := range out {
			p.Put(b)
		}
		if err := p.Close(); err != nil {
			rt.Fatal(err)
		}
	})
}

func TestPoolLayout(t *testing.T) {
	p := newTestPool(t, 32768-40, 4<<20)
	if p.capacity != 128 || p.Used() != 512<<10 {
		t.Errorf("4 MiB are good for %d blocks of 32 KiB, %d bytes are locked at once", p.capacity, p.Used())
	}
	b, err := p.Get()
	if err != nil {
		t.Fatal(err)
	}
	defer p.Put(b)
	if addr(b)%uintptr(os.Getpagesize()) != 0 {
		t.Errorf("a block begins at %#x, not on a page", addr(b))
	}
	// The slab is what is locked and fenced, to the byte.
	checkFenced(t, p.slabs[0].data)
	if before := p.Used(); int64(len(p.slabs[0].data)) != before {
		t.Errorf("%d bytes are counted for a slab of %d", before, len(p.slabs[0].data))
	}
}

// TestPoolCountsWhatIsLocked compares with the kernel's own count.
func TestPoolCountsWhatIsLocked(t *testing.T) {
	before := lockedBytes()
	p := newTestPool(t, 4096, 1<<20)
	for i := range p.capacity {
		b, err := p.Get()
		if err != nil {
			t.Fatal(err)
		}
		defer p.Put(b)
		if got := lockedBytes() - before; got != p.Used() || got > 1<<20 {
			t.Fatalf("after %d blocks %d bytes are locked, %d are counted, the budget is %d", i+1, got, p.Used(), 1<<20)
		}
	}
	if p.Used() != 1<<20 {
		t.Errorf("%d bytes of 1 MiB are used", p.Used())
	}
}

func TestPoolRefuses(t *testing.T) {
	var small *BudgetError
	if _, err := NewPool(32<<10, 512<<10-1); !errors.As(err, &small) || small.Minimum != 512<<10 {
		t.Errorf("a budget of a byte less than 16 blocks: %v", err)
	}
	if _, err := NewPool(32<<10, -1); !errors.As(err, &small) {
		t.Errorf("a budget of -1: %v", err)
	}
	if _, err := NewPool(0, 1<<20); err == nil {
		t.Error("blocks of no bytes were made")
	}
}

func TestPoolCloseUnmaps(t *testing.T) {
	p, err := NewPool(4096, 256<<10)
	if err != nil {
		t.Fatal(err)
	}
	at := addr(p.slabs[0].data)
	if err := errors.Join(p.Close(), p.Close()); err != nil {
		t.Fatal(err)
	}
	checkUnmapped(t, at)
	if _, err := p.Get(); err == nil {
		t.Error("a closed pool gives blocks")
	}
}
