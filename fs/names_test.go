package fs

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// TestRenameTable renames every kind of thing over every other, with each flag.
func TestRenameTable(t *testing.T) {
	make := map[string]func(path string) error{
		"nothing": func(string) error { return nil },
		"file":    func(path string) error { return os.WriteFile(path, []byte(filepath.Base(path)), 0o644) },
		"fifo":    func(path string) error { return unix.Mknod(path, unix.S_IFIFO|0o644, 0) },
		"link":    func(path string) error { return os.Symlink("target", path) },
		"dir":     func(path string) error { return os.Mkdir(path, 0o755) },
		"full dir": func(path string) error {
			return errors.Join(os.Mkdir(path, 0o755), os.WriteFile(path+"/in", nil, 0o644))
		},
		"same file": nil, // a hard link of the source
	}
	kinds := []string{"nothing", "file", "fifo", "link", "dir", "full dir", "same file"}
	onMounts(t, func(t *testing.T, _ *volume, m *mounted) {
		p := &pair{mount: m.path("x"), model: filepath.Join(tmpfs(t), "x")}
		for _, flags := range []uint{0, unix.RENAME_NOREPLACE, unix.RENAME_EXCHANGE, unix.RENAME_EXCHANGE | unix.RENAME_NOREPLACE, 8} {
			for _, from := range kinds[:6] {
				for _, to := range kinds {
					what := fmt.Sprintf("%s over %s with flags %d", from, to, flags)
					for _, dir := range []string{p.mount, p.model} {
						must(t, errors.Join(os.MkdirAll(dir+"/one", 0o755), os.Mkdir(dir+"/two", 0o755), make[from](dir+"/one/a")))
						if to != "same file" {
							must(t, make[to](dir+"/two/b"))
						} else if from != "nothing" && from != "dir" && from != "full dir" {
							must(t, os.Link(dir+"/one/a", dir+"/two/b"))
						}
					}
					_, err := same(p, func(s side) (any, error) {
						return nil, unix.Renameat2(unix.AT_FDCWD, s.dir+"/one/a", unix.AT_FDCWD, s.dir+"/two/b", flags)
					})
					if errors.Is(err, errDiffers) {
						t.Errorf("%s: %v", what, err)
					}
					if err := p.equal(); err != nil {
						t.Errorf("%s: %v", what, err)
					}
					must(t, errors.Join(os.RemoveAll(p.mount), os.RemoveAll(p.model)))
				}
			}
		}
	})
}

// TestRenameBelowItself moves a directory into itself, and exchanges it with what is in it.
func TestRenameBelowItself(t *testing.T) {
	m := newVolume(t).mount(t, volumeOptions{})
	must(t, os.MkdirAll(m.path("a", "b", "c"), 0o755))
	wantErr(t, "into itself", unix.Rename(m.path("a"), m.path("a", "x")), unix.EINVAL)
	wantErr(t, "deep into itself", unix.Rename(m.path("a"), m.path("a", "b", "c", "x")), unix.EINVAL)
	wantErr(t, "exchange with what is in it", unix.Renameat2(unix.AT_FDCWD, m.path("a"), unix.AT_FDCWD, m.path("a", "b"), unix.RENAME_EXCHANGE), unix.EINVAL)
	wantErr(t, "over its parent", unix.Rename(m.path("a", "b", "c"), m.path("a")), unix.ENOTEMPTY)
	must(t, unix.Rename(m.path("a", "b", "c"), m.path("c")))
	must(t, unix.Rename(m.path("a"), m.path("c", "a")))
	if _, err := os.Lstat(m.path("c", "a", "b")); err != nil {
		t.Error(err)
	}
	if st := stat(t, m.path("c")); st.Nlink != 3 {
		t.Errorf("a directory with one in it has %d links, want 3", st.Nlink)
	}
}

// TestRenameOverOpenFile: who has the old file open goes on reading and writing it.
func TestRenameOverOpenFile(t *testing.T) {
	onMounts(t, func(t *testing.T, v *volume, m *mounted) {
		must(t, errors.Join(os.WriteFile(m.path("old"), []byte("old"), 0o644), os.WriteFile(m.path("new"), []byte("new"), 0o644)))
		old, err := os.OpenFile(m.path("old"), os.O_RDWR, 0)
		must(t, err)
		defer old.Close()
		must(t, os.Rename(m.path("new"), m.path("old")))
		if _, err := old.WriteAt([]byte("OLDER"), 0); err != nil {
			t.Error(err)
		}
		b := make([]byte, 10)
		if n, _ := old.ReadAt(b, 0); string(b[:n]) != "OLDER" {
			t.Errorf("the replaced file holds %q", b[:n])
		}
		if b, err := os.ReadFile(m.path("old")); err != nil || string(b) != "new" {
			t.Errorf("the new file holds %q, %v", b, err)
		}
		info, err := old.Stat()
		must(t, err)
		if st := stat(t, m.path("old")); st.Nlink != 1 || info.Size() != 5 {
			t.Errorf("the new file has %d links, the replaced one %d bytes", st.Nlink, info.Size())
		}
	})
}

// TestExchangeIsOneStep: nobody sees only one of the names, nor the third.
func TestExchangeIsOneStep(t *testing.T) {
	m := newVolume(t).mount(t, volumeOptions{})
	must(t, errors.Join(os.Mkdir(m.path("d"), 0o755), os.Mkdir(m.path("d", "full"), 0o755), os.WriteFile(m.path("d", "full", "x"), nil, 0o644)))
	must(t, errors.Join(os.WriteFile(m.path("d", "file"), []byte("f"), 0o644), os.WriteFile(m.path("d", ".0"), nil, 0o644)))
	must(t, unix.Renameat2(unix.AT_FDCWD, m.path("d", "full"), unix.AT_FDCWD, m.path("d", "file"), unix.RENAME_EXCHANGE))
	got, err := listing(m.path("d"))
	must(t, err)
	if want := fmt.Sprint([]string{".0 ----------", "file d---------", "full ----------"}); fmt.Sprint(got) != want {
		t.Errorf("after an exchange: %v, want %v", got, want)
	}
}

