package memdisk_test

import (
	"bytes"
	"errors"
	"maps"
	"math/rand/v2"
	"slices"
	"syscall"
	"testing"

	"encfsrun/fs/vault/disk/memdisk"

	"github.com/google/go-cmp/cmp"
)

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
