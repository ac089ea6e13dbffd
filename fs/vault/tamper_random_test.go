package vault

import (
	"fmt"
	"path"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"encfsrun/fs/vault/tree"
)

// TestTamperRandomly lets random sessions write a vault, and a random adversary alter it: with its older copies at hand, and
// several things at once.
func TestTamperRandomly(t *testing.T) {
	f := newFixture(t)
	passkey := machinePasskey(t, f)
	for range tamperRounds(1) {
		rapid.Check(t, func(r *rapid.T) {
			w := newVictim(t, f, tinyTree)
			copies := []still{stillOf(t, w.d)}
			for i := range rapid.IntRange(1, 5).Draw(r, "sessions") {
				w.randomSession(r, i)
				copies = append(copies, stillOf(t, w.d))
			}
			g := w.targetWith(passkey)
			for range 6 {
				a := &adversary{r: r, g: g, copies: copies, fsys: g.good}
				for range rapid.IntRange(1, 3).Draw(r, "alterations") {
					a.alter()
				}
				c := trial{name: fmt.Sprint(a.did), fsys: a.fsys, mayLose: a.touchesTip(), noHeader: true}
				g.try(t, c)
				if t.Failed() {
					r.Fatalf("%v", a.did)
				}
			}
		})
	}
}

// randomSession writes up to three commits of small changes.
func (w *victim) randomSession(r *rapid.T, n int) {
	if rapid.IntRange(0, 5).Draw(r, "rekey") == 0 {
		w.rekey()
	}
	var changes []func(*Session) error
	for i := range rapid.IntRange(1, 3).Draw(r, "commits") {
		name := fmt.Sprintf("f%d.%d", n, i)
		size := rapid.SampledFrom([]int{0, 10, 40_000}).Draw(r, "size")
		kind := rapid.SampledFrom([]string{"add", "add", "rewrite", "unlink", "chmod", "checkpoint"}).Draw(r, "change")
		changes = append(changes, func(s *Session) error { return randomChange(s, kind, name, size) })
	}
	w.session(rapid.IntRange(0, 3).Draw(r, "closed") > 0, changes...)
}

func randomChange(s *Session, kind, name string, size int) error {
	b := newBuilder(s)
	switch kind {
	case "rewrite":
		b.write(b.lookup("lib", "secret.py"), 9, "KEY = "+name)
	case "chmod":
		a, err := s.v.Attr(b.lookup("lib"))
		b.do(err)
		a.Mode ^= 0o022
		b.do(s.Put(a))
	case "unlink":
		var last string
		b.do(s.v.ReadDir(tree.Root, 0, func(e tree.Entry) bool {
			if strings.HasPrefix(e.Name, "f") {
				last = e.Name
			}
			return true
		}))
		if last != "" {
			ino := b.lookup(last)
			b.do(s.Unlink(tree.Root, last))
			b.do(s.Free(ino))
		}
	case "checkpoint":
		b.do(s.Checkpoint())
	}
	if kind == "add" || kind == "checkpoint" {
		b.file(name, strings.Repeat("x", size))
	}
	return b.err
}

// adversary alters a vault step by step.
type adversary struct {
	r      *rapid.T
	g      *target
	copies []still
	fsys   still
	did    []string
}

// touchesTip says whether the newest segment is not what it was: then its end may be lost.
func (a *adversary) touchesTip() bool {
	tip := a.g.tip()
	return string(a.fsys[tip]) != string(a.g.good[tip])
}

func (a *adversary) file() string {
	return rapid.SampledFrom(a.g.good.names()).Draw(a.r, "file")
}

func (a *adversary) alter() {
	kind := rapid.SampledFrom([]string{"flip", "cut", "extend", "block", "copy", "delete", "older", "older", "rename"}).Draw(a.r, "alteration")
	file := a.file()
	b := slices.Clone(a.fsys[file])
	at := 0
	if len(b) > 0 {
		at = rapid.IntRange(0, len(b)-1).Draw(a.r, "at")
	}
	switch kind {
	case "flip":
		if len(b) > 0 {
			b[at] ^= 1 << rapid.IntRange(0, 7).Draw(a.r, "bit")
		}
	case "cut":
		b = b[:at]
	case "extend":
		b = append(b, rapid.SliceOfN(rapid.Byte(), 1, 100).Draw(a.r, "tail")...)
	case "block":
		blocks := a.g.blocksOf()
		from := rapid.SampledFrom(blocks).Draw(a.r, "from")
		to := rapid.SampledFrom(blocks).Draw(a.r, "to")
		file = segmentPath(testVault, uint64(to.segment))
		if b = slices.Clone(a.fsys[file]); len(b) >= int(blockOffset(uint64(to.block+1))) {
			copy(b[blockOffset(uint64(to.block)):], a.g.block(a.g.good, from))
		}
	case "copy":
		b = a.fsys[a.file()]
	case "rename":
		other := a.file()
		b = a.fsys[other]
		a.fsys = a.fsys.without(other)
		file = rapid.SampledFrom([]string{file, segmentPath(testVault, uint64(len(a.g.good.segments())+1))}).Draw(a.r, "name")
	case "older":
		older, ok := rapid.SampledFrom(a.copies).Draw(a.r, "copy")[file]
		if !ok {
			kind = "delete"
		}
		b = older
	}
	a.did = append(a.did, kind+" "+path.Base(file))
	if kind == "delete" {
		a.fsys = a.fsys.without(file)
		return
	}
	a.fsys = a.fsys.with(file, b)
}
