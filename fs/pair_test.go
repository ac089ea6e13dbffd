package fs

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"unsafe"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

func pointer[T any](p *T) uintptr { return uintptr(unsafe.Pointer(p)) }

// pair is a folder on a writable mount and one on a tmpfs, the kernel's own file system in memory, which is the model: what is done
// to one is done to the other, and must give the same answer.
type pair struct {
	mount, model string
	open         []handle
}

// handle is one open file on both sides.
type handle struct{ mount, model int }

// side is one of the two.
type side struct {
	dir string
	fd  func(h handle) int
}

func (p *pair) sides() (mount, model side) {
	return side{p.mount, func(h handle) int { return h.mount }}, side{p.model, func(h handle) int { return h.model }}
}

// tmpfs mounts a model.
func tmpfs(t testing.TB) string {
	t.Helper()
	dir := t.TempDir()
	if err := unix.Mount("model", dir, "tmpfs", restricted, "mode=755,size=1g"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Unmount(dir, unix.MNT_DETACH) })
	return dir
}

// same does something on both sides and returns the answers; an error, the errno alone, is one. What is told is their difference.
func same(p *pair, do func(s side) (any, error)) (any, error) {
	mount, model := p.sides()
	want, wantErr := do(model)
	got, gotErr := do(mount)
	if errnoOf(gotErr) != errnoOf(wantErr) {
		return nil, fmt.Errorf("%w: %v, want %v", errDiffers, describe(gotErr), describe(wantErr))
	}
	if diff := cmp.Diff(want, got); wantErr == nil && diff != "" {
		return nil, fmt.Errorf("%w (-want +got):\n%s", errDiffers, diff)
	}
	return want, wantErr
}

var errDiffers = errors.New("the two sides differ")

// errnoOf returns 0 for success, and an impossible number for what is no errno.
func errnoOf(err error) unix.Errno {
	if err == nil {
		return 0
	}
	if errno, ok := errors.AsType[unix.Errno](err); ok {
		return errno
	}
	return 9999
}

func describe(err error) string {
	if err == nil {
		return "success"
	}
	return err.Error()
}

// entry is what is compared of an inode. Sizes of directories, numbers of blocks and of inodes are each file system's own.
type entry struct {
	Mode, UID, GID, Nlink uint32
	Size                  int64
	Rdev                  uint64
	Target                string
	Content               string
	Xattrs                map[string]string
	Inode                 int // the first of the paths that lead to it
	times                 [3]unix.Timespec
}

// walkTree lists all that is below a folder, by path.
func walkTree(dir string) (map[string]*entry, error) {
	all := map[string]*entry{}
	first := map[uint64]int{}
	err := filepath.WalkDir(dir, func(path string, _ os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		e, ino, err := inspect(path)
		if err != nil {
			return fmt.Errorf("%s: %w", strings.TrimPrefix(path, dir), err)
		}
		if _, found := first[ino]; !found {
			first[ino] = len(all)
		}
		e.Inode = first[ino]
		all[strings.TrimPrefix(path, dir)] = e
		return nil
	})
	return all, err
}

func inspect(path string) (*entry, uint64, error) {
	var st unix.Stat_t
	if err := unix.Lstat(path, &st); err != nil {
		return nil, 0, err
	}
	e := &entry{Mode: comparedMode(st.Mode), UID: st.Uid, GID: st.Gid, Nlink: uint32(st.Nlink), Size: st.Size, Rdev: st.Rdev}
	e.times = [3]unix.Timespec{st.Atim, st.Mtim, st.Ctim}
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFDIR:
		e.Size = 0
		if st.Nlink < 2 {
			return nil, 0, fmt.Errorf("%d links", st.Nlink)
		}
	case unix.S_IFLNK:
		target, err := os.Readlink(path)
		if err != nil {
			return nil, 0, err
		}
		e.Target = target
	case unix.S_IFREG:
		content, err := os.ReadFile(path)
		if err != nil {
			return nil, 0, err
		}
		e.Content = squeeze(content)
	}
	var err error
	e.Xattrs, err = xattrsOf(path)
	return e, st.Ino, err
}

// comparedMode leaves out setgid where it means nothing: on a file that the group may not execute. A write takes it away there from
// who is not in the group, and FUSE does not tell who is.
func comparedMode(mode uint32) uint32 {
	if mode&(unix.S_IFMT|unix.S_IXGRP) == unix.S_IFREG {
		mode &^= unix.S_ISGID
	}
	return mode
}

// squeeze describes contents: runs of the same byte, so that a difference can be read.
func squeeze(b []byte) string {
	var s strings.Builder
	for len(b) > 0 {
		n := 1
		for n < len(b) && b[n] == b[0] {
			n++
		}
		fmt.Fprintf(&s, "%02x*%d ", b[0], n)
		b = b[n:]
	}
	return s.String()
}

func xattrsOf(path string) (map[string]string, error) {
	buf := make([]byte, 64<<10)
	n, err := unix.Llistxattr(path, buf)
	if err != nil || n == 0 {
		return nil, err
	}
	all := map[string]string{}
	for name := range bytes.SplitSeq(bytes.TrimSuffix(buf[:n], []byte{0}), []byte{0}) {
		value := make([]byte, 64<<10)
		n, err := unix.Lgetxattr(path, string(name), value)
		if err != nil {
			return nil, err
		}
		all[string(name)] = fmt.Sprintf("%x", value[:n])
	}
	return all, nil
}

// equal compares the two trees.
func (p *pair) equal() error {
	got, err := walkTree(p.mount)
	if err != nil {
		return err
	}
	want, err := walkTree(p.model)
	if err != nil {
		return err
	}
	if diff := cmp.Diff(want, got, cmp.FilterPath(func(p cmp.Path) bool { return p.Last().String() == ".times" }, cmp.Ignore())); diff != "" {
		return fmt.Errorf("the trees differ (-want +got):\n%s", diff)
	}
	return nil
}

// listing lists a folder, sorted, with types.
func listing(dir string) ([]string, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	var list []string
	for _, e := range entries {
		list = append(list, fmt.Sprintf("%s %v", e.Name(), e.Type()))
	}
	slices.Sort(list)
	return list, nil
}
