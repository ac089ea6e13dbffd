package fs

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"syscall"

	"github.com/hanwen/go-fuse/v2/fuse"

	"encfsrun/fs/vault/tree"
)

// requests are what a client does at random, and how often in relation to each other.
var requests = []struct {
	weight int
	do     func(*client)
}{
	{30, (*client).randomWrite},
	{12, (*client).randomCreate},
	{6, (*client).randomMake},
	{3, (*client).randomTmpfile},
	{6, (*client).randomTruncate},
	{6, (*client).randomSetAttr},
	{6, (*client).randomFallocate},
	{5, (*client).randomCopy},
	{10, (*client).randomRename},
	{10, (*client).randomRemove},
	{5, (*client).randomLink},
	{6, (*client).randomXattr},
	{6, (*client).randomOpen},
	{9, (*client).randomRelease},
	{7, (*client).randomForget},
	{8, (*client).randomRead},
	{9, (*client).randomSync},
}

var allWeights = func() (sum int) {
	for _, q := range requests {
		sum += q.weight
	}
	return sum
}()

func randomRequest(c *client) {
	at := c.r.IntN(allWeights)
	for _, q := range requests {
		if at -= q.weight; at < 0 {
			q.do(c)
			return
		}
	}
}

const (
	largest = 400_000 // bytes of a file
	manyFds = 8
)

func pick[T any](r *rand.Rand, of []T) T { return of[r.IntN(len(of))] }

// oneIn is true once in n times.
func (c *client) oneIn(n int) bool { return c.r.IntN(n) == 0 }

// one picks one of the inodes that are wanted, and knows it.
func (c *client) one(wanted func(*shade) bool) (tree.Ino, bool) {
	all := c.tree.inos(func(n *shade) bool { return wanted(n) && !n.unsure })
	if len(all) == 0 {
		return 0, false
	}
	ino := pick(c.r, all)
	return ino, c.know(ino)
}

// dir picks a directory that has a name, and knows it.
func (c *client) dir() (tree.Ino, bool) {
	return c.one(func(n *shade) bool { return isDir(n.Mode) && n.Nlink > 0 })
}

// name makes up a name, a long one here and there.
func (c *client) name() string {
	name := fmt.Sprintf("n%d", c.r.IntN(14))
	if c.oneIn(8) {
		name += strings.Repeat("x", 200)
	}
	return name
}

// freeName picks a name that is not taken.
func (c *client) freeName() (dir tree.Ino, name string, ok bool) {
	dir, ok = c.dir()
	name = c.name()
	return dir, name, ok && c.tree.nodes[dir].names[name] == 0
}

// file picks a regular file, one without a name too, and knows it.
func (c *client) file() (tree.Ino, bool) {
	return c.one(func(n *shade) bool { return isFile(n.Mode) })
}

// size makes up a length in bytes.
func (c *client) size() int {
	switch {
	case c.oneIn(c.large):
		return 1 + c.r.IntN(200_000)
	case c.oneIn(3):
		return 1 + c.r.IntN(20_000)
	}
	return 1 + c.r.IntN(300)
}

// offset makes up a place in a file, for so many bytes.
func (c *client) offset(n *shade, length int) int {
	at := len(n.data)
	switch c.r.IntN(8) {
	case 0:
		at += c.r.IntN(50_000)
	case 1, 2, 3, 4:
		at = c.r.IntN(len(n.data) + 1)
	}
	return max(0, min(at, largest-length))
}

func (c *client) payload(n int) []byte {
	p := make([]byte, n)
	stamp := c.r.Uint64() | 1
	for i := range p {
		p[i] = byte(stamp >> (i % 8 * 8))
		if i%8 == 7 {
			stamp = stamp*6364136223846793005 + 1
		}
	}
	return p
}

func (c *client) randomWrite() {
	ino, ok := c.file()
	if !ok || !c.isOpen(ino) && !c.open(ino, syscall.O_RDWR) {
		return
	}
	var flags, writeFlags uint32
	if c.oneIn(5) {
		writeFlags = fuse.WRITE_KILL_SUIDGID
	}
	if c.oneIn(16) {
		flags = syscall.O_DSYNC
	}
	p := c.payload(c.size())
	c.write(ino, c.offset(c.tree.nodes[ino], len(p)), p, flags, writeFlags)
}

