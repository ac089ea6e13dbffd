package vault

import (
	"io"
	"io/fs"
	"maps"
	"path"
	"slices"
	"strings"
	"syscall"
	"testing"

	"encfsrun/fs/vault/disk"
	"encfsrun/fs/vault/disk/memdisk"
)

// still is a disk that nobody writes to: files by their full names, and directories as names that end with a slash. Its bytes
// are shared between the altered copies of a vault, of which there are millions, and never changed.
type still map[string][]byte

// stillOf takes the vault off a disk.
func stillOf(t testing.TB, d *memdisk.Disk) still {
	t.Helper()
	s := still{}
	for _, name := range d.Files() {
		if !strings.HasPrefix(name, testVault+"/") {
			continue
		}
		b, err := d.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		s[name] = b
	}
	if len(s) == 0 {
		t.Fatal("there is no vault to alter")
	}
	s[path.Join(testVault, logDir)+"/"] = nil
	return s
}

// names returns the files, sorted.
func (s still) names() []string {
	return slices.DeleteFunc(slices.Sorted(maps.Keys(s)), func(n string) bool { return strings.HasSuffix(n, "/") })
}

// segments returns the names of the segment files, rising.
func (s still) segments() []string {
	return slices.DeleteFunc(s.names(), func(n string) bool { return !strings.HasSuffix(n, ".seg") })
}

// with returns a copy in which a file has other bytes.
func (s still) with(name string, b []byte) still {
	copied := maps.Clone(s)
	copied[name] = b
	return copied
}

// without returns a copy that lacks files, or directories with all in them.
func (s still) without(names ...string) still {
	copied := maps.Clone(s)
	for _, name := range names {
		maps.DeleteFunc(copied, func(n string, _ []byte) bool { return n == name || strings.HasPrefix(n, name+"/") })
	}
	return copied
}

// changed returns a copy in which a file's bytes were changed; change gets bytes of its own.
func (s still) changed(name string, change func([]byte) []byte) still {
	return s.with(name, change(slices.Clone(s[name])))
}

// flipped is a still disk with one bit the other way.
type flipped struct {
	still
	name string
	at   int
	mask byte
}

func (f flipped) Open(name string) (disk.File, error) {
	file, err := f.still.open(name)
	if err == nil && name == f.name {
		file.at, file.mask = f.at, f.mask
	}
	return file, err
}

func (s still) Open(name string) (disk.File, error) { return s.open(name) }

func (s still) open(name string) (*stillFile, error) {
	b, ok := s[name]
	if !ok {
		return nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrNotExist}
	}
	return &stillFile{data: b}, nil
}

func (s still) List(dir string) ([]string, error) {
	dir += "/"
	var names []string
	_, found := s[dir]
	for name := range s {
		if rest, ok := strings.CutPrefix(name, dir); ok && rest != "" && !strings.Contains(rest, "/") {
			names = append(names, rest)
			found = true
		}
	}
	if !found {
		return nil, &fs.PathError{Op: "list", Path: dir, Err: fs.ErrNotExist}
	}
	slices.Sort(names)
	return names, nil
}

func (s still) Lstat(name string) (disk.Info, error) {
	if b, ok := s[name]; ok {
		return disk.Info{Kind: disk.KindFile, Size: int64(len(b))}, nil
	}
	return disk.Info{}, &fs.PathError{Op: "lstat", Path: name, Err: fs.ErrNotExist}
}

func readOnly(op, name string) error { return &fs.PathError{Op: op, Path: name, Err: syscall.EROFS} }

func (s still) OpenWrite(name string) (disk.File, error) { return nil, readOnly("open", name) }
func (s still) Create(name string, _ fs.FileMode) (disk.File, error) {
	return nil, readOnly("create", name)
}
func (s still) Mkdir(name string, _ fs.FileMode) error  { return readOnly("mkdir", name) }
func (s still) Rename(oldname, _ string) error          { return readOnly("rename", oldname) }
func (s still) RenameNoReplace(oldname, _ string) error { return readOnly("rename", oldname) }
func (s still) Remove(name string) error                { return readOnly("remove", name) }
func (s still) SyncDir(dir string) error                { return readOnly("sync", dir) }
func (s still) Space(string) (disk.Space, error)        { return disk.Space{}, nil }

// stillFile is an open file of a still disk.
type stillFile struct {
	data []byte
	at   int  // of the byte that reads with
	mask byte // these bits the other way
}

func (f *stillFile) ReadAt(p []byte, off int64) (int, error) {
	if off > int64(len(f.data)) {
		return 0, io.EOF
	}
	n := copy(p, f.data[off:])
	if i := f.at - int(off); i >= 0 && i < n {
		p[i] ^= f.mask
	}
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

func (f *stillFile) WriteAt([]byte, int64) (int, error) { return 0, syscall.EBADF }
func (f *stillFile) Close() error                       { return nil }
func (f *stillFile) Size() (int64, error)               { return int64(len(f.data)), nil }
func (f *stillFile) Sync() error                        { return nil }
func (f *stillFile) DropCache() error                   { return nil }
func (f *stillFile) Lock(int64) error                   { return syscall.EBADF }
func (f *stillFile) Reserve(int64) error                { return readOnly("reserve", "") }
func (f *stillFile) Trim() error                        { return readOnly("trim", "") }
