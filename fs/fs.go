package fs

import (
	"errors"
	"sync"
	"sync/atomic"

	"github.com/hanwen/go-fuse/v2/fuse"

	"encfsrun/fs/vault"
	"encfsrun/fs/vault/tree"
)

// FS answers the kernel's requests. It embeds no default, so that each operation has an answer that somebody chose.
var _ fuse.RawFileSystem = (*FS)(nil)

// Owner is the uid and gid that every inode shows.
type Owner struct{ UID, GID uint32 }

// Options of an FS.
type Options struct {
	// Owner, unless nil, is shown instead of the stored owners: for mounts of ordinary users and in sandboxes, where ids are
	// read in the mount's user namespace and an unmapped owner would mean EACCES everywhere.
	Owner *Owner
	// RefuseOutsiders answers EACCES to callers outside the pid namespace in which the mount was made.
	RefuseOutsiders bool
	// Store takes changes; nil: the mount is read-only.
	Store Store
	// Dirty is the memory for what is written, in chunks of ChunkSize. It goes with Store.
	Dirty Chunks
	// PageCache lets the kernel keep contents while mounted, outside guarded memory.
	PageCache bool
	// OnIntegrity, unless nil, is told of the first block of each file that does not authenticate. It is called while the
	// request waits. The error names blocks and segments, never files.
	OnIntegrity func(ino tree.Ino, err *vault.IntegrityError)
}

// FS is a file system over a Source, read-only unless it has a Store. New makes one; a Server serves it.
type FS struct {
	src    Source
	store  Store
	blocks Blocks
	opts   Options
	plain  bool   // nothing in the tree has an extended attribute, and nothing ever will
	kernel kernel // nil before attach

	// mu orders everything that changes the tree. Who reads the tree, or what waits in memory, holds it for reading. It is held
	// for memory work and for appending to the log, not while the disk syncs.
	mu      sync.RWMutex
	pending pendingAttrs
	dirty   dirtyFiles
	orphans map[tree.Ino]struct{} // inodes without names that are in use
	commits commits

	promised int64       // bytes of records since the last commit
	lost     atomic.Bool // the store failed: nothing can be changed any more

	known   counts    // what the kernel has looked up
	files   openFiles // open regular files
	dirs    atomic.Int64
	drops   dropper
	copies  copies
	loads   loads
	replies chan *reply // not in use; a sync.Pool would make new ones after each garbage collection
	plus    sync.Pool   // of *[]plusEntry

	damaged damagedFiles

	refused atomic.Uint64
}

// New makes a file system of what src holds, with contents out of blocks.
func New(src Source, blocks Blocks, opts Options) *FS {
	f := &FS{
		src: src, store: opts.Store, blocks: blocks, opts: opts, replies: make(chan *reply, idleReplies),
		plain:   opts.Store == nil && src.Stats().Xattrs == 0,
		pending: make(pendingAttrs), orphans: make(map[tree.Ino]struct{}),
	}
	f.dirty.init(opts.Dirty)
	f.commits.init()
	f.plus.New = func() any { return new([]plusEntry) }
	f.drops.init(&f.files)
	return f
}

// Stats counts what a mount does. `status` shows the files; the rest is for whoever wants to know that nothing leaks.
type Stats struct {
	OpenFiles       int64  // descriptors and mappings of regular files, as the kernel counts them
	OpenDirs        int64  // likewise of directories
	KnownInodes     int64  // inodes that the kernel has looked up and not forgotten
	Refused         uint64 // requests from outside the sandbox
	DamagedFiles    int64  // files with a block that did not authenticate
	FailedDropCalls uint64 // page cache that could not be invalidated: contents may be left there until the unmount
	DirtyBytes      uint64 // of files, written and not in the log yet
	Unsynced        bool   // the last attempt to make changes durable failed
}

// Stats returns the counters. They are read one after the other, without a common instant.
func (f *FS) Stats() Stats {
	f.mu.RLock()
	defer f.mu.RUnlock()
	return Stats{
		DirtyBytes:      f.dirty.bytes,
		Unsynced:        f.commits.failed.Load(),
		OpenFiles:       f.files.open(),
		OpenDirs:        f.dirs.Load(),
		KnownInodes:     f.known.inodes(),
		Refused:         f.refused.Load(),
		DamagedFiles:    f.damaged.len(),
		FailedDropCalls: f.drops.failed.Load(),
	}
}

// String names the file system to go-fuse.
func (f *FS) String() string { return fsName }

// SetDebug does nothing: go-fuse's debug lines hold names and contents.
func (f *FS) SetDebug(bool) {}

// kernel is what a served FS may ask of what serves it.
type kernel interface {
	notifier
	// waits is to be called by the handler of a request that is about to wait for the disk or for memory, with the number in the
	// request's header: others are read meanwhile.
	waits(unique uint64)
}

// attach is called when the kernel's first request was answered, before any other.
func (f *FS) attach(k kernel) {
	f.kernel = k
	f.drops.start(k)
	f.startCommitting()
}

// waits is to be called by the handler of a request that is about to wait: others are read meanwhile. It costs some µs, so not for
// what takes no longer.
func (f *FS) waits(h *fuse.InHeader) {
	if f.kernel != nil {
		f.kernel.waits(h.Unique)
	}
}

// Init is go-fuse's own attach; its server is not used.
func (f *FS) Init(*fuse.Server) {}

// OnUnmount is called after the last request. What is not durable is left to Close, which can say that it failed.
func (f *FS) OnUnmount() {
	f.drops.stop()
	f.stopCommitting()
	f.copies.destroy()
}

// Close frees what nobody can use any more and makes everything durable. It is called after the last request. With an error, what
// was accepted is not durable, and Close may be called again.
func (f *FS) Close() error {
	if f.store == nil {
		return nil
	}
	return errors.Join(f.freeOrphans(), f.Sync())
}
