package fs

import (
	"github.com/hanwen/go-fuse/v2/fuse"

	"encfsrun/fs/vault/tree"
)

const (
	// copyPiece is how many bytes are copied at a time, those of a READ.
	copyPiece = 64 << 10
	// copyRequest is how many bytes one request copies at most; a caller goes on by himself.
	copyRequest = 16 << 20
)

// CopyFileRange copies from file to file without bringing the bytes to the program: out of pinned blocks into dirty chunks.
func (f *FS) CopyFileRange(_ <-chan struct{}, in *fuse.CopyFileRangeIn) (uint32, fuse.Status) {
	if status := f.mayChange(&in.InHeader); !status.Ok() {
		return 0, status
	}
	if in.Flags != 0 || in.OffIn > tree.MaxSize || in.OffOut > tree.MaxSize {
		return 0, fuse.EINVAL
	}
	from, to := tree.Ino(in.NodeId), tree.Ino(in.NodeIdOut)
	length := min(in.Len, copyRequest, tree.MaxSize-in.OffIn, tree.MaxSize-in.OffOut)
	var done uint64
	for done < length {
		n, err := f.copyPiece(&in.InHeader, in.OffIn+done, to, in.OffOut+done, int(min(copyPiece, length-done)))
		if err != nil && done == 0 {
			return 0, f.readErrno(from, err)
		}
		if err != nil || n == 0 {
			break
		}
		done += uint64(n)
	}
	f.noteAccess(from, 0)
	return uint32(done), fuse.OK
}

// copyPiece copies at most n bytes. The lock is not held while blocks are loaded.
func (f *FS) copyPiece(h *fuse.InHeader, off uint64, to tree.Ino, at uint64, n int) (int, error) {
	r := f.newReply()
	defer r.Done()
	if err := r.load(h, int64(off), n); err != nil {
		return 0, err
	}
	if r.size == 0 {
		return 0, nil
	}
	return r.size, f.write(h, to, at, r.size, r.slices, false)
}
