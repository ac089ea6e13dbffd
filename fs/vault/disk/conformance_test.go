package disk_test

import (
	"bytes"
	"errors"
	"io"
	"io/fs"
	"path"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"

	"encfsrun/fs/vault/disk"
	"encfsrun/fs/vault/disk/memdisk"
)

// TestConformance holds every implementation to the same rules, so that what passes
// over the disk in memory may be expected of the machine.
func TestConformance(t *testing.T) {
	implementations := []struct {
		name string
		make func(t *testing.T) (fsys disk.FS, root string)
	}{
		{"os", func(t *testing.T) (disk.FS, string) { return disk.OS(), t.TempDir() }},
		{"memdisk", func(t *testing.T) (disk.FS, string) { return memdisk.New(), "/" }},
	}
	rules := []struct {
		name string
		test func(c *conformance)
	}{
		{"read and write", (*conformance).readWrite},
		{"holes", (*conformance).holes},
		{"create", (*conformance).create},
		{"open", (*conformance).open},
		{"read-only", (*conformance).readOnly},
		{"close", (*conformance).close},
		{"mkdir and list", (*conformance).mkdirList},
		{"lstat", (*conformance).lstat},
		{"remove", (*conformance).remove},
		{"unlinked file", (*conformance).unlinked},
		{"rename file", (*conformance).renameFile},
		{"rename directory", (*conformance).renameDir},
		{"rename without replacing", (*conformance).renameNoReplace},
		{"rename refused", (*conformance).renameRefused},
		{"sync", (*conformance).sync},
		{"lock", (*conformance).lock},
		{"reserve", (*conformance).reserve},
		{"concurrent use", (*conformance).concurrent},
	}
	for _, implementation := range implementations {
		t.Run(implementation.name, func(t *testing.T) {
			for _, rule := range rules {
				t.Run(rule.name, func(t *testing.T) {
					fsys, root := implementation.make(t)
					rule.test(&conformance{t, fsys, root})
				})
			}
		})
	}
}

// conformance is one rule's run on an empty directory.
type conformance struct {
	*testing.T
	fs   disk.FS
	root string
}

func (c *conformance) at(name string) string { return path.Join(c.root, name) }

func (c *conformance) ok(err error) {
	c.Helper()
	if err != nil {
		c.Fatal(err)
	}
}

// fails checks an error, and that it names the object.
func (c *conformance) fails(err, want error, name string) {
	c.Helper()
	if !errors.Is(err, want) {
		c.Errorf("error %v, want %v", err, want)
	} else if !strings.Contains(err.Error(), name) {
		c.Errorf("error %q does not name %s", err, name)
	}
}

func (c *conformance) write(name, data string) disk.File {
	c.Helper()
	f, err := c.fs.Create(c.at(name), 0o600)
	c.ok(err)
	n, err := f.WriteAt([]byte(data), 0)
	c.ok(err)
	if n != len(data) {
		c.Fatalf("%d bytes written of %d", n, len(data))
	}
	c.Cleanup(func() { f.Close() })
	return f
}

func (c *conformance) holds(name, want string) {
	c.Helper()
	f, err := c.fs.Open(c.at(name))
	c.ok(err)
	defer f.Close()
	size, err := f.Size()
	c.ok(err)
	got := make([]byte, size)
	_, err = f.ReadAt(got, 0)
	c.ok(err)
	if string(got) != want {
		c.Errorf("%s holds %q, want %q", name, got, want)
	}
}

func (c *conformance) lists(dir string, want ...string) {
	c.Helper()
	names, err := c.fs.List(c.at(dir))
	c.ok(err)
	if !slices.Equal(names, want) {
		c.Errorf("%s lists %q, want %q", dir, names, want)
	}
}

