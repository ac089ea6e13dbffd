package fs

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"syscall"
	"testing"

	"github.com/hanwen/go-fuse/v2/fuse"

	"encfsrun/fs/vault/disk/memdisk"
	"encfsrun/fs/vault/tree"
)

const fullWorkloads = 6

// TestCrashFull makes random requests on a disk that becomes full. What is refused has changed nothing; what was accepted is there
// after a sync; names can be removed; with more room all goes on.
func TestCrashFull(t *testing.T) {
	w, l := newWorld(t), newLuck(t)
	for i := range fullWorkloads * l.rounds {
		t.Run(fmt.Sprint(i), func(t *testing.T) {
			t.Parallel()
			limitTime(t, t.Name())
			if err := w.fill(l.of(fmt.Sprint("full", i)), i); err != nil {
				t.Error(err)
			}
		})
	}
}

func noSpace(status fuse.Status) bool { return status == fuse.Status(syscall.ENOSPC) }

func (w *world) fill(r *rand.Rand, variant int) error {
	d := w.empty.Clone()
	d.Capacity = 6<<20 + int64(variant%3)<<20
	g, err := w.serve(d, 3+variant%4*20)
	if err != nil {
		return err
	}
	c, err := newClient(g, r)
	if err != nil {
		return err
	}
	c.large = 2
	err = w.fillAndEmpty(c)
	return errors.Join(err, c.unmount())
}

func (w *world) fillAndEmpty(c *client) error {
	c.expects = noSpace
	for rounds := 0; c.refused < 20; rounds++ {
		if rounds == 100 {
			return errors.New("the disk does not become full")
		}
		if err := c.run(20); err != nil {
			return err
		}
	}
	if err := w.settled(c, "full"); err != nil {
		return err
	}
	c.expects = nil
	for _, p := range c.tree.places() {
		if n := c.tree.nodes[p.ino]; n == nil || len(n.names) > 0 || c.oneIn(3) {
			continue
		}
		if c.know(p.ino); !c.remove(p) {
			return fmt.Errorf("a name can't be removed: %w", c.run(0))
		}
	}
	for len(c.opens) > 0 {
		c.release(0)
	}
	if err := w.settled(c, "after removals"); err != nil {
		return err
	}
	c.disk.Capacity = 0
	if err := c.run(60); err != nil {
		return fmt.Errorf("with more room: %w", err)
	}
	return w.settled(c, "with more room")
}

// settled syncs, reads all, and cuts the power of a copy.
func (w *world) settled(c *client, when string) error {
	c.note("fsync, %s", when)
	newest := c.newest()
	expects := c.expects
	c.expects = nil
	c.synced(c.fs.Fsync(nil, &fuse.FsyncIn{InHeader: c.header(tree.Root)}), newest)
	c.readAll()
	c.expects = expects
	if err := c.run(0); err != nil {
		return fmt.Errorf("%s: %w", when, err)
	}
	at := picture{durable: newest, newest: newest}
	if _, err := w.check(c.disk.Crash(memdisk.Lose, 0), c.versions, at, true); err != nil {
		return fmt.Errorf("%s, then a power cut: %w", when, err)
	}
	return nil
}

// TestCrashFullNameless writes to files without names, fills the disk with another, and then names them: their contents, which no
// commit needed until then, were accepted.
func TestCrashFullNameless(t *testing.T) {
	w := newWorld(t)
	limitTime(t, t.Name())
	d := w.empty.Clone()
	d.Capacity = 12 << 20
	g, err := w.serve(d, 200)
	if err != nil {
		t.Fatal(err)
	}
	c, err := newClient(g, newLuck(t).of("nameless"))
	if err != nil {
		t.Fatal(err)
	}
	const nameless = 4
	for i := range nameless {
		c.create(tree.Root, "", 0o600)
		c.write(c.opens[i].ino, 0, c.payload(eagerFlush-1000), 0, 0)
	}
	c.create(tree.Root, "filler", 0o600)
	c.expects = noSpace
	for i := 0; c.refused == 0 && c.err == nil; i++ {
		c.write(c.opens[nameless].ino, i*100_000, c.payload(100_000), 0, 0)
		c.note("fsync")
		c.synced(c.fs.Fsync(nil, &fuse.FsyncIn{InHeader: c.header(tree.Root)}), c.newest())
	}
	for i := range nameless {
		if c.link(c.opens[i].ino, tree.Root, fmt.Sprint("named", i)); c.tree.nodes[c.opens[i].ino].Nlink == 0 {
			t.Logf("file %d can't be named", i) // which is an answer too
		}
	}
	if err := w.settled(c, "named"); err != nil {
		t.Error(err)
	}
	if err := c.unmount(); err != nil {
		t.Error(err)
	}
}
