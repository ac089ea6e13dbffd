package disk

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"testing"
)

// TestRenameExclusively holds the way without the kernel's help to the same rules.
func TestRenameExclusively(t *testing.T) {
	tests := []struct {
		name             string
		oldname, newname string
		want             error
	}{
		{"file to a free name", "a", "z", nil},
		{"symbolic link to a free name", "link", "z", nil},
		{"directory to a free name", "full", "z", nil},
		{"file onto a file", "a", "b", fs.ErrExist},
		{"file onto itself", "a", "a", fs.ErrExist},
		{"file onto a directory", "a", "empty", fs.ErrExist},
		{"directory onto a file", "full", "a", fs.ErrExist},
		{"directory onto an empty directory", "full", "empty", fs.ErrExist},
		{"directory onto a full directory", "empty", "full", fs.ErrExist},
		{"directory onto a dangling link", "full", "link", fs.ErrExist},
		{"directory into itself", "full", "full/z", syscall.EINVAL},
		{"missing", "missing", "z", fs.ErrNotExist},
		{"into a missing directory", "full", "missing/z", fs.ErrNotExist},
		{"below a file", "full", "a/z", syscall.ENOTDIR},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			dir := t.TempDir()
			at := func(name string) string { return filepath.Join(dir, name) }
			err := errors.Join(
				os.WriteFile(at("a"), []byte("a"), 0o600),
				os.WriteFile(at("b"), []byte("b"), 0o600),
				os.Symlink("nowhere", at("link")),
				os.Mkdir(at("empty"), 0o700),
				os.Mkdir(at("full"), 0o700),
				os.WriteFile(at("full/x"), []byte("x"), 0o600))
			if err != nil {
				t.Fatal(err)
			}
			before, err := os.Lstat(at(test.oldname))
			if err != nil && !errors.Is(test.want, fs.ErrNotExist) {
				t.Fatal(err)
			}
			err = linkError("rename", at(test.oldname), at(test.newname), renameExclusively(at(test.oldname), at(test.newname)))
			if !errors.Is(err, test.want) {
				t.Fatalf("error %v, want %v", err, test.want)
			}
			if test.want != nil {
				names, err := OS().List(dir)
				if err != nil || len(names) != 5 {
					t.Errorf("the directory holds %q, %v", names, err)
				}
				if data, _ := os.ReadFile(at("b")); string(data) != "b" {
					t.Errorf("b holds %q", data)
				}
				return
			}
			after, err := os.Lstat(at(test.newname))
			if err != nil || !os.SameFile(before, after) {
				t.Errorf("the new name is another file, %v", err)
			}
			if _, err := os.Lstat(at(test.oldname)); !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("the old name: %v", err)
			}
		})
	}
}
