package transfer

import (
	"context"
	"maps"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
	"pgregory.net/rapid"

	"encfsrun/fs/vault"
	"encfsrun/fs/vault/disk"
	"encfsrun/fs/vault/tree"
)

// mustMirror compares the vault with one that is made of the source as it is now.
func (s *safe) mustMirror(src string) {
	s.t.Helper()
	fresh := newSafe(s.t)
	fresh.mustPack(src, ImportOptions{})
	mustEqual(s.t, "the mirror", fresh.inside(false), s.inside(false))
	s.read(func(v *vault.Vault) { // opening has dropped what had no name any more
		if n := v.Stats().Inodes; s.inodes > 0 && n != s.inodes {
			s.t.Fatalf("the update left %d inodes without a name", s.inodes-n)
		}
	})
}

// log describes the vault as it lies on its disk, and its last commit.
func (s *safe) log() map[string]string {
	s.t.Helper()
	out := map[string]string{}
	for _, dir := range []string{s.path, s.path + "/log"} {
		names, err := s.disk.List(dir)
		if err != nil {
			s.t.Fatal(err)
		}
		for _, name := range names {
			info, err := s.disk.Lstat(dir + "/" + name)
			if err != nil {
				s.t.Fatal(err)
			}
			if info.Kind != disk.KindFile || name == "lock" {
				continue
			}
			f, err := s.disk.Open(dir + "/" + name)
			if err != nil {
				s.t.Fatal(err)
			}
			b := make([]byte, info.Size)
			if _, err := f.ReadAt(b, 0); err != nil {
				s.t.Fatal(err)
			}
			f.Close()
			out[dir+"/"+name] = string(b)
		}
	}
	return out
}

func TestUpdateWithoutChange(t *testing.T) {
	w := newWorkshop(t)
	w.one()
	s := newSafe(t)
	packed := s.mustPack(w.top, ImportOptions{})
	before := s.log()
	for _, o := range []ImportOptions{{}, {KeepExtra: true}} {
		for rel := range onDisk(t, w.top) { // reading changes times of last access
			var st unix.Stat_t
			w.do(unix.Lstat(w.at(rel), &st))
			if st.Mode&unix.S_IFMT == unix.S_IFREG {
				_, err := os.ReadFile(w.at(rel))
				w.do(err)
			}
		}
		r := s.mustUpdate(w.top, o)
		if r.Added != 0 || r.Changed != 0 || r.Removed != 0 || r.Files != packed.Files || r.Bytes != packed.Bytes {
			t.Errorf("report %+v", r)
		}
		if after := s.log(); !maps.Equal(before, after) {
			t.Errorf("the update wrote to the vault, which has %d files now, and had %d", len(after), len(before))
		}
	}
}

