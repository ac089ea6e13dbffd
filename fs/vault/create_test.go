package vault

import (
	"os"
	"path/filepath"
	"testing"

	"encfsrun/fs/vault/disk"
	"encfsrun/keyring"
)

// TestPartialOfOthers lays what an attacker may lay in the place where a new vault is built. Nothing of it is touched, and nothing
// that it leads to.
func TestPartialOfOthers(t *testing.T) {
	cases := map[string]func(t *testing.T, partial, victim string){
		"a link in its place": func(t *testing.T, partial, victim string) { try(t, os.Symlink(victim, partial)) },
		"a log that is a link": func(t *testing.T, partial, victim string) {
			try(t, os.Mkdir(partial, 0o700))
			try(t, os.Symlink(victim, filepath.Join(partial, logDir)))
		},
		"somebody's files": func(t *testing.T, partial, victim string) {
			try(t, os.Mkdir(partial, 0o700))
			try(t, os.WriteFile(filepath.Join(partial, "thesis.tex"), []byte("x"), 0o600))
		},
		"somebody's files in log": func(t *testing.T, partial, victim string) {
			try(t, os.MkdirAll(filepath.Join(partial, logDir), 0o700))
			try(t, os.WriteFile(filepath.Join(partial, logDir, "thesis.tex"), []byte("x"), 0o600))
		},
		"a folder that others write to": func(t *testing.T, partial, victim string) {
			try(t, os.Mkdir(partial, 0o700))
			try(t, os.Chmod(partial, 0o777))
		},
	}
	for name, lay := range cases {
		t.Run(name, func(t *testing.T) {
			f, dir := newFixture(t), t.TempDir()
			victim := filepath.Join(dir, "victim")
			try(t, os.Mkdir(victim, 0o700))
			try(t, os.WriteFile(filepath.Join(victim, segmentName(1)), []byte("precious"), 0o600))
			lay(t, filepath.Join(dir, ".app.vault.partial"), victim)
			before := walk(t, dir)
			if _, err := Create(disk.OS(), filepath.Join(dir, "app.vault"), f.Keys, []keyring.Slot{f.Slot}, Options{}, smallTree); err == nil {
				t.Error("a vault was made in somebody else's folder")
			}
			if after := walk(t, dir); after != before {
				t.Errorf("before:\n%s\nafter:\n%s", before, after)
			}
		})
	}
}

func try(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// walk lists all names below a folder.
func walk(t *testing.T, dir string) (names string) {
	t.Helper()
	try(t, filepath.WalkDir(dir, func(name string, _ os.DirEntry, err error) error {
		names += name + "\n"
		return err
	}))
	return names
}
