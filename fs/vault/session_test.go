package vault

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"syscall"
	"testing"

	"pgregory.net/rapid"

	"encfsrun/fs/vault/disk/memdisk"
	"encfsrun/fs/vault/tree"
)

// writing is a vault that is open for a session, on a disk in memory, with a cache as a mount has it: what was loaded once is
// never loaded again unless the vault says that it is stale.
type writing struct {
	f      *fixture
	d      *memdisk.Disk
	u      *Unlocked
	v      *Vault
	s      *Session
	cache  map[uint64][]byte
	warned []error
}

func startWriting(t testing.TB, f *fixture, d *memdisk.Disk) *writing {
	t.Helper()
	w := &writing{f: f, d: d, cache: map[uint64][]byte{}}
	var err error
	if w.u, err = f.unlock(d); err != nil {
		t.Fatal(err)
	}
	o := Options{
		Stale: func(block uint64) { delete(w.cache, block) },
		Warn:  func(err error) { w.warned = append(w.warned, err) },
	}
	if w.v, err = w.u.OpenWriter(d, o); err == nil {
		w.s, err = w.v.Begin()
	}
	if err != nil {
		t.Fatal(err)
	}
	return w
}

func (w *writing) close() error {
	err := w.s.Close()
	w.v.Close()
	w.u.Close()
	return err
}

// read is what a mount does to read a file.
func (w *writing) read(ino Ino) ([]byte, error) {
	a, err := w.v.Attr(ino)
	if err != nil {
		return nil, err
	}
	spans, err := w.v.Spans(ino, 0, int(a.Size), nil)
	if err != nil {
		return nil, err
	}
	var content []byte
	for _, s := range spans {
		if s.Hole {
			content = append(content, make([]byte, s.Len)...)
			continue
		}
		plain := w.cache[s.Block]
		if plain == nil {
			plain = make([]byte, PlainSize)
			if _, err := w.v.LoadBlock(s.Block, plain); err != nil {
				return nil, err
			}
			w.cache[s.Block] = plain
		}
		content = append(content, plain[s.At:s.At+s.Len]...)
	}
	return content, nil
}

func (w *writing) write(ino Ino, off int, b []byte) error {
	rest := b
	return w.s.Write(ino, uint64(off), uint64(len(b)), func(p []byte) error {
		rest = rest[copy(p, rest):]
		return nil
	})
}

// put makes a file with contents.
func (w *writing) put(name string, b []byte) (Ino, error) {
	ino := w.s.NewIno()
	return ino, errors.Join(w.s.Put(tree.Attr{Ino: ino, Mode: 0o100600, Size: uint64(len(b))}), w.s.Link(tree.Root, name, ino), w.write(ino, 0, b))
}

func newVault(t testing.TB, f *fixture) *memdisk.Disk {
	t.Helper()
	d := memdisk.New()
	mkdirs(t, d)
	if _, err := f.create(d, Options{}, emptyTree); err != nil {
		t.Fatal(err)
	}
	return d
}

