package memdisk_test

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"syscall"
	"testing"

	"encfsrun/fs/vault/disk"
	"encfsrun/fs/vault/disk/memdisk"

	"github.com/google/go-cmp/cmp"
)

const pageSize = 4096

// script carries out short steps on a disk and fails the test when one fails.
type script struct {
	t     *testing.T
	d     *memdisk.Disk
	files map[string]disk.File
}

func newScript(t *testing.T) *script {
	return &script{t, memdisk.New(), make(map[string]disk.File)}
}

func (s *script) must(err error) {
	s.t.Helper()
	if err != nil {
		s.t.Fatal(err)
	}
}

func (s *script) create(name string) {
	s.t.Helper()
	f, err := s.d.Create(name, 0o600)
	s.must(err)
	s.files[name] = f
}

func (s *script) write(name, data string, off int64) {
	s.t.Helper()
	_, err := s.files[name].WriteAt([]byte(data), off)
	s.must(err)
}

func (s *script) sync(name string)      { s.t.Helper(); s.must(s.files[name].Sync()) }
func (s *script) syncDir(name string)   { s.t.Helper(); s.must(s.d.SyncDir(name)) }
func (s *script) mkdir(name string)     { s.t.Helper(); s.must(s.d.Mkdir(name, 0o700)) }
func (s *script) remove(name string)    { s.t.Helper(); s.must(s.d.Remove(name)) }
func (s *script) rename(old, nw string) { s.t.Helper(); s.must(s.d.Rename(old, nw)) }

// durable makes a file that no crash can change.
func (s *script) durable(name, data string) {
	s.t.Helper()
	s.must(s.d.WriteFile(name, []byte(data)))
	f, err := s.d.OpenWrite(name)
	s.must(err)
	s.files[name] = f
}

// show renders a disk in one line: "/a=xy /b=z3" is a file "xy" and a "z" with three
// pages of zeros behind; a run of one letter that fills a page is shown once.
func show(t *testing.T, d *memdisk.Disk) string {
	t.Helper()
	var parts []string
	for _, name := range d.Files() {
		data, err := d.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		parts = append(parts, name+"="+shorten(data))
	}
	return strings.Join(parts, " ")
}

// shorten writes a page of one letter as that letter in brackets, zero bytes as dots.
func shorten(data []byte) string {
	var out strings.Builder
	for len(data) > 0 {
		part := data[:min(len(data), pageSize)]
		data = data[len(part):]
		text := string(bytes.ReplaceAll(part, []byte{0}, []byte(".")))
		if len(part) == pageSize && strings.Count(text, text[:1]) == pageSize {
			text = "[" + text[:1] + "]"
		}
		out.WriteString(text)
	}
	return out.String()
}

func whole(letter string) string { return strings.Repeat(letter, pageSize) }

// eio lets the n-th sync fail, counted from 1.
func eio(d *memdisk.Disk, n int) {
	d.Hook = func(op memdisk.Op) error {
		if op.Kind == memdisk.OpSync {
			if n--; n == 0 {
				return syscall.EIO
			}
		}
		return nil
	}
}

