// Package floor is a file system that keeps everything in its own memory: the least that any FUSE file system of go-fuse's costs.
//
// It exists to be measured. What a program waits for on it are the requests, the copies and the wake-ups; what an encrypted file
// system takes longer is its own. It is mounted as encfsrun is, its answers may be kept as long as those of encfsrun, and it
// omits what costs time: extended attributes, locks, checks beside the kernel's, and everything that could survive.
//
// One lock guards the tree, and one more each file's contents. Nothing is ever given back but contents and inodes that are gone.
package floor

import (
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"
)

// validSeconds is how long the kernel may keep what it was told: nobody but the kernel changes anything.
const validSeconds = 10 * 365 * 24 * 60 * 60

// FS is the file system.
type FS struct {
	fuse.RawFileSystem // answers ENOSYS, after which the kernel asks no more

	cached bool // the kernel keeps pages
	mu     sync.RWMutex
	nodes  []*node // by node id; nil where it is free
}

// node is an inode.
type node struct {
	id    uint64
	known atomic.Int64 // look-ups that the kernel has not taken back
	opens atomic.Int64

	entries *directory // guarded by FS.mu
	target  string

	mu                  sync.RWMutex // guards what follows
	mode, uid, gid      uint32
	nlink, rdev         uint32
	mtime, ctime, atime time.Time
	size                uint64
	chunks              [][]byte
}

// New makes an empty file system. With cached the kernel keeps pages; else all I/O is direct.
func New(cached bool) *FS {
	f := &FS{RawFileSystem: fuse.NewDefaultRawFileSystem(), cached: cached, nodes: make([]*node, fuse.FUSE_ROOT_ID, 1024)}
	root := f.newNode(syscall.S_IFDIR|0o755, 0, 0)
	root.nlink, root.entries = 2, newDirectory(root)
	root.known.Add(1)
	return f
}

// newNode makes an inode that nothing links to. f.mu is held.
func (f *FS) newNode(mode, uid, gid uint32) *node {
	now := time.Now()
	n := &node{id: uint64(len(f.nodes)), mode: mode, nlink: 1, uid: uid, gid: gid, mtime: now, ctime: now, atime: now}
	f.nodes = append(f.nodes, n)
	return n
}

// node returns what the kernel has an id of.
func (f *FS) node(id uint64) *node {
	f.mu.RLock()
	defer f.mu.RUnlock()
	return f.nodes[id]
}

// reap frees an inode that nobody can reach any more. f.mu is held.
func (f *FS) reap(n *node) {
	if n.known.Load() == 0 && n.opens.Load() == 0 && n.links() == 0 {
		f.nodes[n.id] = nil
	}
}

func (n *node) links() uint32 {
	n.mu.RLock()
	defer n.mu.RUnlock()
	return n.nlink
}

// changed notes the time of a change of a file's contents or a directory's entries, and of how many links there are.
func (n *node) changed(links int) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.nlink += uint32(links)
	n.mtime = time.Now()
	n.ctime = n.mtime
}

// linked notes that links were added or taken away.
func (n *node) linked(links int) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.nlink += uint32(links)
	n.ctime = time.Now()
}

func (n *node) fill(out *fuse.Attr) {
	n.mu.RLock()
	defer n.mu.RUnlock()
	out.Ino = n.id
	out.Mode, out.Nlink = n.mode, n.nlink
	out.Uid, out.Gid, out.Rdev = n.uid, n.gid, n.rdev
	out.Size = n.size + uint64(len(n.target))
	out.Blocks = (out.Size + 511) / 512
	out.Blksize = 64 << 10
	out.SetTimes(&n.atime, &n.mtime, &n.ctime)
}

// tell fills in an entry and counts a look-up.
func (n *node) tell(out *fuse.EntryOut) {
	n.known.Add(1)
	out.NodeId = n.id
	out.EntryValid, out.AttrValid = validSeconds, validSeconds
	n.fill(&out.Attr)
}

// GetAttr implements fuse.RawFileSystem.
func (f *FS) GetAttr(_ <-chan struct{}, in *fuse.GetAttrIn, out *fuse.AttrOut) fuse.Status {
	out.AttrValid = validSeconds
	f.node(in.NodeId).fill(&out.Attr)
	return fuse.OK
}

// Forget implements fuse.RawFileSystem.
func (f *FS) Forget(id, lookups uint64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	n := f.nodes[id]
	n.known.Add(-int64(lookups))
	f.reap(n)
}

// SetAttr implements fuse.RawFileSystem.
func (f *FS) SetAttr(_ <-chan struct{}, in *fuse.SetAttrIn, out *fuse.AttrOut) fuse.Status {
	n := f.node(in.NodeId)
	n.mu.Lock()
	if mode, ok := in.GetMode(); ok {
		n.mode = n.mode&syscall.S_IFMT | mode&0o7777
	}
	if uid, ok := in.GetUID(); ok {
		n.uid = uid
	}
	if gid, ok := in.GetGID(); ok {
		n.gid = gid
	}
	n.ctime = time.Now()
	if size, ok := in.GetSize(); ok {
		n.truncate(size)
		n.mtime = n.ctime
	}
	if mtime, ok := in.GetMTime(); ok {
		n.mtime = mtime
	}
	if atime, ok := in.GetATime(); ok {
		n.atime = atime
	}
	n.mu.Unlock()
	out.AttrValid = validSeconds
	n.fill(&out.Attr)
	return fuse.OK
}

// StatFs implements fuse.RawFileSystem.
func (f *FS) StatFs(_ <-chan struct{}, _ *fuse.InHeader, out *fuse.StatfsOut) fuse.Status {
	const plenty = 1 << 30
	out.Bsize, out.Frsize, out.NameLen = 4096, 4096, 255
	out.Blocks, out.Bfree, out.Bavail = plenty, plenty, plenty
	out.Files, out.Ffree = plenty, plenty
	return fuse.OK
}

// Statx implements fuse.RawFileSystem: the kernel asks by GETATTR from then on.
func (f *FS) Statx(<-chan struct{}, *fuse.StatxIn, *fuse.StatxOut) fuse.Status { return fuse.ENOSYS }
