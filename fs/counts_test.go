package fs

import (
	"fmt"
	"sync"
	"testing"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
	"pgregory.net/rapid"

	"encfsrun/fs/vault/tree"
)

func TestCounts(t *testing.T) {
	rapid.Check(t, func(r *rapid.T) {
		var c counts
		model := map[uint64]uint64{}
		ino := rapid.OneOf(rapid.Uint64Range(1, 200), rapid.Uint64Range(1<<40, 1<<40+100), rapid.Just(uint64(tree.MaxInoValue)))
		r.Repeat(map[string]func(*rapid.T){
			"add": func(r *rapid.T) {
				i := ino.Draw(r, "inode")
				c.add(i)
				model[i]++
			},
			"sub": func(r *rapid.T) {
				i, n := ino.Draw(r, "inode"), rapid.Uint64Range(0, 5).Draw(r, "n")
				model[i] -= min(n, model[i])
				if model[i] == 0 {
					delete(model, i)
				}
				if left := c.sub(i, n); left != model[i] {
					r.Fatalf("%d left, want %d", left, model[i])
				}
			},
			"": func(r *rapid.T) {
				if c.inodes() != int64(len(model)) {
					r.Fatalf("%d inodes, want %d", c.inodes(), len(model))
				}
				pages := map[uint64]bool{}
				for i, n := range model {
					pages[i/pageInodes] = true
					s, number, at := c.shard(i)
					if p := s.pages[number]; p == nil || p.n[at] != n {
						r.Fatalf("inode %d: want %d in %+v", i, n, p)
					}
				}
				have := 0
				for i := range c.shards {
					have += len(c.shards[i].pages)
				}
				if have != len(pages) {
					r.Fatalf("%d pages, want %d", have, len(pages))
				}
			},
		})
	})
}

// spy counts by itself what the kernel was told of, from the replies, and what it gave back.
type spy struct {
	*FS
	mu      sync.Mutex
	told    map[uint64]uint64
	forgot  map[uint64]uint64
	listing int // entries of READDIRPLUS replies
}

func (s *spy) Lookup(cancel <-chan struct{}, h *fuse.InHeader, name string, out *fuse.EntryOut) fuse.Status {
	status := s.FS.Lookup(cancel, h, name, out)
	s.mu.Lock()
	defer s.mu.Unlock()
	if status.Ok() && out.NodeId != 0 {
		s.told[out.NodeId]++
	}
	return status
}

func (s *spy) ReadDirPlus(cancel <-chan struct{}, in *fuse.ReadIn, out *fuse.DirEntryList) fuse.Status {
	status := s.FS.ReadDirPlus(cancel, in, out)
	entries, outs, err := fuse.ParseDirLookupEntries(out.Bytes())
	if err != nil {
		panic(err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for i, e := range entries {
		dot := e.Name == "." || e.Name == ".."
		if dot == (outs[i].NodeId != 0) {
			panic(fmt.Sprintf("%q has node id %d", e.Name, outs[i].NodeId))
		}
		if !dot {
			s.told[outs[i].NodeId]++
			s.listing++
		}
	}
	return status
}

func (s *spy) Forget(ino, n uint64) {
	s.mu.Lock()
	s.forgot[ino] += n
	s.mu.Unlock()
	s.FS.Forget(ino, n)
}

// TestLookupCountsReturnToZero looks up and lists thousands of inodes several times, lets the kernel forget them, and compares.
func TestLookupCountsReturnToZero(t *testing.T) {
	m := newModel()
	randomTree(m, 300)
	dir := m.dir(tree.Root, "many")
	for i := range 3000 {
		m.file(dir, fmt.Sprintf("f%d", i), nil)
	}
	s := &spy{told: map[uint64]uint64{}, forgot: map[uint64]uint64{}}
	mnt := mount(t, m, mountOptions{wrap: func(f *FS) fuse.RawFileSystem { s.FS = f; return s }})
	forget := func() {
		// A remount prunes the dentries of this one mount; drop_caches would be the whole machine's.
		if err := unix.Mount("", mnt.dir, "", unix.MS_REMOUNT|unix.MS_NOSUID|unix.MS_NODEV, ""); err != nil {
			t.Fatal(err)
		}
	}
	var wg sync.WaitGroup
	for w := range 4 {
		wg.Go(func() {
			for i := range 3 {
				names(t, mnt.path("many"), 4096<<(w+i))
				for k := range 100 {
					unix.Lstat(mnt.path("many", fmt.Sprintf("f%d", k*29+w)), &unix.Stat_t{})
					unix.Lstat(mnt.path("many", fmt.Sprintf("missing%d", k)), &unix.Stat_t{})
				}
				if w == 0 {
					forget()
				}
			}
		})
	}
	wg.Wait()
	compare(t, m, tree.Root, mnt.dir)
	if n := mnt.fs.Stats().KnownInodes; n < 3000 || n != int64(len(m.nodes)-1) {
		t.Errorf("%d inodes known, want all %d but the root", n, len(m.nodes)-1)
	}
	eventually(t, "the kernel forgets all", func() bool { forget(); return mnt.fs.Stats().KnownInodes == 0 })
	s.mu.Lock() // the mount must not be touched from here on
	defer s.mu.Unlock()
	for ino, n := range s.told {
		if s.forgot[ino] != n {
			t.Errorf("inode %d: told %d times, forgotten %d times", ino, n, s.forgot[ino])
		}
	}
	if len(s.forgot) != len(s.told) || s.listing < 3000 {
		t.Errorf("%d inodes told, %d forgotten, %d entries listed", len(s.told), len(s.forgot), s.listing)
	}
}
