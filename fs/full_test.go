package fs

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"sync/atomic"
	"testing"

	"golang.org/x/sys/unix"

	"encfsrun/fs/vault"
)

// fullStore has no space while a test says so, except for what removes.
type fullStore struct {
	Store
	full atomic.Bool
}

func (s *fullStore) Reserve(n int64, removes bool) error {
	if s.full.Load() && !removes {
		return vault.ErrNoSpace
	}
	return s.Store.Reserve(n, removes)
}

// TestFullDisk: ENOSPC goes to the call that wants space and changes nothing; what makes room works; what was accepted is kept.
func TestFullDisk(t *testing.T) {
	onMounts(t, func(t *testing.T, v *volume, _ *mounted) {
		s := &fullStore{}
		m := newVolume(t).mount(t, volumeOptions{store: func(real Store) Store { s.Store = real; return s }})
		must(t, os.Mkdir(m.path("d"), 0o755))
		for _, name := range []string{"a", "b", "c", "shrinks"} {
			must(t, os.WriteFile(m.path(name), bytes.Repeat([]byte(name), 50_000), 0o644))
		}
		f, err := os.OpenFile(m.path("a"), os.O_RDWR, 0)
		must(t, err)
		defer f.Close()
		_, err = f.WriteAt([]byte("accepted"), 0)
		must(t, err)
		_, err = walkTree(m.dir) // sets access times
		must(t, err)
		before, err := walkTree(m.dir)
		must(t, err)
		s.full.Store(true)
		_, err = f.WriteAt(make([]byte, 5000), 100)
		wantErr(t, "write", err, unix.ENOSPC)
		for what, err := range map[string]error{
			"create":    with(m.path("new"), unix.O_WRONLY|unix.O_CREAT, func(int) error { return nil }),
			"tmpfile":   with(m.dir, unix.O_WRONLY|unix.O_TMPFILE, func(int) error { return nil }),
			"mkdir":     os.Mkdir(m.path("new"), 0o755),
			"mknod":     unix.Mknod(m.path("new"), unix.S_IFIFO|0o644, 0),
			"symlink":   os.Symlink("x", m.path("new")),
			"link":      os.Link(m.path("b"), m.path("new")),
			"rename":    os.Rename(m.path("b"), m.path("new")),
			"exchange":  unix.Renameat2(unix.AT_FDCWD, m.path("b"), unix.AT_FDCWD, m.path("d"), unix.RENAME_EXCHANGE),
			"chmod":     os.Chmod(m.path("b"), 0o600),
			"setxattr":  unix.Setxattr(m.path("b"), "user.a", []byte("v"), 0),
			"grow":      os.Truncate(m.path("b"), 1<<20),
			"fallocate": unix.Fallocate(int(f.Fd()), 0, 0, 1<<20),
		} {
			wantErr(t, what, err, unix.ENOSPC)
		}
		after, err := walkTree(m.dir)
		must(t, err)
		if len(after) != len(before) {
			t.Errorf("%d names, %d before", len(after), len(before))
		}
		for path, e := range before {
			if fmt.Sprint(*after[path]) != fmt.Sprint(*e) {
				t.Errorf("%s changed: %+v, before %+v", path, *after[path], *e)
			}
		}
		if err := errors.Join(os.Remove(m.path("c")), os.Remove(m.path("d")), os.Truncate(m.path("shrinks"), 10), f.Sync()); err != nil {
			t.Errorf("making room: %v", err)
		}
		must(t, with(m.path("b"), unix.O_RDWR, func(fd int) error {
			return unix.Fallocate(fd, unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, 0, 40_000)
		}))
		s.full.Store(false)
		must(t, os.WriteFile(m.path("new"), []byte("there is space again"), 0o644))
		if b, err := os.ReadFile(m.path("a")); err != nil || string(b[:8]) != "accepted" || len(b) != 50_000 {
			t.Errorf("what was accepted reads as %d bytes, %v", len(b), err)
		}
	})
}

