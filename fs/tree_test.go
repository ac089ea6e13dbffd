package fs

import (
	"fmt"
	"math/rand/v2"
	"os"
	"sort"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"encfsrun/fs/vault/tree"
)

// shown is what a program can see of an inode.
type shown struct {
	Ino, Size, Blocks     uint64
	Mode, Nlink, UID, GID uint32
	Rdev                  uint64
	Atime, Mtime, Ctime   unix.Timespec
	Target                string
	Names                 []string
	Blksize               int64
}

// look reads what is there through the mount.
func look(t testing.TB, path string) shown {
	t.Helper()
	var st unix.Stat_t
	if err := unix.Lstat(path, &st); err != nil {
		t.Fatalf("lstat: %v", err)
	}
	s := shown{
		Ino: st.Ino, Size: uint64(st.Size), Blocks: uint64(st.Blocks), Mode: st.Mode, Nlink: uint32(st.Nlink), UID: st.Uid, GID: st.Gid,
		Rdev: st.Rdev, Atime: st.Atim, Mtime: st.Mtim, Ctime: st.Ctim, Blksize: int64(st.Blksize),
	}
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFLNK:
		target, err := os.Readlink(path)
		if err != nil {
			t.Fatal(err)
		}
		s.Target = target
	case unix.S_IFDIR:
		entries, err := os.ReadDir(path)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range entries {
			s.Names = append(s.Names, fmt.Sprintf("%s %v", e.Name(), e.Type()))
		}
		sort.Strings(s.Names)
	}
	return s
}

// expect says what a program should see.
func expect(m *model, ino tree.Ino) shown {
	n := m.nodes[ino]
	a := n.attr
	spec := func(t tree.Time) unix.Timespec { return unix.Timespec{Sec: t.Sec, Nsec: int64(t.Nsec)} }
	s := shown{
		Ino: uint64(a.Ino), Size: a.Size, Blocks: a.Blocks, Mode: a.Mode, Nlink: a.Nlink, UID: a.UID, GID: a.GID, Rdev: uint64(a.Rdev),
		Atime: spec(a.Atime), Mtime: spec(a.Mtime), Ctime: spec(a.Ctime), Target: n.target, Blksize: preferredIO,
	}
	for _, e := range n.entries {
		mode := os.FileMode(0)
		switch e.Mode & syscall.S_IFMT {
		case syscall.S_IFDIR:
			mode = os.ModeDir
		case syscall.S_IFLNK:
			mode = os.ModeSymlink
		case syscall.S_IFIFO:
			mode = os.ModeNamedPipe
		case syscall.S_IFSOCK:
			mode = os.ModeSocket
		case syscall.S_IFCHR:
			mode = os.ModeDevice | os.ModeCharDevice
		}
		s.Names = append(s.Names, fmt.Sprintf("%s %v", e.Name, mode))
	}
	sort.Strings(s.Names)
	return s
}

// compare walks the mount and the model together.
func compare(t testing.TB, m *model, ino tree.Ino, path string) {
	t.Helper()
	if diff := cmp.Diff(expect(m, ino), look(t, path)); diff != "" {
		t.Fatalf("inode %d (-expected +shown):\n%s", ino, diff)
	}
	for _, e := range m.nodes[ino].entries {
		compare(t, m, e.Ino, path+"/"+e.Name)
	}
}

// randomTree fills a directory with n inodes of every kind.
func randomTree(m *model, n int) {
	dirs := []tree.Ino{tree.Root}
	for i := range n {
		parent := dirs[m.rng.IntN(len(dirs))]
		name := fmt.Sprintf("n%d-%s", i, strings.Repeat("x", m.rng.IntN(200)))
		var ino tree.Ino
		switch m.rng.IntN(8) {
		case 0, 1:
			ino = m.dir(parent, name)
			dirs = append(dirs, ino)
		case 2:
			ino = m.symlink(parent, name, strings.Repeat("t/", 1+m.rng.IntN(2000)))
		case 3:
			ino = m.put(parent, name, syscall.S_IFIFO, &node{})
		case 4:
			ino = m.put(parent, name, syscall.S_IFCHR, &node{attr: tree.Attr{Rdev: 0x10305}})
		case 5:
			ino = m.put(parent, name, syscall.S_IFSOCK, &node{})
		default:
			ino = m.file(parent, name, m.random(m.rng.IntN(100_000), true))
			if m.rng.IntN(4) == 0 {
				m.link(dirs[m.rng.IntN(len(dirs))], name+"-again", ino)
				m.nodes[ino].attr.Nlink++
			}
		}
		a := &m.nodes[ino].attr
		a.UID, a.GID = uint32(m.rng.IntN(70000)), uint32(m.rng.IntN(70000))
		if m.rng.IntN(4) == 0 {
			a.Mtime = tree.Time{Sec: -int64(m.rng.IntN(1e9)), Nsec: 999999999}
		}
	}
}

func TestTreeEqualsModel(t *testing.T) {
	m := newModel()
	randomTree(m, 500)
	mnt := mount(t, m, mountOptions{})
	compare(t, m, tree.Root, mnt.dir)
	compare(t, m, tree.Root, mnt.dir) // and again out of the kernel's memory
}

func TestOwnerOption(t *testing.T) {
	m := newModel()
	randomTree(m, 100)
	mnt := mount(t, m, mountOptions{Options: Options{Owner: &Owner{UID: 4711, GID: 4712}}})
	want := &model{nodes: map[tree.Ino]*node{}}
	for ino, n := range m.nodes {
		owned := *n
		owned.attr.UID, owned.attr.GID = 4711, 4712
		want.nodes[ino] = &owned
	}
	compare(t, want, tree.Root, mnt.dir)
}

