package vault

import (
	"bytes"
	"errors"
	"fmt"
	"runtime"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"testing"

	"encfsrun/fs/vault/disk/memdisk"
)

// TestTamperEveryBit flips every bit of a vault's log, one at a time: two sessions, three segments, five blocks. What becomes of
// each is known: where the bit stands decides whether the vault is refused or one file's contents are.
func TestTamperEveryBit(t *testing.T) {
	g := newVictim(t, newFixture(t), tinyTree).session(true, edit).target()
	g.flipAll(t, 1, func(p place) fate {
		switch {
		case p.segment == 1 && p.block >= 0: // below the checkpoint: opening does not read it
			return fate{partly, partly}
		case p == place{3, 1}: // the closing commit: without it the same tree, not closed cleanly, and not the pinned commit
			return fate{same, refusal}
		}
		return fate{refusal, refusal}
	})
}

// TestTamperUnclosedVault flips a bit of every fourth byte of a vault whose last session a crash ended after its second
// commit. What can be lost without a trace is the last commit, and nothing before it: its block says that the others were durable.
func TestTamperUnclosedVault(t *testing.T) {
	g := newVictim(t, newFixture(t), tinyTree).session(true, edit).session(false, adding("a.py", 10), adding("b.py", 10)).target()
	g.flipAll(t, 33, func(p place) fate {
		switch {
		case p.segment == 1 && p.block >= 0:
			return fate{partly, partly}
		case p == place{4, 1}:
			return fate{earlier, refusal}
		}
		return fate{refusal, refusal}
	})
}

// flipAll flips every stride-th bit of the segments on all cores (in a soak all, with -short few) and compares what becomes of
// each with what is expected of its place.
func (g *target) flipAll(t *testing.T, stride int, expect func(place) fate) {
	defer debug.SetGCPercent(debug.SetGCPercent(800)) // of a million trees the collector would take a third of the time
	switch {
	case testing.Short():
		stride = 1009
	case tamperRounds(1) > 1:
		stride = 1
	}
	const chunk = 512 // bytes
	type part struct{ segment, from int }
	var parts []part
	names := g.good.segments()
	for i, name := range names {
		for from := 0; from < len(g.good[name]); from += chunk {
			parts = append(parts, part{i + 1, from})
		}
	}
	var next, flips atomic.Int64
	var group sync.WaitGroup
	for range runtime.GOMAXPROCS(0) {
		group.Go(func() {
			w := newFlipper(t, g)
			defer w.close()
			for n := next.Add(1) - 1; n < int64(len(parts)) && !t.Failed(); n = next.Add(1) - 1 {
				p := parts[n]
				name := names[p.segment-1]
				end := 8 * min(p.from+chunk, len(g.good[name]))
				for bit := (8*p.from + stride - 1) / stride * stride; bit < end; bit += stride {
					flips.Add(1)
					if err := w.flip(name, bit, expect(placeOf(p.segment, bit/8))); err != nil {
						t.Errorf("bit %d of byte %d of %s: %v", bit%8, bit/8, name, err)
						return
					}
				}
			}
		})
	}
	group.Wait()
	t.Logf("%d bits flipped in %d files", flips.Load(), len(names))
}

// flipper flips bits for one core, in memory of its own.
type flipper struct {
	t    *testing.T
	g    *target
	u    *Unlocked
	w    *workspace
	d    *memdisk.Disk // with the pin
	pins *Pins
	open *Vault // stays open while its files change
	dst  []byte
}

func newFlipper(t *testing.T, g *target) *flipper {
	u, err := g.unlock(g.good)
	if err != nil {
		t.Error(err)
	}
	w, err := newWorkspace()
	if err != nil {
		t.Error(err)
	}
	v, err := u.Open(g.good, Options{})
	if err != nil {
		t.Error(err)
	}
	d := g.pinDisk(t)
	return &flipper{t, g, u, w, d, NewPins(d, testPins), v, make([]byte, PlainSize)}
}

func (f *flipper) close() {
	f.open.Close()
	f.u.Close()
	f.w.destroy()
	if pin, err := f.d.ReadFile(f.g.pinned); err != nil || !bytes.Equal(pin, f.g.pin) {
		f.t.Errorf("the pin was replaced by %s, %v", pin, err)
	}
}

// flip opens the vault with one bit the other way. What opens without a pin is then held against it, which is the last step of
// opening. Two things are done for one bit of each byte only, and for every bit in a soak: what is refused before that step is
// opened once more with the pin; and what opening does not read is flipped before opening, else under an open vault.
func (f *flipper) flip(name string, bit int, want fate) error {
	often := (bit/8)%8 == bit%8 || tamperRounds(1) > 1 || testing.Short()
	if want.bare == partly && !often {
		return f.read(name, bit)
	}
	fsys := flipped{f.g.good, name, bit / 8, 1 << (bit % 8)}
	v := &Vault{path: f.u.Path, fsys: fsys, keys: f.u.Keys, header: f.u.Header, options: Options{Warn: func(err error) { f.t.Error(err) }}}
	defer v.Close()
	if err := v.loadLog(f.w, false); err != nil {
		if got, err := classed(err); err != nil || got != want.bare {
			return fmt.Errorf("without a pin %s, want %s: %w", got, want.bare, err)
		}
		if !often {
			return nil
		}
		pinned := &Vault{path: f.u.Path, fsys: fsys, keys: f.u.Keys, header: f.u.Header, options: Options{Pins: f.pins, Warn: v.options.Warn}}
		defer pinned.Close()
		if got, err := classed(pinned.loadWith(f.w, false)); err != nil || got != want.pinned {
			return fmt.Errorf("with the pin %s, want %s: %w", got, want.pinned, err)
		}
		return nil
	}
	got, err := f.g.judgeOpen(v)
	if err != nil || got != want.bare {
		return fmt.Errorf("without a pin %s, want %s: %w", got, want.bare, err)
	}
	v.options.Pins = f.pins
	var rollback *RollbackError
	old, err := v.pinned()
	if err != nil {
		return err
	}
	if err := v.checkPin(old, false); errors.As(err, &rollback) {
		got = refusal
	} else if err != nil {
		return err
	}
	if got != want.pinned {
		return fmt.Errorf("with the pin %s, want %s", got, want.pinned)
	}
	return nil
}

// read flips a bit of a block below the open vault and reads the block.
func (f *flipper) read(name string, bit int) error {
	for _, s := range f.open.segs {
		if segmentPath(testVault, s.header.number) != name {
			continue
		}
		file := s.file.(*stillFile)
		file.at, file.mask = bit/8, 1<<(bit%8)
		_, err := f.open.LoadBlock(s.header.first+uint64(bit/8-headerSize)/BlockSize, f.dst)
		file.mask = 0
		if !isIntegrity(err) {
			return fmt.Errorf("the block was read: %w", err)
		}
		return nil
	}
	return errors.New("no open segment has this file")
}
