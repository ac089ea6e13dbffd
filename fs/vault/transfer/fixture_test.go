package transfer

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"encfsrun/fs/vault"
	"encfsrun/fs/vault/disk"
	"encfsrun/fs/vault/disk/memdisk"
	"encfsrun/fs/vault/seal"
	"encfsrun/fs/vault/tree"
	"encfsrun/internal/testkit/secrets"
	"encfsrun/keyring"
)

// safe is a vault and its secrets.
type safe struct {
	*secrets.Secrets
	t      testing.TB
	disk   disk.FS
	path   string
	inodes uint64 // in the tree at the end of the last update
}

// newSafe prepares a vault in memory.
func newSafe(t testing.TB) *safe {
	t.Helper()
	fsys := memdisk.New()
	if err := fsys.Mkdir("/v", 0o755); err != nil {
		t.Fatal(err)
	}
	return newSafeAt(t, fsys, "/v/app.vault")
}

func newSafeAt(t testing.TB, fsys disk.FS, path string) *safe {
	t.Helper()
	return &safe{Secrets: secrets.Of(t, seal.NewID(), 1, 2), t: t, disk: fsys, path: path}
}

// create makes the vault with what fill writes.
func (s *safe) create(fill func(*vault.Session) error) error {
	_, err := vault.Create(s.disk, s.path, s.Keys, []keyring.Slot{s.Slot}, vault.Options{}, fill)
	return err
}

// pack imports src into the new vault.
func (s *safe) pack(src string, o ImportOptions) (r Report, err error) {
	err = s.create(func(session *vault.Session) error {
		r, err = Import(context.Background(), session, src, o)
		return err
	})
	return r, err
}

func (s *safe) mustPack(src string, o ImportOptions) Report {
	s.t.Helper()
	r, err := s.pack(src, o)
	if err != nil {
		s.t.Fatal(err)
	}
	return r
}

// update runs Update, or what a test does in its place, as pack --update would.
func (s *safe) updateBy(change func(*vault.Session, *vault.Vault) (Report, error)) (r Report, err error) {
	u := s.unlock()
	defer u.Close()
	v, err := u.OpenWriter(s.disk, vault.Options{})
	if err != nil {
		return r, err
	}
	defer v.Close()
	session, err := v.Begin()
	if err != nil {
		return r, err
	}
	if r, err = change(session, v); err == nil {
		err = session.Commit()
	}
	s.inodes = v.Stats().Inodes
	if err != nil {
		return r, errors.Join(err, session.Abort())
	}
	return r, session.Close()
}

func (s *safe) update(src string, o ImportOptions) (Report, error) {
	return s.updateBy(func(session *vault.Session, v *vault.Vault) (Report, error) {
		return Update(context.Background(), session, v, src, o)
	})
}

func (s *safe) mustUpdate(src string, o ImportOptions) Report {
	s.t.Helper()
	r, err := s.update(src, o)
	if err != nil {
		s.t.Fatal(err)
	}
	return r
}

func (s *safe) unlock() *vault.Unlocked {
	s.t.Helper()
	u, err := vault.Unlock(s.disk, s.path, s.Unlock)
	if err != nil {
		s.t.Fatal(err)
	}
	return u
}

// read opens the vault for f.
func (s *safe) read(f func(*vault.Vault)) {
	s.t.Helper()
	u := s.unlock()
	defer u.Close()
	v, err := u.Open(s.disk, vault.Options{})
	if err != nil {
		s.t.Fatal(err)
	}
	defer v.Close()
	f(v)
}

// export writes the vault to a new directory.
func (s *safe) export() (dst string, r Report) {
	s.t.Helper()
	dst = filepath.Join(s.t.TempDir(), "out")
	s.read(func(v *vault.Vault) {
		var err error
		if r, err = Export(context.Background(), v, "", dst, ExportOptions{}); err != nil {
			s.t.Fatal(err)
		}
	})
	return dst, r
}

// paths lists all that the vault holds, sorted, the root as "".
func (s *safe) paths() []string { return slices.Sorted(maps.Keys(s.inside(false))) }

// put changes an inode of the vault behind the back of any source.
func (s *safe) put(path string, change func(*vault.Session, *tree.Attr) error) {
	s.t.Helper()
	_, err := s.updateBy(func(session *vault.Session, v *vault.Vault) (Report, error) {
		ino, err := Resolve(v, path)
		if err != nil {
			return Report{}, err
		}
		a, err := v.Attr(ino)
		if err == nil {
			err = change(session, &a)
		}
		return Report{}, errors.Join(err, session.Put(a))
	})
	if err != nil {
		s.t.Fatal(err)
	}
}

func (s *safe) putMode(path string, mode uint32) {
	s.t.Helper()
	s.put(path, func(_ *vault.Session, a *tree.Attr) error { a.Mode = mode; return nil })
}

func (s *safe) putOwner(path string, uid, gid uint32) {
	s.t.Helper()
	s.put(path, func(_ *vault.Session, a *tree.Attr) error { a.UID, a.GID = uid, gid; return nil })
}

func (s *safe) putXattr(path, name, value string) {
	s.t.Helper()
	s.put(path, func(session *vault.Session, a *tree.Attr) error { return session.SetXattr(a.Ino, name, []byte(value)) })
}

