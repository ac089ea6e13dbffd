package vault

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"encfsrun/fs/vault/disk/memdisk"
	"encfsrun/fs/vault/tree"
	"encfsrun/keyring"
)

// tale is a story that can be told again: what was there, durable, and what happens then.
type tale struct {
	name   string
	before func(*story) error // nil: an empty disk
	act    func(*story) error
}

// tales are all that issue commands do to a vault, in a few kilobytes.
func tales() []tale {
	small := func(s *story) error { return s.create(seedTree) }
	return []tale{
		{"init", nil, func(s *story) error { return s.create(emptyTree) }},
		{"pack", nil, small},
		{"pack of several segments", nil, func(s *story) error { return s.create(segmentsOf("big")) }},
		{"pack over a folder that was left", leftover, small},
		{"pack that fails", nil, func(s *story) error { return refused(s.create(failing)) }},
		{"update", small, func(s *story) error { return s.session(adds("a", 70_000)) }},
		{"update of several commits", small, func(s *story) error { return s.session(adds("a", 50), adds("b", 40_000), removes("a")) }},
		{"update of several segments", small, func(s *story) error { return s.session(segmentsOf("a"), adds("b", 10)) }},
		{"update with checkpoints", small, func(s *story) error {
			return s.session((*Session).Checkpoint, segmentsOf("a"), (*Session).Checkpoint, adds("b", 50), both(removes("b"), (*Session).Checkpoint))
		}},
		{"update without a change", small, func(s *story) error { return s.session() }},
		{"update that is given up", small, func(s *story) error { return refused(s.session(failing)) }},
		{"update that is given up after a commit", small, func(s *story) error { return refused(s.session(adds("a", 50), failing)) }},
		{"two sessions in a row", small, func(s *story) error {
			if err := s.session(adds("a", 40_000)); err != nil {
				return err
			}
			return s.session(adds("b", 40_000), removes("a"))
		}},
		{"cleaning", func(s *story) error {
			return errors.Join(small(s), s.session(segmentsOf("a"), adds("b", 40_000)), s.session(removes("a"), adds("c", 100)))
		}, func(s *story) error { return s.session(collects) }},
		{"cleaning in the session that wrote", small, func(s *story) error {
			return s.session(segmentsOf("a"), adds("b", 40_000), removes("a"), collects, adds("c", 70_000), removes("b"), collects)
		}},
		{"an update over a long time", small, func(s *story) error {
			s.tick = pinInterval
			return s.session(adds("a", 50), adds("b", 40_000), both(removes("a"), (*Session).Checkpoint))
		}},
		{"a key more", small, func(s *story) error { return s.rekey(1) }},
		{"a key taken away", func(s *story) error { return errors.Join(small(s), s.rekey(1)) }, func(s *story) error { return s.rekey(-1) }},
		{"a key more, then an update", small, func(s *story) error {
			if err := s.rekey(1); err != nil {
				return err
			}
			return s.session(adds("b", 50))
		}},
	}
}

var errRefused = errors.New("the source vanished")

// refused is for acts that give up on purpose.
func refused(err error) error {
	if errors.Is(err, errRefused) {
		return nil
	}
	return errors.Join(errors.New("it did not give up"), err)
}

// seedTree is smallTree in fewer bytes.
func seedTree(s *Session) error {
	b := newBuilder(s)
	b.root()
	b.dir("lib")
	b.file("main.py", "import lib.secret\n")
	b.file("lib/secret.py", strings.Repeat("KEY = 42\n", 4000))
	b.symlink("link", "lib/secret.py")
	b.do(s.Link(tree.Root, "hard.py", b.inos["main.py"]))
	b.do(s.SetXattr(b.inos["main.py"], "user.note", []byte("value")))
	b.write(b.add("sparse", 0o100600, 50_000), 40_000, "in a hole")
	return b.err
}

func emptyTree(s *Session) error {
	b := newBuilder(s)
	b.root()
	return b.err
}

// grow is a builder over what the session's vault holds.
func grow(s *Session) *builder {
	b := newBuilder(s)
	if s.v.state.tree.Stats().Inodes == 0 {
		b.root()
	}
	return b
}

func adds(name string, size int) func(*Session) error {
	return func(s *Session) error {
		b := grow(s)
		b.file(name, strings.Repeat(name+"\n", size/2))
		return b.err
	}
}

func removes(name string) func(*Session) error {
	return func(s *Session) error {
		ino, err := s.v.Lookup(tree.Root, name)
		return errors.Join(err, s.Unlink(tree.Root, name), s.Free(ino))
	}
}

// collects cleans the whole log.
func collects(s *Session) error {
	_, err := s.Collect(context.Background(), nil)
	return err
}

// segmentsOf makes what does not fit into two segments of a story, and xattrs with which a checkpoint does not either.
func segmentsOf(name string) func(*Session) error {
	return func(s *Session) error {
		b := grow(s)
		ino := b.add(name, 0o100600, 90_000)
		b.write(ino, 0, strings.Repeat(name, 90_000/len(name)))
		for i := range 3 {
			b.do(s.SetXattr(ino, fmt.Sprintf("user.%s.%d", name, i), []byte(strings.Repeat("x", 33_000))))
		}
		return b.err
	}
}

func failing(s *Session) error {
	return errors.Join(segmentsOf("void")(s), segmentsOf("nothing")(s), errRefused)
}

func both(a, b func(*Session) error) func(*Session) error {
	return func(s *Session) error { return errors.Join(a(s), b(s)) }
}

