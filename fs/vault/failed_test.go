package vault

import (
	"bytes"
	"errors"
	"syscall"
	"testing"

	"encfsrun/fs/vault/disk/memdisk"
	"encfsrun/fs/vault/tree"
)

// TestReadAfterFailure lets the disk fail for good and goes on with a session as if it had not noticed. All that the tree says was
// written before is still read as it was written, from memory if from nowhere else; what can't be had is the disk's error. That
// blocks move, which a mount answers by looking again, is not said of one that will never come.
func TestReadAfterFailure(t *testing.T) {
	for _, blocks := range []int{0, 3, 20, 40} { // written and not synced when the disk fails
		f := newFixture(t)
		d := newVault(t, f)
		w := startWriting(t, f, d)
		const size = 60 * PlainSize
		ino, other := w.s.NewIno(), w.s.NewIno()
		for _, i := range []Ino{ino, other} {
			if err := w.s.Put(tree.Attr{Ino: i, Mode: 0o100600, Size: size}); err != nil {
				t.Fatal(err)
			}
		}
		if err := errors.Join(w.write(other, 0, []byte("other")), w.s.Commit()); err != nil {
			t.Fatal(err)
		}
		if _, err := w.s.clean(func(all []usage) []usage { return all }); err != nil {
			t.Fatal(err)
		}
		want := make([]byte, size)
		add := func(i int) error {
			p := bytes.Repeat([]byte{byte(i), 7}, PlainSize/2)
			err := w.write(ino, i*PlainSize, p)
			if err == nil {
				copy(want[i*PlainSize:], p)
			}
			return err
		}
		for i := range blocks {
			if err := add(i); err != nil {
				t.Fatal(err)
			}
		}
		w.s.w.wait()
		d.Hook = func(op memdisk.Op) error {
			if op.Kind.Changes() {
				return syscall.EIO
			}
			return nil
		}
		for i := blocks; i < 60; i++ {
			add(i)
			if i%8 == 0 {
				w.s.Commit()
			}
			w.write(other, 0, bytes.Repeat([]byte("x"), 3*PlainSize))
			clear(w.cache)
			if got, err := w.read(ino); err != nil || !bytes.Equal(got, want) {
				t.Fatalf("%d blocks; after %d writes to a disk that fails: %v, wrong from byte %d on", blocks, i-blocks+1, err, firstDifference(got, want))
			}
		}
		if err := w.s.Commit(); err == nil {
			t.Error("a commit succeeds")
		}
		w.s.Abort()
		w.v.Close()
		w.u.Close()
	}
}

func firstDifference(a, b []byte) int {
	for i := range min(len(a), len(b)) {
		if a[i] != b[i] {
			return i
		}
	}
	return min(len(a), len(b))
}