// TestCrash gives, for each history, everything that a crash may leave and nothing else.
func TestCrash(t *testing.T) {
	tests := []struct {
		name string
		mode memdisk.Mode
		do   func(s *script)
		want []string
	}{
		{"nothing", 0, func(s *script) {}, []string{""}},
		{"create alone: the entry lives or dies", 0, func(s *script) {
			s.create("/a")
		}, []string{"", "/a="}},
		{"content synced, directory not: all or nothing", 0, func(s *script) {
			s.create("/a")
			s.write("/a", "xy", 0)
			s.sync("/a")
		}, []string{"", "/a=xy"}},
		{"directory synced, content not: each length, each page", 0, func(s *script) {
			s.create("/a")
			s.write("/a", "xy", 0)
			s.syncDir("/")
		}, []string{"/a=", "/a=..", "/a=xy"}},
		{"both synced", 0, func(s *script) {
			s.create("/a")
			s.write("/a", "xy", 0)
			s.sync("/a")
			s.syncDir("/")
		}, []string{"/a=xy"}},
		{"a page that is written twice may be caught in between", 0, func(s *script) {
			s.durable("/a", "aa")
			s.write("/a", "b", 0)
			s.write("/a", "c", 1)
		}, []string{"/a=aa", "/a=ba", "/a=bc"}},
		{"pages live and die apart", 0, func(s *script) {
			s.durable("/a", whole("o")+whole("o"))
			s.write("/a", whole("n")+whole("n"), 0)
		}, []string{"/a=[n][n]", "/a=[n][o]", "/a=[o][n]", "/a=[o][o]"}},
		{"an append: a longer file may hold zeros, and end at any page", 0, func(s *script) {
			s.durable("/a", whole("o"))
			s.write("/a", whole("n")+"tail", pageSize)
		}, []string{"/a=[o]", "/a=[o][.]", "/a=[o][.]....", "/a=[o][.]tail", "/a=[o][n]", "/a=[o][n]....", "/a=[o][n]tail"}},
		{"an append within a page: what is behind the length is lost", 0, func(s *script) {
			s.durable("/a", "a")
			s.write("/a", "bc", 1)
		}, []string{"/a=a", "/a=a..", "/a=abc"}},
		{"a hole reads as zeros", 0, func(s *script) {
			s.durable("/a", "a")
			s.write("/a", "b", 3)
			s.sync("/a")
		}, []string{"/a=a..b"}},
		{"rename in a directory: one name or the other, one content whole", 0, func(s *script) {
			s.durable("/a", "new")
			s.durable("/b", "old")
			s.rename("/a", "/b")
		}, []string{"/a=new /b=old", "/b=new"}},
		{"rename synced", 0, func(s *script) {
			s.durable("/a", "new")
			s.durable("/b", "old")
			s.rename("/a", "/b")
			s.syncDir("/")
		}, []string{"/b=new"}},
		{"rename of what was not synced: the classic empty file", 0, func(s *script) {
			s.durable("/b", "old")
			s.create("/a")
			s.write("/a", "new", 0)
			s.syncDir("/")
			s.rename("/a", "/b")
			s.syncDir("/")
		}, []string{"/b=", "/b=...", "/b=new"}},
		{"rename between directories is one change", 0, func(s *script) {
			s.durable("/x/a", "1")
			s.durable("/y/z", "2")
			s.rename("/x/a", "/y/a")
		}, []string{"/x/a=1 /y/z=2", "/y/a=1 /y/z=2"}},
		{"rename between directories: the sync of either decides", 0, func(s *script) {
			s.durable("/x/a", "1")
			s.durable("/y/z", "2")
			s.rename("/x/a", "/y/a")
			s.syncDir("/x")
		}, []string{"/y/a=1 /y/z=2"}},
		{"rename split: both names, or neither", memdisk.SplitRenames, func(s *script) {
			s.durable("/a", "1")
			s.rename("/a", "/b")
		}, []string{"", "/a=1", "/a=1 /b=1", "/b=1"}},
		{"rename split, one side synced", memdisk.SplitRenames, func(s *script) {
			s.durable("/x/a", "1")
			s.mkdir("/y")
			s.syncDir("/")
			s.rename("/x/a", "/y/a")
			s.syncDir("/x")
		}, []string{"", "/y/a=1"}},
		{"remove alone: the file may come back", 0, func(s *script) {
			s.durable("/a", "1")
			s.remove("/a")
		}, []string{"", "/a=1"}},
		{"remove and make anew: either, both lost, or the old", 0, func(s *script) {
			s.durable("/a", "1")
			s.remove("/a")
			s.create("/a")
			s.write("/a", "2", 0)
			s.sync("/a")
		}, []string{"", "/a=1", "/a=2"}},
		{"mkdir: what is inside goes with it", 0, func(s *script) {
			s.mkdir("/x")
			s.create("/x/a")
			s.write("/x/a", "1", 0)
			s.sync("/x/a")
			s.syncDir("/x")
		}, []string{"", "/x/a=1"}},
		{"rename of a directory takes along what it holds", 0, func(s *script) {
			s.durable("/tmp/a", "1")
			s.rename("/tmp", "/v")
		}, []string{"/tmp/a=1", "/v/a=1"}},
		{"entry changes are independent, not a prefix", 0, func(s *script) {
			s.create("/a")
			s.create("/b")
		}, []string{"", "/a=", "/a= /b=", "/b="}},
		{"a failed sync loses the pages, not the length", 0, func(s *script) {
			s.durable("/a", "o")
			s.write("/a", "nn", 0)
			eio(s.d, 1)
			s.syncFails("/a")
		}, []string{"/a=o", "/a=o."}},
		{"a later sync does not bring them back", 0, func(s *script) {
			s.durable("/a", "o")
			s.write("/a", "nn", 0)
			eio(s.d, 1)
			s.syncFails("/a")
			s.sync("/a")
		}, []string{"/a=o."}},
		{"but writing the page again does", 0, func(s *script) {
			s.durable("/a", "ooo")
			s.write("/a", "nn", 0)
			eio(s.d, 1)
			s.syncFails("/a")
			s.write("/a", "m", 2)
			s.sync("/a")
		}, []string{"/a=nnm"}},
		{"a power cut in a sync is no failed sync", 0, func(s *script) {
			s.durable("/a", "o")
			s.write("/a", "n", 0)
			s.d.Hook = func(memdisk.Op) error { return memdisk.ErrPowerCut }
			if err := s.files["/a"].Sync(); !errors.Is(err, memdisk.ErrPowerCut) {
				s.t.Fatal(err)
			}
		}, []string{"/a=n", "/a=o"}},
		{"directories that a split rename puts into each other", memdisk.SplitRenames, func(s *script) {
			s.durable("/y/a/f", "1")
			s.rename("/y/a", "/a")
			s.syncDir("/")
			s.rename("/y", "/a/y")
		}, []string{"/a/f=1"}},
		{"a partial sync", 0, func(s *script) {
			s.durable("/a", whole("o")+whole("o"))
			s.write("/a", whole("n")+whole("n"), 0)
			first := true
			s.d.Hook = func(op memdisk.Op) error {
				return &memdisk.PartialSync{Err: syscall.EIO, Reached: func(n int) int {
					defer func() { first = false }()
					if first {
						return n - 1
					}
					return 0
				}}
			}
			s.syncFails("/a")
		}, []string{"/a=[n][o]"}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			s := newScript(t)
			test.do(s)
			got := make(map[string]bool)
			for after := range s.d.Crashes(test.mode) {
				got[show(t, after)] = true
				for again := range after.Crashes(test.mode) {
					if !again.Equal(after) {
						t.Errorf("%q crashed again at once is %q", show(t, after), show(t, again))
					}
				}
			}
			if diff := cmp.Diff(test.want, slices.Sorted(maps.Keys(got))); diff != "" {
				t.Errorf("outcomes (-want +got):\n%s", diff)
			}
			// The random crashes are among those, and reach each of them.
			r := rand.New(rand.NewPCG(1, 2))
			missing := maps.Clone(got)
			for range 5000 {
				after := show(t, s.d.Crash(memdisk.Random(r), test.mode))
				if !got[after] {
					t.Fatalf("random crash left %q", after)
				}
				delete(missing, after)
			}
			if len(missing) > 0 {
				t.Errorf("random crashes never left %q", slices.Sorted(maps.Keys(missing)))
			}
		})
	}
}

