package fs

import (
	"bytes"
	"sort"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"encfsrun/fs/vault/tree"
)

func TestXattrs(t *testing.T) {
	m := newModel()
	big := bytes.Repeat([]byte{7}, tree.MaxXattrValue)
	want := map[string][]byte{"user.empty": {}, "user.one": []byte("1"), "user.big": big, "user." + strings.Repeat("n", 250): []byte("long")}
	m.nodes[m.file(tree.Root, "f", nil)].xattrs = want
	m.nodes[m.dir(tree.Root, "d")].xattrs = map[string][]byte{"user.x": []byte("y")}
	m.file(tree.Root, "none", nil)
	mnt := mount(t, m, mountOptions{})
	path := mnt.path("f")

	var names []string
	size, err := unix.Listxattr(path, nil)
	if err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, size)
	if n, err := unix.Listxattr(path, buf[:size-1]); err != unix.ERANGE {
		t.Errorf("listxattr with too small a buffer: %d, %v; want ERANGE", n, err)
	}
	if n, err := unix.Listxattr(path, buf); err != nil || n != size {
		t.Fatalf("listxattr: %d, %v; want %d", n, err, size)
	}
	for name := range want {
		names = append(names, name)
	}
	got := strings.Split(strings.TrimSuffix(string(buf), "\x00"), "\x00")
	sort.Strings(names)
	sort.Strings(got)
	if diff := cmp.Diff(names, got); diff != "" {
		t.Error(diff)
	}
	for name, value := range want {
		n, err := unix.Getxattr(path, name, nil)
		if err != nil || n != len(value) {
			t.Errorf("size of %q: %d, %v; want %d", name, n, err, len(value))
		}
		buf := make([]byte, len(value)+1)
		if n, err := unix.Getxattr(path, name, buf); err != nil || !bytes.Equal(buf[:max(n, 0)], value) {
			t.Errorf("getxattr of %q: %d bytes, %v", name, n, err)
		}
		if len(value) > 1 {
			if _, err := unix.Getxattr(path, name, buf[:len(value)-1]); err != unix.ERANGE {
				t.Errorf("getxattr of %q with too small a buffer: %v, want ERANGE", name, err)
			}
		}
	}
	if _, err := unix.Getxattr(path, "user.missing", nil); err != unix.ENODATA {
		t.Errorf("getxattr of a missing name: %v, want ENODATA", err)
	}
	if n, err := unix.Listxattr(mnt.path("none"), make([]byte, 100)); n != 0 || err != nil {
		t.Errorf("listxattr of a file without any: %d, %v", n, err)
	}
	if n, err := unix.Getxattr(mnt.path("d"), "user.x", make([]byte, 9)); n != 1 || err != nil {
		t.Errorf("getxattr of a directory: %d, %v", n, err)
	}
}
