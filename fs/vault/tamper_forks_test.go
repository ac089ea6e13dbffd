package vault

import (
	"fmt"
	"maps"
	"path"
	"slices"
	"strings"
	"testing"

	"encfsrun/fs/vault/record"
	"encfsrun/fs/vault/seal"
	"encfsrun/fs/vault/tree"
)

// source is another state of the vault that single files are taken from.
type source struct {
	name  string
	files still
	more  [][]seen // states that only it has had
}

// mixes tries every mix of the vault with files of another state of it: each file that differs, theirs or ours, in all
// combinations. What a mix may be served as is ours as it is, or, when the log's end is theirs too, a state of theirs that was
// committed whole.
func (g *target) mixes(t *testing.T, theirs source) {
	t.Helper()
	mixed := *g
	mixed.states = append(slices.Clone(theirs.more), g.states...)
	var differ []string
	all := maps.Clone(g.good)
	maps.Copy(all, theirs.files)
	for _, name := range all.names() {
		ours, here := g.good[name]
		other, there := theirs.files[name]
		if path.Base(name) != lockName && (here != there || string(ours) != string(other)) {
			differ = append(differ, name)
		}
	}
	if len(differ) == 0 || len(differ) > 12 {
		t.Fatalf("%s: %d files differ", theirs.name, len(differ))
	}
	for set := 1; set < 1<<len(differ); set++ {
		fsys, taken := maps.Clone(g.good), []string{}
		var headers int
		var end bool
		for i, name := range differ {
			if set>>i&1 == 0 {
				continue
			}
			taken = append(taken, path.Base(name))
			end = end || name == g.tip() || name > g.tip() && strings.HasSuffix(name, ".seg")
			if !strings.HasSuffix(name, ".seg") {
				headers++
			}
			if b, ok := theirs.files[name]; ok {
				fsys[name] = b
			} else {
				delete(fsys, name)
			}
		}
		c := trial{name: fmt.Sprintf("%s of %s", taken, theirs.name), fsys: fsys, mayLose: end}
		if headers == 2 && g.generation(t, fsys) < g.generation(t, g.good) {
			c.want.pinned = refusal // the header was rolled back; one of another way but the same generation is not told apart
		}
		if end {
			c.want.pinned = refusal
		}
		mixed.try(t, c)
	}
}

// generation reads that of a vault's header, without a key.
func (g *target) generation(t *testing.T, fsys still) uint64 {
	t.Helper()
	h, err := ReadHeader(fsys, testVault)
	if err != nil {
		t.Fatal(err)
	}
	return h.Generation
}

// TestTamperOlderCopies takes files from every older copy of a vault: from before an update, before and after a change of the
// keys, from before a checkpoint.
func TestTamperOlderCopies(t *testing.T) {
	w := newVictim(t, newFixture(t), tinyTree)
	var copies []source
	keep := func(name string) { copies = append(copies, source{name: name, files: stillOf(t, w.d)}) }
	keep("the first copy")
	w.session(true, edit)
	keep("the copy after the update")
	w.rekey()
	keep("the copy after the change of keys")
	w.session(true, adding("a", 40_000))
	keep("the copy after the second update")
	g := w.session(false, adding("b", 10), checkpointing, adding("c", 10)).target()
	for _, c := range copies {
		g.mixes(t, c)
	}
}

// TestTamperRolledBackKeys gives back the header from before a change of the keys, to a log that nobody wrote since: only the
// pin can tell. Had anybody written since, the log tells too.
func TestTamperRolledBackKeys(t *testing.T) {
	w := newVictim(t, newFixture(t), tinyTree).session(true, edit)
	old := stillOf(t, w.d)
	w.rekey()
	quiet, written := w.target(), w.copied().session(true, adding("a", 10)).target()
	for _, name := range []string{headerName, twinName} {
		name = path.Join(testVault, name)
		quiet.good[name], old[name] = old[name], quiet.good[name]
		written.good[name] = quiet.good[name]
	}
	quiet.try(t, trial{name: "both headers", fsys: quiet.good, want: fate{same, refusal}})
	written.try(t, trial{name: "both headers, and written since", fsys: written.good, want: fate{refusal, refusal}})
	one := written.good.with(path.Join(testVault, twinName), old[path.Join(testVault, twinName)])
	written.try(t, trial{name: "one header", fsys: one, want: fate{same, same}})
}

