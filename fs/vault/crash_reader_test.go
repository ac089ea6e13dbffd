package vault

import (
	"errors"
	"fmt"
	"io/fs"
	"testing"

	"encfsrun/fs/vault/disk"
	"encfsrun/fs/vault/disk/memdisk"
	"encfsrun/keyring"
)

// pacedFS calls step before each operation on names and before each read: it is a reader with somebody beside it.
type pacedFS struct {
	disk.FS
	step func()
}

type pacedFile struct {
	disk.File
	step func()
}

func (f pacedFS) Open(name string) (disk.File, error) {
	f.step()
	file, err := f.FS.Open(name)
	if err != nil {
		return nil, err
	}
	return pacedFile{file, f.step}, nil
}

func (f pacedFS) List(dir string) ([]string, error) {
	f.step()
	return f.FS.List(dir)
}

func (f pacedFile) ReadAt(p []byte, off int64) (int, error) {
	f.step()
	return f.File.ReadAt(p, off)
}

func (f pacedFile) Sync() error {
	f.step()
	return f.File.Sync()
}

// beside opens the vault for reading while, before the k-th operation, another process does something. It says whether there was
// a k-th operation.
func beside(f *fixture, m machine, k int, other func()) (happened bool, err error) {
	fsys := pacedFS{m.vault, func() {
		if k--; k == 0 {
			happened = true
			other()
		}
	}}
	u, err := f.unlock(fsys)
	if err != nil {
		return happened, err
	}
	defer u.Close()
	var warned error
	v, err := u.Open(fsys, m.options(nil, &warned))
	if err != nil {
		return happened, err
	}
	defer v.Close()
	_, err = dump(v)
	return happened, errors.Join(err, warned)
}

// TestReaderBesideUnsyncedCommit: a reader sees a commit that its writer has written and not yet synced, at each moment of its
// opening. If it pins it, the commit outlives a power cut.
func TestReaderBesideUnsyncedCommit(t *testing.T) {
	f := newFixture(t)
	start := tale{"", func(s *story) error { return s.create(seedTree) }, nil}.prepare(t, f, newMemory(t), "pins apart")
	for k, more := 1, true; more; k++ {
		s := start.again(start.machine.kill(), start.told)
		var writer *unsynced
		var err error
		more, err = beside(f, s.machine, k, func() { writer = startUnsynced(t, f, s) })
		if err != nil {
			t.Fatalf("operation %d of the reader: %v", k, err)
		}
		left := s.machine.after(func(d *memdisk.Disk) *memdisk.Disk { return d.Crash(memdisk.Lose, 0) })
		if _, err := s.check(left, s.told); err != nil {
			t.Fatalf("before operation %d of the reader a commit is written; then the power is cut: %v", k, err)
		}
		writer.end()
	}
}

// unsynced is a session whose commit was written, and whose sync is yet to come.
type unsynced struct {
	u *Unlocked
	v *Vault
	s *Session
}

func startUnsynced(t *testing.T, f *fixture, s *story) *unsynced {
	u, err := f.unlock(s.machine.vault)
	if err != nil {
		t.Fatal(err)
	}
	w := &unsynced{u: u}
	if w.v, err = u.OpenWriter(s.machine.vault, Options{}); err == nil {
		w.s, err = w.v.Begin()
	}
	if err == nil {
		err = adds("a", 50)(w.s)
	}
	if err != nil {
		t.Fatal(err)
	}
	w.s.w.fsys = heldFS{s.machine.vault}
	if err := w.s.Commit(); err != nil {
		t.Fatal(fmt.Errorf("commit: %w", err))
	}
	s.states[w.v.Sequence()], err = dump(w.v)
	if err != nil {
		t.Fatal(err)
	}
	return w
}

func (w *unsynced) end() {
	if w != nil {
		w.s.Abort()
		w.v.Close()
		w.u.Close()
	}
}

// heldFS makes files whose second sync, that of the commit after that of the header, is held back.
type heldFS struct{ disk.FS }

type heldFile struct {
	disk.File
	syncs *int
}

func (f heldFS) Create(name string, perm fs.FileMode) (disk.File, error) {
	file, err := f.FS.Create(name, perm)
	return heldFile{file, new(int)}, err
}

func (f heldFile) Sync() error {
	if *f.syncs++; *f.syncs > 1 {
		return nil
	}
	return f.File.Sync()
}

// TestKeysChangeWhileThePasskeyIsTyped: between reading the header and opening the log another process changes the keys, updates
// the vault and pins both. Nobody has rolled anything back.
func TestKeysChangeWhileThePasskeyIsTyped(t *testing.T) {
	f := newFixture(t)
	s := tale{"", func(s *story) error { return s.create(seedTree) }, nil}.prepare(t, f, newMemory(t), "pins beside")
	s = s.again(s.machine, s.told)
	u, err := f.unlock(s.machine.vault)
	if err != nil {
		t.Fatal(err)
	}
	defer u.Close()
	if err := errors.Join(s.rekey(1), s.session(adds("a", 50))); err != nil {
		t.Fatal(err)
	}
	var warned error
	v, err := u.Open(s.machine.vault, s.machine.options(nil, &warned))
	if err = errors.Join(err, warned); err != nil {
		t.Fatal(err)
	}
	v.Close()
	var slots []keyring.Slot
	err = u.ChangeSlots(s.machine.vault, s.machine.pinsAt(nil), func(now []keyring.Slot) ([]keyring.Slot, error) {
		slots = now
		return now, nil
	})
	if err != nil || len(slots) != 2 {
		t.Errorf("a change of the keys begins with %d slots, %v", len(slots), err)
	}
}

// TestReaderBesideUpdate: a whole update and a change of the keys, pinned both, at each moment of an opening.
func TestReaderBesideUpdate(t *testing.T) {
	f := newFixture(t)
	start := tale{"", func(s *story) error { return s.create(seedTree) }, nil}.prepare(t, f, newMemory(t), "pins beside")
	for k, more := 1, true; more; k++ {
		s := start.again(start.machine.kill(), start.told)
		var err, acted error
		more, err = beside(f, s.machine, k, func() {
			acted = errors.Join(s.rekey(1), s.session(adds("a", 50), (*Session).Checkpoint))
		})
		if acted != nil {
			t.Fatal(acted)
		}
		if err != nil {
			t.Fatalf("operation %d of the reader: %v", k, err)
		}
	}
}
