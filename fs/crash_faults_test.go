package fs

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"sync"
	"syscall"
	"testing"

	"github.com/hanwen/go-fuse/v2/fuse"

	"encfsrun/fs/vault/disk/memdisk"
)

const (
	faultWorkload  = 70  // requests
	fewFaults      = 150 // faults of a workload where nobody asks for more: some of them
	faultWorkloads = 2
)

// faultsOf are the ways in which an operation is made to fail.
func faultsOf(kind memdisk.Kind) []error {
	switch kind {
	case memdisk.OpWrite:
		return []error{syscall.EIO, syscall.ENOSPC, &memdisk.ShortWrite{N: 5000, Err: syscall.ENOSPC}}
	case memdisk.OpReserve:
		return []error{syscall.ENOSPC, syscall.EIO}
	case memdisk.OpCreate:
		return []error{syscall.ENOSPC}
	case memdisk.OpSync:
		return []error{syscall.EIO, &memdisk.PartialSync{Reached: memdisk.Keep, Err: syscall.EIO}}
	}
	return []error{syscall.EIO}
}

// fault is an operation on the disk that fails: the nth of its kind, for these come in the same order each time.
type fault struct {
	kind    memdisk.Kind
	nth     int
	err     error
	lasting bool // so does every one after it that changes the disk
}

func (f fault) String() string {
	return fmt.Sprintf("%v %d fails with %v (and all that follows: %v)", f.kind, f.nth, f.err, f.lasting)
}

// hook makes operations fail, and counts them.
func (f fault) hook() func(memdisk.Op) error {
	var mu sync.Mutex
	seen, broken := 0, false
	return func(op memdisk.Op) error {
		mu.Lock()
		defer mu.Unlock()
		if broken && op.Kind.Changes() {
			return f.err
		}
		if op.Kind != f.kind {
			return nil
		}
		seen++
		if seen-1 != f.nth {
			return nil
		}
		broken = f.lasting
		return f.err
	}
}

// TestCrashFaults lets operations on the disk fail while random requests are made. What is refused says so with an errno that fits
// and has changed nothing; what is read is right; what a sync called durable is there, also after a power cut; nothing hangs.
func TestCrashFaults(t *testing.T) {
	w, l := newWorld(t), newLuck(t)
	var counts counter
	t.Cleanup(func() { t.Logf("tried: %v", counts.n) })
	for i := range faultWorkloads * l.rounds {
		t.Run(fmt.Sprint(i), func(t *testing.T) {
			t.Parallel()
			limitTime(t, t.Name())
			what := fmt.Sprint("faults", i)
			kinds, err := w.operations(l, what, i)
			if err != nil {
				t.Fatal(err)
			}
			var all []fault
			for kind, n := range kinds {
				for nth := range n {
					for _, err := range faultsOf(kind) {
						all = append(all, fault{kind, nth, err, false}, fault{kind, nth, err, true})
					}
				}
			}
			slices.SortFunc(all, func(a, b fault) int { return cmp.Compare(a.String(), b.String()) })
			r := l.of(what + "chosen")
			r.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
			all = all[:min(len(all), fewFaults)]
			counts.add("faults", len(all))
			for _, f := range all {
				if err := w.fail(l, what, i, f, &counts); err != nil {
					t.Fatalf("%v: %v", f, err)
				}
			}
		})
	}
}

// operations counts what a workload does to the disk, by kind.
func (w *world) operations(l luck, what string, variant int) (map[memdisk.Kind]int, error) {
	c, err := w.start(nil, l.of(what), variant)
	if err != nil {
		return nil, err
	}
	kinds := map[memdisk.Kind]int{}
	var mu sync.Mutex
	c.disk.Hook = func(op memdisk.Op) error {
		mu.Lock()
		defer mu.Unlock()
		kinds[op.Kind]++
		return nil
	}
	err = c.run(faultWorkload)
	c.readAll()
	return kinds, errors.Join(err, c.err, c.unmount())
}

// failing are the statuses that a failing disk may lead to.
func failing(status fuse.Status) bool {
	return status == fuse.EIO || status == fuse.EROFS || status == fuse.Status(syscall.ENOSPC)
}

// fail acts a workload out in which an operation fails.
func (w *world) fail(l luck, what string, variant int, f fault, counts *counter) error {
	c, err := w.start(nil, l.of(what), variant)
	if err != nil {
		return err
	}
	c.expects = failing
	c.disk.Hook = f.hook()
	err = c.run(faultWorkload)
	c.readAll()
	err = errors.Join(err, c.err)
	end := c.unmount()
	c.disk.Hook = nil
	if err != nil {
		return err
	}
	newest := len(c.versions) - 1
	at := picture{durable: c.durable, newest: newest}
	if mended := !f.lasting && (f.kind == memdisk.OpWrite || f.kind == memdisk.OpSync); mended {
		if c.refused > 0 || end != nil {
			return fmt.Errorf("it was to be mended; %d requests were refused, and the unmount says %w", c.refused, end)
		}
	}
	if end == nil {
		counts.add("survived", 1)
		at.durable = newest
	}
	for _, left := range []*memdisk.Disk{c.disk.Clone(), c.disk.Crash(memdisk.Lose, 0), c.disk.Crash(memdisk.Keep, 0)} {
		if _, err := w.check(left, c.versions, at, true); err != nil {
			return err
		}
	}
	again, err := w.start(c.disk, l.of("again"), variant)
	if err != nil {
		return fmt.Errorf("mounted again: %w", err)
	}
	return errors.Join(again.run(5), again.unmount())
}