func (c *conformance) readWrite() {
	f := c.write("a", "hello world")
	buf := make([]byte, 5)
	for _, test := range []struct {
		off  int64
		want string
		err  error
	}{{0, "hello", nil}, {6, "world", nil}, {8, "rld", io.EOF}, {11, "", io.EOF}, {1 << 40, "", io.EOF}} {
		n, err := f.ReadAt(buf, test.off)
		if string(buf[:n]) != test.want || err != test.err {
			c.Errorf("at %d: %q, %v; want %q, %v", test.off, buf[:n], err, test.want, test.err)
		}
	}
	if n, err := f.ReadAt(nil, 3); n != 0 || err != nil {
		c.Errorf("empty read: %d, %v", n, err)
	}
	if _, err := f.ReadAt(buf, -1); err == nil || err == io.EOF {
		c.Errorf("read before the beginning: %v", err)
	}
	if _, err := f.WriteAt(buf, -1); err == nil {
		c.Error("write before the beginning: no error")
	}
	_, err := f.WriteAt([]byte("J"), 0)
	c.ok(err)
	_, err = f.WriteAt([]byte("D!"), 10)
	c.ok(err)
	_, err = f.WriteAt(nil, 100)
	c.ok(err)
	c.holds("a", "Jello worlD!")

	big := bytes.Repeat([]byte("0123456789"), 10_000)
	_, err = f.WriteAt(big, 4090)
	c.ok(err)
	got := make([]byte, len(big))
	_, err = f.ReadAt(got, 4090)
	c.ok(err)
	if !bytes.Equal(got, big) {
		c.Error("a write over many pages reads back differently")
	}
}

func (c *conformance) holes() {
	f := c.write("a", "a")
	_, err := f.WriteAt([]byte("b"), 10_000)
	c.ok(err)
	c.holds("a", "a"+strings.Repeat("\x00", 9999)+"b")
}

func (c *conformance) create() {
	c.write("a", "1")
	_, err := c.fs.Create(c.at("a"), 0o600)
	c.fails(err, fs.ErrExist, c.at("a"))
	c.holds("a", "1")
	c.ok(c.fs.Mkdir(c.at("d"), 0o700))
	_, err = c.fs.Create(c.at("d"), 0o600)
	c.fails(err, fs.ErrExist, c.at("d"))
	_, err = c.fs.Create(c.at("missing/a"), 0o600)
	c.fails(err, fs.ErrNotExist, c.at("missing/a"))
	_, err = c.fs.Create(c.at("a/b"), 0o600)
	c.fails(err, syscall.ENOTDIR, c.at("a/b"))
}

func (c *conformance) open() {
	c.write("a", "1")
	c.ok(c.fs.Mkdir(c.at("d"), 0o700))
	for _, open := range []func(string) (disk.File, error){c.fs.Open, c.fs.OpenWrite} {
		_, err := open(c.at("missing"))
		c.fails(err, fs.ErrNotExist, c.at("missing"))
		_, err = open(c.at("d"))
		c.fails(err, disk.ErrNotRegular, c.at("d"))
		_, err = open(c.at("a/b"))
		c.fails(err, syscall.ENOTDIR, c.at("a/b"))
	}
	f, err := c.fs.OpenWrite(c.at("a"))
	c.ok(err)
	defer f.Close()
	_, err = f.WriteAt([]byte("2"), 1)
	c.ok(err)
	c.holds("a", "12")
}

func (c *conformance) readOnly() {
	c.write("a", "1")
	f, err := c.fs.Open(c.at("a"))
	c.ok(err)
	defer f.Close()
	_, err = f.WriteAt([]byte("2"), 0)
	c.fails(err, syscall.EBADF, c.at("a"))
	c.fails(f.Lock(0), syscall.EBADF, c.at("a"))
	c.ok(f.Sync())
	c.ok(f.DropCache())
	c.holds("a", "1")
}

func (c *conformance) close() {
	f := c.write("a", "1")
	c.ok(f.Close())
	c.fails(f.Close(), fs.ErrClosed, c.at("a"))
	_, err := f.ReadAt(make([]byte, 1), 0)
	c.fails(err, fs.ErrClosed, c.at("a"))
	_, err = f.WriteAt([]byte("2"), 0)
	c.fails(err, fs.ErrClosed, c.at("a"))
	_, err = f.Size()
	c.fails(err, fs.ErrClosed, c.at("a"))
	c.fails(f.Sync(), fs.ErrClosed, c.at("a"))
	c.fails(f.DropCache(), fs.ErrClosed, c.at("a"))
	c.fails(f.Lock(0), fs.ErrClosed, c.at("a"))
	c.holds("a", "1")
}

func (c *conformance) mkdirList() {
	c.lists("")
	c.ok(c.fs.Mkdir(c.at("d"), 0o700))
	c.fails(c.fs.Mkdir(c.at("d"), 0o700), fs.ErrExist, c.at("d"))
	c.fails(c.fs.Mkdir(c.at("missing/d"), 0o700), fs.ErrNotExist, c.at("missing/d"))
	c.write("d/b", "")
	c.write("d/a", "")
	c.ok(c.fs.Mkdir(c.at("d/B"), 0o700))
	c.lists("d", "B", "a", "b")
	c.lists("", "d")
	_, err := c.fs.List(c.at("missing"))
	c.fails(err, fs.ErrNotExist, c.at("missing"))
	_, err = c.fs.List(c.at("d/a"))
	c.fails(err, syscall.ENOTDIR, c.at("d/a"))
}