// TestTamperForks lets two copies of a vault go different ways, with the same number of commits and segments, and mixes their
// files in all ways.
func TestTamperForks(t *testing.T) {
	base := newVictim(t, newFixture(t), tinyTree).session(true, edit)
	ways := map[string]func(*victim) *victim{
		"one session": func(w *victim) *victim { return w.session(true, adding("a", 10)) },
		"a checkpoint": func(w *victim) *victim {
			return w.session(true, adding("a", 10), checkpointing).session(true, adding("c", 10))
		},
		"a change of keys": func(w *victim) *victim { return w.rekey().session(true, adding("a", 10)) },
		"not closed":       func(w *victim) *victim { return w.session(false, adding("a", 10), adding("c", 10)) },
		"two sessions":     func(w *victim) *victim { return w.session(true, adding("a", 10)).session(true, adding("c", 10)) },
	}
	for name, way := range ways {
		ours, theirs := way(base.copied()), base.copied()
		theirs = way(theirs.session(true, adding("theirs", 20)))
		again := way(base.copied()) // the very same changes: only ids and nonces differ
		other := base.copied()
		if name == "a change of keys" {
			other.rekey()
		}
		other.session(true, adding("b", 10)).session(true, adding("d", 10))
		g := ours.target()
		for what, w := range map[string]*victim{"a longer fork": theirs, "an equal fork": again, "another fork": other} {
			g.mixes(t, source{name + ": " + what, stillOf(t, w.d), w.states[2:]})
		}
	}
}

// TestTamperOtherVault mixes a vault with another one that the same machine key opens, and that even has the same master key,
// which no command makes. Every mix is refused; but the other vault as a whole is just another vault.
func TestTamperOtherVault(t *testing.T) {
	w := newVictim(t, newFixture(t), tinyTree).session(true, edit)
	g := w.target()
	other := newVictim(t, newFixture(t), smallTree).session(true, edit)
	files := stillOf(t, other.d)
	var differ []string
	for _, name := range files.names() {
		if path.Base(name) != lockName {
			differ = append(differ, name)
		}
	}
	for set := 1; set < 1<<len(differ)-1; set++ {
		fsys := maps.Clone(g.good)
		var log, headers int
		for i, name := range differ {
			if set>>i&1 == 1 {
				fsys[name] = files[name]
				if strings.HasSuffix(name, ".seg") {
					log++
				} else {
					headers++
				}
			}
		}
		if headers > 0 && log == len(differ)-2 { // all the log and a header: the other vault
			continue
		}
		c := trial{name: fmt.Sprintf("mix %b", set), fsys: fsys, want: fate{refusal, refusal}}
		if log == 0 && headers == 1 && string(fsys[path.Join(testVault, headerName)]) == string(g.good[path.Join(testVault, headerName)]) {
			c.want = fate{same, same} // the twin alone: vault.json comes first
		}
		g.try(t, c)
	}
}

// TestTamperClonedWriter mixes the blocks of two writers that were one until their machine was cloned with its memory: the same
// session, the same segment id, the same block numbers. Every block is genuine where it stands; only the chain tells them apart.
func TestTamperClonedWriter(t *testing.T) {
	f := newFixture(t)
	base := good(newCrafter(t, f))
	session, id := seal.NewID(), seal.NewID()
	write := func(a, b string) still {
		c := *base
		c.d, c.session = base.d.Clone(), session
		c.segmentWith(func(h *segmentHeader) { h.id = id })
		c.commit(c.fileRecords(3, a, a), nil).commit(c.fileRecords(4, b, b), nil).close()
		return stillOf(t, c.d)
	}
	ours, theirs := write("a", "b"), write("x", "y")
	g := craftedTarget(t, f, ours)
	file := segmentPath(testVault, 2)
	for set := 1; set < 15; set++ {
		mixed := slices.Clone(ours[file])
		for i := range 4 { // the header and three blocks
			from, to := blockOffset(uint64(i-1)), blockOffset(uint64(i))
			if i == 0 {
				from, to = 0, headerSize
			}
			if set>>i&1 == 1 {
				copy(mixed[from:to], theirs[file][from:to])
			}
		}
		g.try(t, trial{name: fmt.Sprintf("blocks %04b of the clone", set), fsys: ours.with(file, mixed), want: fate{refusal, refusal}})
	}
}

// TestTamperClonedUnderCheckpoint is the same for a block that opening does not read, because a checkpoint's table names it.
func TestTamperClonedUnderCheckpoint(t *testing.T) {
	f := newFixture(t)
	c := newCrafter(t, f)
	checkpointed(c)
	ours := stillOf(t, c.d)
	g := craftedTarget(t, f, ours)
	h := c.ids[1]
	plain := make([]byte, PlainSize)
	prefix{h.session, h.first, 0}.put(plain)
	stream := slices.Concat(c.dirRecord(tree.Root), c.fileRecords(2, "main.py", "print('HELLO')\n"))
	copy(plain[PayloadStart:], record.CommitRecord{Sequence: 1, NextIno: 3}.Append(stream))
	block := make([]byte, BlockSize)
	if err := f.Keys.SealBlock(block, plain, h.id, h.first); err != nil {
		t.Fatal(err)
	}
	g.try(t, trial{name: "a genuine block of a clone", fsys: g.put(ours, place{1, 0}, block), want: fate{partly, partly}})
}

// craftedTarget makes a target of a crafted vault.
func craftedTarget(t *testing.T, f *fixture, files still) *target {
	t.Helper()
	w := &victim{t: t, f: f}
	w.load(files)
	w.note()
	return w.target()
}