func (s *script) syncFails(name string) {
	s.t.Helper()
	if err := s.files[name].Sync(); !errors.Is(err, syscall.EIO) {
		s.t.Fatalf("sync: %v, want EIO", err)
	}
}

func TestLoseAndKeep(t *testing.T) {
	s := newScript(t)
	s.durable("/a", "old")
	s.write("/a", "newer", 0)
	s.create("/b")
	if got := show(t, s.d.Crash(memdisk.Lose, 0)); got != "/a=old" {
		t.Errorf("Lose leaves %q", got)
	}
	if got := show(t, s.d.Crash(memdisk.Keep, 0)); got != "/a=newer /b=" {
		t.Errorf("Keep leaves %q", got)
	}
}

func TestTornPages(t *testing.T) {
	s := newScript(t)
	s.durable("/a", whole("o"))
	s.write("/a", whole("n"), 0)
	got := make(map[string]int)
	for after := range s.d.Crashes(memdisk.TornPages) {
		data, err := after.ReadFile("/a")
		s.must(err)
		key := ""
		for at := 0; at < pageSize; at += 512 {
			sector := data[at : at+512]
			if bytes.Count(sector, sector[:1]) != 512 {
				t.Fatalf("a sector is torn: %q", sector)
			}
			key += string(sector[:1])
		}
		got[key]++
	}
	if len(got) != 256 {
		t.Errorf("%d outcomes, want 2^8", len(got))
	}
}

