package fs

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"syscall"

	"github.com/hanwen/go-fuse/v2/fuse"

	"encfsrun/fs/vault/disk/memdisk"
	"encfsrun/fs/vault/tree"
)

// client asks what a kernel would ask: it names inodes that it has looked up, counts its look-ups, gives them back, and closes
// what it opened. It holds the file system to the model after each request.
type client struct {
	*rig
	r      *rand.Rand
	tree   *shadow
	looked map[tree.Ino]uint64
	opens  []openHandle

	expects func(fuse.Status) bool // statuses that a request may be refused with; nil: none
	large   int                    // one WRITE in so many is large
	failed  bool                   // a request failed as a failing disk lets it: what it did is not known
	refused int                    // requests that were
	err     error                  // the first thing that was wrong
	log     []string

	mu       sync.Mutex // blocks are written beside the client
	versions []string   // the tree after each change, dumped
	durable  int        // the version that has to be there from now on
	album    []picture
}

type openHandle struct {
	ino   tree.Ino
	flags uint32
}

// picture is the disk at an instant.
type picture struct {
	disk    *memdisk.Disk
	durable int // version
	newest  int // version that may be there
	before  string
}

func newClient(g *rig, r *rand.Rand) (*client, error) {
	s, err := shadowOf(g.vault)
	if err != nil {
		return nil, err
	}
	return &client{rig: g, r: r, tree: s, looked: map[tree.Ino]uint64{}, large: 12, versions: []string{s.dump()}}, nil
}

// watch takes a picture before each operation that changes the disk.
func (c *client) watch() {
	c.disk.Hook = func(op memdisk.Op) error {
		if op.Kind.Changes() {
			c.snap(op.String())
		}
		return nil
	}
}

func (c *client) snap(before string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	// The request under way may be part of it: O_SYNC.
	c.album = append(c.album, picture{c.disk.Clone(), c.durable, len(c.versions), before})
}

// run makes n random requests.
func (c *client) run(n int) error {
	for i := 0; i < n && c.err == nil; i++ {
		randomRequest(c)
	}
	if c.err != nil {
		return fmt.Errorf("%w\nafter\n%s", c.err, strings.Join(c.log[max(0, len(c.log)-25):], "\n"))
	}
	return nil
}

func (c *client) fail(format string, args ...any) {
	if c.err == nil {
		c.err = fmt.Errorf(format, args...)
	}
}

func (c *client) note(format string, args ...any) {
	c.log = append(c.log, fmt.Sprintf(format, args...))
}

// header is that of a request about an inode.
func (c *client) header(ino tree.Ino) fuse.InHeader {
	return fuse.InHeader{NodeId: uint64(ino), Caller: fuse.Caller{Pid: 1, Owner: fuse.Owner{Uid: 1000, Gid: 100}}}
}

// changes says which times of which inodes a request sets to now.
type changes map[tree.Ino]times

// did notes how a request went. If it was accepted the model changes likewise; if not, nothing may have changed.
func (c *client) did(status fuse.Status, changed changes, apply func()) bool {
	c.log[len(c.log)-1] += fmt.Sprint(": ", status)
	if !c.accepted(status) {
		if status != fuse.Status(syscall.ENOSPC) && status != fuse.EROFS {
			c.failed = true
			for ino := range changed {
				c.tree.nodes[ino].unsure = true
			}
		}
		c.verify()
		return false
	}
	before := map[tree.Ino]tree.Attr{}
	for ino := range changed {
		if n := c.tree.nodes[ino]; n != nil {
			before[ino] = n.Attr
		}
	}
	apply()
	for ino, which := range changed {
		c.absorb(ino, which, before[ino])
	}
	c.verify()
	c.mu.Lock()
	defer c.mu.Unlock()
	c.versions = append(c.versions, c.tree.dump())
	return true
}

// accepted says whether a request was; if not, it must be a refusal that is expected.
func (c *client) accepted(status fuse.Status) bool {
	if status.Ok() {
		return true
	}
	c.refused++
	if c.expects == nil || !c.expects(status) {
		c.fail("the request was refused: %v", status)
	}
	return false
}

