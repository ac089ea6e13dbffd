package memdisk_test

import (
	"maps"
	"slices"
	"testing"

	"encfsrun/fs/vault/disk/memdisk"

	"github.com/google/go-cmp/cmp"
)

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
