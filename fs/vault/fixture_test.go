package vault

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"encfsrun/fs/vault/disk"
	"encfsrun/fs/vault/seal"
	"encfsrun/fs/vault/tree"
	"encfsrun/internal/testkit/secrets"
	"encfsrun/keyring"
)

// fixture is a vault's secrets, and how tests make and open vaults with them.
type fixture struct{ *secrets.Secrets }

const (
	testVault = "/v/app.vault"
	testPins  = "/state/pins"
)

func newFixture(t testing.TB) *fixture { return &fixture{secrets.Of(t, seal.NewID(), 1, 2)} }

// unlock opens the header with the master key, as a passkey would.
func (f *fixture) unlock(fsys disk.FS) (*Unlocked, error) { return Unlock(fsys, testVault, f.Unlock) }

// open unlocks and opens for reading.
func (f *fixture) open(fsys disk.FS, o Options) (*Vault, error) {
	u, err := f.unlock(fsys)
	if err != nil {
		return nil, err
	}
	defer u.Master.Destroy()
	v, err := u.Open(fsys, o)
	if err != nil {
		u.Keys.Destroy()
	}
	return v, err
}

// state opens the vault, dumps its tree and closes it.
func (f *fixture) state(fsys disk.FS, o Options) (string, error) {
	v, err := f.open(fsys, o)
	if err != nil {
		return "", err
	}
	defer v.keys.Destroy()
	defer v.Close()
	return dump(v)
}

// update runs one session of writing.
func (f *fixture) update(fsys disk.FS, o Options, change func(*Session) error) error {
	u, err := f.unlock(fsys)
	if err != nil {
		return err
	}
	defer u.Close()
	v, err := u.OpenWriter(fsys, o)
	if err != nil {
		return err
	}
	defer v.Close()
	s, err := v.Begin()
	if err != nil {
		return err
	}
	err = change(s)
	if err == nil {
		err = s.Commit()
	}
	if err != nil {
		return errors.Join(err, s.Abort())
	}
	return s.Close()
}

func (f *fixture) create(fsys disk.FS, o Options, fill func(*Session) error) (Root, error) {
	return Create(fsys, testVault, f.Keys, []keyring.Slot{f.Slot}, o, fill)
}

// mkdir makes the folders that a vault and its pins lie in.
func mkdirs(t testing.TB, fsys disk.FS) {
	t.Helper()
	for _, d := range []string{"/v", "/state"} {
		if err := fsys.Mkdir(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := fsys.SyncDir("/"); err != nil {
		t.Fatal(err)
	}
}

// builder writes trees through a Session, naming things by path.
type builder struct {
	s    *Session
	inos map[string]Ino
	err  error
}

func newBuilder(s *Session) *builder {
	b := &builder{s: s, inos: map[string]Ino{"": tree.Root}}
	return b
}

func (b *builder) do(err error) {
	if b.err == nil {
		b.err = err
	}
}

func (b *builder) add(path string, mode uint32, size int) Ino {
	dir, name := "", path
	if i := strings.LastIndexByte(path, '/'); i >= 0 {
		dir, name = path[:i], path[i+1:]
	}
	ino := b.s.NewIno()
	b.do(b.s.Put(tree.Attr{Ino: ino, Mode: mode, UID: 7, GID: 8, Size: uint64(size), Mtime: tree.Time{Sec: 1700000000, Nsec: uint32(ino)}}))
	if path != "" {
		b.do(b.s.Link(b.inos[dir], name, ino))
	}
	b.inos[path] = ino
	return ino
}

func (b *builder) root()           { b.add("", 0o40755, 0) }
func (b *builder) dir(path string) { b.add(path, 0o40755, 0) }

func (b *builder) file(path, content string) {
	ino := b.add(path, 0o100644, len(content))
	b.write(ino, 0, content)
}

func (b *builder) write(ino Ino, off int, content string) {
	if content == "" {
		return
	}
	rest := content
	b.do(b.s.Write(ino, uint64(off), uint64(len(content)), func(p []byte) error {
		rest = rest[copy(p, rest):]
		return nil
	}))
}

func (b *builder) symlink(path, target string) {
	b.do(b.s.SetTarget(b.add(path, 0o120777, 0), target))
}

// smallTree fills a vault with one of each thing.
func smallTree(s *Session) error {
	b := newBuilder(s)
	b.root()
	b.dir("lib")
	b.file("main.py", "import lib.secret\nprint('hello')\n")
	b.file("lib/secret.py", strings.Repeat("KEY = 42\n", 5000))
	b.file("lib/empty", "")
	b.symlink("link", "lib/secret.py")
	b.do(s.Link(tree.Root, "hard.py", b.inos["main.py"]))
	b.add("fifo", 0o10600, 0)
	b.do(s.SetXattr(b.inos["main.py"], "user.note", []byte("value")))
	sparse := b.add("sparse", 0o100600, 1<<20)
	b.write(sparse, 500_000, "in the middle")
	return b.err
}

// dump describes a vault's whole tree, contents included.
func dump(v *Vault) (string, error) {
	var out strings.Builder
	seen := map[Ino]string{}
	err := dumpInode(v, &out, seen, "/", tree.Root)
	return out.String(), err
}

func dumpInode(v *Vault, out *strings.Builder, seen map[Ino]string, path string, ino Ino) error {
	a, err := v.Attr(ino)
	if err != nil {
		return err
	}
	fmt.Fprintf(out, "%q mode %o uid %d gid %d size %d links %d mtime %v", path, a.Mode, a.UID, a.GID, a.Size, a.Nlink, a.Mtime)
	if first, ok := seen[ino]; ok {
		fmt.Fprintf(out, " = %q\n", first)
		return nil
	}
	seen[ino] = path
	names, err := v.ListXattr(ino)
	if err != nil {
		return err
	}
	slices.Sort(names)
	for _, name := range names {
		value, err := v.GetXattr(ino, name)
		if err != nil {
			return err
		}
		fmt.Fprintf(out, " xattr %q=%x", name, hashOf(value))
	}
	switch a.Mode & 0o170000 {
	case 0o100000:
		content, err := readFile(v, ino, int(a.Size))
		if err != nil {
			return fmt.Errorf("%s: %w", path, err)
		}
		fmt.Fprintf(out, " content %x", hashOf(content))
	case 0o120000:
		target, err := v.Readlink(ino)
		if err != nil {
			return err
		}
		fmt.Fprintf(out, " target %q", target)
	}
	out.WriteString("\n")
	if a.Mode&0o170000 != 0o040000 {
		return nil
	}
	children := map[string]Ino{}
	if err := v.ReadDir(ino, 0, func(e tree.Entry) bool { children[e.Name] = e.Ino; return true }); err != nil {
		return err
	}
	for _, name := range slices.Sorted(maps.Keys(children)) {
		if err := dumpInode(v, out, seen, path+name+"/", children[name]); err != nil {
			return err
		}
	}
	return nil
}

func readFile(v *Vault, ino Ino, size int) ([]byte, error) {
	spans, err := v.Spans(ino, 0, size, nil)
	if err != nil {
		return nil, err
	}
	content := make([]byte, 0, size)
	plain := make([]byte, PlainSize)
	for _, s := range spans {
		if s.Hole {
			content = append(content, make([]byte, s.Len)...)
			continue
		}
		if _, err := v.LoadBlock(s.Block, plain); err != nil {
			return nil, err
		}
		content = append(content, plain[s.At:s.At+s.Len]...)
	}
	if len(content) != size {
		return nil, fmt.Errorf("%d bytes of %d", len(content), size)
	}
	return content, nil
}