// TestFailedSyncTrap is what a log must notice: after a failed sync all looks well
// until the cache is dropped.
func TestFailedSyncTrap(t *testing.T) {
	s := newScript(t)
	s.durable("/a", "old")
	eio(s.d, 1)
	s.write("/a", "new", 0)
	s.syncFails("/a")
	read := func(want string) {
		t.Helper()
		data, err := s.d.ReadFile("/a")
		s.must(err)
		if string(data) != want {
			t.Errorf("reads show %q, want %q", data, want)
		}
	}
	read("new")
	s.sync("/a")
	read("new")
	s.must(s.files["/a"].DropCache())
	read("old")
}

func TestDropCacheKeepsDirtyPages(t *testing.T) {
	s := newScript(t)
	s.durable("/a", "old")
	s.write("/a", "new", 0)
	s.must(s.files["/a"].DropCache())
	if got := show(t, s.d); got != "/a=new" {
		t.Errorf("reads show %q", got)
	}
}

// TestCopiesAreApart: after a crash or a clone life goes on, on each side without
// the other. What they share must not change under either.
func TestCopiesAreApart(t *testing.T) {
	for what, copyOf := range map[string]func(d *memdisk.Disk) *memdisk.Disk{
		"crash": func(d *memdisk.Disk) *memdisk.Disk { return d.Crash(memdisk.Keep, 0) },
		"clone": (*memdisk.Disk).Clone,
	} {
		t.Run(what, func(t *testing.T) {
			for _, first := range []string{"original", "copy"} {
				s := newScript(t)
				s.durable("/a", whole("1")+whole("2"))
				copied := copyOf(s.d)
				change := func(d *memdisk.Disk, data string) {
					t.Helper()
					f, err := d.OpenWrite("/a")
					s.must(err)
					_, err = f.WriteAt([]byte(data), 0)
					s.must(err)
					s.must(f.Sync())
				}
				changed, left := s.d, copied
				if first == "copy" {
					changed, left = copied, s.d
				}
				change(changed, whole("3"))
				if got := show(t, left); got != "/a=[1][2]" {
					t.Errorf("%s changed first, the other is %q", first, got)
				}
				change(left, whole("4"))
				if got := show(t, left) + show(t, changed); got != "/a=[4][2]/a=[3][2]" {
					t.Errorf("%s changed first, at last both are %q", first, got)
				}
			}
		})
	}
}

// TestClonesWriteApart: the versions of a page that wait to be synced grow on both
// sides of a clone.
func TestClonesWriteApart(t *testing.T) {
	for before := range 6 {
		s := newScript(t)
		s.create("/a")
		for range before {
			s.write("/a", "0", 0)
		}
		clone := s.d.Clone()
		f, err := clone.OpenWrite("/a")
		s.must(err)
		s.write("/a", "1", 0)
		_, err = f.WriteAt([]byte("2"), 0)
		s.must(err)
		if got := show(t, s.d) + show(t, clone); got != "/a=1/a=2" {
			t.Errorf("after %d writes the original and its clone show %q", before, got)
		}
	}
}

// TestCloneKeepsWhatWasLost: also of a failed sync a clone knows all.
func TestCloneKeepsWhatWasLost(t *testing.T) {
	s := newScript(t)
	s.durable("/a", "old")
	s.write("/a", "new", 0)
	eio(s.d, 1)
	s.syncFails("/a")
	clone := s.d.Clone()
	if got := show(t, clone); got != "/a=new" {
		t.Errorf("the clone shows %q", got)
	}
	f, err := clone.Open("/a")
	s.must(err)
	s.must(f.DropCache())
	if got := show(t, clone) + show(t, s.d); got != "/a=old/a=new" {
		t.Errorf("after dropping the clone's cache both show %q", got)
	}
}

// TestSameChoicesSameCrash: a failure that a seed found can be found again.
func TestSameChoicesSameCrash(t *testing.T) {
	s := newScript(t)
	for _, dir := range []string{"/p", "/q", "/r"} {
		s.mkdir(dir)
		for _, base := range []string{"/1", "/2", "/3"} {
			s.create(dir + base)
			s.write(dir+base, whole("x")+"y", 0)
		}
	}
	for seed := range uint64(20) {
		crash := func() string {
			return show(t, s.d.Clone().Crash(memdisk.Random(rand.New(rand.NewPCG(1, seed))), memdisk.TornPages))
		}
		if first, again := crash(), crash(); first != again {
			t.Fatalf("seed %d: %q, then %q", seed, first, again)
		}
	}
}