// leftover is what a pack leaves that was killed before it could name the vault.
func leftover(s *story) error {
	s.machine.vault.Hook = func(op memdisk.Op) error {
		if op.Kind == memdisk.OpRenameNoReplace {
			return memdisk.ErrPowerCut
		}
		return nil
	}
	if err := s.create(segmentsOf("old")); !errors.Is(err, memdisk.ErrPowerCut) {
		return fmt.Errorf("a killed pack: %w", err)
	}
	s.machine = s.machine.after(func(d *memdisk.Disk) *memdisk.Disk { return d.Crash(memdisk.Keep, 0) })
	return nil
}

// create makes the story's vault.
func (s *story) create(fill func(*Session) error) error {
	var failed error
	_, err := Create(s.fsys, testVault, s.f.Keys, []keyring.Slot{s.f.Slot}, s.machine.options(s.through, &failed), func(w *Session) error {
		s.setUp(w)
		err := fill(w)
		if err == nil {
			err = w.Commit()
		}
		if err == nil {
			err = s.note(w, 2) // of a checkpoint and of the closing commit too
		}
		return err
	})
	if err = errors.Join(err, failed); err == nil {
		s.told = promise{sequence: 3, generation: 1, pinned: s.machine.pins != nil}
	}
	return err
}

// setUp gives a session the story's sizes and clock.
func (s *story) setUp(w *Session) {
	w.w.limit, w.w.left = s.limit, s.limit
	clock := time.Unix(1_700_000_000, 0)
	w.pinned = clock
	w.now = func() time.Time {
		clock = clock.Add(s.tick)
		return clock
	}
}

// note writes down the tree after the session's last commit, and after the `more` that change nothing.
func (s *story) note(w *Session, more uint64) error {
	if s.known {
		return nil
	}
	got, err := dump(w.v)
	for n := w.v.Sequence(); n <= w.v.Sequence()+more; n++ {
		s.states[n] = got
	}
	return err
}

// session is one session of writing; each step ends with a commit.
func (s *story) session(steps ...func(*Session) error) error {
	u, err := s.f.unlock(s.fsys)
	if err != nil {
		return err
	}
	defer u.Close()
	var failed error
	v, err := u.OpenWriter(s.fsys, s.machine.options(s.through, &failed))
	if err != nil {
		return err
	}
	defer v.Close()
	w, err := v.Begin()
	if err != nil {
		return err
	}
	s.setUp(w)
	for _, step := range steps {
		before := v.Sequence()
		err := step(w)
		if err == nil {
			err = w.Commit()
		}
		if err != nil {
			return errors.Join(err, w.Abort())
		}
		s.told.sequence = v.Sequence()
		if err := s.note(w, 1); err != nil {
			return errors.Join(err, w.Abort())
		}
		for n := before + 1; n < v.Sequence() && !s.known; n++ { // a step of two commits changes the tree with the first
			s.states[n] = s.states[v.Sequence()]
		}
	}
	if err := w.Close(); err != nil {
		return err
	}
	s.told.sequence, s.told.pinned = v.Sequence(), s.machine.pins != nil
	return failed
}

// rekey adds a key slot, or takes the last one away.
func (s *story) rekey(by int) error {
	u, err := s.f.unlock(s.fsys)
	if err != nil {
		return err
	}
	defer u.Close()
	err = u.ChangeSlots(s.fsys, s.machine.pinsAt(s.through), func(now []keyring.Slot) ([]keyring.Slot, error) {
		next := now[:len(now)+min(by, 0)]
		if by > 0 {
			slot, err := keyring.NewMachineSlot(s.f.ID, s.f.Master.Bytes(), s.f.Machine)
			if err != nil {
				return nil, err
			}
			next = append(slices.Clone(now), slot)
		}
		s.slots[u.Header.Generation+1] = next
		return next, nil
	})
	if err == nil {
		s.told.generation, s.told.pinned = u.Header.Generation, s.machine.pins != nil
	}
	return err
}

// Where a machine keeps its pins.
var pinPlaces = []string{"no pins", "pins beside", "pins apart"}

// prepare gives the machine that a tale begins on, all of it durable, and what is known of it.
func (tl tale) prepare(t testing.TB, f *fixture, w *workspace, place string) *story {
	m := machine{vault: memdisk.New()}
	switch place {
	case "pins beside":
		m.pins = m.vault
	case "pins apart":
		m.pins = memdisk.New()
		mkdirs(t, m.pins)
	}
	mkdirs(t, m.vault)
	s := newStory(f, m)
	s.memory = w
	if tl.before != nil {
		if err := tl.before(s); err != nil {
			t.Fatalf("before %s: %v", tl.name, err)
		}
	}
	s.machine = s.machine.after(func(d *memdisk.Disk) *memdisk.Disk { return d.Crash(memdisk.Keep, 0) })
	return s
}

func newMemory(t testing.TB) *workspace {
	w, err := newWorkspace()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.destroy)
	return w
}

// again is the story on another machine from here on: what was durable, and the trees and slots that it may have.
func (s *story) again(m machine, p promise) *story {
	next := newStory(s.f, m)
	next.told, next.memory, next.tick = p, s.memory, s.tick
	next.fsys, next.through = behind(m.vault, s.through), s.through
	next.told.pinned = false
	next.states, next.slots = maps.Clone(s.states), maps.Clone(s.slots)
	return next
}

// tell acts a tale out once, watched.
func (tl tale) tell(start *story) (*story, error) {
	s := start.again(start.machine.kill(), start.told)
	s.watch()
	if err := tl.act(s); err != nil {
		return nil, fmt.Errorf("%s: %w", tl.name, err)
	}
	s.snap("the end", true)
	return s, nil
}