// TestReadWhatIsNotDurable reads files at any moment of a session: what lies in a block that is still being filled, is being
// sealed, is sealed and not synced, or was written anew after a failed sync, and after a cleaning.
func TestReadWhatIsNotDurable(t *testing.T) {
	f := newFixture(t)
	rapid.Check(t, func(r *rapid.T) {
		d := newVault(t, f)
		w := startWriting(t, f, d)
		w.s.w.limit, w.s.w.left, w.s.w.keep = 5, 5, batchBlocks
		files := map[Ino][]byte{}
		var inos []Ino
		failing := 0
		d.Hook = func(op memdisk.Op) error {
			if failing > 0 && (op.Kind == memdisk.OpSync || op.Kind == memdisk.OpWrite) {
				if failing--; failing == 0 {
					return syscall.EIO
				}
			}
			return nil
		}
		check := func(err error) {
			if err != nil {
				r.Fatal(err)
			}
		}
		for range rapid.IntRange(1, 60).Draw(r, "operations") {
			switch rapid.IntRange(0, 9).Draw(r, "operation") {
			case 0:
				check(w.s.Commit())
			case 1:
				_, err := w.s.Prepare()
				check(err)
			case 2:
				// Not while a batch is under way: a second failure in the rescue of the first ends the session, as it may.
				if w.s.w.wait(); failing == 0 {
					failing = rapid.IntRange(1, 3).Draw(r, "fails")
				}
			case 3:
				if failing == 0 {
					_, err := w.s.clean(func(all []usage) []usage { return all })
					check(err)
					clear(w.cache)
				}
			case 4:
				ino := w.s.NewIno()
				check(w.s.Put(tree.Attr{Ino: ino, Mode: 0o100600}))
				check(w.s.Link(tree.Root, fmt.Sprint(ino), ino))
				files[ino], inos = nil, append(inos, ino)
			default:
				if len(inos) == 0 {
					continue
				}
				ino := rapid.SampledFrom(inos).Draw(r, "file")
				n := rapid.SampledFrom([]int{1, 7, 100, PayloadSize - 30, PayloadSize, 5 * PayloadSize}).Draw(r, "bytes")
				off := rapid.IntRange(0, len(files[ino])).Draw(r, "at")
				b := bytes.Repeat([]byte{byte(rapid.IntRange(1, 255).Draw(r, "content"))}, n)
				content := append(files[ino][:off:off], b...)
				if off+n < len(files[ino]) {
					content = append(content, files[ino][off+n:]...)
				}
				check(w.s.Put(tree.Attr{Ino: ino, Mode: 0o100600, Size: uint64(len(content))}))
				check(w.write(ino, off, b))
				files[ino] = content
			}
			for ino, want := range files {
				got, err := w.read(ino)
				check(err)
				if !bytes.Equal(got, want) {
					r.Fatalf("file %d is not what was written", ino)
				}
			}
		}
		check(w.s.Commit())
		failing = 0
		check(w.close())
		for _, err := range w.warned {
			if rescued := (*RescueError)(nil); !errors.As(err, &rescued) {
				r.Fatal(err)
			}
		}
		again := startWriting(t, f, d)
		for ino, want := range files {
			got, err := again.read(ino)
			check(err)
			if !bytes.Equal(got, want) {
				r.Fatalf("file %d is not what was written, after it was opened again", ino)
			}
		}
		check(again.close())
	})
}

// TestDiskFull fills a disk: what has its space reserved is never refused later, removing works on a full disk, and the session
// goes on when there is space again.
func TestDiskFull(t *testing.T) {
	t.Run("on a disk that sets space aside", func(t *testing.T) { diskFull(t, nil) })
	t.Run("on one that can't", func(t *testing.T) {
		diskFull(t, func(op memdisk.Op) error {
			if op.Kind == memdisk.OpReserve {
				return errors.ErrUnsupported
			}
			return nil
		})
	})
}

