package vault

import (
	"fmt"
	"slices"
	"testing"
)

// blocksOf lists the blocks of all segments.
func (g *target) blocksOf() (all []place) {
	for i, name := range g.good.segments() {
		for b := range (len(g.good[name]) - headerSize) / BlockSize {
			all = append(all, place{i + 1, b})
		}
	}
	return all
}

func (g *target) block(s still, p place) []byte {
	return s[segmentPath(testVault, uint64(p.segment))][blockOffset(uint64(p.block)):][:BlockSize]
}

// put returns a copy of the vault in which a block is another.
func (g *target) put(s still, p place, block []byte) still {
	return s.changed(segmentPath(testVault, uint64(p.segment)), func(b []byte) []byte {
		copy(b[blockOffset(uint64(p.block)):], block)
		return b
	})
}

// loses says whether altering these blocks may lose the log's end.
func (g *target) loses(altered ...place) bool {
	var inTip []int
	for _, p := range altered {
		if p.segment == len(g.good.segments()) {
			inTip = append(inTip, p.block)
		}
	}
	return len(inTip) > 0 && g.lossable(inTip...)
}

// TestTamperBlocksMoved swaps every pair of blocks, in one segment and across, copies each over each other, and zeroes each.
func TestTamperBlocksMoved(t *testing.T) {
	for name, g := range targets(t) {
		blocks := g.blocksOf()
		for _, a := range blocks {
			g.try(t, trial{name: fmt.Sprintf("%s: %v zeroed", name, a), fsys: g.put(g.good, a, make([]byte, BlockSize)), mayLose: g.loses(a)})
			for _, b := range blocks {
				if a == b {
					continue
				}
				copied := g.put(g.good, b, g.block(g.good, a))
				g.try(t, trial{name: fmt.Sprintf("%s: %v copied over %v", name, a, b), fsys: copied, mayLose: g.loses(b)})
				if a.segment < b.segment || a.segment == b.segment && a.block < b.block {
					swapped := g.put(copied, a, g.block(g.good, b))
					g.try(t, trial{name: fmt.Sprintf("%s: %v and %v swapped", name, a, b), fsys: swapped, mayLose: g.loses(a, b)})
				}
			}
		}
	}
}

// TestTamperBlocksShifted takes a block out of a segment, or puts it in twice, so that all behind it move.
func TestTamperBlocksShifted(t *testing.T) {
	for name, g := range targets(t) {
		for _, p := range g.blocksOf() {
			file := segmentPath(testVault, uint64(p.segment))
			at := int(blockOffset(uint64(p.block)))
			var behind []place
			for _, q := range g.blocksOf() {
				if q.segment == p.segment && q.block >= p.block {
					behind = append(behind, q)
				}
			}
			b := g.good[file]
			removed := slices.Concat(b[:at], b[at+BlockSize:])
			g.try(t, trial{name: fmt.Sprintf("%s: %v taken out", name, p), fsys: g.good.with(file, removed), mayLose: g.loses(behind...)})
			twice := slices.Concat(b[:at+BlockSize], b[at:])
			g.try(t, trial{name: fmt.Sprintf("%s: %v twice", name, p), fsys: g.good.with(file, twice), mayLose: len(behind) > 1 && g.loses(behind[1:]...)})
		}
	}
}

// TestTamperSegmentsMoved swaps, copies and renames segments, and puts the header of one before the blocks of another.
func TestTamperSegmentsMoved(t *testing.T) {
	for name, g := range targets(t) {
		names := g.good.segments()
		for i, a := range names {
			for shift := 1; shift <= 3; shift++ {
				above := segmentPath(testVault, uint64(len(names)+shift))
				g.try(t, trial{name: fmt.Sprintf("%s: %s copied to %s", name, a, above), fsys: g.good.with(above, g.good[a]), want: fate{refusal, refusal}})
				g.try(t, trial{name: fmt.Sprintf("%s: %s renamed %s", name, a, above), fsys: g.good.without(a).with(above, g.good[a]), want: fate{refusal, refusal}})
			}
			for j, b := range names {
				if i == j {
					continue
				}
				refused := fate{refusal, refusal}
				g.try(t, trial{name: fmt.Sprintf("%s: %s copied over %s", name, a, b), fsys: g.good.with(b, g.good[a]), want: refused})
				g.try(t, trial{name: fmt.Sprintf("%s: %s renamed %s", name, a, b), fsys: g.good.without(a).with(b, g.good[a]), want: refused})
				header := slices.Concat(g.good[a][:headerSize], g.good[b][headerSize:])
				g.try(t, trial{name: fmt.Sprintf("%s: the header of %s before %s", name, a, b), fsys: g.good.with(b, header), want: refused})
				if i < j {
					g.try(t, trial{name: fmt.Sprintf("%s: %s and %s swapped", name, a, b), fsys: g.good.with(a, g.good[b]).with(b, g.good[a]), want: refused})
				}
			}
		}
	}
}

// TestTamperLostTail puts back what a crash had taken: a commit that was on the way to the disk, cut off before its successor
// was written. Behind the end that the successor sealed it is void; without the successor it is a commit like any.
func TestTamperLostTail(t *testing.T) {
	w := newVictim(t, newFixture(t), smallTree).session(false, adding("a", 40_000), adding("b", 40_000))
	file := segmentPath(testVault, 3)
	whole, err := w.d.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if err := w.d.WriteFile(file, whole[:len(whole)-BlockSize]); err != nil {
		t.Fatal(err)
	}
	if err := w.d.Delete(testPins); err != nil { // a machine that has not seen the lost commit
		t.Fatal(err)
	}
	g := w.session(true, adding("c", 40_000)).target()
	put := g.good.with(file, whole)
	g.try(t, trial{name: "the lost tail behind the sealed end", fsys: put, want: fate{same, same}})
	g.try(t, trial{name: "the lost tail in place of its successor", fsys: put.without(segmentPath(testVault, 4)), mayLose: true, want: fate{earlier, refusal}})
	g.try(t, trial{name: "no successor", fsys: g.good.without(segmentPath(testVault, 4)), mayLose: true, want: fate{earlier, refusal}})
	if len(g.states) != 4 {
		t.Errorf("%d states were noted, want 4", len(g.states))
	}
}
