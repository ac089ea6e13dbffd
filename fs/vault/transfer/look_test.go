package transfer

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"encfsrun/fs/vault"
	"encfsrun/fs/vault/disk"
)

func TestResolve(t *testing.T) {
	w := newWorkshop(t)
	w.file("lib/file", "in lib")
	w.symlink("link", "lib")
	w.symlink("lib/up", "../lib/file")
	w.symlink("far", "link/up")
	w.symlink("absolute", "/lib/file")
	w.symlink("outside", "lib/../../src/lib/file")
	w.symlink("dangling", "nowhere")
	w.symlink("loop", "loop")
	w.symlink("slash", "lib/file/")
	w.node("fifo", unix.S_IFIFO)
	for i := range maxLinks + 1 {
		target := fmt.Sprint("chain", i+1)
		if i == maxLinks {
			target = "lib/file"
		}
		w.symlink(fmt.Sprint("chain", i), target)
	}
	s := newSafe(t)
	s.mustPack(w.top, ImportOptions{})
	s.read(func(v *vault.Vault) {
		for path, want := range map[string]error{
			"lib/file": nil, "/lib/file": nil, "//lib//./file": nil, "lib/../lib/file": nil, "link/file": nil, "link/../lib/file": nil,
			"lib/up": nil, "far": nil, "chain1": nil,
			"": ErrNotFile, "/": ErrNotFile, "lib": ErrNotFile, "link": ErrNotFile, "lib/": ErrNotFile, ".": ErrNotFile, "fifo": ErrNotFile,
			"none": ErrNotFound, "lib/none": ErrNotFound, "dangling": ErrNotFound, "none/file": ErrNotFound, strings.Repeat("n", 300): ErrNotFound,
			"a\x00b":    ErrNotFound,
			"lib/file/": ErrNotDir, "lib/file/x": ErrNotDir, "lib/file/..": ErrNotDir, "slash": ErrNotDir,
			"..": ErrOutside, "/..": ErrOutside, "lib/../..": ErrOutside, "absolute": ErrOutside, "outside": ErrOutside,
			"loop": ErrLoop, "chain0": ErrLoop,
		} {
			var out bytes.Buffer
			err := Cat(context.Background(), v, path, &out)
			if !errors.Is(err, want) || want == nil && (err != nil || out.String() != "in lib") {
				t.Errorf("%q: %q, %v; want %v", path, out.String(), err, want)
			}
			var named *PathError
			if want != nil && (!errors.As(err, &named) || named.Path != path) {
				t.Errorf("%q: the error does not name it: %v", path, err)
			}
		}
	})
}

func TestCat(t *testing.T) {
	w := newWorkshop(t)
	w.sparse("sparse")
	w.file("empty", "")
	w.file("long", strings.Repeat("0123456789abcdef", 20_000))
	s := newSafe(t)
	s.mustPack(w.top, ImportOptions{})
	for _, name := range []string{"sparse", "empty", "long"} {
		want, err := os.ReadFile(w.at(name))
		w.do(err)
		if got := s.cat(name); got != string(want) {
			t.Errorf("%s: %d bytes of %d, or others", name, len(got), len(want))
		}
	}
	broken := errors.New("broken pipe")
	s.read(func(v *vault.Vault) {
		for _, name := range []string{"sparse", "long"} {
			if err := Cat(context.Background(), v, name, brokenPipe{broken}); err != broken {
				t.Errorf("the writer's error comes back as %v", err)
			}
		}
	})
}

type brokenPipe struct{ err error }

func (b brokenPipe) Write([]byte) (int, error) { return 0, b.err }