func diskFull(t *testing.T, hook func(memdisk.Op) error) {
	f := newFixture(t)
	d := newVault(t, f)
	d.Capacity, d.Hook = 12<<20, hook
	w := startWriting(t, f, d)
	random := rand.New(rand.NewPCG(1, 2))
	content := make([]byte, 200_000)
	for i := range content {
		content[i] = byte(random.Uint32())
	}
	var inos []Ino
	add := func() error {
		if err := w.s.Reserve(int64(len(content)+4*RecordOverhead), false); err != nil {
			return err
		}
		ino := w.s.NewIno()
		for _, err := range []error{
			w.s.Put(tree.Attr{Ino: ino, Mode: 0o100600, Size: uint64(len(content))}),
			w.s.Link(tree.Root, fmt.Sprint(ino), ino), w.write(ino, 0, content), w.s.Commit(),
		} {
			if err != nil {
				t.Fatalf("it was reserved, and file %d fails: %v", ino, err)
			}
		}
		inos = append(inos, ino)
		return nil
	}
	remove := func() {
		t.Helper()
		ino := inos[0]
		if err := w.s.Reserve(4*RecordOverhead, true); err != nil {
			t.Fatalf("nothing can be removed on a full disk: %v", err)
		}
		if err := errors.Join(w.s.Unlink(tree.Root, fmt.Sprint(ino)), w.s.Free(ino), w.s.Commit()); err != nil {
			t.Fatal(err)
		}
		inos = inos[1:]
	}
	fill := func() (n int) {
		t.Helper()
		for {
			switch err := add(); {
			case errors.Is(err, ErrNoSpace):
				return n
			case err != nil:
				t.Fatal(err)
			}
			if n++; n > 100 {
				t.Fatal("the disk is never full")
			}
		}
	}
	first := fill()
	if first < 30 {
		t.Errorf("only %d files of 200 kB fit on a disk of 12 MiB", first)
	}
	for round := range 5 {
		for range 8 {
			remove()
		}
		if reclaimed, err := w.s.Reclaim(); !reclaimed || err != nil {
			t.Fatalf("round %d: nothing is reclaimed: %v", round, err)
		}
		if n := fill(); n < 4 {
			t.Errorf("round %d: only %d files fit where 8 were removed", round, n)
		}
	}
	for {
		if reclaimed, err := w.s.Reclaim(); err != nil {
			t.Fatal(err)
		} else if !reclaimed {
			break
		}
	}
	before := w.s.sequence
	if reclaimed, err := w.s.Reclaim(); reclaimed || err != nil || w.s.sequence != before {
		t.Errorf("a full disk with nothing to clean is cleaned (%v, %v): %d commits", reclaimed, err, w.s.sequence-before)
	}
	d.Capacity = 24 << 20
	if n := fill(); n < 30 {
		t.Errorf("only %d files fit where 12 MiB came", n)
	}
	want, err := dump(w.v)
	if err := errors.Join(err, w.close()); err != nil {
		t.Fatal(err)
	}
	if got, err := f.state(d, Options{}); err != nil || got != want {
		t.Fatalf("afterwards the vault holds\n%s\n%v\nand not\n%s", got, err, want)
	}
	if _, err := d.Lstat(testVault + "/log/ballast"); err == nil {
		t.Error("the reservation is still there")
	}
	if len(w.warned) > 0 {
		t.Errorf("it warned: %v", w.warned)
	}
}

// TestFullDiskAtTheStart begins sessions on a disk that others have filled: removing works from the first, and what a killed session
// had set aside is there for the next.
func TestFullDiskAtTheStart(t *testing.T) {
	f := newFixture(t)
	d := newVault(t, f)
	d.Capacity = 1 << 30
	other, err := d.Create("/other", 0o600)
	if err != nil {
		t.Fatal(err)
	}
	space, err := d.Space("/")
	if err := errors.Join(err, other.Reserve(int64(space.Free)-4<<20)); err != nil {
		t.Fatal(err)
	}
	w := startWriting(t, f, d)
	if err := w.s.Reserve(1<<20, false); !errors.Is(err, ErrNoSpace) {
		t.Errorf("what would leave no room for cleaning says %v", err)
	}
	if err := w.s.Reserve(4*RecordOverhead, true); err != nil {
		t.Errorf("nothing can be removed with 4 MiB free: %v", err)
	}
	w.v.Close() // killed
	w.u.Close()
	w = startWriting(t, f, d)
	if now, err := d.Space("/"); err != nil || now.Free != 4<<20 {
		t.Errorf("the next session finds %d bytes free, %v", now.Free, err)
	}
	if err := w.close(); err != nil {
		t.Fatal(err)
	}
}

