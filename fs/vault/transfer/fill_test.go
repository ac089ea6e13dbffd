package transfer

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// workshop builds a tree of the host.
type workshop struct {
	t   testing.TB
	top string
}

func newWorkshop(t testing.TB) *workshop {
	t.Helper()
	w := &workshop{t, filepath.Join(t.TempDir(), "src")}
	w.do(os.Mkdir(w.top, 0o755))
	return w
}

func (w *workshop) do(err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
}

func (w *workshop) at(rel string) string { return filepath.Join(w.top, rel) }

func (w *workshop) dir(rel string)               { w.t.Helper(); w.do(os.MkdirAll(w.at(rel), 0o755)) }
func (w *workshop) symlink(rel, target string)   { w.t.Helper(); w.do(os.Symlink(target, w.at(rel))) }
func (w *workshop) link(rel, other string)       { w.t.Helper(); w.do(os.Link(w.at(other), w.at(rel))) }
func (w *workshop) remove(rel string)            { w.t.Helper(); w.do(os.RemoveAll(w.at(rel))) }
func (w *workshop) mode(rel string, mode uint32) { w.t.Helper(); w.do(unix.Chmod(w.at(rel), mode)) }
func (w *workshop) xattr(rel, name, value string) {
	w.t.Helper()
	w.do(unix.Lsetxattr(w.at(rel), name, []byte(value), 0))
}

func (w *workshop) file(rel, content string) {
	w.t.Helper()
	w.do(os.MkdirAll(filepath.Dir(w.at(rel)), 0o755))
	w.do(os.WriteFile(w.at(rel), []byte(content), 0o644))
}

func (w *workshop) node(rel string, kind uint32) {
	w.t.Helper()
	w.do(unix.Mknod(w.at(rel), kind|0o640, int(unix.Mkdev(1, 3))))
}

// sparse writes a file with data at 1 MiB and at 3 MiB, and a hole at its end.
func (w *workshop) sparse(rel string) {
	w.t.Helper()
	f, err := os.Create(w.at(rel))
	w.do(err)
	for _, at := range []int64{1 << 20, 3 << 20} {
		_, err := f.WriteAt([]byte(strings.Repeat("data", 2048)), at)
		w.do(err)
	}
	w.do(f.Truncate(5 << 20))
	w.do(f.Close())
}

// times sets the times of last access and change, to nanoseconds, without following a link.
func (w *workshop) times(rel string, sec, nsec int64) {
	w.t.Helper()
	ts := []unix.Timespec{{Sec: sec + 1, Nsec: nsec}, {Sec: sec, Nsec: nsec}}
	w.do(unix.UtimesNanoAt(unix.AT_FDCWD, w.at(rel), ts, unix.AT_SYMLINK_NOFOLLOW))
}

// one builds a tree with one of everything that a user can make.
func (w *workshop) one() {
	w.file("main.py", "import lib.secret\n")
	w.file("lib/secret.py", strings.Repeat("KEY = 42\n", 50_000))
	w.file("lib/empty", "")
	w.dir("lib/nothing")
	w.file("a/b/c/deep", "deep")
	w.link("a/hard", "main.py")
	w.link("a/b/harder", "main.py")
	w.symlink("a/link", "../lib/secret.py")
	w.symlink("dangling", "nowhere")
	w.link("a/hardlink-of-link", "dangling")
	w.node("fifo", unix.S_IFIFO)
	w.sparse("sparse")
	w.do(os.Truncate(w.at("main.py"), 30)) // a hole within a page is zeros
	w.file("hole", "")
	w.do(os.Truncate(w.at("hole"), 100_000))
	w.file("setuid", "#!/bin/sh\n")
	w.mode("setuid", 0o4755)
	w.mode("a/b", 0o1777)
	w.xattr("lib/secret.py", "user.note", "value")
	w.xattr("lib/secret.py", "user.empty", "")
	w.xattr("lib", "user.dir", strings.Repeat("long", 500))
	w.xattr("", "user.top", "top")
	w.times("dangling", 1_000_000_000, 123_456_789)
	w.times("fifo", -5, 1)
	w.times("lib/secret.py", 2_000_000_000, 999_999_999)
	w.times("a/b", 7, 7)
	w.times("", 8, 8)
}
