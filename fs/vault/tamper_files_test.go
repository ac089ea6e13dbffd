package vault

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"path"
	"slices"
	"testing"
)

// targets are the vaults that whole files and blocks are altered of: as pack leaves one; after an update; after several sessions
// with a change of the keys, a checkpoint and files over several blocks; and one that a crash left unclosed.
func targets(t *testing.T) map[string]*target {
	f := newFixture(t)
	packed := newVictim(t, f, smallTree)
	updated := packed.copied().session(true, edit)
	grown := updated.copied().rekey().session(true, adding("lib/a", 100_000), checkpointing).session(true, adding("b", 40_000))
	unclosed := updated.copied().session(false, adding("a", 70_000), adding("b", 70_000))
	return map[string]*target{"packed": packed.target(), "updated": updated.target(), "grown": grown.target(), "unclosed": unclosed.target()}
}

// checkpointing writes a checkpoint, and with it a segment.
func checkpointing(s *Session) error { return s.Checkpoint() }

// lossable says whether the log's end can be lost by an alteration of these blocks of the newest segment, -1 being its header,
// without anything that speaks of it: no block that is left says that the first of them was durable.
func (g *target) lossable(altered ...int) bool {
	names := g.good.segments()
	tip := uint64(len(names))
	s, err := openSegmentOf(g, tip)
	if err != nil {
		panic(err)
	}
	plain := make([]byte, PlainSize)
	var durable uint64
	n := (len(g.good[names[tip-1]]) - headerSize) / BlockSize
	for i := range n {
		if slices.Contains(altered, i) {
			continue
		}
		p, err := openBlock(testVault, g.f.Keys, s, uint64(i), g.good[names[tip-1]][blockOffset(uint64(i)):][:BlockSize], plain)
		if err != nil {
			panic(err)
		}
		durable = max(durable, p.durable)
	}
	first := slices.Min(altered)
	return first >= 0 && s.header.first+uint64(first) >= durable
}

func TestTamperFilesDeletedAndEmptied(t *testing.T) {
	for name, g := range targets(t) {
		tip := g.tip()
		for _, file := range g.good.names() {
			lock := path.Base(file) == lockName
			header := path.Base(file) == headerName || path.Base(file) == twinName
			want := fate{refusal, refusal}
			switch {
			case lock || header:
				want = fate{same, same}
			case file == tip: // the newest segments can be taken away without a trace
				want = fate{"", refusal}
			}
			g.try(t, trial{name: name + ": deleted " + file, fsys: g.good.without(file), mayLose: file == tip, want: want})
			g.try(t, trial{name: name + ": emptied " + file, fsys: g.good.with(file, nil), mayLose: file == tip, want: want})
		}
		log := path.Join(testVault, logDir)
		g.try(t, trial{name: name + ": no log", fsys: g.good.without(log), want: fate{refusal, refusal}})
		g.try(t, trial{name: name + ": an empty log", fsys: g.good.without(log).with(log+"/", nil), want: fate{refusal, refusal}})
		both := []string{path.Join(testVault, headerName), path.Join(testVault, twinName)}
		g.try(t, trial{name: name + ": no header", fsys: g.good.without(both...), noHeader: true, want: fate{headerless, headerless}})
		g.try(t, trial{name: name + ": empty headers", fsys: g.good.with(both[0], nil).with(both[1], nil), noHeader: true, want: fate{headerless, headerless}})
	}
}

// tip returns the name of the newest segment's file.
func (g *target) tip() string {
	names := g.good.segments()
	return names[len(names)-1]
}

func openSegmentOf(g *target, number uint64) (*segment, error) {
	file, err := g.good.Open(segmentPath(testVault, number))
	if err != nil {
		return nil, err
	}
	return readSegmentHeader(file, testVault, number, g.f.Keys)
}