// synced notes that a version is durable, if a sync said so.
func (c *client) synced(status fuse.Status, version int) {
	c.log[len(c.log)-1] += fmt.Sprint(": ", status)
	if !c.accepted(status) {
		c.failed = c.failed || status == fuse.EIO
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.durable = max(c.durable, version)
}

func (c *client) newest() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.versions) - 1
}

// absorb takes over times that the file system has set, which must be later than those before.
func (c *client) absorb(ino tree.Ino, which times, before tree.Attr) {
	n := c.tree.nodes[ino]
	if n == nil || n.unsure {
		return
	}
	a, ok := c.attr(ino)
	if !ok {
		return
	}
	for _, t := range []struct {
		one      times
		now, was tree.Time
		to       *tree.Time
	}{{modified, a.Mtime, before.Mtime, &n.Mtime}, {inodeChanged, a.Ctime, before.Ctime, &n.Ctime}} {
		if which&t.one == 0 {
			continue
		}
		if t.now == t.was {
			c.fail("inode %d: a time was not set (%d)", ino, t.one)
		}
		*t.to = t.now
	}
}

// attr is GETATTR.
func (c *client) attr(ino tree.Ino) (a tree.Attr, ok bool) {
	var out fuse.AttrOut
	in := fuse.GetAttrIn{InHeader: c.header(ino)}
	if status := c.fs.GetAttr(nil, &in, &out); !status.Ok() {
		c.fail("GETATTR of inode %d: %v", ino, status)
		return a, false
	}
	return tree.Attr{
		Ino: tree.Ino(out.Ino), Mode: out.Mode, UID: out.Uid, GID: out.Gid, Nlink: out.Nlink, Rdev: out.Rdev, Size: out.Size,
		Mtime: tree.Time{Sec: int64(out.Mtime), Nsec: out.Mtimensec}, Ctime: tree.Time{Sec: int64(out.Ctime), Nsec: out.Ctimensec},
	}, true
}

// verify compares all that can be seen without changing anything.
func (c *client) verify() {
	for _, ino := range c.tree.inos(func(n *shade) bool { return !n.unsure }) {
		n := c.tree.nodes[ino]
		got, ok := c.attr(ino)
		if !ok {
			return
		}
		want := n.Attr
		want.Atime, want.Blocks = tree.Time{}, 0
		if got != want {
			c.fail("inode %d has attributes\n%+v and should have\n%+v", ino, got, want)
		}
		if isDir(n.Mode) {
			count := 0
			c.vault.ReadDir(ino, 0, func(e tree.Entry) bool {
				count++
				if n.names[e.Name] != e.Ino {
					c.fail("directory %d: %.60q is inode %d, not %d", ino, e.Name, e.Ino, n.names[e.Name])
				}
				return true
			})
			if count != len(n.names) {
				c.fail("directory %d holds %d names, not %d", ino, count, len(n.names))
			}
		}
	}
	if n := c.vault.Stats().Inodes; n != uint64(len(c.tree.nodes)) && !c.failed {
		c.fail("there are %d inodes, not %d", n, len(c.tree.nodes))
	}
}

// know looks an inode up, by any of its names.
func (c *client) know(ino tree.Ino) bool {
	if ino == tree.Root || c.looked[ino] > 0 {
		return true
	}
	i := slices.IndexFunc(c.tree.places(), func(p place) bool { return p.ino == ino })
	if i < 0 {
		c.fail("inode %d has no name, and is not known", ino)
		return false
	}
	p := c.tree.places()[i]
	if !c.know(p.dir) {
		return false
	}
	var out fuse.EntryOut
	h := c.header(p.dir)
	if status := c.fs.Lookup(nil, &h, p.name, &out); !status.Ok() || out.NodeId != uint64(ino) {
		if !c.failed {
			c.fail("LOOKUP of %.60q: inode %d, %v; it is inode %d", p.name, out.NodeId, status, ino)
		}
		return false
	}
	c.looked[ino]++
	return true
}

