package memdisk_test

import (
	"bytes"
	"fmt"
	"io/fs"
	"slices"
	"syscall"
	"testing"

	"encfsrun/fs/vault/disk"
	"encfsrun/fs/vault/disk/memdisk"

	"pgregory.net/rapid"
)

// oracle keeps what POSIX promises about a disk, beside the disk: a second, slower
// account of the same rules in other terms. Files are told apart by their
// permission bits, which nothing can lose.
type oracle struct {
	d     *memdisk.Disk
	files map[fs.FileMode]*promised
	names map[string]*nameHistory
	next  fs.FileMode
}

// promised is what is known of one file.
type promised struct {
	f      disk.File
	now    []byte
	states [][]byte // every content it had since the last good Sync, beginning with that
	failed bool     // a Sync failed: its bytes promise nothing any more
}

// nameHistory is what a name stood for since the directory was synced; 0 is nothing.
type nameHistory struct {
	now    fs.FileMode
	states []fs.FileMode
}

// step carries out one random operation on both.
func (o *oracle) step(t *rapid.T) {
	must := func(err error) {
		if err != nil {
			t.Fatal(err)
		}
	}
	name := rapid.SampledFrom([]string{"/d/a", "/d/b", "/d/c"}).Draw(t, "name")
	h := o.names[name]
	p := o.files[h.now]
	action := rapid.SampledFrom([]string{"write", "write", "write", "sync", "fail", "drop", "dir", "rename", "remove"}).Draw(t, "action")
	if action == "dir" {
		must(o.d.SyncDir("/d"))
		for _, h := range o.names {
			h.states = []fs.FileMode{h.now}
		}
		return
	}
	if p == nil { // the only thing to do with a free name
		o.next++
		f, err := o.d.Create(name, o.next)
		must(err)
		o.files[o.next] = &promised{f: f, states: [][]byte{nil}}
		h.set(o.next)
		return
	}
	switch action {
	case "write":
		off := rapid.IntRange(0, 3*pageSize).Draw(t, "offset")
		data := bytes.Repeat([]byte{rapid.Byte().Draw(t, "byte")}, rapid.IntRange(1, 2*pageSize).Draw(t, "length"))
		p.write(t, data, off)
	case "sync":
		must(p.f.Sync())
		p.states = [][]byte{p.now}
	case "fail":
		o.d.Hook = func(memdisk.Op) error { return syscall.EIO }
		if p.f.Sync() == nil {
			t.Fatal("an injected error got lost")
		}
		o.d.Hook = nil
		p.failed = true
	case "drop":
		must(p.f.DropCache())
		if p.failed { // reads may have changed; only the length is still known
			p.now = o.read(t, name)
		}
	case "rename":
		other := rapid.SampledFrom([]string{"/d/a", "/d/b", "/d/c"}).Draw(t, "new name")
		must(o.d.Rename(name, other))
		if other != name {
			o.names[other].set(h.now)
			h.set(0)
		}
	case "remove":
		must(o.d.Remove(name))
		h.set(0)
	}
	if h.now != 0 {
		if got := o.read(t, name); !bytes.Equal(got, o.files[h.now].now) {
			t.Fatalf("%s reads differently from what was written", name)
		}
	}
}

func (h *nameHistory) set(id fs.FileMode) {
	h.now = id
	h.states = append(h.states, id)
}

// write records a state for each page that the write touches, in order: the length
// may survive at any of them.
func (p *promised) write(t *rapid.T, data []byte, off int) {
	if n, err := p.f.WriteAt(data, int64(off)); n != len(data) || err != nil {
		t.Fatal(n, err)
	}
	for len(data) > 0 {
		k := min(len(data), pageSize-off%pageSize)
		next := make([]byte, max(len(p.now), off+k))
		copy(next, p.now)
		copy(next[off:], data[:k])
		p.now = next
		p.states = append(p.states, next)
		data, off = data[k:], off+k
	}
}

func (o *oracle) read(t *rapid.T, name string) []byte {
	data, err := o.d.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// check holds a disk after a crash against what was promised.
func (o *oracle) check(t *rapid.T, after *memdisk.Disk) {
	for name, h := range o.names {
		id := fs.FileMode(0)
		if info, err := after.Lstat(name); err == nil {
			id = info.Mode
		}
		if !slices.Contains(h.states, id) {
			t.Fatalf("%s is file %d; since the last sync of the directory it was one of %v", name, id, h.states)
		}
		if id == 0 {
			continue
		}
		got, err := after.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		if err := o.files[id].allows(got); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
	}
}

// allows says what is wrong with the content that a file has after a crash.
func (p *promised) allows(got []byte) error {
	reached := func(state []byte) bool { return len(state) == len(got) }
	if !slices.ContainsFunc(p.states, reached) {
		return fmt.Errorf("it never was %d bytes long since the last sync", len(got))
	}
	if p.failed {
		return nil
	}
	const sector = 512
	for at := 0; at < len(got); at += sector {
		part := got[at:min(at+sector, len(got))]
		was := func(state []byte) bool {
			whole := make([]byte, sector)
			if at < len(state) {
				copy(whole, state[at:])
			}
			return bytes.Equal(part, whole[:len(part)])
		}
		if !slices.ContainsFunc(p.states, was) {
			return fmt.Errorf("the sector at %d holds what it never held since the last sync", at)
		}
	}
	return nil
}

// TestSyncedSurvives: through any history, and several crashes from the same
// instant, what was synced is there, and nothing is that never was.
func TestSyncedSurvives(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		d := memdisk.New()
		if err := d.WriteFile("/d/seed", nil); err != nil {
			t.Fatal(err)
		}
		o := &oracle{d: d, files: make(map[fs.FileMode]*promised), names: make(map[string]*nameHistory)}
		for _, name := range []string{"/d/a", "/d/b", "/d/c"} {
			o.names[name] = &nameHistory{states: []fs.FileMode{0}}
		}
		mode := rapid.SampledFrom([]memdisk.Mode{0, memdisk.TornPages}).Draw(t, "mode")
		for range rapid.IntRange(1, 30).Draw(t, "steps") {
			o.step(t)
		}
		choose := func(n int) int { return rapid.IntRange(0, n-1).Draw(t, "fate") }
		for range 3 {
			after := d.Crash(choose, mode)
			o.check(t, after)
			noChoice := func(int) int { panic("a second crash at once has nothing to choose") }
			if !after.Crash(noChoice, mode).Equal(after) {
				t.Fatal("a second crash at once changed the disk")
			}
		}
		if !d.Clone().Equal(d) {
			t.Fatal("a clone is not equal")
		}
	})
}