// write is WRITE, in two pieces.
func (c *client) write(ino tree.Ino, off int, p []byte, flags, writeFlags uint32) {
	in := fuse.WriteIn{InHeader: c.header(ino), Offset: uint64(off), Size: uint32(len(p)), Flags: flags, WriteFlags: writeFlags}
	sent := bytes.Clone(p)
	cut := c.r.IntN(len(p))
	c.note("write %d, %d+%d, flags %#x %#x", ino, off, len(p), flags, writeFlags)
	written, status := c.fs.Writev(nil, &in, [][]byte{sent[:cut], sent[cut:]})
	if status.Ok() && int(written) != len(p) {
		c.fail("WRITE took %d bytes of %d", written, len(p))
	}
	if slices.ContainsFunc(sent, func(b byte) bool { return b != 0 }) {
		c.fail("WRITE leaves its payload in memory")
	}
	synced := flags != 0
	if a, _ := c.attr(ino); synced && !status.Ok() && a.Ctime != c.tree.nodes[ino].Ctime {
		c.accepted(status) // it was accepted, and is not durable
		status, synced = fuse.OK, false
	}
	apply := func() {
		n := c.rewritten(ino)
		if n.write(off, p); writeFlags != 0 {
			n.losePrivileges()
		}
	}
	if c.did(status, changes{ino: modified | inodeChanged}, apply) && synced {
		c.synced(status, c.newest())
	}
}

// randomMode makes up permissions, with privileges here and there.
func (c *client) randomMode() uint32 {
	return pick(c.r, []uint32{0o644, 0o600, 0o755, 0o4755, 0o6711, 0o2640})
}

// born is what the model knows of a new inode.
func (c *client) born(ino tree.Ino, mode uint32) *shade {
	n := c.tree.nodes[ino]
	n.Mode, n.UID, n.GID = mode, 1000, 100
	if isDir(mode) {
		n.names = map[string]tree.Ino{}
	}
	return n
}

func (c *client) randomCreate() {
	dir, name, ok := c.freeName()
	if !ok {
		return
	}
	c.create(dir, name, c.randomMode())
}

// create is CREATE, or without a name TMPFILE.
func (c *client) create(dir tree.Ino, name string, mode uint32) {
	in := fuse.CreateIn{InHeader: c.header(dir), Flags: syscall.O_RDWR, Mode: mode}
	var out fuse.CreateOut
	c.note("create %.20q in %d", name, dir)
	var status fuse.Status
	if name == "" {
		status = c.fs.Tmpfile(nil, &in, &out)
	} else {
		status = c.fs.Create(nil, &in, name, &out)
	}
	c.entered(status, dir, name, mode|syscall.S_IFREG, &out.EntryOut, func(n *shade) {
		c.opens = append(c.opens, openHandle{n.Ino, in.Flags})
	})
}

// entered notes that an inode was made, and maybe named.
func (c *client) entered(status fuse.Status, dir tree.Ino, name string, mode uint32, out *fuse.EntryOut, more func(*shade)) {
	changed := changes{}
	if status.Ok() {
		changed[c.told(out)] = modified | inodeChanged
	}
	if name != "" {
		changed[dir] = modified | inodeChanged
	}
	c.did(status, changed, func() {
		n := c.born(tree.Ino(out.NodeId), mode)
		if name != "" {
			c.tree.link(dir, name, n.Ino)
		}
		more(n)
	})
}

func (c *client) randomMake() {
	dir, name, ok := c.freeName()
	if !ok {
		return
	}
	var out fuse.EntryOut
	h := c.header(dir)
	nothing := func(*shade) {}
	switch c.r.IntN(4) {
	case 0:
		target := strings.Repeat("t/", 1+c.r.IntN(2000))
		c.note("symlink %.20q in %d", name, dir)
		status := c.fs.Symlink(nil, &h, target, name, &out)
		c.entered(status, dir, name, syscall.S_IFLNK|0o777, &out, func(n *shade) { n.target, n.Size = target, uint64(len(target)) })
	case 1:
		in := fuse.MknodIn{InHeader: h, Mode: pick(c.r, []uint32{syscall.S_IFIFO, syscall.S_IFSOCK, syscall.S_IFCHR}) | 0o600, Rdev: 0x105}
		c.note("mknod %.20q in %d, mode %o", name, dir, in.Mode)
		status := c.fs.Mknod(nil, &in, name, &out)
		c.entered(status, dir, name, in.Mode, &out, func(n *shade) {
			if in.Mode&syscall.S_IFMT == syscall.S_IFCHR {
				n.Rdev = in.Rdev
			}
		})
	default:
		c.note("mkdir %.20q in %d", name, dir)
		status := c.fs.Mkdir(nil, &fuse.MkdirIn{InHeader: h, Mode: 0o750}, name, &out)
		c.entered(status, dir, name, syscall.S_IFDIR|0o750, &out, nothing)
	}
}

