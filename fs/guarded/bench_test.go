package guarded

import (
	"fmt"
	"testing"
)

// The sizes of a vault: 32 KiB on disk less nonce and tag.
const vaultBlock = 32<<10 - 40

func benchCache(b *testing.B, blocks int) *Cache {
	pool, err := NewPool(vaultBlock, int64(blocks)<<15)
	if err != nil {
		b.Fatal(err)
	}
	c := NewCache(pool, func(_ uint64, dst []byte) (int, error) { return len(dst), nil })
	b.Cleanup(func() {
		c.Close()
		if err := pool.Close(); err != nil {
			b.Error(err)
		}
	})
	return c
}

// BenchmarkHit is Acquire and Release of a request whose blocks are cached.
func BenchmarkHit(b *testing.B) {
	for _, blocks := range []int{1, 5, 33} {
		b.Run(fmt.Sprint(blocks), func(b *testing.B) {
			c := benchCache(b, 1024)
			numbers := make([]uint64, blocks)
			for i := range numbers {
				numbers[i] = uint64(i)
			}
			pins := make([]Pin, 0, blocks)
			b.ReportAllocs()
			for b.Loop() {
				p, err := c.Acquire(nil, numbers, pins)
				if err != nil {
					b.Fatal(err)
				}
				c.Release(p)
			}
		})
	}
}

// BenchmarkHitParallel is the same by many goroutines, each with its own block.
func BenchmarkHitParallel(b *testing.B) {
	c := benchCache(b, 1024)
	b.SetParallelism(8)
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		numbers, pins := []uint64{7}, make([]Pin, 0, 1)
		for pb.Next() {
			p, err := c.Acquire(nil, numbers, pins)
			if err != nil {
				b.Fatal(err)
			}
			c.Release(p)
		}
	})
}

// BenchmarkMiss is a miss with eviction and wiping, but without a load.
func BenchmarkMiss(b *testing.B) {
	c := benchCache(b, 1024)
	pins := make([]Pin, 0, 1)
	b.ReportAllocs()
	for n := uint64(0); b.Loop(); n++ {
		p, err := c.Acquire(nil, []uint64{n}, pins)
		if err != nil {
			b.Fatal(err)
		}
		c.Release(p)
	}
}

func BenchmarkBuffer(b *testing.B) {
	for kind, make := range map[string]func(int) (*Buffer, error){"any": NewBuffer, "memguard": newSlabBuffer} {
		b.Run(kind, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				s, err := make(32)
				if err != nil {
					b.Fatal(err)
				}
				s.Destroy()
			}
		})
	}
}

// BenchmarkPool is what a mount pays at its start, by budget.
func BenchmarkPool(b *testing.B) {
	for _, mib := range []int64{4, 64, 256} {
		b.Run(fmt.Sprint(mib, "MiB"), func(b *testing.B) {
			for b.Loop() {
				p, err := NewPool(vaultBlock, mib<<20)
				if err != nil {
					b.Fatal(err)
				}
				if err := p.Close(); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkSlab(b *testing.B) {
	for b.Loop() {
		s, err := newSlab(512 << 10)
		if err != nil {
			b.Fatal(err)
		}
		s.destroy()
	}
}
