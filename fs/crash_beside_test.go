package fs

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"

	"encfsrun/fs/vault"
	"encfsrun/fs/vault/disk/memdisk"
	"encfsrun/fs/vault/tree"
)

const (
	besides     = 6    // clients at once
	besideFiles = 4    // that they share
	besideBlock = 1000 // bytes of a WRITE, all from one writer
	besideSlots = 12   // blocks of a file
)

// TestCrashBeside lets several clients write, read, rename and sync the same files at once, with the committer beside them. Each
// block read, and each block that is there after a power cut, is as one of them wrote it; after a power cut it is not older than
// its writer saw it synced. It is meant for the race detector.
func TestCrashBeside(t *testing.T) {
	w, l := newWorld(t), newLuck(t)
	limitTime(t, t.Name())
	g, err := w.serve(w.empty.Clone(), 8)
	if err != nil {
		t.Fatal(err)
	}
	b := &beside{rig: g}
	if err := b.makeFiles(); err != nil {
		t.Fatal(err)
	}
	stop := make(chan struct{})
	var committer, clients sync.WaitGroup
	committer.Go(func() { b.commit(stop) })
	for i := range besides {
		clients.Go(func() { b.client(l.of(fmt.Sprint("beside", i)), uint64(i+1), 150*l.rounds) })
	}
	clients.Wait()
	close(stop)
	committer.Wait()
	b.snap()
	if err := g.unmount(); err != nil {
		t.Error(err)
	}
	for _, at := range b.album {
		b.check(w, at.disk, &at.synced)
	}
	b.check(w, b.disk.Crash(memdisk.Lose, 0), &b.wrote)
	t.Logf("%d power cuts", len(b.album))
	if b.err != nil {
		t.Error(b.err)
	}
}

// beside is what the clients share. Writer i alone writes the blocks i, i+besides, … of each file: a stamp that says so and a
// number that rises.
type beside struct {
	*rig
	files [besideFiles]uint64

	mu     sync.Mutex
	wrote  numbers // the newest that was sent
	synced numbers // the newest that its writer saw synced
	album  []besidePicture
	err    error
}

// numbers are those of the blocks of each file.
type numbers [besideFiles][besideSlots]uint64

// besidePicture is what a power cut would leave, and what has to be there.
type besidePicture struct {
	disk   *memdisk.Disk
	synced numbers
}

func (b *beside) fail(format string, args ...any) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.err == nil {
		b.err = fmt.Errorf(format, args...)
	}
}

func besideHeader(ino uint64) fuse.InHeader {
	return fuse.InHeader{NodeId: ino, Caller: fuse.Caller{Pid: 1}}
}

func (b *beside) makeFiles() error {
	for i := range b.files {
		in := fuse.CreateIn{InHeader: besideHeader(1), Flags: syscall.O_RDWR, Mode: 0o600}
		var out fuse.CreateOut
		if status := b.fs.Create(nil, &in, fmt.Sprintf("f%d", i), &out); !status.Ok() {
			return fmt.Errorf("create: %v", status)
		}
		b.files[i] = out.NodeId
	}
	return nil
}

// commit does what the committer does, without its pauses.
func (b *beside) commit(stop chan struct{}) {
	for turn := 0; ; turn++ {
		select {
		case <-stop:
			return
		case <-time.After(time.Millisecond):
		}
		if turn%4 == 0 && len(b.album) < 50 {
			b.snap()
		}
		if err := b.fs.Sync(); err != nil {
			b.fail("sync: %v", err)
		}
		if err := b.fs.maintain(); err != nil {
			b.fail("maintain: %v", err)
		}
	}
}

func (b *beside) snap() {
	b.mu.Lock()
	synced := b.synced
	b.mu.Unlock()
	b.album = append(b.album, besidePicture{b.disk.Crash(memdisk.Lose, 0), synced})
}

func (b *beside) client(r *rand.Rand, me uint64, n int) {
	var number uint64
	name := fmt.Sprintf("mine%d", me)
	for range n {
		file := r.IntN(besideFiles)
		h := besideHeader(b.files[file])
		switch r.IntN(8) {
		case 0:
			mine := b.sent()
			if status := b.fs.Fsync(nil, &fuse.FsyncIn{InHeader: h}); !status.Ok() {
				b.fail("fsync: %v", status)
			}
			b.sawSynced(me, mine)
		case 1:
			b.read(h, file)
		case 2:
			b.name(r, name)
		default:
			number++
			slot := r.IntN(besideSlots/besides)*besides + int(me-1)
			p := make([]byte, besideBlock)
			for at := 0; at < besideBlock; at += 8 {
				binary.LittleEndian.PutUint64(p[at:], me<<32|number)
			}
			b.mu.Lock()
			b.wrote[file][slot] = number
			b.mu.Unlock()
			in := fuse.WriteIn{InHeader: h, Offset: uint64(slot * besideBlock), Size: besideBlock}
			cut := r.IntN(besideBlock)
			if _, status := b.fs.Writev(nil, &in, [][]byte{p[:cut], p[cut:]}); !status.Ok() {
				b.fail("write: %v", status)
			}
		}
	}
}

// sent returns the numbers that are written, or about to be: one's own are.
func (b *beside) sent() numbers {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.wrote
}

