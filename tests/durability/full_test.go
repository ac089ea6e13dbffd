package durability

import (
	"fmt"
	"testing"
)

// A small disk, a part of which something else takes until there is to be room.
const (
	smallDisk = 96 << 20
	ballast   = 32 << 20
	// enlarged is how many times as large the records are: the disk is full soon. Those of states are then as large as any, so that
	// none of them fits where the other writers' did not.
	enlarged = mostRecord / stateSize
)

// TestFullDisk fills a small tmpfs under the vault. Two of the writers do not fsync: what was accepted must be there, too.
func TestFullDisk(t *testing.T) {
	for _, s := range peers() {
		t.Run(s.name, func(t *testing.T) {
			for range rounds(1) {
				sum := &tally{}
				tr := newTrial(t, s, newTmpfs(t, smallDisk), sum)
				fullDisk(tr, []string{"append", "state"}, func() bool {
					if err := tr.fs.unmount(); err != nil {
						tr.problem("unmounting: %v", err)
						return false
					}
					if err := tr.fs.mount(); err != nil {
						tr.problem("mounting again: %v", err)
						return false
					}
					return true
				})
				t.Logf("%s: %v", s.name, sum)
			}
		})
	}
}

// TestPowerCutOnAFullDisk cuts the power when nothing can be written any more.
func TestPowerCutOnAFullDisk(t *testing.T) {
	for _, s := range append([]subject{ext4}, peers()...) {
		t.Run(s.name, func(t *testing.T) {
			for range rounds(1) {
				sum := &tally{}
				tr := newTrial(t, s, newExt4(t, smallDisk), sum)
				fullDisk(tr, nil, func() bool {
					powerCut.happens(tr)
					return tr.recover(powerCut)
				})
				t.Logf("%s: %v", s.name, sum)
			}
		})
	}
}

// fullDisk fills a disk, asks for more, looks, deletes, makes room, and writes on; then something happens, and the whole is
// looked at again.
func fullDisk(tr *trial, careless []string, happens func() bool) {
	tr.t.Helper()
	tr.subject.leavesWhole = false // a write that finds no room may be short
	tr.disk.load(ballast)
	l := startLoad(tr.t, tr.fs.path(), 0, manner{careless: careless, scale: enlarged})
	if err := fill(l); err != nil {
		tr.problem("filling the disk: %v", l.because(err))
		return
	}
	// The writers wait, and what they have reported so far is there; all of that also when it is read from the disk.
	tr.batches = l.batches()
	tr.look()
	removed := 0
	for i := range tr.batches {
		if b := &tr.batches[i]; b.Kind == "files" {
			removed = b.Acked
			if err := remove(tr.fs.path(), b, removed); err != nil {
				tr.problem("removing files from a full disk: %v", err)
				return
			}
		}
	}
	tr.look()
	tr.disk.unload()
	l.retry()
	const more = 30
	want := map[string]int{}
	for _, b := range tr.batches {
		want[b.Kind] = b.Acked + more
	}
	err := l.until("every writer goes on when there is room", func(b batch, full bool) bool { return b.Acked >= want[b.Kind] })
	if err != nil {
		tr.problem("after there was room again: %v", err)
	}
	written, said := l.kill()
	for _, line := range said {
		tr.problem("a writer says: %s", line)
	}
	for i := range written {
		if written[i].Kind == "files" {
			written[i].Removed = removed
		}
	}
	tr.batches = nil
	tr.add(written)
	if tr.look(); !happens() {
		return
	}
	tr.look()
	tr.end()
}

// fill lets writers find a disk full, and full again when they ask for more.
func fill(l *load) error {
	const asks = 10
	for i := range asks {
		err := l.until(fmt.Sprintf("every writer has found the disk full %d times", i+1), func(_ batch, full bool) bool { return full })
		if err != nil {
			return err
		}
		if i < asks-1 {
			l.retry()
		}
	}
	return nil
}
