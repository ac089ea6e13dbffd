package vault

import (
	"context"
	"errors"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"encfsrun/fs/vault/disk/memdisk"
	"encfsrun/fs/vault/tree"
	"encfsrun/keyring"
)

// victim is a vault under way to become a target: a disk, and what every commit made true.
type victim struct {
	t      testing.TB
	f      *fixture
	d      *memdisk.Disk
	states [][]seen
}

// newVictim makes a vault as pack does: its tree, a checkpoint, the closing commit; three blocks in two segments.
func newVictim(t testing.TB, f *fixture, fill func(*Session) error) *victim {
	t.Helper()
	w := &victim{t: t, f: f, d: memdisk.New()}
	mkdirs(t, w.d)
	if _, err := f.create(w.d, Options{Pins: w.pins()}, fill); err != nil {
		t.Fatal(err)
	}
	w.note()
	return w
}

func (w *victim) pins() *Pins { return NewPins(w.d, testPins) }

// copied is the same vault on a disk of its own: a backup, or the beginning of a fork.
func (w *victim) copied() *victim {
	return &victim{t: w.t, f: w.f, d: w.d.Clone(), states: slices.Clone(w.states)}
}

// note surveys the vault as it is on the disk now.
func (w *victim) note() {
	w.t.Helper()
	v, err := w.f.open(w.d, Options{})
	if err != nil {
		w.t.Fatal(err)
	}
	defer v.keys.Destroy()
	defer v.Close()
	state, err := survey(v)
	if err != nil {
		w.t.Fatal(err)
	}
	w.states = append(w.states, state)
}

// session writes one commit for each change; unless closed, the session ends as a crash ends it, after the last commit.
func (w *victim) session(closed bool, changes ...func(*Session) error) *victim {
	w.t.Helper()
	last := len(changes) - 1
	for i, change := range changes {
		changes[i] = func(s *Session) error {
			if err := errors.Join(change(s), s.Commit()); err != nil {
				return err
			}
			w.note()
			return nil
		}
	}
	ended := errors.New("the power was cut")
	err := w.f.update(w.d, Options{Pins: w.pins()}, func(s *Session) error {
		for _, change := range changes {
			if err := change(s); err != nil {
				return err
			}
		}
		if !closed {
			return ended
		}
		return nil
	})
	if !closed && errors.Is(err, ended) {
		err = nil
	}
	if err != nil {
		w.t.Fatalf("session with %d changes: %v", last+1, err)
	}
	return w
}

// rekey changes the header as `key add` and `key remove` do: the machine key goes on opening it.
func (w *victim) rekey() *victim {
	w.t.Helper()
	u, err := w.f.unlock(w.d)
	if err != nil {
		w.t.Fatal(err)
	}
	defer u.Close()
	err = u.ChangeSlots(w.d, w.pins(), func([]keyring.Slot) ([]keyring.Slot, error) {
		slot, err := keyring.NewMachineSlot(w.f.ID, w.f.Master.Bytes(), w.f.Machine)
		return []keyring.Slot{slot}, err
	})
	if err != nil {
		w.t.Fatal(err)
	}
	return w
}

// target opens the vault once more, so that its newest state is pinned, and takes it off the disk.
func (w *victim) target() *target {
	w.t.Helper()
	return w.targetWith(machinePasskey(w.t, w.f))
}

func (w *victim) targetWith(passkey *keyring.Passkey) *target {
	w.t.Helper()
	v, err := w.f.open(w.d, Options{Pins: w.pins()})
	if err != nil {
		w.t.Fatal(err)
	}
	defer v.keys.Destroy()
	defer v.Close()
	g := &target{f: w.f, passkey: passkey, good: stillOf(w.t, w.d), states: w.states, root: v.Root()}
	g.pinned = path.Join(testPins, w.pins().name(w.f.ID))
	if g.pin, err = w.d.ReadFile(g.pinned); err != nil {
		w.t.Fatal(err)
	}
	if got := g.try(w.t, trial{name: "the vault as it is", fsys: g.good}); got != same {
		w.t.Fatalf("the vault as it is: %s", got)
	}
	return g
}

// machinePasskey gives the fixture's machine key as a passkey, by way of a file.
func machinePasskey(t testing.TB, f *fixture) *keyring.Passkey {
	t.Helper()
	name := filepath.Join(t.TempDir(), "machine.key")
	if err := os.WriteFile(name, f.Machine.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	p, err := keyring.ReadMachineKey(context.Background(), name, "")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Destroy)
	return p
}

// tinyTree has one of each thing and fits one block, so that every bit of a vault can be flipped.
func tinyTree(s *Session) error {
	b := newBuilder(s)
	b.root()
	b.dir("lib")
	b.file("main.py", "import lib.secret\nprint('hello')\n")
	b.file("lib/secret.py", strings.Repeat("KEY = 42\n", 100))
	b.file("lib/empty", "")
	b.symlink("link", "lib/secret.py")
	b.do(s.Link(tree.Root, "hard.py", b.inos["main.py"]))
	b.do(s.SetXattr(b.inos["main.py"], "user.note", []byte("value")))
	b.write(b.add("sparse", 0o100600, 5000), 4000, "in the middle")
	return b.err
}

// edit is an update as a release makes it: a file rewritten in part, one renamed away, one new, one gone.
func edit(s *Session) error {
	b := newBuilder(s)
	b.inos["lib"] = b.lookup("lib")
	secret := b.lookup("lib", "secret.py")
	b.write(secret, 9, "KEY = 43\n")
	b.do(s.Unlink(tree.Root, "hard.py"))
	b.do(s.Rename(tree.Root, "main.py", b.inos["lib"], "main.py"))
	b.file("new.py", "print('newer')\n")
	return b.err
}

// adding returns a change that adds a file of a size.
func adding(name string, size int) func(*Session) error {
	return func(s *Session) error {
		b := newBuilder(s)
		if dir := path.Dir(name); dir != "." {
			b.inos[dir] = b.lookup(dir)
		}
		b.file(name, strings.Repeat(name+"\n", size/(len(name)+1)+1)[:size])
		return b.err
	}
}

// lookup finds an inode that is there already.
func (b *builder) lookup(names ...string) Ino {
	ino := tree.Root
	for _, name := range names {
		next, err := b.s.v.Lookup(ino, name)
		b.do(err)
		ino = next
	}
	return ino
}

// load puts a vault on a new disk.
func (w *victim) load(files still) {
	w.d = memdisk.New()
	mkdirs(w.t, w.d)
	for _, name := range files.names() {
		if err := w.d.WriteFile(name, files[name]); err != nil {
			w.t.Fatal(err)
		}
	}
}