// TestPowerCutBesideAnOperation: an operation that waits in its hook while the power
// goes is not carried out.
func TestPowerCutBesideAnOperation(t *testing.T) {
	s := newScript(t)
	s.d.Hook = func(op memdisk.Op) error {
		if op.Kind == memdisk.OpMkdir {
			return memdisk.ErrPowerCut
		}
		s.d.Mkdir("/x", 0o700)
		return nil
	}
	if _, err := s.d.Create("/a", 0o600); !errors.Is(err, memdisk.ErrPowerCut) {
		t.Errorf("create: %v", err)
	}
	if got := show(t, s.d); got != "" {
		t.Errorf("the disk holds %q", got)
	}
}

// TestCutPagesStayZero: pages that reached the medium behind the surviving length do
// not come back when the file grows again.
func TestCutPagesStayZero(t *testing.T) {
	s := newScript(t)
	s.durable("/a", whole("o"))
	s.write("/a", whole("n")+whole("n"), pageSize)
	s.d.Hook = func(memdisk.Op) error {
		return &memdisk.PartialSync{Err: syscall.EIO, Reached: memdisk.Keep}
	}
	s.syncFails("/a")
	after := s.d.Crash(memdisk.Lose, 0)
	f, err := after.OpenWrite("/a")
	s.must(err)
	_, err = f.WriteAt([]byte("z"), 3*pageSize)
	s.must(err)
	if got := show(t, after); got != "/a=[o][.][.]z" {
		t.Errorf("the file is %q", got)
	}
}

func TestCloneKeepsWhatIsInTheAir(t *testing.T) {
	s := newScript(t)
	s.durable("/x/a", "1")
	s.durable("/y/b", "2")
	s.rename("/x/a", "/y/a")
	s.syncDir("/y")
	s.write("/y/b", "3", 0)
	outcomes := func(d *memdisk.Disk) []string {
		got := make(map[string]bool)
		for after := range d.Crashes(memdisk.SplitRenames) {
			got[show(t, after)] = true
		}
		for after := range d.Crashes(0) {
			got["journal "+show(t, after)] = true
		}
		return slices.Sorted(maps.Keys(got))
	}
	if diff := cmp.Diff(outcomes(s.d), outcomes(s.d.Clone())); diff != "" {
		t.Errorf("crashes of the original and of its clone (-original +clone):\n%s", diff)
	}
}

// TestTrimmedTailStaysZero: bytes that a page held behind the surviving length must
// not come back when the file grows again.
func TestTrimmedTailStaysZero(t *testing.T) {
	s := newScript(t)
	s.durable("/a", "a")
	s.write("/a", "bcd", 1)
	asked := 0
	after := s.d.Crash(func(n int) int { // the old length, the new page
		asked++
		if asked == 1 {
			return 0
		}
		return n - 1
	}, 0)
	f, err := after.OpenWrite("/a")
	s.must(err)
	_, err = f.WriteAt([]byte("z"), 3)
	s.must(err)
	if got := show(t, after); got != "/a=a..z" {
		t.Errorf("the file is %q", got)
	}
}

// TestPowerCutEverywhere walks the documented way of cutting the power at every
// operation, over the classic atomic replacement of a file.
func TestPowerCutEverywhere(t *testing.T) {
	replace := func(d *memdisk.Disk) error {
		f, err := d.Create("/new", 0o600)
		if err != nil {
			return err
		}
		if _, err := f.WriteAt([]byte("after"), 0); err != nil {
			return err
		}
		if err := errors.Join(f.Sync(), f.Close()); err != nil {
			return err
		}
		return errors.Join(d.Rename("/new", "/file"), d.SyncDir("/"))
	}
	start := memdisk.New()
	if err := start.WriteFile("/file", []byte("before")); err != nil {
		t.Fatal(err)
	}
	count := start.Clone()
	if err := replace(count); err != nil {
		t.Fatal(err)
	}
	got := make(map[string]bool)
	for at := range count.Ops() {
		d := start.Clone()
		d.Hook = func(op memdisk.Op) error {
			if op.Index == at {
				return memdisk.ErrPowerCut
			}
			return nil
		}
		if err := replace(d); !errors.Is(err, memdisk.ErrPowerCut) {
			t.Fatalf("cut at %d: %v", at, err)
		}
		if _, err := d.Lstat("/file"); !errors.Is(err, memdisk.ErrPowerCut) {
			t.Fatalf("after the cut at %d: %v", at, err)
		}
		for after := range d.Crashes(0) {
			data, err := after.ReadFile("/file")
			if err != nil {
				t.Fatalf("cut at %d: %v", at, err)
			}
			got[string(data)] = true
		}
	}
	if want := map[string]bool{"before": true, "after": true}; !maps.Equal(got, want) {
		t.Errorf("the file is one of %v", got)
	}
}

