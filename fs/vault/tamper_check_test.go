package vault

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"path"
	"slices"
	"strings"
	"testing"

	"encfsrun/fs/vault/disk"
)

// checked opens and checks a vault. What opening refuses as damaged is a damage too.
func (g *target) checked(fsys disk.FS) (CheckReport, error) {
	u, err := g.unlock(fsys)
	if err != nil {
		return CheckReport{}, err
	}
	defer u.Close()
	v, err := u.Open(fsys, Options{})
	var damage *IntegrityError
	if errors.As(err, &damage) {
		return CheckReport{Damage: []Damage{{Object: damage.Object, Detail: damage.Detail}}}, nil
	}
	if err != nil {
		return CheckReport{}, err
	}
	defer v.Close()
	return v.Check(context.Background(), nil)
}

// TestTamperCheckNoticesEveryFlip flips bits all over a vault: Check reports each that stands in a live block, a segment's header
// or one of the twins, and no other.
func TestTamperCheckNoticesEveryFlip(t *testing.T) {
	w := newVictim(t, newFixture(t), tinyTree).session(false, adding("a", 10), adding("b", 10)) // its last commit is to be cut off
	file := segmentPath(testVault, 3)
	whole, err := w.d.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if err := w.d.WriteFile(file, whole[:len(whole)-100]); err != nil {
		t.Fatal(err)
	}
	if err := w.d.Delete(testPins); err != nil {
		t.Fatal(err)
	}
	g := w.session(true, edit).target()
	if r, err := g.checked(g.good); err != nil || len(r.Damage) > 0 || !r.Closed || r.Root != g.root {
		t.Fatalf("the vault as it is: %+v %v", r, err)
	}
	r := rand.New(rand.NewPCG(2, 2))
	for _, name := range g.good.names() {
		b := g.good[name]
		rounds := tamperRounds(100)
		if path.Dir(name) == testVault {
			rounds = len(b)
		}
		for i := range rounds {
			bit := 8*i + i%8
			if path.Dir(name) != testVault {
				bit = r.IntN(8 * len(b))
			}
			report, err := g.checked(flipped{g.good, name, bit / 8, 1 << (bit % 8)})
			if err != nil {
				t.Fatalf("byte %d of %s: %v", bit/8, name, err)
			}
			live := path.Base(name) != lockName && (name != file || bit/8 < int(blockOffset(1))) // the rest is behind the sealed end
			closing := name == g.tip() && bit/8 >= len(b)-BlockSize
			switch {
			case closing && (report.Closed || len(report.Damage) > 0): // of a closing commit there is nothing left to report
				t.Errorf("byte %d of %s, the closing commit: %+v", bit/8, name, report)
			case !closing && live != (len(report.Damage) > 0):
				t.Errorf("byte %d of %s, live %v: %+v", bit/8, name, live, report)
			}
		}
	}
}

// TestTamperCheckNamesFiles damages blocks and expects exactly the files that have bytes in them.
func TestTamperCheckNamesFiles(t *testing.T) {
	big := func(s *Session) error {
		b := newBuilder(s)
		b.root()
		b.dir("d")
		b.dir("d/e")
		for i := range 6 {
			b.file(fmt.Sprintf("d/e/f%d", i), strings.Repeat(fmt.Sprint(i), 25_000))
		}
		b.do(s.Link(b.inos["d"], "hard", b.inos["d/e/f3"]))
		return b.err
	}
	g := newVictim(t, newFixture(t), big).target()
	v, err := newOpened(g)
	if err != nil {
		t.Fatal(err)
	}
	defer v.keys.Destroy()
	defer v.Close()
	paths := map[string]Ino{"d/hard": 0}
	for i := range 6 {
		paths[fmt.Sprintf("d/e/f%d", i)] = 0
	}
	holders := map[uint64][]string{} // of each block
	for p := range paths {
		ino := Ino(1)
		for _, name := range strings.Split(p, "/") {
			if ino, err = v.Lookup(ino, name); err != nil {
				t.Fatal(err)
			}
		}
		spans, err := v.Spans(ino, 0, 25_000, nil)
		if err != nil {
			t.Fatal(err)
		}
		for _, s := range spans {
			holders[s.Block] = append(holders[s.Block], p)
		}
	}
	for block, files := range holders {
		report, err := g.checked(flipped{g.good, segmentPath(testVault, 1), int(blockOffset(block)) + 777, 4})
		if err != nil {
			t.Fatal(err)
		}
		var named []string
		for _, d := range report.Damage {
			if d.File {
				named = append(named, d.Object)
			}
		}
		slices.Sort(files)
		slices.Sort(named)
		if !slices.Equal(files, named) {
			t.Errorf("block %d is damaged: named %v, want %v", block, named, files)
		}
	}
	if len(holders) < 4 {
		t.Errorf("%d blocks hold the files: too few to tell them apart", len(holders))
	}
}

func newOpened(g *target) (*Vault, error) { return g.f.open(g.good, Options{}) }
