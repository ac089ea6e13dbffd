package vault

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"encfsrun/fs/vault/tree"
)

// What random sessions do: about as many operations as a tale has room for, of every kind, with commits, checkpoints and
// cleaning between them.
const (
	randomSteps = 24 // each ends with a commit
	randomOps   = 12 // in a step, at most
)

// randomTale is a session of random changes. Every telling of it does the same.
func randomTale(seed uint64) tale {
	return tale{
		name:   fmt.Sprintf("random session %d", seed),
		before: func(s *story) error { return s.create(seedTree) },
		act: func(s *story) error {
			r := rand.New(rand.NewPCG(seed, 0))
			steps := []func(*Session) error{adds("first", 30)} // a session that changes nothing promises nothing new
			for range 1 + r.IntN(randomSteps) {
				steps = append(steps, randomStep(r.Uint64()))
			}
			cut := 1 + r.IntN(len(steps))
			if err := s.session(steps[:cut]...); err != nil || cut == len(steps) {
				return err
			}
			return s.session(append(steps[cut:], adds("last", 30))...)
		},
	}
}

// TestRandomSessions cuts the power at, kills, and fails every operation of random sessions. `make soak` tries 2,000 of them.
func TestRandomSessions(t *testing.T) {
	l := newLuck(t)
	p := &prover{f: newFixture(t), luck: luck{rounds: 1, seed: l.seed, short: l.short}, rare: 40}
	n := 6
	if l.rounds > 1 {
		n = 20 * l.rounds
	}
	for i := range uint64(n) {
		tl := randomTale(l.seed*1_000_000 + i)
		t.Run(tl.name, func(t *testing.T) {
			t.Parallel()
			memory := newMemory(t)
			for _, fate := range fates {
				if err := fate.try(p, tl, tl.prepare(t, p.f, memory, pinPlaces[1+i%2])); err != nil {
					t.Fatalf("%s: %v", fate.name, err)
				}
			}
			if i%4 == 0 {
				if err := p.faults(tl, tl.prepare(t, p.f, memory, pinPlaces[1])); err != nil {
					t.Fatalf("faults: %v", err)
				}
			}
		})
	}
	t.Cleanup(func() { t.Logf("tried: %v", p.counts) })
}

// census lists the tree of a session's vault, in an order that depends on the tree alone.
type census struct {
	dirs, files []Ino
	names       []link
}

type link struct {
	dir  Ino
	name string
	ino  Ino
	mode uint32
}

func censusOf(s *Session) (v census) {
	v.dirs = []Ino{tree.Root}
	for i := 0; i < len(v.dirs); i++ {
		var found []link
		s.v.ReadDir(v.dirs[i], 0, func(e tree.Entry) bool {
			found = append(found, link{v.dirs[i], e.Name, e.Ino, e.Mode})
			return true
		})
		for _, l := range found {
			v.names = append(v.names, l)
			switch l.mode & typeMask {
			case typeDir:
				v.dirs = append(v.dirs, l.ino)
			case 0o100000:
				v.files = append(v.files, l.ino)
			}
		}
	}
	return v
}

func pick[T any](r *rand.Rand, of []T) T { return of[r.IntN(len(of))] }

// randomStep does some of everything. What the tree refuses is fine, for that changes nothing.
func randomStep(seed uint64) func(*Session) error {
	return func(s *Session) error {
		r := rand.New(rand.NewPCG(seed, 1))
		for range 1 + r.IntN(randomOps) {
			if err := randomOp(r, s); err != nil && !isRefusal(err) {
				return err
			}
		}
		switch r.IntN(12) {
		case 0:
			return s.Checkpoint()
		case 1:
			_, err := s.Collect(context.Background(), nil)
			return err
		case 2:
			_, err := s.clean(func(all []usage) []usage { return all }) // no choice: the number of commits must not depend on where blocks lie
			return err
		}
		return nil
	}
}

func isRefusal(err error) bool {
	return slices.ContainsFunc([]error{tree.ErrNotFound, tree.ErrExists, tree.ErrNotEmpty, tree.ErrInvalid, tree.ErrIsDir, tree.ErrNotDir, tree.ErrNoXattr},
		func(e error) bool { return errors.Is(err, e) })
}

func randomOp(r *rand.Rand, s *Session) error {
	v := censusOf(s)
	name := fmt.Sprintf("n%d", r.IntN(12))
	b := &builder{s: s}
	switch op := r.IntN(14); {
	case op < 3: // a file, perhaps over several blocks
		ino := s.NewIno()
		size := r.IntN(200)
		if r.IntN(3) == 0 {
			size = r.IntN(3 * PayloadSize)
		}
		b.do(s.Put(tree.Attr{Ino: ino, Mode: 0o100644, Size: uint64(size)}))
		b.write(ino, 0, strings.Repeat(string(rune('a'+r.IntN(26))), size))
		if err := s.Link(pick(r, v.dirs), name, ino); err != nil {
			b.do(s.Free(ino))
		}
	case op < 6 && len(v.files) > 0: // overwrite, or beyond the end
		ino := pick(r, v.files)
		a, err := s.v.Attr(ino)
		if err != nil {
			return err
		}
		off, n := r.IntN(int(a.Size)+1), 1+r.IntN(5000)
		a.Size = max(a.Size, uint64(off+n))
		b.do(s.Put(a))
		b.write(ino, off, strings.Repeat(string(rune('A'+r.IntN(26))), n))
	case op == 6 && len(v.files) > 0: // truncate
		a, err := s.v.Attr(pick(r, v.files))
		if err != nil {
			return err
		}
		a.Size = uint64(r.IntN(int(a.Size) + 100))
		b.do(s.Put(a))
	case op == 7 && len(v.files) > 0:
		b.do(s.Clear(pick(r, v.files), uint64(r.IntN(5000)), uint64(r.IntN(50_000))))
	case op == 8:
		b.do(s.Put(tree.Attr{Ino: s.NewIno(), Mode: 0o40755})) // and never named: a crash drops it
		ino := s.NewIno()
		b.do(s.Put(tree.Attr{Ino: ino, Mode: 0o40755}))
		if err := s.Link(pick(r, v.dirs), name, ino); err != nil {
			b.do(s.Free(ino))
		}
	case op < 11 && len(v.names) > 0: // remove
		l := pick(r, v.names)
		if err := s.Unlink(l.dir, l.name); err != nil {
			return err
		}
		if a, err := s.v.Attr(l.ino); err == nil && a.Nlink == 0 && r.IntN(4) > 0 {
			b.do(s.Free(l.ino)) // else it stays, as if it were open
		}
	case op == 11 && len(v.names) > 0:
		l := pick(r, v.names)
		return s.Rename(l.dir, l.name, pick(r, v.dirs), name)
	case op == 12 && len(v.names) > 0:
		return s.Link(pick(r, v.dirs), name, pick(r, v.names).ino)
	case len(v.names) > 0:
		return s.SetXattr(pick(r, v.names).ino, "user."+name, []byte(strings.Repeat("x", r.IntN(3000))))
	}
	return b.err
}