// TestOverwritingTakesNoSpace: what is dirty already has its space, and is overwritten on a full disk too.
func TestOverwritingTakesNoSpace(t *testing.T) {
	var last atomic.Int64
	s := &reserveStore{told: last.Store}
	m := newVolume(t).mount(t, volumeOptions{store: func(real Store) Store { s.Store = real; return s }})
	f, err := os.Create(m.path("f"))
	must(t, err)
	defer f.Close()
	for i, want := range []int64{100_000, 0, 0} {
		_, err := f.WriteAt(make([]byte, 100_000), 0)
		must(t, err)
		if last := last.Load(); last < want || last > want+1000 {
			t.Errorf("write %d reserves %d bytes, want some more than %d", i, last, want)
		}
	}
}

// reserveStore tells what is reserved.
type reserveStore struct {
	Store
	told func(n int64)
}

func (s *reserveStore) Reserve(n int64, removes bool) error {
	s.told(n)
	return s.Store.Reserve(n, removes)
}

// TestStatfsOfWritable: what is free is what the store says, less by what is written.
func TestStatfsOfWritable(t *testing.T) {
	m := newVolume(t).mount(t, volumeOptions{})
	var before, after unix.Statfs_t
	must(t, unix.Statfs(m.dir, &before))
	must(t, os.WriteFile(m.path("f"), bytes.Repeat([]byte("x"), 8<<20), 0o644))
	must(t, unix.Statfs(m.dir, &after))
	used := (int64(after.Blocks) - int64(after.Bfree)) - (int64(before.Blocks) - int64(before.Bfree))
	if before.Bfree == 0 || before.Bavail != before.Bfree || used < 2047 || used > 2049 || after.Files-after.Ffree != 2 || after.Ffree == 0 {
		t.Errorf("before %+v\nafter 8 MiB %+v", before, after)
	}
}

// TestUnnamedKeepsItsSpace: what was accepted of files without a name is still readable when a commit has ended all reservations and
// others have filled the disk; the mount stays writable.
func TestUnnamedKeepsItsSpace(t *testing.T) {
	const files, size = 20, 900_000
	dir := t.TempDir()
	must(t, unix.Mount("disk", dir, "tmpfs", restricted, "size=64m"))
	t.Cleanup(func() { must(t, unix.Unmount(dir, 0)) })
	v, err := makeVolume(dir)
	must(t, err)
	t.Cleanup(v.master.Destroy)
	m := v.mount(t, volumeOptions{budget: 64 << 20, dirty: 40 << 20})
	contents := bytes.Repeat([]byte("t"), size)
	var unnamed []*os.File
	for range files {
		fd, err := unix.Open(m.dir, unix.O_TMPFILE|unix.O_RDWR|unix.O_CLOEXEC, 0o600)
		must(t, err)
		f := os.NewFile(uintptr(fd), "unnamed")
		defer f.Close()
		_, err = f.Write(contents)
		must(t, err)
		unnamed = append(unnamed, f)
	}
	must(t, m.fs.Sync())
	for i := 0; err == nil; i++ {
		err = os.WriteFile(m.path(fmt.Sprint(i)), make([]byte, 1<<20), 0o644)
	}
	wantErr(t, "filling the disk", err, unix.ENOSPC)
	got := make([]byte, size)
	for _, f := range unnamed {
		if n, err := f.ReadAt(got, 0); err != nil || !bytes.Equal(got[:n], contents) {
			t.Fatalf("%d bytes, %v", n, err)
		}
	}
	wantErr(t, "removing", os.Remove(m.path("0")), nil)
	wantErr(t, "sync", m.fs.Sync(), nil)
}

// TestTruncatingOpenReserves: O_TRUNC takes a record, and that its space.
func TestTruncatingOpenReserves(t *testing.T) {
	var reserved atomic.Int64
	s := &reserveStore{told: func(n int64) { reserved.Add(n) }}
	m := newVolume(t).mount(t, volumeOptions{store: func(real Store) Store { s.Store = real; return s }})
	must(t, os.WriteFile(m.path("f"), []byte("contents"), 0o644))
	before := reserved.Load()
	must(t, with(m.path("f"), unix.O_WRONLY|unix.O_TRUNC, func(int) error { return nil }))
	if more := reserved.Load() - before; more < recordSize {
		t.Errorf("%d bytes are reserved for it", more)
	}
}
