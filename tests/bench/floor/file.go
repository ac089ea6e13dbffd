package floor

import (
	"syscall"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"
)

// chunkSize is what contents are kept in, in bytes: the largest WRITE. A file that fits into one chunk has one of its own size.
const chunkSize = 128 << 10

func (f *FS) opened(n *node, out *fuse.OpenOut) {
	n.opens.Add(1)
	// Nothing waits for a close.
	out.OpenFlags = fuse.FOPEN_NOFLUSH | fuse.FOPEN_DIRECT_IO
	if f.cached {
		out.OpenFlags = fuse.FOPEN_NOFLUSH | fuse.FOPEN_KEEP_CACHE
	}
}

// Create implements fuse.RawFileSystem.
func (f *FS) Create(_ <-chan struct{}, in *fuse.CreateIn, name string, out *fuse.CreateOut) fuse.Status {
	n, status := f.add(&in.InHeader, name, creation{mode: syscall.S_IFREG | in.Mode&0o7777}, &out.EntryOut)
	if status.Ok() {
		f.opened(n, &out.OpenOut)
	}
	return status
}

// Open implements fuse.RawFileSystem.
func (f *FS) Open(_ <-chan struct{}, in *fuse.OpenIn, out *fuse.OpenOut) fuse.Status {
	n := f.node(in.NodeId)
	if in.Flags&syscall.O_TRUNC != 0 {
		n.mu.Lock()
		n.truncate(0)
		n.mu.Unlock()
		n.changed(0)
	}
	f.opened(n, out)
	return fuse.OK
}

// Release implements fuse.RawFileSystem.
func (f *FS) Release(_ <-chan struct{}, in *fuse.ReleaseIn) {
	n := f.node(in.NodeId)
	if n.opens.Add(-1) > 0 || n.links() > 0 {
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.reap(n)
}

// Read implements fuse.RawFileSystem. What lies in one chunk is not copied.
func (f *FS) Read(_ <-chan struct{}, in *fuse.ReadIn, buf []byte) (fuse.ReadResult, fuse.Status) {
	n := f.node(in.NodeId)
	n.mu.RLock()
	defer n.mu.RUnlock()
	if in.Offset >= n.size {
		return fuse.ReadResultData(nil), fuse.OK
	}
	want := min(uint64(len(buf)), n.size-in.Offset)
	i, at := in.Offset/chunkSize, in.Offset%chunkSize
	if at+want <= chunkSize && i < uint64(len(n.chunks)) && at+want <= uint64(len(n.chunks[i])) {
		return fuse.ReadResultData(n.chunks[i][at : at+want]), fuse.OK
	}
	buf = buf[:want]
	clear(buf) // holes
	for done := uint64(0); done < want; {
		i, at := (in.Offset+done)/chunkSize, (in.Offset+done)%chunkSize
		step := min(chunkSize-at, want-done)
		if i < uint64(len(n.chunks)) && at < uint64(len(n.chunks[i])) {
			copy(buf[done:done+step], n.chunks[i][at:])
		}
		done += step
	}
	return fuse.ReadResultData(buf), fuse.OK
}

// Write implements fuse.RawFileSystem.
func (f *FS) Write(_ <-chan struct{}, in *fuse.WriteIn, data []byte) (uint32, fuse.Status) {
	n := f.node(in.NodeId)
	n.mu.Lock()
	defer n.mu.Unlock()
	offset := in.Offset
	for rest := data; len(rest) > 0; {
		at := offset % chunkSize
		step := min(chunkSize-at, uint64(len(rest)))
		copy(n.chunk(offset/chunkSize, at+step)[at:], rest[:step])
		rest = rest[step:]
		offset += step
	}
	n.size = max(n.size, offset)
	n.mtime = time.Now()
	n.ctime = n.mtime
	return uint32(len(data)), fuse.OK
}

// Writev implements fuse.RawFileSystem: go-fuse then calls Write.
func (f *FS) Writev(<-chan struct{}, *fuse.WriteIn, [][]byte) (uint32, fuse.Status) {
	return 0, fuse.ENOSYS
}

// chunk returns a chunk that has a length at least. Only the first is smaller than chunkSize.
func (n *node) chunk(i, length uint64) []byte {
	for uint64(len(n.chunks)) <= i {
		n.chunks = append(n.chunks, nil)
	}
	have := n.chunks[i]
	switch {
	case uint64(len(have)) >= length:
		return have
	case i > 0 || len(have) > 0:
		length = chunkSize
	}
	grown := make([]byte, length)
	copy(grown, have)
	n.chunks[i] = grown
	return grown
}

// truncate changes the size. What is beyond it is zero when it comes back. n.mu is held.
func (n *node) truncate(size uint64) {
	if size < n.size {
		last, at := size/chunkSize, size%chunkSize
		if last < uint64(len(n.chunks)) {
			if c := n.chunks[last]; at < uint64(len(c)) {
				clear(c[at:])
			}
			clear(n.chunks[last+1:])
			n.chunks = n.chunks[:last+1]
		}
	}
	n.size = size
}

// Fallocate implements fuse.RawFileSystem, as far as it only changes a size.
func (f *FS) Fallocate(_ <-chan struct{}, in *fuse.FallocateIn) fuse.Status {
	const keepSize = 1
	if in.Mode&^keepSize != 0 {
		return fuse.Status(syscall.EOPNOTSUPP)
	}
	if in.Mode == 0 {
		n := f.node(in.NodeId)
		n.mu.Lock()
		n.size = max(n.size, in.Offset+in.Length)
		n.ctime = time.Now()
		n.mu.Unlock()
	}
	return fuse.OK
}

// Fsync implements fuse.RawFileSystem.
func (f *FS) Fsync(<-chan struct{}, *fuse.FsyncIn) fuse.Status { return fuse.OK }