// sawSynced notes that a writer's blocks are durable as they were.
func (b *beside) sawSynced(me uint64, as numbers) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for file := range as {
		for slot := int(me - 1); slot < besideSlots; slot += besides {
			b.synced[file][slot] = as[file][slot]
		}
	}
}

// name makes, renames, opens and removes a file of one's own.
func (b *beside) name(r *rand.Rand, name string) {
	in := fuse.CreateIn{InHeader: besideHeader(1), Flags: syscall.O_RDWR, Mode: 0o600}
	var out fuse.CreateOut
	if status := b.fs.Create(nil, &in, name, &out); !status.Ok() {
		b.fail("create: %v", status)
		return
	}
	w := fuse.WriteIn{InHeader: besideHeader(out.NodeId), Size: 5000}
	b.fs.Writev(nil, &w, [][]byte{make([]byte, 5000)})
	h := besideHeader(1)
	rename := fuse.RenameIn{InHeader: h, Newdir: 1}
	if status := b.fs.Rename(nil, &rename, name, "new"+name); !status.Ok() {
		b.fail("rename: %v", status)
	}
	if status := b.fs.Unlink(nil, &h, "new"+name); !status.Ok() {
		b.fail("unlink: %v", status)
	}
	b.fs.Release(nil, &fuse.ReleaseIn{InHeader: besideHeader(out.NodeId), Flags: syscall.O_RDWR})
	b.fs.Forget(out.NodeId, 1)
}

// read reads a file, each block of which must be whole.
func (b *beside) read(h fuse.InHeader, file int) {
	in := fuse.ReadIn{InHeader: h, Size: besideSlots * besideBlock, ReadFlags: fuse.READ_LOCKOWNER}
	result, status := b.fs.Read(nil, &in, nil)
	if !status.Ok() {
		b.fail("read: %v", status)
		return
	}
	got := gather(result)
	result.Done()
	b.compare(file, got, &numbers{})
}

// compare looks at the blocks of a file, none of which may be older than some number.
func (b *beside) compare(file int, got []byte, least *numbers) {
	got = append(got, make([]byte, besideSlots*besideBlock-len(got))...)
	b.mu.Lock()
	newest := b.wrote
	b.mu.Unlock()
	for slot := range besideSlots {
		block := got[slot*besideBlock:][:besideBlock]
		stamp := block[:8]
		writer, number := binary.LittleEndian.Uint32(stamp[4:]), uint64(binary.LittleEndian.Uint32(stamp))
		if number < least[file][slot] || number > newest[file][slot] || number > 0 && int(writer) != slot%besides+1 {
			b.fail("block %d of file %d is number %d of %d, not %d to %d", slot, file, number, writer, least[file][slot], newest[file][slot])
		}
		if !bytes.Equal(block, bytes.Repeat(stamp, besideBlock/8)) {
			b.fail("block %d of file %d is torn", slot, file)
		}
	}
}

// check opens what is left.
func (b *beside) check(w *world, d *memdisk.Disk, least *numbers) {
	v, err := w.unlocked.Open(d, vault.Options{})
	if err != nil {
		b.fail("open: %v", err)
		return
	}
	defer v.Close()
	for file, ino := range b.files {
		a, err := v.Attr(tree.Ino(ino))
		if errors.Is(err, tree.ErrNotFound) && least[file] == (numbers{})[file] {
			continue
		}
		var got []byte
		if err == nil {
			got, err = contentOf(v, a, make([]byte, vault.PlainSize))
		}
		if err != nil {
			b.fail("file %d: %v", file, err)
			return
		}
		b.compare(file, got, least)
	}
}

// TestCrashGroupCommit makes many wait for the disk at once: they share commits.
func TestCrashGroupCommit(t *testing.T) {
	const callers, each = 16, 12
	w := newWorld(t)
	limitTime(t, t.Name())
	g, err := w.serve(w.empty.Clone(), 40)
	if err != nil {
		t.Fatal(err)
	}
	b := &beside{rig: g}
	if err := b.makeFiles(); err != nil {
		t.Fatal(err)
	}
	g.disk.Hook = func(op memdisk.Op) error {
		if op.Kind == memdisk.OpSync {
			time.Sleep(time.Millisecond) // what a disk takes
		}
		return nil
	}
	before := g.vault.Sequence()
	var group sync.WaitGroup
	for i := range callers {
		group.Go(func() {
			h := besideHeader(b.files[i%besideFiles])
			for n := range each {
				in := fuse.WriteIn{InHeader: h, Offset: uint64(n*callers+i) * 8, Size: 8}
				if _, status := b.fs.Writev(nil, &in, [][]byte{[]byte("contents")}); !status.Ok() {
					b.fail("write: %v", status)
				}
				if status := b.fs.Fsync(nil, &fuse.FsyncIn{InHeader: h}); !status.Ok() {
					b.fail("fsync: %v", status)
				}
			}
		})
	}
	group.Wait()
	commits := g.vault.Sequence() - before
	t.Logf("%d commits for %d syncs", commits, callers*each)
	if commits > callers*each/3 {
		t.Errorf("%d syncs took %d commits", callers*each, commits)
	}
	g.disk.Hook = nil
	if err := g.unmount(); err != nil {
		t.Error(err)
	}
	if b.err != nil {
		t.Error(b.err)
	}
}