// told counts a look-up that came with a reply. The node of a new inode comes with the first.
func (c *client) told(out *fuse.EntryOut) tree.Ino {
	ino := tree.Ino(out.NodeId)
	c.looked[ino]++
	if c.tree.nodes[ino] == nil {
		c.tree.nodes[ino] = &shade{Attr: tree.Attr{Ino: ino}, xattrs: map[string]string{}}
	}
	return ino
}

// forget gives look-ups back.
func (c *client) forget(ino tree.Ino, n uint64) {
	c.note("forget %d, %d times of %d", ino, n, c.looked[ino])
	c.fs.Forget(uint64(ino), n)
	if c.looked[ino] -= n; c.looked[ino] == 0 {
		delete(c.looked, ino)
	}
	c.gone(ino)
}

// gone takes an inode out of the model when nobody uses it.
func (c *client) gone(ino tree.Ino) {
	if n := c.tree.nodes[ino]; n.Nlink == 0 && c.looked[ino] == 0 && !c.isOpen(ino) {
		delete(c.tree.nodes, ino)
	}
}

func (c *client) isOpen(ino tree.Ino) bool {
	return slices.ContainsFunc(c.opens, func(h openHandle) bool { return h.ino == ino })
}

// open is OPEN; with O_TRUNC it changes the file.
func (c *client) open(ino tree.Ino, flags uint32) bool {
	if !c.know(ino) {
		return false
	}
	c.note("open %d, flags %#x", ino, flags)
	in := fuse.OpenIn{InHeader: c.header(ino), Flags: flags}
	status := c.fs.Open(nil, &in, new(fuse.OpenOut))
	if flags&syscall.O_TRUNC == 0 {
		c.log[len(c.log)-1] += fmt.Sprint(": ", status)
		if !c.accepted(status) {
			return false
		}
	} else if !c.did(status, changes{ino: modified | inodeChanged}, func() { c.rewritten(ino).resize(0) }) {
		return false
	}
	c.opens = append(c.opens, openHandle{ino, flags})
	return true
}

// rewritten notes that a file's contents change. Without WRITE_KILL_SUIDGID its mode stays.
func (c *client) rewritten(ino tree.Ino) *shade {
	n := c.tree.nodes[ino]
	delete(n.xattrs, capabilityXattr)
	return n
}

// release is RELEASE of an open file.
func (c *client) release(i int) {
	h := c.opens[i]
	c.note("release %d", h.ino)
	c.opens = slices.Delete(c.opens, i, i+1)
	c.fs.Release(nil, &fuse.ReleaseIn{InHeader: c.header(h.ino), Flags: h.flags})
	c.gone(h.ino)
	c.verify()
}

// read is READ, and compares what comes.
func (c *client) read(ino tree.Ino, off, n int) {
	if !c.know(ino) {
		return
	}
	c.note("read %d, %d+%d", ino, off, n)
	in := fuse.ReadIn{InHeader: c.header(ino), Offset: uint64(off), Size: uint32(n), ReadFlags: fuse.READ_LOCKOWNER}
	result, status := c.fs.Read(nil, &in, nil)
	c.log[len(c.log)-1] += fmt.Sprint(": ", status)
	if !c.accepted(status) {
		c.failed = true
		return
	}
	got := gather(result)
	result.Done()
	node := c.tree.nodes[ino]
	want := node.data[min(off, len(node.data)):min(off+n, len(node.data))]
	if string(got) != string(want) && !node.unsure {
		at := 0
		for at < min(len(got), len(want)) && got[at] == want[at] {
			at++
		}
		c.fail("READ of inode %d at %d: %d bytes, not %d, and byte %d differs", ino, off, len(got), len(want), at)
	}
}

// gather copies a reply together.
func gather(result fuse.ReadResult) (got []byte) {
	pieces, _ := result.(interface {
		Slices() ([][]byte, fuse.Status)
	}).Slices()
	for _, p := range pieces {
		got = append(got, p...)
	}
	return got
}

// readAll reads every file.
func (c *client) readAll() {
	for _, ino := range c.tree.inos(func(n *shade) bool { return isFile(n.Mode) }) {
		for off := 0; off <= len(c.tree.nodes[ino].data); off += maxWrite {
			c.read(ino, off, maxWrite)
		}
	}
}
