package transfer

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"encfsrun/fs/vault"
	"encfsrun/fs/vault/disk"
)

// packDuring imports src and calls act when a file is read for the time-th time.
func (s *safe) packDuring(src, rel string, time int, act func()) error {
	return s.create(func(session *vault.Session) error {
		m := &importer{ctx: context.Background(), session: session}
		m.beforeRead = func(read string) {
			if read == rel {
				if time--; time == 0 {
					act()
				}
			}
		}
		_, err := m.run(src, &ImportOptions{})
		if err == nil && time > 0 {
			s.t.Fatalf("%s was not read that often", rel)
		}
		return err
	})
}

// A source that moves is an error that names what moved, and there is no vault.
func TestMovingSource(t *testing.T) {
	outside := filepath.Join(t.TempDir(), "outside")
	if err := os.MkdirAll(outside+"/sub", 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(outside+"/sub/secret", []byte("not of the source"), 0o644); err != nil {
		t.Fatal(err)
	}
	changed := func(rel string) func(w *workshop, err error) bool {
		return func(w *workshop, err error) bool {
			var c *ChangedError
			return errors.As(err, &c) && c.Path == w.at(rel)
		}
	}
	vanished := func(rel string) func(w *workshop, err error) bool {
		return func(w *workshop, err error) bool {
			var c *SourceError
			return errors.As(err, &c) && c.Path == w.at(rel) && errors.Is(err, fs.ErrNotExist)
		}
	}
	for _, c := range []struct {
		name string
		time int // which reading of the file "big"; the first looks at its head
		act  func(w *workshop)
		want func(w *workshop, err error) bool
	}{
		{"cut to nothing", 2, func(w *workshop) { w.do(os.Truncate(w.at("big"), 0)) }, changed("big")},
		{"cut by a byte", 5, func(w *workshop) { w.do(os.Truncate(w.at("big"), 199_999)) }, changed("big")},
		{"cut before its head is read", 1, func(w *workshop) { w.do(os.Truncate(w.at("big"), 10)) }, changed("big")},
		{"grown", 3, func(w *workshop) { w.do(os.Truncate(w.at("big"), 300_000)) }, changed("big")},
		{"written to in place", 3, func(w *workshop) { w.overwrite("big") }, changed("big")},
		{"given another mode", 3, func(w *workshop) { w.mode("big", 0o600) }, changed("big")},
		{"replaced by itself while it is read", 3, func(w *workshop) { w.replace("big") }, changed("big")},
		{"another file written to before its turn", 1, func(w *workshop) { w.overwrite("next") }, changed("next")},
		{"another file gone before its turn", 1, func(w *workshop) { w.remove("next") }, vanished("next")},
		{"another file become a link", 1, func(w *workshop) {
			w.remove("next")
			w.symlink("next", outside+"/sub/secret")
		}, changed("next")},
		{"another file become a FIFO", 1, func(w *workshop) { w.remove("next"); w.node("next", unix.S_IFIFO) }, changed("next")},
		{"a directory gone before its turn", 1, func(w *workshop) { w.remove("sub") }, changed("")},
		{"a directory become a link", 1, func(w *workshop) {
			w.do(os.Rename(w.at("sub"), w.top+"-moved"))
			w.symlink("sub", outside+"/sub")
		}, changed("")},
		{"a deeper directory become a link", 1, func(w *workshop) {
			w.do(os.Rename(w.at("sub/deep"), w.top+"-moved"))
			w.symlink("sub/deep", outside+"/sub")
		}, changed("sub")},
		{"a file made meanwhile", 1, func(w *workshop) { w.file("zz", "") }, changed("")},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorkshop(t)
			w.file("big", strings.Repeat("x", 200_000))
			w.file("next", strings.Repeat("y", 1000))
			w.file("sub/deep/file", "z")
			s := newSafe(t)
			err := s.packDuring(w.top, "big", c.time, func() { c.act(w) })
			if !c.want(w, err) {
				t.Errorf("the error is %v", err)
			}
			if names, err := s.disk.List("/v"); err != nil || len(names) > 0 {
				t.Errorf("left behind: %v, %v", names, err)
			}
		})
	}
}

// overwrite changes a byte in place, and puts the time of change of the contents back.
func (w *workshop) overwrite(rel string) {
	w.t.Helper()
	var st unix.Stat_t
	w.do(unix.Stat(w.at(rel), &st))
	f, err := os.OpenFile(w.at(rel), os.O_WRONLY, 0)
	w.do(err)
	_, err = f.WriteAt([]byte("X"), 0)
	w.do(err)
	w.do(f.Close())
	w.do(unix.UtimesNano(w.at(rel), []unix.Timespec{st.Atim, st.Mtim}))
}

// replace renames a copy over a file, as editors do.
func (w *workshop) replace(rel string) {
	w.t.Helper()
	b, err := os.ReadFile(w.at(rel))
	w.do(err)
	w.do(os.WriteFile(w.top+"-copy", b, 0o644))
	w.do(os.Rename(w.top+"-copy", w.at(rel)))
}

// A directory that is swapped for a link between listing and opening leads nowhere; without the check of its parent this
// alone would have to hold.
func TestSwappedDirectory(t *testing.T) {
	w := newWorkshop(t)
	w.file("sub/file", "x")
	src, fd, err := openSource(w.top, &ImportOptions{})
	w.do(err)
	defer unix.Close(fd)
	e, _, err := src.stat(fd, "", "sub")
	w.do(err)
	w.do(os.Rename(w.at("sub"), w.at("moved")))
	w.symlink("sub", "moved")
	var changed *ChangedError
	if fd, err := src.open(fd, "sub", "sub", stampOf(&e.st), unix.O_DIRECTORY); !errors.As(err, &changed) {
		t.Errorf("opened: %d, %v", fd, err)
	}
	w.remove("sub")
	w.dir("sub")
	if fd, err := src.open(fd, "sub", "sub", stampOf(&e.st), unix.O_DIRECTORY); !errors.As(err, &changed) {
		t.Errorf("another directory was opened: %d, %v", fd, err)
	}
}