func TestList(t *testing.T) {
	w := newWorkshop(t)
	w.file("b/file", "12345")
	w.file("b/a/deep", "")
	w.symlink("c", "b")
	w.file("a", "")
	s := newSafe(t)
	s.mustPack(w.top, ImportOptions{})
	s.read(func(v *vault.Vault) {
		for _, c := range []struct {
			path      string
			recursive bool
			want      string
		}{
			{"", false, "a b c->b"},
			{"", true, "a b b/a b/a/deep b/file:5 c->b"},
			{"b", false, "a file:5"},
			{"c", true, "a a/deep file:5"},
			{"/b/file", true, "/b/file:5"},
			{"b/a", true, "deep"},
		} {
			var got []string
			err := List(v, c.path, c.recursive, func(l Listed) error {
				line := l.Path
				if l.Target != "" {
					line += "->" + l.Target
				} else if l.Attr.Size > 0 && !isDir(l.Attr.Mode) {
					line += fmt.Sprint(":", l.Attr.Size)
				}
				got = append(got, line)
				return nil
			})
			if err != nil || strings.Join(got, " ") != c.want {
				t.Errorf("%q: %q, %v; want %q", c.path, got, err, c.want)
			}
		}
		stop := errors.New("enough")
		n := 0
		if err := List(v, "", true, func(Listed) error { n++; return stop }); err != stop || n != 1 {
			t.Errorf("yield's error comes back as %v after %d", err, n)
		}
		if err := List(v, "none", true, nil); !errors.Is(err, ErrNotFound) {
			t.Errorf("the error is %v", err)
		}
	})
}

func TestExportPart(t *testing.T) {
	w := newWorkshop(t)
	w.one()
	s := newSafe(t)
	s.mustPack(w.top, ImportOptions{})
	s.read(func(v *vault.Vault) {
		dst := t.TempDir() // exists, and is empty
		if _, err := Export(context.Background(), v, "a/b", dst, ExportOptions{}); err != nil {
			t.Fatal(err)
		}
		want := onDisk(t, w.at("a/b"))
		want["harder"] = strings.Replace(want["harder"], "links 3", "links 1", 1) // its other names are elsewhere
		mustEqual(t, "the export", want, onDisk(t, dst))

		var target *TargetError
		if _, err := Export(context.Background(), v, "", dst, ExportOptions{}); !errors.As(err, &target) || !errors.Is(err, ErrNotEmpty) {
			t.Errorf("into a directory that is not empty: %v", err)
		}
		if _, err := Export(context.Background(), v, "", dst+"/harder", ExportOptions{}); !errors.As(err, &target) || !errors.Is(err, unix.ENOTDIR) {
			t.Errorf("onto a file: %v", err)
		}
		if _, err := Export(context.Background(), v, "", dst+"/none/out", ExportOptions{}); !errors.As(err, &target) || !errors.Is(err, unix.ENOENT) {
			t.Errorf("below nothing: %v", err)
		}
		if _, err := Export(context.Background(), v, "main.py", dst+"/new", ExportOptions{}); !errors.Is(err, ErrNotDir) {
			t.Errorf("of a file: %v", err)
		}
		if _, err := os.Lstat(dst + "/new"); err == nil {
			t.Error("an export of nothing made a directory")
		}
	})
}

// A damaged file is named, and no half of it is left; Cat names it too, and an update does not take it for a difference.
func TestDamage(t *testing.T) {
	w := newWorkshop(t)
	w.file("a-whole", "whole")
	w.file("damaged\x1b", strings.Repeat("0123456789abcdef", 40_000))
	dir := t.TempDir()
	s := newSafeAt(t, disk.OS(), dir+"/app.vault")
	s.mustPack(w.top, ImportOptions{})
	segment := dir + "/app.vault/log/0000000001.seg"
	b, err := os.ReadFile(segment)
	w.do(err)
	b[10*vault.BlockSize] ^= 1
	w.do(os.WriteFile(segment, b, 0o600))
	check := func(what string, err error) {
		t.Helper()
		var damage *vault.IntegrityError
		if !errors.As(err, &damage) || !strings.HasPrefix(err.Error(), `"damaged\x1b" can't be read: segment 1 of `) {
			t.Errorf("%s: %v", what, err)
		}
	}
	s.read(func(v *vault.Vault) {
		dst := dir + "/out"
		_, err := Export(context.Background(), v, "", dst, ExportOptions{})
		check("export", err)
		names, err := os.ReadDir(dst)
		w.do(err)
		if len(names) != 1 || names[0].Name() != "a-whole" {
			t.Errorf("exported %v", names)
		}
		var out bytes.Buffer
		check("cat", Cat(context.Background(), v, "damaged\x1b", &out))
		if len(out.Bytes()) == 0 || !bytes.HasPrefix(bytes.Repeat([]byte("0123456789abcdef"), 40_000), out.Bytes()) {
			t.Errorf("cat wrote %d bytes, which are not the file's beginning", out.Len())
		}
	})
	_, err = s.update(w.top, ImportOptions{})
	check("update", err)
}

