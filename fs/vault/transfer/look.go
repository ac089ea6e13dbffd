package transfer

import (
	"context"
	"io"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"encfsrun/fs/vault"
	"encfsrun/fs/vault/tree"
)

// Listed is a name that List found.
type Listed struct {
	Path   string // relative to the directory listed; for all else that is listed, the path that was given
	Attr   tree.Attr
	Target string // of a symbolic link
}

// List yields the names in a directory of a vault in their order, recursively those in its subdirectories after each; of
// anything else that path leads to, that alone. It ends when yield gives an error, and returns it. See Resolve for path.
func List(v *vault.Vault, path string, recursive bool, yield func(Listed) error) error {
	ino, err := Resolve(v, path)
	if err != nil {
		return err
	}
	a, err := v.Attr(ino)
	if err != nil {
		return err
	}
	if !isDir(a.Mode) {
		return yield(Listed{Path: path, Attr: a})
	}
	return listDir(v, ino, "", recursive, yield)
}

func listDir(v *vault.Vault, dir vault.Ino, rel string, recursive bool, yield func(Listed) error) error {
	entries, err := entriesOf(v, dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		l := Listed{Path: join(rel, e.Name)}
		if l.Attr, err = v.Attr(e.Ino); err == nil && e.Mode&unix.S_IFMT == unix.S_IFLNK {
			l.Target, err = v.Readlink(e.Ino)
		}
		if err == nil {
			err = yield(l)
		}
		if err == nil && recursive && isDir(e.Mode) {
			err = listDir(v, e.Ino, l.Path, true, yield)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// entriesOf lists a directory of a vault, sorted by name.
func entriesOf(v *vault.Vault, dir vault.Ino) ([]tree.Entry, error) {
	var entries []tree.Entry
	err := v.ReadDir(dir, 0, func(e tree.Entry) bool {
		entries = append(entries, e)
		return true
	})
	slices.SortFunc(entries, func(a, b tree.Entry) int { return strings.Compare(a.Name, b.Name) })
	return entries, err
}

// Cat writes a regular file of a vault to w, straight out of guarded memory. See Resolve for path; damage is an error that
// wraps a *vault.IntegrityError and names the file, and w has what comes before it.
func Cat(ctx context.Context, v *vault.Vault, path string, w io.Writer) error {
	ino, err := Resolve(v, path)
	if err != nil {
		return err
	}
	a, err := v.Attr(ino)
	if err != nil {
		return err
	}
	if a.Mode&unix.S_IFMT != unix.S_IFREG {
		return &PathError{path, ErrNotFile}
	}
	c, err := openContents(ctx, v)
	if err != nil {
		return err
	}
	defer c.close()
	zeros := make([]byte, vault.PlainSize)
	var writing error
	err = c.each(ino, 0, a.Size, func(_ uint64, b []byte, n int) error {
		for n > 0 && writing == nil {
			part := b
			if b == nil {
				part = zeros[:min(n, len(zeros))]
			}
			_, writing = w.Write(part)
			n -= len(part)
		}
		return writing
	})
	if err != nil && writing == nil {
		return inFile(path, err)
	}
	return err
}
