package vault

import (
	"bytes"
	"errors"
	"fmt"
	"syscall"
	"testing"

	"encfsrun/fs/vault/disk/memdisk"
	"encfsrun/fs/vault/record"
)

// TestCleaningThatIsHindered cleans where that can't be done whole: on a disk that is full, or has a bad sector. The session goes on, and
// cleans when it can.
func TestCleaningThatIsHindered(t *testing.T) {
	f := newFixture(t)
	all := func(use []usage) []usage { return use }
	for _, c := range []struct {
		name   string
		hinder func(*memdisk.Disk)
		told   bool
	}{
		{"no room at all", func(d *memdisk.Disk) { d.Capacity = used(t, d) + 100<<10 }, false},
		{"room for a checkpoint", func(d *memdisk.Disk) { d.Capacity = used(t, d) + 1<<20 }, false},
		{"a bad sector", func(d *memdisk.Disk) {
			d.Hook = func(op memdisk.Op) error {
				if op.Kind == memdisk.OpRead {
					return syscall.EIO
				}
				return nil
			}
		}, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			d := newVault(t, f)
			w := startWriting(t, f, d)
			want := bytes.Repeat([]byte{5}, 30_000)
			var last Ino
			for i := range 100 {
				var err error
				if last, err = w.put(fmt.Sprint("f", i), want); err != nil {
					t.Fatal(err)
				}
			}
			if err := w.s.Commit(); err != nil {
				t.Fatal(err)
			}
			c.hinder(d)
			_, err := w.s.clean(all)
			if err == nil && c.told {
				t.Error("nobody is told")
			}
			if err := w.s.tell(err); err != nil || w.s.w.broken() {
				t.Fatalf("the session ends: %v", err)
			}
			if told := len(w.warned) > 0; told != c.told {
				t.Errorf("it warns %v", w.warned)
			}
			d.Capacity, d.Hook = 0, nil
			if freed, err := w.s.clean(all); err != nil || freed == 0 {
				t.Errorf("when it can, cleaning frees %d bytes, %v", freed, err)
			}
			clear(w.cache)
			if got, err := w.read(last); err != nil || !bytes.Equal(got, want) {
				t.Errorf("a file is not what was written: %v", err)
			}
			if err := errors.Join(w.s.Commit(), w.close()); err != nil {
				t.Fatal(err)
			}
		})
	}
}

func used(t *testing.T, d *memdisk.Disk) int64 {
	space, err := d.Space("/")
	if err != nil {
		t.Fatal(err)
	}
	return int64(space.Total - space.Free)
}

// TestCheckpointOfALargeVault gives a vault the segment tables of one of 48 GiB, whose checkpoint is longer than checkpointDistance: that
// alone makes no other one due.
func TestCheckpointOfALargeVault(t *testing.T) {
	f := newFixture(t)
	w := startWriting(t, f, newVault(t, f))
	small := w.v.segs
	sums := make([]record.Sum, MaxSegmentBlocks)
	var large []*segment
	for range 48 << 30 / maxSegmentSize {
		large = append(large, &segment{sums: sums})
	}
	w.v.segs = append(large, small...)
	if err := w.s.Checkpoint(); err != nil {
		t.Fatal(err)
	}
	next := w.s.w.next
	if n := (next - w.s.since) * BlockSize; n < checkpointDistance {
		t.Fatalf("the checkpoint takes only %d bytes", n)
	}
	if _, err := w.put("a", []byte("a")); err != nil {
		t.Fatal(err)
	}
	if err := w.s.checkpointIfDue(); err != nil {
		t.Fatal(err)
	}
	if n := w.s.w.next - next; n > 1 {
		t.Errorf("a file of one byte takes %d blocks: another checkpoint", n)
	}
	w.v.segs = w.v.segs[len(large):]
	w.s.Abort()
	w.v.Close()
	w.u.Close()
}
