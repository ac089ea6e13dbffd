package fs

import (
	"sync"
	"sync/atomic"
	"time"
)

const (
	// tick is how often it is looked whether a leader still answers the same request: long for an answer, short for a user, and
	// not so often that it is felt (2 ms cost an import of Python modules 4 %).
	tick = 10 * time.Millisecond
	// quietTicks is after how many looks, at which nobody answered anything, nobody looks any more.
	quietTicks = 5
)

// watch takes the lead from workers that wait in an answer without having said so: for a disk that was quick until now, or for a
// lock that somebody keeps while he waits for one. It sleeps while there is nothing to answer.
type watch struct {
	asleep atomic.Bool
	wake   chan struct{}
	done   sync.WaitGroup
}

func (t *watch) begin(l *loop) {
	t.wake = make(chan struct{}, 1)
	t.asleep.Store(true)
	t.done.Go(func() {
		for range t.wake {
			t.look(l)
		}
	})
}

func (t *watch) end() {
	close(t.wake)
	t.done.Wait()
}

// stir is called when a worker begins to answer a request.
func (t *watch) stir() {
	if t.asleep.Load() && t.asleep.CompareAndSwap(true, false) {
		t.wake <- struct{}{} // there is room: nobody else has woken it
	}
}

// look looks until nobody answers anything.
func (t *watch) look(l *loop) {
	var before [maxWorkers]uint64 // what each worker answered at the last look
	for {
		for quiet := 0; quiet < quietTicks; quiet++ {
			time.Sleep(tick)
			if t.each(l, &before) {
				quiet = 0
			}
		}
		t.asleep.Store(true)
		// Somebody may have begun before he could see that this sleeps. It does not wake itself: by then the mount may have ended,
		// and the channel be closed.
		if !t.each(l, &before) || !t.asleep.CompareAndSwap(true, false) {
			return
		}
	}
}

// each looks at all workers, and says whether any leads and answers.
func (t *watch) each(l *loop, before *[maxWorkers]uint64) (busy bool) {
	l.mu.Lock()
	workers := l.workers
	l.mu.Unlock()
	for i, w := range workers {
		unique := w.led.Load()
		if unique != 0 && unique != taken {
			busy = true
			if unique == before[i] {
				l.handOver(w, unique)
			}
		}
		before[i] = unique
	}
	return busy
}
