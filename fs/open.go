package fs

import (
	"sync"
	"syscall"

	"github.com/hanwen/go-fuse/v2/fuse"

	"encfsrun/fs/vault/tree"
)

// openFiles counts the opens of each regular file and knows which of them have contents in the page cache.
type openFiles struct {
	mu    sync.Mutex
	files map[tree.Ino]openFile
	opens int64
}

type openFile struct {
	opens   uint32
	writers uint32 // of opens, those for writing
	cached  bool   // the kernel was given contents for its page cache that it was not told to drop yet
	queued  bool   // it is about to be told
}

func (o *openFiles) acquire(ino tree.Ino, writer bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.files == nil {
		o.files = make(map[tree.Ino]openFile)
	}
	file := o.files[ino]
	file.opens++
	if writer {
		file.writers++
	}
	o.files[ino] = file
	o.opens++
}

// isOpen says whether somebody has a file open.
func (o *openFiles) isOpen(ino tree.Ino) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.files[ino].opens > 0
}

// isWritten says whether somebody has a file open for writing.
func (o *openFiles) isWritten(ino tree.Ino) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.files[ino].writers > 0
}

// release ends an open. It says whether it was the last one for writing, and whether the file is to be queued for dropping its page
// cache.
func (o *openFiles) release(ino tree.Ino, writer bool) (flush, queue bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	file := o.files[ino]
	if file.opens == 0 {
		return false, false // a RELEASE without an OPEN: nothing to end
	}
	file.opens--
	o.opens--
	if writer && file.writers > 0 {
		file.writers--
		flush = file.writers == 0
	}
	if file.opens == 0 && !file.cached {
		delete(o.files, ino)
		return flush, false
	}
	queue = file.opens == 0 && !file.queued
	file.queued = file.queued || queue
	o.files[ino] = file
	return flush, queue
}

// markCached notes that contents of a file are about to go into the page cache.
func (o *openFiles) markCached(ino tree.Ino) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if file := o.files[ino]; !file.cached && file.opens > 0 {
		file.cached = true
		o.files[ino] = file
	}
}

// takeDrop ends the queueing of a file and says whether it is still to be dropped. If it was opened again, its next last release
// will queue it once more.
func (o *openFiles) takeDrop(ino tree.Ino) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	file := o.files[ino]
	file.queued = false
	if file.opens > 0 {
		o.files[ino] = file
		return false
	}
	delete(o.files, ino)
	return true
}

func (o *openFiles) open() int64 {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.opens
}

// Open opens a regular file. The kernel has checked who may read and write it.
func (f *FS) Open(_ <-chan struct{}, in *fuse.OpenIn, out *fuse.OpenOut) fuse.Status {
	if !f.admit(&in.InHeader) {
		return fuse.EACCES
	}
	ino, truncate := tree.Ino(in.NodeId), in.Flags&syscall.O_TRUNC != 0
	if (f.store == nil || f.lost.Load()) && (writes(in.Flags) || truncate) {
		return fuse.EROFS
	}
	a, err := f.src.Attr(ino)
	switch {
	case err != nil:
		return inodeErrno(err)
	case isDir(a.Mode):
		return fuse.EISDIR
	case !isFile(a.Mode):
		return fuse.EINVAL // the kernel opens FIFOs, sockets and devices itself
	}
	if truncate {
		if err := f.truncateOpen(ino, in.Mode&fuse.OPEN_KILL_SUIDGID != 0); err != nil {
			return inodeErrno(err)
		}
	}
	f.files.acquire(ino, writes(in.Flags))
	out.OpenFlags = f.openFlags()
	return fuse.OK
}

// openFlags says how the kernel treats an open file. Without a page cache, by direct I/O: writes that don't make the file longer may
// run beside each other. FOPEN_NOFLUSH spares a round trip at each close.
func (f *FS) openFlags() uint32 {
	if f.opts.PageCache {
		return fuse.FOPEN_KEEP_CACHE | fuse.FOPEN_NOFLUSH
	}
	flags := uint32(fuse.FOPEN_DIRECT_IO | fuse.FOPEN_NOFLUSH)
	if f.store != nil {
		flags |= fuse.FOPEN_PARALLEL_DIRECT_WRITES
	}
	return flags
}

// truncateOpen is O_TRUNC.
func (f *FS) truncateOpen(ino tree.Ino, unprivileged bool) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	a, err := f.regular(ino)
	if err != nil {
		return err
	}
	if err := f.reserveRemoval(3, 0); err != nil {
		return err
	}
	if err := f.makePendingRoom(); err != nil {
		return err
	}
	if err := f.written(&a, unprivileged); err != nil {
		return err
	}
	return f.resize(a, 0)
}

// Release ends an open: the last descriptor and the last mapping that came of it are gone.
func (f *FS) Release(_ <-chan struct{}, in *fuse.ReleaseIn) {
	ino := tree.Ino(in.NodeId)
	flush, drop := f.files.release(ino, writes(in.Flags))
	if flush && f.store != nil {
		f.flushClosed(&in.InHeader)
	}
	if drop && !f.opts.PageCache {
		f.drops.push(ino)
	}
	f.mayFree(ino)
}

// flushClosed flushes a file that nobody writes any more, unless it has no name: then it is about to go. A failure is told by the
// next sync.
func (f *FS) flushClosed(h *fuse.InHeader) {
	ino := tree.Ino(h.NodeId)
	f.mu.Lock()
	defer f.mu.Unlock()
	if _, orphan := f.orphans[ino]; !orphan && f.dirty.files[ino] != nil {
		f.waits(h)
		f.flush(ino)
	}
}

// Values of LseekIn.Whence; the kernel answers the others itself.
const (
	seekData = 3
	seekHole = 4
)

// Lseek finds data and holes.
func (f *FS) Lseek(_ <-chan struct{}, in *fuse.LseekIn, out *fuse.LseekOut) fuse.Status {
	if !f.admit(&in.InHeader) {
		return fuse.EACCES
	}
	ino := tree.Ino(in.NodeId)
	if err := f.settle(&in.InHeader); err != nil {
		return inodeErrno(err)
	}
	a, err := f.src.Attr(ino)
	if err != nil {
		return inodeErrno(err)
	}
	if in.Offset >= a.Size {
		return enxio // a negative offset is a large one here
	}
	switch in.Whence {
	case seekData:
		out.Offset, err = f.src.SeekData(ino, in.Offset)
	case seekHole:
		out.Offset, err = f.src.SeekHole(ino, in.Offset)
	default:
		return fuse.EINVAL
	}
	return inodeErrno(err)
}