// TestTamperFilesCut cuts each segment at every border and beside it, and at random places.
func TestTamperFilesCut(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 1))
	for name, g := range targets(t) {
		for i, file := range g.good.segments() {
			b := g.good[file]
			var cuts []int
			for at := headerSize; at <= len(b); at += BlockSize {
				cuts = append(cuts, at-1, at, at+1)
			}
			for range tamperRounds(30) {
				cuts = append(cuts, r.IntN(len(b)))
			}
			for _, at := range cuts {
				if at >= len(b) {
					continue
				}
				c := trial{name: fmt.Sprintf("%s: %s cut to %d bytes", name, file, at), fsys: g.good.with(file, b[:at]), want: fate{refusal, refusal}}
				if file == g.tip() {
					c.mayLose, c.want = true, fate{"", refusal}
				} else if s, err := openSegmentOf(g, uint64(i+2)); err != nil || at >= int(blockOffset(s.header.predEnd)) {
					c.want = fate{same, same} // beyond the end that the successor seals
				}
				g.try(t, c)
			}
		}
	}
}

// TestTamperFilesExtended appends to each file: zeros, noise, its own blocks, the closing commit once more.
func TestTamperFilesExtended(t *testing.T) {
	noise := make([]byte, 3*BlockSize)
	for i := range noise {
		noise[i] = byte(rand.Uint32())
	}
	for name, g := range targets(t) {
		for _, file := range g.good.names() {
			b := g.good[file]
			tails := map[string][]byte{
				"a byte": {0}, "noise": noise, "a header of noise": noise[:headerSize], "a block of noise": noise[:BlockSize], "zeros": make([]byte, 2*BlockSize),
				"itself": b, "its last block": b[max(0, len(b)-BlockSize):], "its first block": b[min(headerSize, len(b)):min(headerSize+BlockSize, len(b))],
			}
			for what, tail := range tails {
				longer := slices.Concat(b, tail)
				g.try(t, trial{name: fmt.Sprintf("%s: %s and %s behind it", name, file, what), fsys: g.good.with(file, longer), want: fate{same, same}})
			}
		}
		tip := g.tip()
		huge := slices.Concat(g.good[tip], make([]byte, maxSegmentSize))
		g.try(t, trial{name: name + ": longer than a segment", fsys: g.good.with(tip, huge), want: fate{refusal, refusal}})
	}
}

// TestTamperStrangeFiles puts files beside those of the vault.
func TestTamperStrangeFiles(t *testing.T) {
	for name, g := range targets(t) {
		n := uint64(len(g.good.segments()))
		for what, c := range map[string]trial{
			"a torn creation":         {fsys: g.good.with(segmentPath(testVault, n+1), make([]byte, 100)), want: fate{same, same}},
			"a header of zeros":       {fsys: g.good.with(segmentPath(testVault, n+1), make([]byte, headerSize)), want: fate{same, same}},
			"a high torn creation":    {fsys: g.good.with(segmentPath(testVault, 1<<63), nil), want: fate{same, same}},
			"more than a header":      {fsys: g.good.with(segmentPath(testVault, n+1), make([]byte, headerSize+1)), want: fate{refusal, refusal}},
			"a segment of zeros":      {fsys: g.good.with(segmentPath(testVault, n+1), make([]byte, headerSize+BlockSize)), want: fate{refusal, refusal}},
			"segment 0":               {fsys: g.good.with(segmentPath(testVault, 0), bytes.Clone(g.good[g.tip()])), want: fate{same, same}},
			"other names":             {fsys: g.good.with(path.Join(testVault, logDir, "9.seg"), bytes.Clone(g.good[g.tip()])), want: fate{same, same}},
			"an unfinished header":    {fsys: g.good.with(path.Join(testVault, tempName), []byte("{}")), want: fate{same, same}},
			"a number beyond 64 bits": {fsys: g.good.with(path.Join(testVault, logDir, "99999999999999999999.seg"), make([]byte, 9000)), want: fate{same, same}},
		} {
			c.name = name + ": " + what
			g.try(t, c)
		}
	}
}