// The same while an existing vault is brought up to date: it stays as it was.
func TestMovingSourceUpdate(t *testing.T) {
	w := newWorkshop(t)
	w.file("big", strings.Repeat("x", 200_000))
	s := newSafe(t)
	s.mustPack(w.top, ImportOptions{})
	want, log := s.inside(true), s.log()
	w.file("added", "")
	for _, time := range []int{1, 2, 4} { // before the head, and while it is compared
		_, err := s.updateBy(func(session *vault.Session, v *vault.Vault) (Report, error) {
			old, err := openContents(context.Background(), v)
			w.do(err)
			defer old.close()
			m := &importer{ctx: context.Background(), session: session, old: &existing{v: v, contents: old, claimed: map[vault.Ino]bool{}}}
			n := 0
			m.beforeRead = func(string) {
				if n++; n == time {
					w.overwrite("big")
				}
			}
			return m.run(w.top, &ImportOptions{})
		})
		var changed *ChangedError
		if !errors.As(err, &changed) || changed.Path != w.at("big") {
			t.Errorf("the error is %v", err)
		}
		mustEqual(t, "the vault", want, s.inside(true))
		mustEqual(t, "the log", log, s.log())
	}
}

func TestBadSource(t *testing.T) {
	w := newWorkshop(t)
	w.file("file", "")
	for path, want := range map[string]error{"missing": unix.ENOENT, "file": unix.ENOTDIR} {
		var source *SourceError
		if _, err := newSafe(t).pack(w.at(path), ImportOptions{}); !errors.As(err, &source) || !errors.Is(err, want) || source.Path != w.at(path) {
			t.Errorf("%s: %v", path, err)
		}
		if _, err := Scan(context.Background(), w.at(path), ImportOptions{}); !errors.As(err, &source) || !errors.Is(err, want) {
			t.Errorf("scan %s: %v", path, err)
		}
	}
}

func TestSourceIsLink(t *testing.T) {
	w := newWorkshop(t)
	w.one()
	link := w.top + "-link"
	w.do(os.Symlink(w.top, link))
	s := newSafe(t)
	s.mustPack(link, ImportOptions{})
	s.mustMirror(w.top)
}

func TestImportIntoFullVault(t *testing.T) {
	w := newWorkshop(t)
	s := newSafe(t)
	s.mustPack(w.top, ImportOptions{})
	_, err := s.updateBy(func(session *vault.Session, _ *vault.Vault) (Report, error) {
		return Import(context.Background(), session, w.top, ImportOptions{})
	})
	if err == nil || !strings.Contains(err.Error(), "not empty") {
		t.Errorf("the error is %v", err)
	}
}

func TestCancel(t *testing.T) {
	w := newWorkshop(t)
	w.file("big", strings.Repeat("x", 200_000))
	ctx, cancel := context.WithCancel(context.Background())
	s := newSafe(t)
	err := s.create(func(session *vault.Session) error {
		m := &importer{ctx: ctx, session: session}
		reads := 0
		m.beforeRead = func(string) {
			if reads++; reads == 2 {
				cancel()
			} else if reads > 2 {
				t.Error("read on after it was stopped")
			}
		}
		_, err := m.run(w.top, &ImportOptions{})
		return err
	})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("the error is %v", err)
	}
	if _, err := Scan(ctx, w.top, ImportOptions{}); !errors.Is(err, context.Canceled) {
		t.Errorf("scan: %v", err)
	}
	s.mustPack(w.top, ImportOptions{})
	if _, err := s.updateBy(func(session *vault.Session, v *vault.Vault) (Report, error) {
		return Update(ctx, session, v, w.top, ImportOptions{})
	}); !errors.Is(err, context.Canceled) {
		t.Errorf("update: %v", err)
	}
	s.read(func(v *vault.Vault) {
		if err := Cat(ctx, v, "big", os.Stdout); !errors.Is(err, context.Canceled) {
			t.Errorf("cat: %v", err)
		}
		if _, err := Export(ctx, v, "", t.TempDir(), ExportOptions{}); !errors.Is(err, context.Canceled) {
			t.Errorf("export: %v", err)
		}
	})
}

// A vault inside its own source, and the folder that it is built in, are left out.
func TestVaultInsideSource(t *testing.T) {
	w := newWorkshop(t)
	w.file("code/file", "x")
	s := newSafeAt(t, disk.OS(), w.at("code/app.vault"))
	o := ImportOptions{Vault: w.top + "/./code/app.vault"}
	r := s.mustPack(w.top, o)
	if want := []Note{{NoteVault, "code/.app.vault.partial", ""}}; !slices.Equal(r.Notes, want) {
		t.Errorf("notes %v", r.Notes)
	}
	want := []string{"", "code", "code/file"}
	if got := s.paths(); !slices.Equal(got, want) {
		t.Errorf("packed %q", got)
	}
	w.symlink("way", "code/app.vault")
	r = s.mustUpdate(w.top, ImportOptions{Vault: w.at("way")})
	if want := []Note{{NoteVault, "code/app.vault", ""}}; !slices.Equal(r.Notes, want) {
		t.Errorf("notes %v", r.Notes)
	}
	if got := s.paths(); !slices.Equal(got, append(want, "way")) {
		t.Errorf("packed %q", got)
	}
}