func TestUpdate(t *testing.T) {
	for _, c := range []struct {
		name                    string
		change                  func(w *workshop)
		added, changed, removed uint64
	}{
		{"a file more", func(w *workshop) { w.file("lib/more", "more") }, 1, 1, 0},
		{"a file less", func(w *workshop) { w.remove("lib/empty") }, 0, 1, 1},
		{"a tree less", func(w *workshop) { w.remove("a") }, 0, 3, 8}, // and two inodes have a name less
		{"a file grown", func(w *workshop) { w.file("lib/empty", strings.Repeat("x", 100_000)) }, 0, 1, 0},
		{"a file cut", func(w *workshop) { w.do(os.Truncate(w.at("lib/secret.py"), 40_000)) }, 0, 1, 0},
		{"a file emptied", func(w *workshop) { w.do(os.Truncate(w.at("lib/secret.py"), 0)) }, 0, 1, 0},
		{"a hole filled with zeros", func(w *workshop) { w.file("hole", strings.Repeat("\x00", 100_000)) }, 0, 1, 0},
		{"data become a hole", func(w *workshop) {
			w.do(os.Truncate(w.at("lib/secret.py"), 0))
			w.do(os.Truncate(w.at("lib/secret.py"), 450_000))
		}, 0, 1, 0},
		{"a mode", func(w *workshop) { w.mode("setuid", 0o755) }, 0, 1, 0},
		{"a time", func(w *workshop) { w.times("a", 1, 1) }, 0, 1, 0},
		{"a link's time", func(w *workshop) { w.times("a/link", 1, 1) }, 0, 1, 0},
		{"a link's target", func(w *workshop) { w.remove("a/link"); w.symlink("a/link", "elsewhere") }, 0, 2, 0},
		{"an attribute more", func(w *workshop) { w.xattr("hole", "user.x", "y") }, 0, 1, 0},
		{"an attribute changed", func(w *workshop) { w.xattr("lib", "user.dir", "y") }, 0, 1, 0},
		{"an attribute less", func(w *workshop) { w.do(unix.Removexattr(w.at("lib"), "user.dir")) }, 0, 1, 0},
		{"a file become a directory", func(w *workshop) { w.remove("hole"); w.file("hole/in", "it") }, 2, 1, 1},
		{"a directory become a file", func(w *workshop) { w.remove("a/b"); w.file("a/b", "x") }, 1, 2, 4},
		{"a link become a FIFO", func(w *workshop) { w.remove("a/link"); w.node("a/link", unix.S_IFIFO) }, 1, 1, 1},
		{"two files linked", func(w *workshop) { w.remove("lib/empty"); w.link("lib/empty", "setuid") }, 1, 2, 1},
		{"two links parted", func(w *workshop) { w.remove("a/hard"); w.file("a/hard", "on its own") }, 1, 2, 1},
		{"links parted with equal contents", func(w *workshop) {
			b, err := os.ReadFile(w.at("main.py"))
			w.do(err)
			w.remove("main.py")
			w.file("main.py", string(b)) // comes first and keeps the inode; the others get a new one
		}, 2, 2, 2},
		{"links swapped", func(w *workshop) {
			w.remove("a/hard")
			w.link("a/hard", "setuid")
			w.remove("setuid")
			w.link("setuid", "main.py")
		}, 2, 3, 2},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorkshop(t)
			w.one()
			s := newSafe(t)
			s.mustPack(w.top, ImportOptions{})
			c.change(w)
			r := s.mustUpdate(w.top, ImportOptions{})
			s.mustMirror(w.top)
			if r.Added != c.added || r.Changed != c.changed || r.Removed != c.removed {
				t.Errorf("added %d, changed %d, removed %d; want %d, %d, %d", r.Added, r.Changed, r.Removed, c.added, c.changed, c.removed)
			}
			before := len(s.log())
			if r = s.mustUpdate(w.top, ImportOptions{}); r.Added+r.Changed+r.Removed > 0 || len(s.log()) != before {
				t.Errorf("a second update finds something: %+v", r)
			}
		})
	}
}

// A change that neither size nor any time tells: the vault's file is altered instead of the source's.
func TestUpdateComparesContents(t *testing.T) {
	w := newWorkshop(t)
	w.file("file", strings.Repeat("0123456789", 20_000))
	s := newSafe(t)
	s.mustPack(w.top, ImportOptions{})
	want := s.inside(false)
	s.put("file", func(session *vault.Session, a *tree.Attr) error {
		return session.Write(a.Ino, 150_000, 1, func(b []byte) error { b[0] = 'X'; return nil })
	})
	if r := s.mustUpdate(w.top, ImportOptions{}); r.Changed != 1 {
		t.Errorf("report %+v", r)
	}
	mustEqual(t, "the vault", want, s.inside(false))
}

