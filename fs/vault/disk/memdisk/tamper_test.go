package memdisk_test

import (
	"bytes"
	"errors"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"syscall"
	"testing"

	"encfsrun/fs/vault/disk"
	"encfsrun/fs/vault/disk/memdisk"

	"github.com/google/go-cmp/cmp"
)

// TestTampering: changes from outside are seen by no hook, work without power, and
// survive the worst crash also where something was in the air.
func TestTampering(t *testing.T) {
	s := newScript(t)
	s.mkdir("/x")
	s.create("/x/a")
	s.write("/x/a", "unsynced", 0)
	s.create("/x/b")
	s.durable("/c", "kept")
	s.durable("/d", "removed")
	s.remove("/d")
	s.d.Hook = func(op memdisk.Op) error { return memdisk.ErrPowerCut }
	if _, err := s.d.List("/"); !errors.Is(err, memdisk.ErrPowerCut) {
		t.Fatal(err)
	}
	ops := s.d.Ops()
	s.must(s.d.WriteFile("/x/a", []byte("1")))
	s.must(s.d.WriteFile("/y/z/new", []byte("2")))
	s.must(s.d.Delete("/c"))
	s.must(s.d.WriteFile("/d", []byte("back")))
	if got := s.d.Ops(); got != ops {
		t.Errorf("tampering was counted: %d operations, then %d", ops, got)
	}
	for _, choose := range []memdisk.Choose{memdisk.Lose, memdisk.Keep} {
		want := "/d=back /x/a=1 /y/z/new=2"
		if choose(2) == 1 {
			want = "/d=back /x/a=1 /x/b= /y/z/new=2"
		}
		if got := show(t, s.d.Crash(choose, 0)); got != want {
			t.Errorf("the disk holds %q, want %q", got, want)
		}
	}
	s.must(s.d.Delete("/y"))
	if got, want := s.d.Files(), []string{"/d", "/x/a", "/x/b"}; !slices.Equal(got, want) {
		t.Errorf("files %q, want %q", got, want)
	}

	for what, test := range map[string]struct{ err, want error }{
		"read of a directory":     {second(s.d.ReadFile("/x")), syscall.EISDIR},
		"read of nothing":         {second(s.d.ReadFile("/q")), fs.ErrNotExist},
		"write over a directory":  {s.d.WriteFile("/x", nil), syscall.EISDIR},
		"write below a file":      {s.d.WriteFile("/x/a/b", nil), syscall.ENOTDIR},
		"delete of nothing":       {s.d.Delete("/q"), fs.ErrNotExist},
		"delete of the root":      {s.d.Delete("/"), syscall.EBUSY},
		"load of nothing":         {s.d.Load(memdisk.New(), "/q", "/q"), fs.ErrNotExist},
		"store over what is here": {s.d.Store(s.d.Clone(), "/x", "/x"), fs.ErrExist},
	} {
		if !errors.Is(test.err, test.want) {
			t.Errorf("%s: %v, want %v", what, test.err, test.want)
		}
	}
}

func second(_ []byte, err error) error { return err }

func TestEqual(t *testing.T) {
	fresh := func() *memdisk.Disk {
		d := memdisk.New()
		if err := errors.Join(d.WriteFile("/x/a", []byte("1")), d.WriteFile("/x/b", []byte("2"))); err != nil {
			t.Fatal(err)
		}
		return d
	}
	if !fresh().Equal(fresh()) {
		t.Error("two equal disks are not")
	}
	for what, change := range map[string]func(d *memdisk.Disk) error{
		"content":         func(d *memdisk.Disk) error { return d.WriteFile("/x/a", []byte("2")) },
		"length":          func(d *memdisk.Disk) error { return d.WriteFile("/x/a", []byte("1\x00")) },
		"missing file":    func(d *memdisk.Disk) error { return d.Delete("/x/b") },
		"another file":    func(d *memdisk.Disk) error { return d.WriteFile("/x/c", nil) },
		"name":            func(d *memdisk.Disk) error { return d.Rename("/x/a", "/x/z") },
		"empty directory": func(d *memdisk.Disk) error { return d.Mkdir("/x/d", 0o700) },
		"kind": func(d *memdisk.Disk) error {
			return errors.Join(d.Remove("/x/b"), d.Mkdir("/x/b", 0o700))
		},
	} {
		d := fresh()
		if err := change(d); err != nil {
			t.Fatal(err)
		}
		if d.Equal(fresh()) || fresh().Equal(d) {
			t.Errorf("%s: a difference is not seen", what)
		}
	}
}