// TestLinks counts them, also over a remount.
func TestLinks(t *testing.T) {
	onMounts(t, func(t *testing.T, v *volume, m *mounted) {
		must(t, os.WriteFile(m.path("a"), []byte("x"), 0o644))
		for i := range 5 {
			must(t, os.Link(m.path("a"), m.path(fmt.Sprint("l", i))))
		}
		must(t, os.Remove(m.path("a")))
		if st := stat(t, m.path("l3")); st.Nlink != 5 {
			t.Errorf("%d links, want 5", st.Nlink)
		}
		must(t, os.Mkdir(m.path("d"), 0o755))
		wantErr(t, "link of a directory", unix.Link(m.path("d"), m.path("d2")), unix.EPERM)
		wantErr(t, "link over a name", unix.Link(m.path("l1"), m.path("l2")), unix.EEXIST)
		wantErr(t, "link of nothing", unix.Link(m.path("gone"), m.path("new")), unix.ENOENT)
		m.unmount(t)
		m = v.mount(t, volumeOptions{})
		if st := stat(t, m.path("l3")); st.Nlink != 5 {
			t.Errorf("%d links after a remount, want 5", st.Nlink)
		}
	})
}

// TestSpecialFiles makes each kind and finds it again.
func TestSpecialFiles(t *testing.T) {
	v := newVolume(t)
	m := v.mount(t, volumeOptions{})
	kinds := map[string]uint32{"fifo": unix.S_IFIFO, "socket": unix.S_IFSOCK, "char": unix.S_IFCHR, "block": unix.S_IFBLK, "file": unix.S_IFREG}
	dev := int(unix.Mkdev(259, 1<<18))
	for name, kind := range kinds {
		must(t, unix.Mknod(m.path(name), kind|0o640, dev))
	}
	long := strings.Repeat("0123456789abcde/", 256)[:4095]
	must(t, os.Symlink(long, m.path("link")))
	wantErr(t, "too long a target", unix.Symlink(long+"x", m.path("link2")), unix.ENAMETOOLONG)
	m.unmount(t)
	m = v.mount(t, volumeOptions{})
	for name, kind := range kinds {
		st := stat(t, m.path(name))
		want := uint64(0)
		if kind == unix.S_IFCHR || kind == unix.S_IFBLK {
			want = uint64(dev)
		}
		if st.Mode != kind|0o640 || st.Rdev != want {
			t.Errorf("%s: mode %o, device %#x", name, st.Mode, st.Rdev)
		}
	}
	if target, err := os.Readlink(m.path("link")); err != nil || target != long || stat(t, m.path("link")).Size != 4095 {
		t.Errorf("the link leads to %d bytes, %v", len(target), err)
	}
}

// TestNamesOfAnyLength makes names up to the limit, and no longer ones.
func TestNamesOfAnyLength(t *testing.T) {
	m := newVolume(t).mount(t, volumeOptions{})
	long := strings.Repeat("n", 255)
	must(t, os.Mkdir(m.path(long), 0o755))
	must(t, os.WriteFile(m.path(long, long), []byte("x"), 0o644))
	must(t, os.Rename(m.path(long, long), m.path(long, long[:254]+"\xff")))
	for what, err := range map[string]error{
		"mkdir":   unix.Mkdir(m.path(long+"n"), 0o755),
		"create":  with(m.path(long+"n"), unix.O_CREAT|unix.O_WRONLY, func(int) error { return nil }),
		"rename":  unix.Rename(m.path(long), m.path(long+"n")),
		"symlink": unix.Symlink("x", m.path(long+"n")),
		"unlink":  unix.Unlink(m.path(long + "n")),
	} {
		wantErr(t, what+" with a name of 256 bytes", err, unix.ENAMETOOLONG)
	}
}

// TestLargeDirectoryComesAndGoes makes and removes 20,000 names, while somebody lists them: what stays is met exactly once.
func TestLargeDirectoryComesAndGoes(t *testing.T) {
	const stay, move = 5000, 5000
	m := newVolume(t).mount(t, volumeOptions{})
	must(t, os.Mkdir(m.path("d"), 0o755))
	for i := range stay {
		must(t, unix.Mknod(m.path("d", fmt.Sprint("stays-", i)), unix.S_IFREG|0o644, 0))
	}
	stop, done := make(chan bool), make(chan error)
	go func() {
		var err error
		for i := 0; err == nil; i++ {
			select {
			case <-stop:
				done <- nil
				return
			default:
			}
			name := m.path("d", fmt.Sprint("moves-", i%move))
			if err = unix.Mknod(name, unix.S_IFREG|0o644, 0); err == unix.EEXIST {
				err = unix.Unlink(name)
			}
		}
		<-stop
		done <- err
	}()
	for range 10 {
		list, _ := names(t, m.path("d"), 4096)
		met := map[string]int{}
		for _, name := range list {
			met[name]++
		}
		for i := range stay {
			if n := met[fmt.Sprint("stays-", i)]; n != 1 {
				t.Fatalf("name %d was met %d times", i, n)
			}
		}
	}
	stop <- true
	must(t, <-done)
	if st := stat(t, m.path("d")); st.Size < stay {
		t.Errorf("the directory has %d entries", st.Size)
	}
	must(t, os.RemoveAll(m.path("d")))
}