// Each part of the metadata counts by itself; only the time of last access does not.
func TestUpdateComparesMetadata(t *testing.T) {
	w := newWorkshop(t)
	w.one()
	s := newSafe(t)
	s.mustPack(w.top, ImportOptions{})
	want := s.inside(false)
	for what, change := range map[string]func(a *tree.Attr){
		"mode":  func(a *tree.Attr) { a.Mode ^= 0o001 },
		"owner": func(a *tree.Attr) { a.UID++ },
		"group": func(a *tree.Attr) { a.GID++ },
		"mtime": func(a *tree.Attr) { a.Mtime.Nsec ^= 1 },
		"ctime": func(a *tree.Attr) { a.Ctime.Nsec ^= 1 },
		"size":  func(a *tree.Attr) { a.Size += 5 },
		"atime": func(a *tree.Attr) { a.Atime.Sec++ },
	} {
		s.put("lib/secret.py", func(_ *vault.Session, a *tree.Attr) error { change(a); return nil })
		r := s.mustUpdate(w.top, ImportOptions{})
		if differs := !strings.HasPrefix(what, "atime"); differs != (r.Changed == 1) {
			t.Errorf("%s: report %+v", what, r)
		}
		mustEqual(t, "the vault after another "+what, want, s.inside(false))
	}
}

func TestKeepExtra(t *testing.T) {
	w := newWorkshop(t)
	w.file("both", "old")
	w.file("extra/file", "kept")
	w.link("extra/linked", "both")
	w.file("same", "same")
	w.link("extra/same", "same")
	s := newSafe(t)
	s.mustPack(w.top, ImportOptions{})
	kept := s.inside(false)
	w.remove("extra")
	w.remove("both")
	w.file("both", "new and longer")
	w.file("added", "x")
	r := s.mustUpdate(w.top, ImportOptions{KeepExtra: true})
	now := s.inside(false)
	if now["extra/file"] != kept["extra/file"] || now["extra"] != kept["extra"] {
		t.Errorf("what the source lacks was changed: %v", now)
	}
	// The other name of a file that changed keeps the old contents.
	if got := s.cat("extra/linked"); got != "old" {
		t.Errorf("the other name leads to %q", got)
	}
	if got := s.cat("both"); got != "new and longer" {
		t.Errorf("the name leads to %q", got)
	}
	if r.Added != 3 || r.Removed != 2 { // both and same were unlinked from names that stay
		t.Errorf("report %+v", r)
	}
	before := len(s.log())
	if r := s.mustUpdate(w.top, ImportOptions{KeepExtra: true}); r.Added+r.Changed+r.Removed > 0 || len(s.log()) != before {
		t.Errorf("a second update finds something: %+v", r)
	}
	s.mustUpdate(w.top, ImportOptions{})
	s.mustMirror(w.top)
}

func (s *safe) cat(path string) (out string) {
	s.t.Helper()
	var b strings.Builder
	s.read(func(v *vault.Vault) {
		if err := Cat(context.Background(), v, path, &b); err != nil {
			s.t.Fatal(err)
		}
	})
	return b.String()
}

// What is excluded now but was packed before goes, like all that a fresh import would not bring.
func TestUpdateExcludes(t *testing.T) {
	w := newWorkshop(t)
	w.one()
	s := newSafe(t)
	s.mustPack(w.top, ImportOptions{})
	p, err := ParsePattern("*.py")
	w.do(err)
	o := ImportOptions{Exclude: []Pattern{p}}
	s.mustUpdate(w.top, o)
	fresh := newSafe(t)
	fresh.mustPack(w.top, o)
	mustEqual(t, "the mirror", fresh.inside(false), s.inside(false))
}

func TestRandomUpdates(t *testing.T) {
	rapid.Check(t, func(r *rapid.T) {
		g := newGrower(t, r, 20)
		defer os.RemoveAll(g.top)
		s := newSafe(t)
		s.mustPack(g.top, ImportOptions{})
		for range rapid.IntRange(1, 10).Draw(r, "changes") {
			g.change()
		}
		s.mustUpdate(g.top, ImportOptions{})
		s.mustMirror(g.top)
		before := s.log()
		if r := s.mustUpdate(g.top, ImportOptions{}); r.Added+r.Changed+r.Removed > 0 || len(s.log()) != len(before) {
			t.Fatalf("a second update finds something: %+v", r)
		}
	})
}