// inside describes all that the vault holds, by path. Times of last access only where told: an update leaves them.
func (s *safe) inside(atimes bool) (out map[string]string) {
	s.t.Helper()
	out = map[string]string{}
	s.read(func(v *vault.Vault) {
		c, err := openContents(context.Background(), v)
		if err != nil {
			s.t.Fatal(err)
		}
		defer c.close()
		d := &describer{v: v, c: c, atimes: atimes, out: out, first: map[vault.Ino]string{}}
		if err := d.inode("", tree.Root); err != nil {
			s.t.Fatal(err)
		}
	})
	return out
}

type describer struct {
	v      *vault.Vault
	c      *contents
	atimes bool
	out    map[string]string
	first  map[vault.Ino]string
}

func (d *describer) inode(path string, ino vault.Ino) error {
	a, err := d.v.Attr(ino)
	if err != nil {
		return err
	}
	if first, ok := d.first[ino]; ok {
		d.out[path] = "= " + first
		return nil
	}
	d.first[ino] = path
	line := fmt.Sprintf("%o %d:%d links %d m%v c%v", a.Mode, a.UID, a.GID, a.Nlink, a.Mtime, a.Ctime)
	if d.atimes {
		line += fmt.Sprint(" a", a.Atime)
	}
	names, err := d.v.ListXattr(ino)
	slices.Sort(names)
	for _, name := range names {
		value, _ := d.v.GetXattr(ino, name)
		line += fmt.Sprintf(" %s=%x", name, value)
	}
	switch a.Mode & unix.S_IFMT {
	case unix.S_IFREG:
		sum := sha256.New()
		err = d.c.each(ino, 0, a.Size, func(off uint64, b []byte, n int) error {
			if b == nil {
				line += fmt.Sprintf(" hole %d+%d", off, n)
			}
			sum.Write(b)
			return nil
		})
		line += fmt.Sprintf(" size %d %x", a.Size, sum.Sum(nil)[:8])
	case unix.S_IFLNK:
		var target string
		target, err = d.v.Readlink(ino)
		line += fmt.Sprintf(" -> %q", target)
	}
	d.out[path] = line
	if err != nil || !isDir(a.Mode) {
		return err
	}
	entries, err := entriesOf(d.v, ino)
	for _, e := range entries {
		if err == nil {
			err = d.inode(join(path, e.Name), e.Ino)
		}
	}
	return err
}

// onDisk describes a tree of the host by path, by other means than the code that is tested. Not the times of change, which
// nobody can set, and not the times of last access, which our own looking changes: export's are looked at by a test of theirs.
func onDisk(t testing.TB, top string) map[string]string {
	t.Helper()
	out := map[string]string{}
	first := map[uint64]string{}
	err := filepath.WalkDir(top, func(path string, _ os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel := strings.TrimPrefix(strings.TrimPrefix(path, top), "/")
		var st unix.Stat_t
		if err := unix.Lstat(path, &st); err != nil {
			return err
		}
		isDir := st.Mode&unix.S_IFMT == unix.S_IFDIR
		if was, ok := first[st.Ino]; ok && !isDir {
			out[rel] = "= " + was
			return nil
		}
		first[st.Ino] = rel
		line := fmt.Sprintf("%o %d:%d m%d.%09d", st.Mode, st.Uid, st.Gid, st.Mtim.Sec, st.Mtim.Nsec)
		if !isDir {
			line += fmt.Sprint(" links ", st.Nlink)
		}
		line += xattrsOnDisk(t, path)
		switch st.Mode & unix.S_IFMT {
		case unix.S_IFREG:
			line += fileOnDisk(t, path, st.Size)
		case unix.S_IFLNK:
			target, err := os.Readlink(path)
			if err != nil {
				return err
			}
			line += fmt.Sprintf(" -> %q", target)
		}
		out[rel] = line
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func xattrsOnDisk(t testing.TB, path string) (line string) {
	t.Helper()
	list := make([]byte, 64<<10)
	n, err := unix.Llistxattr(path, list)
	if err != nil {
		t.Fatal(err)
	}
	names := strings.FieldsFunc(string(list[:n]), func(r rune) bool { return r == 0 })
	slices.Sort(names)
	for _, name := range names {
		value := make([]byte, 64<<10)
		n, err := unix.Lgetxattr(path, name, value)
		if err != nil {
			t.Fatal(err)
		}
		line += fmt.Sprintf(" %s=%x", name, value[:n])
	}
	return line
}

func fileOnDisk(t testing.TB, path string, size int64) (line string) {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for at := int64(0); at < size; {
		hole, err := unix.Seek(int(f.Fd()), at, unix.SEEK_HOLE)
		if err != nil {
			t.Fatal(err)
		}
		data, err := unix.Seek(int(f.Fd()), hole, unix.SEEK_DATA)
		if errors.Is(err, unix.ENXIO) {
			data = size
		} else if err != nil {
			t.Fatal(err)
		}
		if hole < size {
			line += fmt.Sprintf(" hole %d+%d", hole, data-hole)
		}
		at = data
	}
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		t.Fatal(err)
	}
	sum := sha256.New()
	if _, err := io.Copy(sum, f); err != nil {
		t.Fatal(err)
	}
	return line + fmt.Sprintf(" size %d %x", size, sum.Sum(nil)[:8])
}

// mustEqual compares two descriptions.
func mustEqual(t testing.TB, what string, want, got map[string]string) {
	t.Helper()
	if diff := cmp.Diff(want, got); diff != "" {
		t.Fatalf("%s differs (-want +got):\n%s", what, diff)
	}
	if len(want) < 2 {
		t.Fatalf("%s: nothing was compared: %v", what, slices.Collect(maps.Keys(want)))
	}
}
