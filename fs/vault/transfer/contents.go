package transfer

import (
	"context"

	"encfsrun/fs/guarded"
	"encfsrun/fs/vault"
)

// contents reads the contents of a vault's files through a small cache of guarded memory, in which neighbours in the log find
// each other's blocks. It is used by one goroutine.
type contents struct {
	ctx   context.Context
	v     *vault.Vault
	pool  *guarded.Pool
	cache *guarded.Cache
	spans []vault.Span
	pins  []guarded.Pin
}

const (
	cachedBlocks = 32      // 1 MiB
	spanStep     = 4 << 20 // bytes of a file that are looked up in the tree at once
)

func openContents(ctx context.Context, v *vault.Vault) (*contents, error) {
	pool, err := guarded.NewPool(vault.PlainSize, cachedBlocks*vault.PlainSize)
	if err != nil {
		return nil, err
	}
	return &contents{ctx: ctx, v: v, pool: pool, cache: guarded.NewCache(pool, v.LoadBlock)}, nil
}

func (c *contents) close() {
	c.cache.Close()
	c.pool.Close() // fails only while blocks are in use, and the cache is closed
}

// each calls f with the bytes of [off, end) of a file, in order: b is a part of a block, or nil for a hole of n bytes.
func (c *contents) each(ino vault.Ino, off, end uint64, f func(off uint64, b []byte, n int) error) error {
	for off < end {
		var err error
		if c.spans, err = c.v.Spans(ino, int64(off), int(min(end-off, spanStep)), c.spans[:0]); err != nil {
			return err
		}
		if len(c.spans) == 0 {
			return nil
		}
		for _, s := range c.spans {
			if err := c.ctx.Err(); err != nil {
				return err
			}
			if err := c.span(s, off, f); err != nil {
				return err
			}
			off += uint64(s.Len)
		}
	}
	return nil
}

func (c *contents) span(s vault.Span, off uint64, f func(off uint64, b []byte, n int) error) (err error) {
	if s.Hole {
		return f(off, nil, s.Len)
	}
	if c.pins, err = c.cache.Acquire(c.ctx.Done(), []uint64{s.Block}, c.pins[:0]); err != nil {
		if c.ctx.Err() != nil {
			return c.ctx.Err()
		}
		return err
	}
	defer c.cache.Release(c.pins)
	return f(off, c.pins[0].Bytes()[s.At:s.At+s.Len], s.Len)
}