func TestInjectedErrors(t *testing.T) {
	s := newScript(t)
	s.durable("/a", "old")
	s.mkdir("/x")
	inject := func(err error) {
		s.d.Hook = func(memdisk.Op) error { return err }
	}
	inject(&memdisk.ShortWrite{N: 2, Err: syscall.ENOSPC})
	n, err := s.files["/a"].WriteAt([]byte("new"), 0)
	if n != 2 || !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("short write: %d, %v", n, err)
	}
	inject(syscall.EIO)
	if n, err := s.files["/a"].ReadAt(make([]byte, 3), 0); n != 0 || !errors.Is(err, syscall.EIO) {
		t.Errorf("read: %d, %v", n, err)
	}
	if n, err := s.files["/a"].WriteAt([]byte("zzz"), 0); n != 0 || !errors.Is(err, syscall.EIO) {
		t.Errorf("write: %d, %v", n, err)
	}
	for what, call := range map[string]func() error{
		"mkdir":   func() error { return s.d.Mkdir("/y", 0o700) },
		"rename":  func() error { return s.d.Rename("/x", "/y") },
		"remove":  func() error { return s.d.Remove("/x") },
		"syncdir": func() error { return s.d.SyncDir("/") },
		"create":  func() error { _, err := s.d.Create("/y", 0o600); return err },
		"open":    func() error { _, err := s.d.Open("/a"); return err },
		"list":    func() error { _, err := s.d.List("/"); return err },
		"lock":    func() error { return s.files["/a"].Lock(0) },
	} {
		if err := call(); !errors.Is(err, syscall.EIO) {
			t.Errorf("%s: %v", what, err)
		}
	}
	s.d.Hook = nil
	if got := show(t, s.d); got != "/a=ned" {
		t.Errorf("the disk holds %q", got)
	}
	if names, _ := s.d.List("/"); !slices.Equal(names, []string{"a", "x"}) {
		t.Errorf("the root holds %q", names)
	}
	if _, err := s.d.Crash(memdisk.Lose, 0).Lstat("/x"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the failed syncdir made the directory durable: %v", err)
	}
}

// TestHookSeesEveryOperation holds the operations of every method against the list
// of kinds.
func TestHookSeesEveryOperation(t *testing.T) {
	d := memdisk.New()
	var seen []string
	d.Hook = func(op memdisk.Op) error {
		d.Ops() // no lock may be held
		seen = append(seen, op.String())
		return nil
	}
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(d.Mkdir("/x", 0o700))
	f, err := d.Create("/x/a", 0o600)
	must(err)
	_, err = f.WriteAt([]byte("abc"), 1)
	must(err)
	_, err = f.ReadAt(make([]byte, 2), 1)
	must(err)
	_, err = f.Size()
	must(err)
	must(f.Lock(7))
	must(f.Sync())
	must(f.DropCache())
	must(f.Close())
	must(d.Rename("/x/a", "/x/b"))
	must(d.RenameNoReplace("/x/b", "/x/c"))
	must(d.SyncDir("/x"))
	_, err = d.List("/x")
	must(err)
	_, err = d.Lstat("/x/c")
	must(err)
	_, err = d.Open("/x/c")
	must(err)
	_, err = d.OpenWrite("/x/c")
	must(err)
	must(d.Remove("/x/c"))
	want := []string{
		"mkdir /x", "create /x/a", "write /x/a 1+3", "read /x/a 1+2", "size /x/a", "lock /x/a 7",
		"sync /x/a", "dropcache /x/a", "close /x/a", "rename /x/a /x/b", "renamenoreplace /x/b /x/c",
		"syncdir /x", "list /x", "lstat /x/c", "open /x/c", "openwrite /x/c", "remove /x/c",
	}
	for i := range want {
		want[i] = fmt.Sprintf("#%d %s", i, want[i])
	}
	if diff := cmp.Diff(want, seen); diff != "" {
		t.Errorf("operations (-want +got):\n%s", diff)
	}
	if d.Ops() != len(want) {
		t.Errorf("%d operations counted, want %d", d.Ops(), len(want))
	}
}