func (c *conformance) lstat() {
	c.write("a", "hello")
	c.ok(c.fs.Mkdir(c.at("d"), 0o710))
	for name, want := range map[string]disk.Info{
		"a": {Kind: disk.KindFile, Size: 5, Mode: 0o600, Own: true},
		"d": {Kind: disk.KindDir, Mode: 0o710, Own: true},
	} {
		got, err := c.fs.Lstat(c.at(name))
		c.ok(err)
		if got != want {
			c.Errorf("%s is %+v, want %+v", name, got, want)
		}
	}
	_, err := c.fs.Lstat(c.at("missing"))
	c.fails(err, fs.ErrNotExist, c.at("missing"))
	_, err = c.fs.Lstat(c.at("a/b"))
	c.fails(err, syscall.ENOTDIR, c.at("a/b"))
}

func (c *conformance) remove() {
	c.ok(c.fs.Mkdir(c.at("d"), 0o700))
	c.write("d/a", "")
	c.fails(c.fs.Remove(c.at("d")), syscall.ENOTEMPTY, c.at("d"))
	c.ok(c.fs.Remove(c.at("d/a")))
	c.fails(c.fs.Remove(c.at("d/a")), fs.ErrNotExist, c.at("d/a"))
	c.ok(c.fs.Remove(c.at("d")))
	c.lists("")
}

func (c *conformance) unlinked() {
	f := c.write("a", "hello")
	c.ok(c.fs.Remove(c.at("a")))
	buf := make([]byte, 5)
	_, err := f.ReadAt(buf, 0)
	c.ok(err)
	if string(buf) != "hello" {
		c.Errorf("an unlinked file reads %q", buf)
	}
	c.ok(f.Sync())
	c.write("a", "other")
	c.holds("a", "other")
}

func (c *conformance) renameFile() {
	f := c.write("a", "new")
	c.write("b", "old")
	c.ok(c.fs.Rename(c.at("a"), c.at("b")))
	c.lists("", "b")
	c.holds("b", "new")
	_, err := f.WriteAt([]byte("NEW"), 0)
	c.ok(err)
	c.holds("b", "NEW")
	c.ok(c.fs.Rename(c.at("b"), c.at("b")))
	c.ok(c.fs.Mkdir(c.at("d"), 0o700))
	c.ok(c.fs.Rename(c.at("b"), c.at("d/c")))
	c.lists("", "d")
	c.holds("d/c", "NEW")
}

func (c *conformance) renameDir() {
	c.ok(c.fs.Mkdir(c.at("d"), 0o700))
	c.write("d/a", "1")
	c.ok(c.fs.Mkdir(c.at("empty"), 0o700))
	c.ok(c.fs.Rename(c.at("d"), c.at("empty")))
	c.lists("", "empty")
	c.holds("empty/a", "1")
}

func (c *conformance) renameNoReplace() {
	c.write("a", "1")
	c.write("b", "2")
	for _, dir := range []string{"d", "e", "full"} {
		c.ok(c.fs.Mkdir(c.at(dir), 0o700))
	}
	c.write("full/x", "3")
	for _, pair := range [][2]string{
		{"a", "b"}, {"a", "d"}, {"a", "full"}, {"d", "e"}, {"d", "full"}, {"d", "a"}, {"full", "d"}, {"a", "a"},
	} {
		c.fails(c.fs.RenameNoReplace(c.at(pair[0]), c.at(pair[1])), fs.ErrExist, c.at(pair[1]))
	}
	c.lists("", "a", "b", "d", "e", "full")
	c.holds("b", "2")
	c.ok(c.fs.RenameNoReplace(c.at("a"), c.at("c")))
	c.ok(c.fs.RenameNoReplace(c.at("full"), c.at("moved")))
	c.lists("", "b", "c", "d", "e", "moved")
	c.holds("c", "1")
	c.holds("moved/x", "3")
	c.fails(c.fs.RenameNoReplace(c.at("missing"), c.at("f")), fs.ErrNotExist, c.at("missing"))
}