// TestLoadAndStore carries a tree to the machine's disk and back.
func TestLoadAndStore(t *testing.T) {
	big := make([]byte, 3<<20+17)
	rand.NewChaCha8([32]byte{}).Read(big)
	d := memdisk.New()
	for name, data := range map[string][]byte{"/v/big": big, "/v/log/1": []byte("one"), "/v/log/empty": nil, "/w": []byte("not copied")} {
		if err := d.WriteFile(name, data); err != nil {
			t.Fatal(err)
		}
	}
	if err := d.Mkdir("/v/bare", 0o750); err != nil {
		t.Fatal(err)
	}
	real := filepath.Join(t.TempDir(), "real")
	if err := d.Store(disk.OS(), "/v", real); err != nil {
		t.Fatal(err)
	}
	if data, err := os.ReadFile(real + "/big"); err != nil || !bytes.Equal(data, big) {
		t.Errorf("the real copy differs, %v", err)
	}

	back := memdisk.New()
	back.Hook = func(op memdisk.Op) error { return syscall.EIO }
	if err := back.WriteFile("/v/stale", nil); err != nil {
		t.Fatal(err)
	}
	if err := back.Load(disk.OS(), real, "/v"); err != nil {
		t.Fatal(err)
	}
	if err := d.Delete("/w"); err != nil {
		t.Fatal(err)
	}
	if survived := back.Crash(memdisk.Lose, 0); !survived.Equal(d) {
		t.Errorf("%q came back, %q went out", survived.Files(), d.Files())
	}
	if info, err := back.Crash(memdisk.Lose, 0).Lstat("/v/bare"); err != nil || info.Mode != 0o750 {
		t.Errorf("the empty directory came back as %+v, %v", info, err)
	}

	if err := back.Load(disk.OS(), real+"/log", "/"); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"/1", "/empty"}, back.Files()); diff != "" {
		t.Errorf("files after a load over the root (-want +got):\n%s", diff)
	}
	if err := os.Symlink("big", real+"/link"); err != nil {
		t.Fatal(err)
	}
	if err := back.Load(disk.OS(), real, "/v"); !errors.Is(err, disk.ErrNotRegular) {
		t.Errorf("load of a symbolic link: %v", err)
	}
	if err := back.Load(disk.OS(), real+"/big", "/"); err == nil {
		t.Error("a file was loaded over the root")
	}
}

// TestConcurrentUse is for the race detector: crashes, clones and tampering beside
// operations on both sides of shared pages.
func TestConcurrentUse(t *testing.T) {
	s := newScript(t)
	s.durable("/a", whole("a")+whole("b"))
	s.d.Hook = func(memdisk.Op) error { return nil }
	var all sync.WaitGroup
	for worker := range 4 {
		all.Go(func() {
			r := rand.New(rand.NewPCG(1, uint64(worker)))
			for range 50 {
				f := s.files["/a"]
				if _, err := f.WriteAt([]byte("data"), r.Int64N(5*pageSize)); err != nil {
					t.Error(err)
				}
				after := s.d.Crash(memdisk.Random(r), 0)
				g, err := after.OpenWrite("/a")
				if err != nil {
					t.Error(err)
					return
				}
				_, err = g.WriteAt([]byte("other"), r.Int64N(pageSize))
				if err := errors.Join(err, g.Sync(), f.Sync()); err != nil {
					t.Error(err)
				}
				if !after.Equal(after) {
					t.Error("a disk is not equal to itself")
				}
			}
		})
	}
	all.Wait()
}

// BenchmarkCrash is a power cut over a vault of 64 MiB with 16 blocks in the air.
func BenchmarkCrash(b *testing.B) {
	const block = 32 << 10
	d := memdisk.New()
	if err := d.WriteFile("/v/log/1", make([]byte, 64<<20)); err != nil {
		b.Fatal(err)
	}
	for _, name := range []string{"/v/vault.json", "/v/vault.json.bak", "/v/lock"} {
		if err := d.WriteFile(name, make([]byte, 2000)); err != nil {
			b.Fatal(err)
		}
	}
	clean := d.Clone()
	f, err := d.Create("/v/log/2", 0o600)
	if err != nil {
		b.Fatal(err)
	}
	for i := range int64(16) {
		if _, err := f.WriteAt(make([]byte, block), i*block); err != nil {
			b.Fatal(err)
		}
	}
	r := rand.New(rand.NewPCG(1, 2))
	b.Run("in the air", func(b *testing.B) {
		for b.Loop() {
			d.Crash(memdisk.Random(r), 0)
		}
	})
	b.Run("all synced", func(b *testing.B) {
		for b.Loop() {
			clean.Crash(memdisk.Random(r), 0)
		}
	})
	b.Run("clone", func(b *testing.B) {
		for b.Loop() {
			d.Clone()
		}
	})
}

// BenchmarkAppend writes and syncs blocks of 32 KiB, as a log does.
func BenchmarkAppend(b *testing.B) {
	const block = 32 << 10
	data := make([]byte, block)
	b.SetBytes(block)
	f, err := memdisk.New().Create("/a", 0o600)
	if err != nil {
		b.Fatal(err)
	}
	for i := int64(0); b.Loop(); i++ {
		if _, err := f.WriteAt(data, i%2048*block); err != nil {
			b.Fatal(err)
		}
		if i%16 == 0 {
			if err := f.Sync(); err != nil {
				b.Fatal(err)
			}
		}
	}
}
