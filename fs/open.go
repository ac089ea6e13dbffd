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
	opens  uint32
	cached bool // the kernel was given contents for its page cache that it was not told to drop yet
	queued bool // it is about to be told
}

func (o *openFiles) acquire(ino tree.Ino) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.files == nil {
		o.files = make(map[tree.Ino]openFile)
	}
	file := o.files[ino]
	file.opens++
	o.files[ino] = file
	o.opens++
}

// release ends an open and says whether the file is to be queued for dropping its page cache.
func (o *openFiles) release(ino tree.Ino) (queue bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	file := o.files[ino]
	if file.opens == 0 {
		return false // a RELEASE without an OPEN: nothing to end
	}
	file.opens--
	o.opens--
	if file.opens == 0 && !file.cached {
		delete(o.files, ino)
		return false
	}
	queue = file.opens == 0 && !file.queued
	file.queued = file.queued || queue
	o.files[ino] = file
	return queue
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

// Open lets a regular file be read, by direct I/O. FOPEN_NOFLUSH spares a round trip at each close.
func (f *FS) Open(_ <-chan struct{}, in *fuse.OpenIn, out *fuse.OpenOut) fuse.Status {
	if !f.admit(&in.InHeader) {
		return fuse.EACCES
	}
	if in.Flags&syscall.O_ACCMODE != syscall.O_RDONLY || in.Flags&syscall.O_TRUNC != 0 {
		return fuse.EROFS
	}
	a, err := f.src.Attr(tree.Ino(in.NodeId))
	switch {
	case err != nil:
		return inodeErrno(err)
	case a.Mode&syscall.S_IFMT == syscall.S_IFDIR:
		return fuse.EISDIR
	case a.Mode&syscall.S_IFMT != syscall.S_IFREG:
		return fuse.EINVAL // the kernel opens FIFOs, sockets and devices itself
	}
	f.files.acquire(tree.Ino(in.NodeId))
	out.OpenFlags = fuse.FOPEN_DIRECT_IO | fuse.FOPEN_NOFLUSH
	return fuse.OK
}

// Release ends an open: the last descriptor and the last mapping that came of it are gone.
func (f *FS) Release(_ <-chan struct{}, in *fuse.ReleaseIn) {
	if ino := tree.Ino(in.NodeId); f.files.release(ino) {
		f.drops.push(ino)
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