func (c *conformance) renameRefused() {
	c.write("a", "1")
	c.ok(c.fs.Mkdir(c.at("d"), 0o700))
	c.ok(c.fs.Mkdir(c.at("full"), 0o700))
	c.write("full/x", "2")
	for _, test := range []struct {
		oldname, newname string
		want             error
	}{
		{"missing", "z", fs.ErrNotExist},
		{"a", "missing/z", fs.ErrNotExist},
		{"a", "d", syscall.EISDIR},
		{"d", "a", syscall.ENOTDIR},
		{"d", "full", syscall.ENOTEMPTY},
		{"full", "full/z", syscall.EINVAL},
		{"a", "a/z", syscall.ENOTDIR},
	} {
		c.fails(c.fs.Rename(c.at(test.oldname), c.at(test.newname)), test.want, c.at(test.newname))
	}
	c.lists("", "a", "d", "full")
	c.holds("full/x", "2")
}

func (c *conformance) sync() {
	f := c.write("a", "1")
	c.ok(f.Sync())
	c.ok(f.DropCache())
	c.holds("a", "1")
	c.ok(c.fs.SyncDir(c.root))
	c.fails(c.fs.SyncDir(c.at("a")), syscall.ENOTDIR, c.at("a"))
	c.fails(c.fs.SyncDir(c.at("missing")), fs.ErrNotExist, c.at("missing"))
}

func (c *conformance) lock() {
	f := c.write("lock", "")
	g, err := c.fs.OpenWrite(c.at("lock"))
	c.ok(err)
	defer g.Close()
	c.ok(f.Lock(0))
	c.ok(f.Lock(0))
	c.fails(g.Lock(0), disk.ErrLocked, c.at("lock"))
	c.ok(g.Lock(1))
	c.fails(f.Lock(1), disk.ErrLocked, c.at("lock"))
	if err := f.Lock(-1); err == nil || errors.Is(err, disk.ErrLocked) {
		c.Errorf("lock before the beginning: %v", err)
	}

	// Another File that comes and goes takes no lock away.
	h, err := c.fs.OpenWrite(c.at("lock"))
	c.ok(err)
	c.ok(h.Close())
	c.fails(g.Lock(0), disk.ErrLocked, c.at("lock"))

	// The lock goes with its File, not with the name.
	c.ok(c.fs.Rename(c.at("lock"), c.at("other")))
	c.fails(g.Lock(0), disk.ErrLocked, c.at("lock"))
	c.ok(f.Close())
	c.ok(g.Lock(0))
}

func (c *conformance) concurrent() {
	f := c.write("a", "")
	var all sync.WaitGroup
	for worker := range 4 {
		all.Go(func() {
			data := bytes.Repeat([]byte{byte('a' + worker)}, 5000)
			for i := range 20 {
				off := int64(4*i+worker) * 5000
				if _, err := f.WriteAt(data, off); err != nil {
					c.Error(err)
				}
				if err := f.Sync(); err != nil {
					c.Error(err)
				}
				got := make([]byte, len(data))
				if _, err := f.ReadAt(got, off); err != nil || !bytes.Equal(got, data) {
					c.Errorf("at %d: read back differently, %v", off, err)
				}
			}
		})
	}
	all.Wait()
	if size, err := f.Size(); size != 400_000 || err != nil {
		c.Errorf("size %d, %v", size, err)
	}
}

// reserve: space that was set aside changes no length, is taken from what is free, and comes back.
func (c *conformance) reserve() {
	name := path.Join(c.root, "f")
	f, err := c.fs.Create(name, 0o600)
	if err != nil {
		c.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteAt([]byte("abc"), 0); err != nil {
		c.Fatal(err)
	}
	free := func() uint64 {
		s, err := c.fs.Space(c.root)
		if err != nil || s.Free > s.Total {
			c.Fatal(s, err)
		}
		return s.Free
	}
	const size = 64 << 20
	before := free()
	if err := f.Reserve(size); err != nil {
		c.Fatal(err)
	}
	if n, err := f.Size(); n != 3 || err != nil {
		c.Errorf("the length is %d, %v", n, err)
	}
	if after := free(); before-after < size/2 { // others use the machine's disk too
		c.Errorf("%d bytes were free, and %d with %d set aside", before, after, size)
	}
	if err := f.Trim(); err != nil {
		c.Fatal(err)
	}
	if after := free(); before-min(before, after) > size/2 {
		c.Errorf("%d bytes were free, and %d with nothing set aside", before, after)
	}
	b := make([]byte, 3)
	if _, err := f.ReadAt(b, 0); err != nil || string(b) != "abc" {
		c.Errorf("it holds %q, %v", b, err)
	}
}