func (c *client) randomTmpfile() {
	if dir, ok := c.dir(); ok {
		c.create(dir, "", c.randomMode())
	}
}

func (c *client) randomRead() {
	ino, ok := c.file()
	if !ok {
		return
	}
	n := c.size()
	c.read(ino, c.r.IntN(len(c.tree.nodes[ino].data)+1), n)
	if c.oneIn(4) {
		c.randomSeek(ino)
	}
}

// randomSeek asks for data or a hole. What is skipped on the way to data, and where a hole is, has to be zeros.
func (c *client) randomSeek(ino tree.Ino) {
	n := c.tree.nodes[ino]
	if len(n.data) == 0 || n.unsure {
		return
	}
	from := c.r.IntN(len(n.data))
	in := fuse.LseekIn{InHeader: c.header(ino), Offset: uint64(from), Whence: pick(c.r, []uint32{seekData, seekHole})}
	var out fuse.LseekOut
	c.note("seek %d, %d, whence %d", ino, from, in.Whence)
	status := c.fs.Lseek(nil, &in, &out)
	zeros := n.data[from:]
	switch {
	case status == enxio && in.Whence == seekData:
	case !c.accepted(status):
		c.failed = true
		return
	case out.Offset < in.Offset || out.Offset > n.Size:
		c.fail("LSEEK of inode %d from %d leads to %d of %d", ino, from, out.Offset, n.Size)
		return
	case in.Whence == seekHole:
		zeros = n.data[out.Offset:min(out.Offset+1, n.Size)]
	default:
		zeros = n.data[from:out.Offset]
	}
	if slices.ContainsFunc(zeros, func(b byte) bool { return b != 0 }) {
		c.fail("LSEEK of inode %d from %d, whence %d, skips data: %d, %v", ino, from, in.Whence, out.Offset, status)
	}
}

func (c *client) randomOpen() {
	ino, ok := c.file()
	if !ok || len(c.opens) >= manyFds {
		return
	}
	c.open(ino, pick(c.r, []uint32{syscall.O_RDONLY, syscall.O_WRONLY, syscall.O_RDWR | syscall.O_TRUNC}))
}

func (c *client) randomRelease() {
	if len(c.opens) > 0 {
		c.release(c.r.IntN(len(c.opens)))
	}
}

func (c *client) randomForget() {
	all := c.tree.inos(func(n *shade) bool { return c.looked[n.Ino] > 0 && !c.isOpen(n.Ino) })
	if len(all) == 0 {
		return
	}
	ino := pick(c.r, all)
	n := c.looked[ino]
	if c.oneIn(4) {
		n = 1 + c.r.Uint64N(n)
	}
	c.forget(ino, n)
	c.verify()
}

// randomSync makes everything durable, one way or another.
func (c *client) randomSync() {
	version := c.newest()
	var err error
	switch c.r.IntN(12) {
	case 0:
		c.note("fsyncdir")
		c.synced(c.fs.FsyncDir(nil, &fuse.FsyncIn{InHeader: c.header(tree.Root)}), version)
		return
	case 1:
		c.note("the committer's turn")
		if err = c.fs.Sync(); err == nil {
			err = c.fs.maintain()
		}
	case 2:
		c.note("checkpoint")
		err = c.underLock(c.session.Checkpoint)
	case 3:
		c.note("clean")
		err = c.underLock(func() error { _, err := c.session.Collect(context.Background(), nil); return err })
	case 4:
		c.note("much is promised")
		c.fs.promised = promiseLimit + 1
		return
	default:
		c.note("fsync")
		c.synced(c.fs.Fsync(nil, &fuse.FsyncIn{InHeader: c.header(tree.Root)}), version)
		return
	}
	c.synced(errno(err), version)
}

// underLock does what maintain would do if the log were long enough.
func (c *client) underLock(what func() error) error {
	f := c.fs
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.flushAll(); err != nil {
		return err
	}
	return f.noteLoss(what())
}