func TestNames(t *testing.T) {
	m := newModel()
	for c := 1; c < 256; c++ {
		if c != '/' && c != '.' {
			m.file(tree.Root, string([]byte{byte(c)}), []byte{byte(c)})
		}
	}
	long := strings.Repeat("\xff\n", 127) + "\x01"
	m.dir(tree.Root, long)
	m.file(tree.Root, "...", nil)
	mnt := mount(t, m, mountOptions{})
	compare(t, m, tree.Root, mnt.dir)
	for _, missing := range []string{"\x7f\x7f", strings.Repeat("a", 255), " " + long[1:254]} {
		if err := unix.Lstat(mnt.path(missing), &unix.Stat_t{}); err != unix.ENOENT {
			t.Errorf("lstat of %q: %v, want ENOENT", missing, err)
		}
	}
	for _, n := range []int{256, 1024, 1025} {
		if err := unix.Lstat(mnt.path(strings.Repeat("a", n)), &unix.Stat_t{}); err != unix.ENAMETOOLONG {
			t.Errorf("lstat of a name of %d bytes: %v, want ENAMETOOLONG", n, err)
		}
	}
	if err := unix.Lstat(mnt.path("a", "b"), &unix.Stat_t{}); err != unix.ENOTDIR {
		t.Errorf("lstat below a file: %v, want ENOTDIR", err)
	}
}

func TestDeepPath(t *testing.T) {
	m := newModel()
	dir, path := tree.Root, ""
	for range 700 {
		dir = m.dir(dir, "d")
		path += "/d"
	}
	m.file(dir, "f", []byte("deep"))
	mnt := mount(t, m, mountOptions{})
	if got, err := os.ReadFile(mnt.dir + path + "/f"); err != nil || string(got) != "deep" {
		t.Fatalf("read %q, %v", got, err)
	}
	var st unix.Stat_t
	if err := unix.Stat(mnt.dir+path+strings.Repeat("/..", 699), &st); err != nil || st.Ino != 2 {
		t.Fatalf("back up to inode %d, %v; want 2", st.Ino, err)
	}
}

// names reads a directory with getdents64 and a buffer of size bytes, and returns names and positions in order.
func names(t testing.TB, path string, size int) (list []string, offsets []int64) {
	t.Helper()
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	return namesFrom(t, fd, size)
}

func namesFrom(t testing.TB, fd, size int) (list []string, offsets []int64) {
	t.Helper()
	buf := make([]byte, size)
	for {
		n, err := unix.Getdents(fd, buf)
		if err != nil {
			t.Fatalf("getdents: %v", err)
		}
		if n == 0 {
			return list, offsets
		}
		for b := buf[:n]; len(b) > 0; {
			length := int(b[16]) | int(b[17])<<8
			off := int64(0)
			for i := range 8 {
				off |= int64(b[8+i]) << (8 * i)
			}
			name, _, _ := strings.Cut(string(b[19:length]), "\x00")
			list, offsets = append(list, name), append(offsets, off)
			b = b[length:]
		}
	}
}

// TestLargeDirectory lists 10,000 entries with several sizes of buffer while others open them.
func TestLargeDirectory(t *testing.T) {
	const files = 10_000
	m := newModel()
	want := []string{".", ".."}
	dir := m.dir(tree.Root, "large")
	for i := range files {
		name := fmt.Sprintf("file-%d-%s", i, strings.Repeat("y", i%180))
		m.file(dir, name, []byte(name))
		want = append(want, name)
	}
	mnt := mount(t, m, mountOptions{})
	var wg sync.WaitGroup
	for w := range 4 {
		rng := rand.New(rand.NewPCG(uint64(w), 9))
		wg.Go(func() {
			for range 500 {
				name := want[2+rng.IntN(files)]
				if got, err := os.ReadFile(mnt.path("large", name)); err != nil || string(got) != name {
					t.Errorf("read %q, %v; want its name", got, err)
					return
				}
			}
		})
	}
	var offsets []int64
	for _, size := range []int{1 << 20, 32 << 10, 4 << 10, 600} {
		var got []string
		if got, offsets = names(t, mnt.path("large"), size); !cmp.Equal(got, want) {
			t.Errorf("with a buffer of %d bytes %d names, not the %d expected in their order", size, len(got), len(want))
		}
	}
	wg.Wait()
	fd, err := unix.Open(mnt.path("large"), unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	for _, i := range []int{0, 1, 2, 77, files, files + 1} {
		if _, err := unix.Seek(fd, offsets[i], unix.SEEK_SET); err != nil {
			t.Fatal(err)
		}
		if got, _ := namesFrom(t, fd, 32<<10); !cmp.Equal(got, want[i+1:], cmp.Comparer(func(a, b []string) bool {
			return len(a) == len(b) && strings.Join(a, "/") == strings.Join(b, "/")
		})) {
			t.Errorf("from the position after name %d on: %d names, want %d", i, len(got), len(want)-i-1)
		}
	}
}

func TestStatfs(t *testing.T) {
	m := newModel()
	m.file(tree.Root, "f", m.random(10_000, false))
	mnt := mount(t, m, mountOptions{})
	var st unix.Statfs_t
	if err := unix.Statfs(mnt.dir, &st); err != nil {
		t.Fatal(err)
	}
	if st.Files != 2 || st.Ffree != 0 || st.Blocks != 3 || st.Bfree != 0 || st.Bavail != 0 || st.Bsize != 4096 || st.Frsize != 4096 || st.Namelen != 255 {
		t.Errorf("statfs: %+v", st)
	}
}
