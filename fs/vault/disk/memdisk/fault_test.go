package memdisk_test

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"slices"
	"syscall"
	"testing"

	"encfsrun/fs/vault/disk"
	"encfsrun/fs/vault/disk/memdisk"

	"github.com/google/go-cmp/cmp"
)

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
	must(f.Reserve(9))
	must(f.Trim())
	_, err = d.Space("/x")
	must(err)
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
		"reserve /x/a", "trim /x/a", "space /x",
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

// TestCapacity fills a disk: writes and reservations fail with ENOSPC, what was reserved can be written, and what is removed is
// free again.
func TestCapacity(t *testing.T) {
	d := memdisk.New()
	d.Capacity = 4 * 4096
	create := func(name string) disk.File {
		f, err := d.Create(name, 0o600)
		if err != nil {
			t.Fatal(err)
		}
		return f
	}
	a, b := create("/a"), create("/b")
	write := func(f disk.File, at, n int64, want error) {
		t.Helper()
		if _, err := f.WriteAt(make([]byte, n), at); !errors.Is(err, want) {
			t.Errorf("writing %d bytes at %d gives %v, want %v", n, at, err, want)
		}
	}
	if err := a.Reserve(3 * 4096); err != nil {
		t.Fatal(err)
	}
	write(b, 0, 1, nil)
	write(b, 4095, 2, syscall.ENOSPC)
	if err := b.Reserve(4097); !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("reserving more than there is gives %v", err)
	}
	write(a, 4096, 2*4096, nil)
	write(a, 3*4096, 1, syscall.ENOSPC)
	if err := d.Remove("/b"); err != nil {
		t.Fatal(err)
	}
	write(a, 3*4096, 1, nil)
	if s, err := d.Space("/"); err != nil || s != (disk.Space{Total: 4 * 4096}) {
		t.Errorf("a full disk has %v, %v", s, err)
	}
}
