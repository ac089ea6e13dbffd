package guarded

import (
	"errors"
	"fmt"
	"os"
	"sync"
)

const (
	// minBlocks is the number of blocks below which there is no pool, and the
	// number of blocks of a slab: 512 KiB with blocks of 32 KiB.
	minBlocks = 16
	// share is the part of the budget that one request may take: a sixteenth,
	// so that a few large requests can't keep all others waiting.
	share = 16
	// blockAlign is the alignment of a block in bytes, a cache line. Blocks a
	// little below a power of two thus begin on a page, which spares a page per
	// reply when the kernel copies them out.
	blockAlign = 64
)

// BudgetError says that a budget is too small to work with. Sizes in bytes.
type BudgetError struct{ Budget, Minimum int64 }

func (e *BudgetError) Error() string {
	return fmt.Sprintf("%d KiB of guarded memory are not enough, the least is %d KiB", e.Budget>>10, (e.Minimum+1023)>>10)
}

var (
	errExhausted  = errors.New("the budget of guarded memory is used up")
	errClosedPool = errors.New("the pool of guarded memory is closed")
)

// Pool is a number of equal blocks in slabs, which are added on demand up to a
// budget. It serves one [Cache], or who keeps blocks of his own. It is safe for
// concurrent use.
type Pool struct {
	blockSize int   // bytes of a block
	stride    int   // bytes from one block to the next in a slab
	budget    int64 // the most that may be locked, in bytes
	capacity  int   // blocks that the budget is good for
	largest   int   // blocks that one request may have

	mu     sync.Mutex
	slabs  []*slab
	free   [][]byte // wiped blocks that nobody uses
	blocks int      // blocks of all slabs
	used   int64    // bytes locked
	capped error    // why the pool grows no more, although the budget would allow it
	closed bool
}

// NewPool makes a pool of blocks of blockSize bytes that never locks more than
// budget bytes. It locks 16 blocks at once, and the rest when it is needed. If
// the budget is below 16 blocks it returns a *BudgetError, if 16 blocks can't be
// locked a *LockError.
func NewPool(blockSize int, budget int64) (*Pool, error) {
	if blockSize <= 0 {
		return nil, fmt.Errorf("guarded blocks of %d bytes can't be made", blockSize)
	}
	p := &Pool{blockSize: blockSize, stride: roundUp(blockSize, blockAlign), budget: budget}
	if minimum := int64(p.slabSize(minBlocks)); budget < minimum {
		return nil, &BudgetError{Budget: budget, Minimum: minimum}
	}
	full := int64(p.slabSize(minBlocks))
	p.capacity = int(budget/full)*minBlocks + p.slabBlocks(budget%full)
	if err := p.grow(); err != nil {
		return nil, err
	}
	p.largest = p.largestRequest()
	return p, nil
}

// largestRequest returns a sixteenth of the budget in blocks or, where the
// kernel would not lock even that much, the blocks that it does lock. They are
// locked right away then. So the limit of a request is known from the start and
// holds: a mount tells it to the kernel once.
func (p *Pool) largestRequest() int {
	want := p.capacity / share
	if want <= p.blocks || lockable(p.slabSize(want-p.blocks)) {
		return want
	}
	for p.grow() == nil && p.blocks < want {
	}
	return min(want, p.blocks)
}

// slabSize returns the bytes that a slab of n blocks locks.
func (p *Pool) slabSize(n int) int { return roundUp(n*p.stride, os.Getpagesize()) }

// slabBlocks returns how many blocks the next slab has when left bytes of the
// budget are unused.
func (p *Pool) slabBlocks(left int64) int {
	if int64(p.slabSize(minBlocks)) <= left {
		return minBlocks
	}
	page := int64(os.Getpagesize())
	return int(left / page * page / int64(p.stride))
}

// grow adds a slab. p.mu must be held (or p be unknown to others). Once it
// failed for want of lockable memory it is not tried again: each attempt costs
// system calls, on the path of every miss.
func (p *Pool) grow() error {
	if p.closed {
		return errClosedPool
	}
	if p.capped != nil {
		return p.capped
	}
	n := p.slabBlocks(p.budget - p.used)
	if n == 0 {
		return errExhausted
	}
	size := p.slabSize(n)
	s, err := newSlab(size)
	if err != nil {
		p.capped = err
		return err
	}
	p.slabs = append(p.slabs, s)
	p.used += int64(size)
	p.blocks += n
	for i := range n {
		at := i * p.stride
		p.free = append(p.free, s.data[at:at+p.blockSize:at+p.blockSize])
	}
	return nil
}

// Get returns a zeroed block. It fails when the budget is used up or no more
// memory can be locked.
func (p *Pool) Get() ([]byte, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.free) == 0 {
		if err := p.grow(); err != nil {
			return nil, err
		}
	}
	last := len(p.free) - 1
	b := p.free[last]
	p.free = p.free[:last]
	return b, nil
}

// Put takes back a block that Get returned, and wipes it.
func (p *Pool) Put(b []byte) {
	Wipe(b)
	p.mu.Lock()
	defer p.mu.Unlock()
	p.free = append(p.free, b)
}

// BlockSize returns the bytes of a block.
func (p *Pool) BlockSize() int { return p.blockSize }

// Used returns the bytes that are locked now.
func (p *Pool) Used() int64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.used
}

// Capped returns the *LockError for which the pool stopped growing before its
// budget was used up, nil if it did not.
func (p *Pool) Capped() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.capped
}

// Close wipes all slabs and gives them back to the kernel. It fails, and does
// nothing, while blocks are in use: close the cache first. Calling it again
// does nothing.
func (p *Pool) Close() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if n := p.blocks - len(p.free); n > 0 {
		return fmt.Errorf("the pool of guarded memory can't be closed: %d of its blocks are in use", n)
	}
	for _, s := range p.slabs {
		s.destroy()
	}
	p.slabs, p.free, p.blocks, p.used = nil, nil, 0, 0
	p.closed = true
	return nil
}