// TestDiskFailsForGood: what was durable stays, what was written can still be read, and nothing more is taken.
func TestDiskFailsForGood(t *testing.T) {
	f := newFixture(t)
	d := newVault(t, f)
	w := startWriting(t, f, d)
	put := func(name string) error {
		ino := w.s.NewIno()
		return errors.Join(w.s.Put(tree.Attr{Ino: ino, Mode: 0o100600, Size: uint64(len(name))}), w.s.Link(tree.Root, name, ino), w.write(ino, 0, []byte(name)))
	}
	if err := errors.Join(put("durable"), w.s.Commit(), put("lost")); err != nil {
		t.Fatal(err)
	}
	durable := d.Clone()
	d.Hook = func(op memdisk.Op) error {
		if op.Kind.Changes() {
			return syscall.EIO
		}
		return nil
	}
	for range 2 {
		if err := w.s.Commit(); !errors.Is(err, syscall.EIO) {
			t.Fatalf("a disk that fails for good gives %v", err)
		}
	}
	ino, err := w.v.Lookup(tree.Root, "lost")
	if err != nil {
		t.Fatal(err)
	}
	if got, err := w.read(ino); err != nil || string(got) != "lost" {
		t.Errorf("what was written reads as %q, %v", got, err)
	}
	w.s.Abort()
	w.v.Close()
	w.u.Close()
	want, err := f.state(durable, Options{})
	if err != nil {
		t.Fatal(err)
	}
	if got, err := f.state(d.Crash(memdisk.Lose, 0), Options{}); err != nil || got != want {
		t.Errorf("the vault holds\n%s, %v\nand not\n%s", got, err, want)
	}
}

// TestCleaningBoundsTheLog overwrites a file again and again.
func TestCleaningBoundsTheLog(t *testing.T) {
	f := newFixture(t)
	d := newVault(t, f)
	w := startWriting(t, f, d)
	const size = 1 << 20
	ino := w.s.NewIno()
	if err := errors.Join(w.s.Put(tree.Attr{Ino: ino, Mode: 0o100600, Size: size}), w.s.Link(tree.Root, "f", ino)); err != nil {
		t.Fatal(err)
	}
	var most uint64
	content := make([]byte, size)
	for i := range 400 {
		content[0] = byte(i)
		if err := errors.Join(w.write(ino, 0, content), w.s.Commit(), w.s.Maintain()); err != nil {
			t.Fatal(err)
		}
		most = max(most, w.s.logBytes())
	}
	if bound := uint64(3*size + 4*maxSegmentSize); most > bound || most < slackWriting {
		t.Errorf("the log grew to %d bytes, the bound is %d", most, bound)
	}
	if got, err := w.read(ino); err != nil || !bytes.Equal(got, content) {
		t.Errorf("the file is not what was written: %v", err)
	}
	if err := w.close(); err != nil {
		t.Fatal(err)
	}
}

// TestReadAfterAFailureForGood goes on using a session whose disk has failed: what was written before, sealed or not, reads as it
// was, however much more is tried to be written. The writer once went on filling the very buffers that readers were shown.
func TestReadAfterAFailureForGood(t *testing.T) {
	f := newFixture(t)
	for _, c := range []struct {
		name string
		fail func(*writing, *memdisk.Disk)
	}{
		{"while the segment is made", func(_ *writing, d *memdisk.Disk) {
			d.Hook = func(op memdisk.Op) error {
				if op.Kind.Changes() {
					return syscall.EIO
				}
				return nil
			}
		}},
		{"in a sync beside", func(w *writing, _ *memdisk.Disk) {
			w.s.w.disk.Lock()
			defer w.s.w.disk.Unlock()
			w.s.w.failed = syscall.EIO
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			d := newVault(t, f)
			w := startWriting(t, f, d)
			defer w.u.Close()
			defer w.v.Close()
			defer w.s.Abort()
			want := bytes.Repeat([]byte{7}, 20*PayloadSize)
			ino, err := w.put("a", want)
			if err != nil {
				t.Fatal(err)
			}
			c.fail(w, d)
			const more = 4 * batchBlocks * PayloadSize / 100
			for i := range more {
				err = errors.Join(w.s.Put(tree.Attr{Ino: ino, Mode: 0o100600, Size: uint64(len(want))}), w.write(ino, 0, want[:50]))
				if i%(more/20) > 0 {
					continue
				}
				clear(w.cache)
				if got, err := w.read(ino); err != nil || !bytes.Equal(got, want) {
					t.Fatalf("after %d attempts to write more the file is not what was written: %v", i, err)
				}
			}
			if !errors.Is(err, syscall.EIO) {
				t.Errorf("writing on says %v", err)
			}
			if err := w.s.Commit(); !errors.Is(err, syscall.EIO) {
				t.Errorf("a commit says %v", err)
			}
		})
	}
}
