package guarded

import (
	"errors"
	"fmt"
	"math"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func init() {
	children["no memlock"] = childNoMemlock
	children["little memlock"] = childLittleMemlock
	children["tiny memlock"] = childTinyMemlock
	children["less memlock"] = childLessMemlock
	children["no memfd_secret"] = childNoMemfdSecret
}

// These run without CAP_IPC_LOCK, each under a limit of its own.

func TestNoMemlock(t *testing.T)     { runChild(t, "no memlock", true) }
func TestLittleMemlock(t *testing.T) { runChild(t, "little memlock", true) }
func TestTinyMemlock(t *testing.T)   { runChild(t, "tiny memlock", true) }
func TestLessMemlock(t *testing.T)   { runChild(t, "less memlock", true) }
func TestNoMemfdSecret(t *testing.T) { runChild(t, "no memfd_secret", true) }

// childNoMemlock may lock nothing: typed errors, no panic.
func childNoMemlock() error {
	if err := limitMemlock(0); err != nil {
		return err
	}
	var e *LockError
	if _, err := NewBuffer(32); !errors.As(err, &e) || e.Wanted != 32 || e.Limit != 0 {
		return fmt.Errorf("a buffer: %v", err)
	}
	_, err := NewPool(4096, 1<<20)
	if !errors.As(err, &e) || e.Wanted != 64<<10 || !strings.Contains(err.Error(), "`ulimit -l`") || strings.Contains(err.Error(), "\n") {
		return fmt.Errorf("a pool: %v", err)
	}
	b, err := DefaultBudget(false)
	if err != nil || b != 0 {
		return fmt.Errorf("the default budget is %d: %v", b, err)
	}
	return nil
}

// childLittleMemlock may lock 1 MiB and asks for a pool of 8: it gets what the
// kernel gives, works with that under load, and frees it again.
func childLittleMemlock() error {
	const limit = 1 << 20
	if err := limitMemlock(limit); err != nil {
		return err
	}
	if b, err := DefaultBudget(true); err != nil || b != limit/2 {
		return fmt.Errorf("the default budget is %d: %v", b, err)
	}
	key, err := NewBuffer(32)
	if err != nil {
		return err
	}
	copy(key.Bytes(), "key")
	pool, err := NewPool(4096, 8<<20)
	if err != nil {
		return err
	}
	c := NewCache(pool, func(number uint64, dst []byte) (int, error) {
		if !zero(dst) {
			return 0, errors.New("a block was not wiped before it was used again")
		}
		dst[0], dst[4095] = byte(number), byte(number)
		return 4096, nil
	})
	if c.MaxRequest() != 8<<20/4096/share {
		return fmt.Errorf("a request may have %d blocks", c.MaxRequest())
	}
	numbers := make([]uint64, c.MaxRequest())
	for round := range uint64(50) {
		for i := range numbers {
			numbers[i] = round*20 + uint64(i)
		}
		pins, err := c.Acquire(nil, numbers, nil)
		if err != nil {
			return err
		}
		for i, p := range pins {
			if b := p.Bytes(); b[0] != byte(numbers[i]) || b[4095] != byte(numbers[i]) {
				return fmt.Errorf("block %d is wrong", numbers[i])
			}
		}
		c.Release(pins)
		if n := lockedBytes(); n > limit {
			return fmt.Errorf("%d bytes are locked", n)
		}
	}
	s := c.Stats()
	var e *LockError
	if !errors.As(pool.Capped(), &e) || e.Limit != limit || s.Used < limit-128<<10 || s.Used > limit || s.Evictions == 0 {
		return fmt.Errorf("%+v, capped: %v", s, pool.Capped())
	}
	if string(key.Bytes()[:3]) != "key" {
		return errors.New("the failed lock took the other buffers with it")
	}
	if _, err := NewPool(32<<10, 8<<20); !errors.As(err, &e) {
		return fmt.Errorf("a second pool: %v", err)
	}
	c.Close()
	if err := pool.Close(); err != nil {
		return err
	}
	key.Destroy()
	if n := lockedBytes(); n != 0 {
		return fmt.Errorf("%d bytes are still locked at the end", n)
	}
	return nil
}

// childTinyMemlock can lock 20 blocks, less than a sixteenth of the budget: the
// largest request shrinks with it, so that none waits for what never comes.
func childTinyMemlock() error {
	if err := limitMemlock(20 * 4096); err != nil {
		return err
	}
	pool, err := NewPool(4096, 8<<20)
	if err != nil {
		return err
	}
	c := NewCache(pool, func(_ uint64, dst []byte) (int, error) { return len(dst), nil })
	if c.MaxRequest() != minBlocks {
		return fmt.Errorf("a request may have %d blocks", c.MaxRequest())
	}
	numbers := make([]uint64, c.MaxRequest()+1)
	for i := range numbers {
		numbers[i] = uint64(i)
	}
	if _, err := c.Acquire(nil, numbers, nil); !errors.As(err, new(*RequestError)) {
		return fmt.Errorf("more than there is: %v", err)
	}
	pins, err := c.Acquire(nil, numbers[1:], nil)
	if err != nil {
		return err
	}
	c.Release(pins)
	c.Close()
	return pool.Close()
}

// childLessMemlock has its limit lowered behind the pool's back, which shows it
// memory that it does not get: requests for more than there is fail, and don't
// wait for ever.
func childLessMemlock() error {
	if err := unix.Setrlimit(unix.RLIMIT_MEMLOCK, &unix.Rlimit{Cur: 1 << 20, Max: 1 << 20}); err != nil {
		return err
	}
	pool, err := NewPool(4096, 8<<20)
	if err != nil {
		return err
	}
	if err := limitMemlock(uint64(pool.Used())); err != nil {
		return err
	}
	c := NewCache(pool, func(_ uint64, dst []byte) (int, error) { return len(dst), nil })
	if c.MaxRequest() != 128 || pool.Used() != minBlocks*4096 {
		return fmt.Errorf("a request may have %d blocks, %d bytes are locked", c.MaxRequest(), pool.Used())
	}
	numbers := make([]uint64, minBlocks+1)
	for i := range numbers {
		numbers[i] = uint64(i)
	}
	done := make(chan error, 2)
	held, err := c.Acquire(nil, numbers[:1], nil)
	if err != nil {
		return err
	}
	go func() {
		_, err := c.Acquire(nil, numbers, nil) // waits for the pin, and then knows
		done <- err
	}()
	for c.Stats().Waits == 0 {
		time.Sleep(time.Millisecond)
	}
	c.Release(held)
	if err := <-done; !errors.As(err, new(*LockError)) {
		return fmt.Errorf("17 of 16 blocks: %v", err)
	}
	pins, err := c.Acquire(nil, numbers[1:], nil)
	if err != nil {
		return err
	}
	c.Release(pins)
	c.Close()
	return pool.Close()
}

// childNoMemfdSecret is on a kernel that refuses memfd_secret in each of the
// ways in which kernels do: buffers are memguard's then.
func childNoMemfdSecret() error {
	for _, errno := range []uint32{uint32(unix.ENOSYS), uint32(unix.EPERM)} {
		if err := refuseMemfdSecret(errno); err != nil {
			return err
		}
		b, err := NewBuffer(32)
		if err != nil {
			return err
		}
		if b.slab == nil || len(b.Bytes()) != 32 {
			return errors.New("not a memguard buffer")
		}
		b.Destroy()
	}
	// Any other failure is no reason to do with less.
	if err := refuseMemfdSecret(uint32(unix.EINVAL)); err != nil {
		return err
	}
	if _, err := NewBuffer(32); !errors.Is(err, unix.EINVAL) {
		return fmt.Errorf("EINVAL became %v", err)
	}
	return nil
}

func TestLockErrorText(t *testing.T) {
	e := &LockError{Wanted: 512 << 10, Locked: 7 << 20, Limit: 8 << 20, Err: unix.ENOMEM}
	want := "can't lock 512 KiB of memory: 7168 KiB are locked and `ulimit -l` allows 8192: cannot allocate memory"
	if e.Error() != want {
		t.Errorf("%q, want %q", e, want)
	}
	e.Limit = math.MaxInt64
	if got := e.Error(); got != "can't lock 512 KiB of memory: cannot allocate memory" {
		t.Errorf("%q", got)
	}
}
