package vault

import (
	"fmt"
	"path"
	"testing"
)

// TestTamperEveryHeaderBit flips every bit of vault.json, of its twin, and the same bit of both. One of them is enough; without
// either the vault is not opened, and never with other slots than were written.
func TestTamperEveryHeaderBit(t *testing.T) {
	g := newVictim(t, newFixture(t), tinyTree).rekey().target()
	names := []string{path.Join(testVault, headerName), path.Join(testVault, twinName)}
	u, err := g.unlock(g.good)
	if err != nil {
		t.Fatal(err)
	}
	defer u.Close()
	stride := 1
	if testing.Short() {
		stride = 17
	}
	bits := 8 * len(g.good[names[0]])
	for bit := 0; bit < bits; bit += stride {
		for _, name := range names {
			fsys := flipped{g.good, name, bit / 8, 1 << (bit % 8)}
			if err := g.opensHeader(u, fsys); err != nil {
				t.Fatalf("bit %d of byte %d of %s: %v", bit%8, bit/8, name, err)
			}
		}
		both := g.good
		for _, name := range names {
			both = both.changed(name, func(b []byte) []byte { b[bit/8] ^= 1 << (bit % 8); return b })
		}
		if got, err := g.judge(both, Options{}); err != nil || got != headerless && got != refusal {
			t.Fatalf("bit %d of byte %d of both: %s %v", bit%8, bit/8, got, err)
		}
	}
	t.Logf("%d bits flipped in two files and in both", bits/stride)
}

// opensHeader unlocks a vault whose header is altered in one of the twins, and compares what is found with the true header.
func (g *target) opensHeader(real *Unlocked, fsys flipped) error {
	u, err := g.unlock(fsys)
	if err != nil {
		return err
	}
	defer u.Close()
	want, err := real.Header.encode("")
	if err != nil {
		return err
	}
	got, err := u.Header.encode("")
	if err != nil || string(got) != string(want) {
		return fmt.Errorf("another header was taken: %s %w", got, err)
	}
	return nil
}

// TestTamperHeaderPairs alters the twins in two ways at once: one is gone or not this vault's, the other from before a change of
// the keys, in every combination.
func TestTamperHeaderPairs(t *testing.T) {
	w := newVictim(t, newFixture(t), tinyTree)
	old := stillOf(t, w.d)
	w.rekey().session(true, edit)
	g := w.target()
	first, twin := path.Join(testVault, headerName), path.Join(testVault, twinName)
	kinds := map[string][]byte{
		"whole": g.good[first], "old": old[first], "gone": nil, "empty": {}, "cut": g.good[first][:100], "longer": append(append([]byte{}, g.good[first]...), '\n'),
		"twice": append(append([]byte{}, g.good[first]...), g.good[first]...), "huge": make([]byte, maxHeaderSize+1), "null": []byte("null\n"), "array": []byte("[]\n"),
	}
	for a := range kinds {
		for b := range kinds {
			fsys := g.good.without(first, twin)
			if a != "gone" {
				fsys = fsys.with(first, kinds[a])
			}
			if b != "gone" {
				fsys = fsys.with(twin, kinds[b])
			}
			c := trial{name: a + " and " + b, fsys: fsys, noHeader: true, want: fate{headerless, headerless}}
			switch {
			case a == "whole" || b == "whole":
				c.noHeader, c.want = false, fate{same, same}
			case a == "old" || b == "old":
				c.noHeader, c.want = false, fate{refusal, refusal}
			}
			g.try(t, c)
		}
	}
}
