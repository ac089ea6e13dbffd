package transfer

import (
	"fmt"
	"slices"
	"strings"
	"testing"
)

func TestNotes(t *testing.T) {
	const key = "-----BEGIN OPENSSH PRIVATE KEY-----\nb3Bl\n"
	for _, c := range []struct {
		name string
		make func(w *workshop)
		want []Note
	}{
		{"a repository", func(w *workshop) { w.file("lib/.git/config", "") }, []Note{{NoteGit, "lib/.git", ""}}},
		{"a worktree", func(w *workshop) { w.file(".git", "gitdir: ../x") }, []Note{{NoteGit, ".git", ""}}},
		{"settings", func(w *workshop) {
			w.file("web/.env", "")
			w.file(".env.production", "")
			w.file(".env.example", "")
			w.dir("lib/.env")
		},
			[]Note{{NoteEnv, ".env.production", ""}, {NoteEnv, "web/.env", ""}}},
		{"a key", func(w *workshop) { w.file("etc/server.pem", "# mine\n"+key) }, []Note{{NotePrivateKey, "etc/server.pem", ""}}},
		{"a key after a certificate", func(w *workshop) {
			w.file("x", "-----BEGIN CERTIFICATE-----\nx\n-----END CERTIFICATE-----\n-----BEGIN RSA PRIVATE KEY-----\n")
		}, []Note{{NotePrivateKey, "x", ""}}},
		{"a key by its name", func(w *workshop) { w.file("id_ed25519", "?"); w.file("id_ed25519.pub", "ssh-ed25519") }, []Note{{NotePrivateKey, "id_ed25519", ""}}},
		{"no keys", func(w *workshop) {
			w.file("cert.pem", "-----BEGIN CERTIFICATE-----\nPRIVATE KEY-----\n")
			w.file("public", "-----BEGIN PUBLIC KEY-----\n")
			w.file("late", strings.Repeat("x", headSize)+key)
			w.file("large", key+strings.Repeat("x", keyMaxSize))
			w.file("cut", "-----BEGIN RSA PRIVATE KEY----")
		}, nil},
		{"links", func(w *workshop) {
			w.symlink("absolute", "/usr/bin/python3")
			w.dir("lib/deep")
			w.symlink("lib/deep/out", "../../../etc")
			w.symlink("lib/deep/in", "../../lib")
			w.symlink("lib/deep/top", "../..")
			w.symlink("up", "..")
			w.symlink("dots", "..x")
		}, []Note{{NoteAbsolute, "absolute", "/usr/bin/python3"}, {NoteOutside, "up", ".."}, {NoteOutside, "lib/deep/out", "../../../etc"}}},
		{"interpreters", func(w *workshop) {
			w.file("venv/bin/run", "#! "+w.top+"/venv/bin/python3 -I\nprint()\n")
			w.file("system", "#!/usr/bin/python3\n")
			w.file("other", "#!"+w.top+"-other/python\n")
			w.file("text", w.top+"/venv")
		}, []Note{{NoteShebang, "venv/bin/run", "venv/bin/python3 -I"}}},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorkshop(t)
			c.make(w)
			s := newSafe(t)
			for _, r := range []Report{s.mustPack(w.top, ImportOptions{}), s.mustUpdate(w.top, ImportOptions{})} {
				for i := range r.Notes {
					r.Notes[i].Detail = strings.TrimPrefix(r.Notes[i].Detail, w.top+"/")
				}
				if !slices.Equal(r.Notes, c.want) {
					t.Errorf("notes %v, want %v", r.Notes, c.want)
				}
			}
		})
	}
}

func TestManyNotes(t *testing.T) {
	w := newWorkshop(t)
	for i := range notesPerKind + 7 {
		w.symlink(fmt.Sprint(i), "/x")
	}
	w.file("z/.env", "")
	r := newSafe(t).mustPack(w.top, ImportOptions{})
	if len(r.Notes) != notesPerKind+1 || r.Unlisted[NoteAbsolute] != 7 || len(r.Unlisted) != 1 {
		t.Errorf("%d notes, unlisted %v", len(r.Notes), r.Unlisted)
	}
}