// An export that can't write leaves no half of a file either.
func TestExportFullDisk(t *testing.T) {
	needRoot(t)
	w := newWorkshop(t)
	w.file("a", "fits")
	w.file("b", strings.Repeat("x", 4<<20))
	s := newSafe(t)
	s.mustPack(w.top, ImportOptions{})
	dst := t.TempDir()
	w.do(unix.Mount("none", dst, "tmpfs", 0, "size=1m"))
	defer unix.Unmount(dst, unix.MNT_DETACH)
	s.read(func(v *vault.Vault) {
		_, err := Export(context.Background(), v, "", dst, ExportOptions{})
		var target *TargetError
		if !errors.As(err, &target) || !errors.Is(err, unix.ENOSPC) || target.Path != dst+"/b" {
			t.Errorf("the error is %v", err)
		}
	})
	names, err := os.ReadDir(dst)
	w.do(err)
	if len(names) != 1 {
		t.Errorf("left behind: %v", names)
	}
}

func TestProgressAndScan(t *testing.T) {
	w := newWorkshop(t)
	w.one()
	total, err := Scan(context.Background(), w.top, ImportOptions{})
	w.do(err)
	var told []Progress
	o := ImportOptions{Total: total, Progress: func(p Progress) { told = append(told, p) }}
	check := func(what string, want Totals) {
		t.Helper()
		if len(told) == 0 {
			t.Fatalf("%s: nothing was told", what)
		}
		for i, p := range told {
			if i > 0 && (p.Files < told[i-1].Files || p.Bytes < told[i-1].Bytes) {
				t.Errorf("%s: back from %v to %v", what, told[i-1], p)
			}
		}
		last := told[len(told)-1]
		if last.Files != want.Files || last.Bytes != want.Bytes || last.TotalFiles != total.Files && what != "export" {
			t.Errorf("%s: %+v at the end, want %+v", what, last, want)
		}
		told = nil
	}
	s := newSafe(t)
	r := s.mustPack(w.top, o)
	if total.Files != r.Files+r.Dirs+r.Symlinks+r.Other || total.Bytes != r.Bytes {
		t.Errorf("scan counted %+v, and packed was %+v", total, r)
	}
	check("pack", total)
	s.mustUpdate(w.top, o)
	check("update", total)
	w.overwrite("lib/secret.py")
	s.mustUpdate(w.top, o)
	check("update with a change", total)
	s.read(func(v *vault.Vault) {
		_, err := Export(context.Background(), v, "", t.TempDir(), ExportOptions{Progress: o.Progress})
		w.do(err)
	})
	check("export", total)
}

func TestPathsAreSorted(t *testing.T) {
	w := newWorkshop(t)
	w.one()
	s := newSafe(t)
	s.mustPack(w.top, ImportOptions{})
	s.read(func(v *vault.Vault) {
		entries, err := entriesOf(v, 1)
		w.do(err)
		var order []vault.Ino
		for _, e := range entries {
			order = append(order, e.Ino)
		}
		if !slices.IsSorted(order) { // what is imported in order has numbers in order
			t.Errorf("inodes %v", order)
		}
	})
}
