package fs

import (
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"

	"encfsrun/fs/vault"
)

// commitDelay is how long a change may wait before it is committed: what a crash may take from programs that don't sync.
const commitDelay = 5 * time.Second

// commits makes changes durable, many callers' at once, and without a caller after commitDelay.
type commits struct {
	mu   sync.Mutex
	next *commitRun // that has not begun; who comes now is served by it
	turn sync.Mutex // held by the run under way

	waiting chan struct{} // of capacity 1; holds something when there are changes
	hurried chan struct{} // likewise, when they are so many that nobody should wait for commitDelay
	stopped chan struct{}
	done    sync.WaitGroup
	failed  atomic.Bool // the last run did not make everything durable
}

type commitRun struct {
	done chan struct{}
	err  error
}

func (c *commits) init() {
	c.waiting = make(chan struct{}, 1)
	c.hurried = make(chan struct{}, 1)
	c.stopped = make(chan struct{})
}

// join waits for a run that begins after the call. The first to come leads it: he waits for the run under way, and by then
// others may have come.
func (c *commits) join(commit func() error) error {
	c.mu.Lock()
	run := c.next
	if run != nil {
		c.mu.Unlock()
		<-run.done
		return run.err
	}
	run = &commitRun{done: make(chan struct{})}
	c.next = run
	c.mu.Unlock()

	c.turn.Lock()
	c.mu.Lock()
	c.next = nil
	c.mu.Unlock()
	run.err = commit()
	c.failed.Store(run.err != nil)
	c.turn.Unlock()
	close(run.done)
	return run.err
}

// changed notes that there is something to commit. f.mu is held.
func (f *FS) changed() { poke(f.commits.waiting) }

// poke puts something into a channel of capacity 1, unless there is something in it.
func poke(c chan<- struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// Sync returns when all changes that were accepted before the call are durable.
func (f *FS) Sync() error {
	if f.store == nil {
		return nil
	}
	return f.commits.join(f.commit)
}

// commit flushes everything and commits it: so what a crash leaves is the tree as it was at one instant. The lock is not held
// while the disk syncs.
func (f *FS) commit() error {
	f.mu.Lock()
	p, err := f.prepare()
	f.mu.Unlock()
	if err != nil {
		return err
	}
	return f.noteLoss(f.store.Sync(p))
}

// noteLoss turns the mount read-only where the store failed for good. A full disk is no such failure.
func (f *FS) noteLoss(err error) error {
	if err != nil && !errors.Is(err, vault.ErrNoSpace) {
		f.lost.Store(true)
	}
	return err
}

// prepare is the part of a commit that is done under the lock.
func (f *FS) prepare() (vault.Point, error) {
	if err := f.flushAll(); err != nil {
		return vault.Point{}, err
	}
	p, err := f.store.Prepare()
	if err == nil {
		f.promised = 0
	}
	return p, f.noteLoss(err)
}

// maintain keeps the log short. It commits too.
func (f *FS) maintain() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.flushAll(); err != nil {
		return err
	}
	return f.noteLoss(f.store.Maintain())
}

// keepCommitting commits what nobody syncs, and then does the log's housekeeping.
func (f *FS) keepCommitting() {
	for {
		select {
		case <-f.commits.waiting:
		case <-f.commits.stopped:
			return
		}
		select {
		case <-time.After(commitDelay):
		case <-f.commits.hurried:
		case <-f.commits.stopped:
			return
		}
		err := f.Sync()
		if err == nil {
			err = f.maintain()
		}
		if err != nil {
			f.commits.failed.Store(true)
			if !f.lost.Load() {
				f.changed() // and tried again
			}
		}
	}
}

// startCommitting and stopCommitting bracket the life of a mount.
func (f *FS) startCommitting() {
	if f.store != nil {
		f.commits.done.Go(f.keepCommitting)
	}
}

func (f *FS) stopCommitting() {
	if f.store != nil {
		close(f.commits.stopped)
		f.commits.done.Wait()
	}
}

// Fsync makes a file durable, and with it everything else.
func (f *FS) Fsync(<-chan struct{}, *fuse.FsyncIn) fuse.Status { return errno(f.Sync()) }

// FsyncDir makes a directory durable, and with it everything else. It is what to call instead of syncfs(2), which the kernel does not
// pass on.
func (f *FS) FsyncDir(<-chan struct{}, *fuse.FsyncIn) fuse.Status { return errno(f.Sync()) }

// Flush is a close(2) of a kernel that does not know FOPEN_NOFLUSH. Nothing is lost by doing nothing: what was written was
// accepted, and has its space.
func (f *FS) Flush(<-chan struct{}, *fuse.FlushIn) fuse.Status { return fuse.OK }
