package fs

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"encfsrun/fs/vault"
)

// countingStore counts commits, and lets a test hold up or fail what makes them durable.
type countingStore struct {
	Store
	prepared, synced atomic.Int64
	sync             func() error // nil: at once
}

func (s *countingStore) Prepare() (vault.Point, error) {
	s.prepared.Add(1)
	return s.Store.Prepare()
}

func (s *countingStore) Sync(p vault.Point) error {
	if s.sync != nil {
		if err := s.sync(); err != nil {
			return err
		}
	}
	s.synced.Add(1)
	return s.Store.Sync(p)
}

// TestGroupCommit: while one commit is on its way to the disk, all who come then wait for one more together.
func TestGroupCommit(t *testing.T) {
	const callers = 8
	began, hold := make(chan bool, 100), make(chan bool)
	s := &countingStore{sync: func() error { began <- true; <-hold; return nil }}
	m := newVolume(t).mount(t, volumeOptions{store: func(real Store) Store { s.Store = real; return s }})
	var all sync.WaitGroup
	fsync := func(name string) {
		err := with(m.path(name), unix.O_CREAT|unix.O_WRONLY, func(fd int) error {
			_, err := unix.Write(fd, []byte("x"))
			return errors.Join(err, unix.Fsync(fd))
		})
		if err != nil {
			t.Error(err)
		}
	}
	all.Go(func() { fsync("first") })
	<-began
	for i := range callers {
		all.Go(func() { fsync(fmt.Sprint("f", i)) })
	}
	// All wait once the second run has a leader and every file is there: a create does not wait for the disk.
	eventually(t, "the others", func() bool {
		for i := range callers {
			if st, err := os.Lstat(m.path(fmt.Sprint("f", i))); err != nil || st.Size() == 0 {
				return false
			}
		}
		return true
	})
	hold <- true
	<-began
	close(hold)
	all.Wait()
	if n := s.synced.Load(); n > 1+1+2 {
		t.Errorf("%d callers who came together took %d commits", callers, n-1)
	}
	s.sync = nil
}

// TestWhatIsDurable writes in each way that promises durability, and looks what a reader of the vault finds right after.
func TestWhatIsDurable(t *testing.T) {
	ways := map[string]struct {
		flags int
		sync  func(fd, dir int) error
	}{
		"fsync":     {0, func(fd, _ int) error { return unix.Fsync(fd) }},
		"fdatasync": {0, func(fd, _ int) error { return unix.Fdatasync(fd) }},
		"O_SYNC":    {unix.O_SYNC, nil},
		"O_DSYNC":   {unix.O_DSYNC, nil},
		"directory": {0, func(_, dir int) error { return unix.Fsync(dir) }},
		"RWF_DSYNC": {0, func(fd, _ int) error {
			_, err := unix.Pwritev2(fd, [][]byte{[]byte("content")}, 0, unix.RWF_DSYNC)
			return err
		}},
		"O_SYNC and O_APPEND": {unix.O_SYNC | unix.O_APPEND, nil},
	}
	onMounts(t, func(t *testing.T, v *volume, m *mounted) {
		dir, err := unix.Open(m.dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		must(t, err)
		defer unix.Close(dir)
		for name, way := range ways {
			must(t, os.WriteFile(m.path("other "+name), []byte("another file"), 0o644))
			fd, err := unix.Open(m.path(name), unix.O_CREAT|unix.O_WRONLY|unix.O_CLOEXEC|way.flags, 0o644)
			must(t, err)
			_, err = unix.Write(fd, []byte("content"))
			must(t, err)
			if way.sync != nil {
				must(t, way.sync(fd, dir))
			}
			durable, err := v.durable("")
			must(t, err)
			for path, want := range map[string]string{"/" + name: "content", "/other " + name: "another file"} {
				if e := durable[path]; e == nil || e.Content != squeeze([]byte(want)) {
					t.Errorf("%s: %s is %+v", name, path, e)
				}
			}
			must(t, unix.Close(fd))
		}
	})
}

// TestCommitsWithoutSync: what nobody syncs is durable some seconds later.
func TestCommitsWithoutSync(t *testing.T) {
	v := newVolume(t)
	m := v.mount(t, volumeOptions{})
	f, err := os.Create(m.path("f"))
	must(t, err)
	defer f.Close()
	_, err = f.Write([]byte("content"))
	must(t, err)
	began := time.Now()
	eventually(t, "a commit", func() bool {
		durable, err := v.durable("")
		must(t, err)
		return durable["/f"] != nil && durable["/f"].Size == 7
	})
	if took := time.Since(began); took > 2*commitDelay {
		t.Errorf("it took %v", took)
	}
}

// TestStoreFails: when what was accepted can't be made durable, every fsync says EIO, nothing more is accepted, and what is there can
// still be read.
func TestStoreFails(t *testing.T) {
	broken := atomic.Bool{}
	s := &countingStore{sync: func() error {
		if broken.Load() {
			return errors.New("the disk is gone")
		}
		return nil
	}}
	m := newVolume(t).mount(t, volumeOptions{store: func(real Store) Store { s.Store = real; return s }})
	content := bytes.Repeat([]byte("content"), 1000)
	must(t, os.WriteFile(m.path("f"), content, 0o644))
	f, err := os.OpenFile(m.path("f"), os.O_RDWR, 0)
	must(t, err)
	defer f.Close()
	must(t, f.Sync())
	broken.Store(true)
	_, err = f.WriteAt([]byte("changed"), 0)
	must(t, err)
	for range 3 {
		wantErr(t, "fsync", f.Sync(), unix.EIO)
	}
	if s := m.fs.Stats(); !s.Unsynced {
		t.Errorf("the mount does not say that something is not durable: %+v", s)
	}
	_, err = f.WriteAt([]byte("x"), 0)
	wantErr(t, "write", err, unix.EROFS)
	for what, err := range map[string]error{
		"mkdir":    os.Mkdir(m.path("d"), 0o755),
		"unlink":   os.Remove(m.path("f")),
		"chmod":    os.Chmod(m.path("f"), 0o600),
		"truncate": os.Truncate(m.path("f"), 0),
		"open":     with(m.path("f"), unix.O_WRONLY, func(int) error { return nil }),
		"create":   with(m.path("g"), unix.O_WRONLY|unix.O_CREAT, func(int) error { return nil }),
		"rename":   os.Rename(m.path("f"), m.path("g")),
		"setxattr": unix.Setxattr(m.path("f"), "user.a", nil, 0),
	} {
		wantErr(t, what, err, unix.EROFS)
	}
	if b, err := os.ReadFile(m.path("f")); err != nil || string(b[:7]) != "changed" || !bytes.Equal(b[7:], content[7:]) {
		t.Errorf("read %d bytes, %v", len(b), err)
	}
	broken.Store(false)
}
