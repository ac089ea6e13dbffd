package fs

import (
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"

	"encfsrun/fs/guarded"
	"encfsrun/fs/vault"
	"encfsrun/fs/vault/tree"
)

const (
	// maxPieces is how many slices one reply may have: writev(2) takes 1024 (UIO_MAXIOV), and the header is one.
	maxPieces = 1023
	// idleReplies is how many replies are kept to be used again, about a kilobyte each.
	idleReplies = maxWorkers
	// zeroRun is the length of zeros in bytes.
	zeroRun = 64 << 10
)

// zeros is what holes are read as. It is never written, so it costs no memory.
var zeros [zeroRun]byte

// Read answers with slices of pinned blocks. A buffer that is offered is left alone: go-fuse's own lie on the heap.
//
// A READ that names no lock owner fills the page cache (mmap, execve); those of read(2), by direct I/O, name one.
func (f *FS) Read(_ <-chan struct{}, in *fuse.ReadIn, _ []byte) (fuse.ReadResult, fuse.Status) {
	if !f.admit(&in.InHeader) {
		return nil, fuse.EACCES
	}
	ino := tree.Ino(in.NodeId)
	if in.ReadFlags&fuse.READ_LOCKOWNER == 0 && !f.opts.PageCache {
		f.files.markCached(ino)
	}
	if in.Offset > tree.MaxSize {
		return nil, fuse.EINVAL
	}
	r := f.newReply()
	if err := r.load(&in.InHeader, int64(in.Offset), int(in.Size)); err != nil {
		r.Done()
		return nil, f.readErrno(ino, err)
	}
	f.noteAccess(ino, in.Flags)
	if r.size == 0 {
		r.Done() // go-fuse's own server may not say when it is done with a result of size 0
		return nothing{}, fuse.OK
	}
	return r, fuse.OK
}

// nothing is the reply at the end of a file.
type nothing struct{}

func (nothing) Size() int                          { return 0 }
func (nothing) Done()                              {}
func (nothing) Bytes([]byte) ([]byte, fuse.Status) { return nil, fuse.OK }
func (nothing) Slices() ([][]byte, fuse.Status)    { return nil, fuse.OK }

// reply is a fuse.ReadResult whose bytes lie in pinned blocks. It is used again after Done.
type reply struct {
	fs      *FS
	size    int // bytes in slices
	spans   []vault.Span
	numbers []uint64      // the distinct blocks of spans
	pins    []guarded.Pin // one for each of numbers
	slices  [][]byte      // into pins and zeros
	copied  bool          // it lies in fs.copies, which is locked
}

// Size returns the length of the reply in bytes.
func (r *reply) Size() int { return r.size }

// Slices returns the reply for writev(2). go-fuse finds this method by its name, and only because of it calls Done after the
// write and not before.
func (r *reply) Slices() ([][]byte, fuse.Status) { return r.slices, fuse.OK }

// Bytes would copy contents to the heap, so it refuses.
func (r *reply) Bytes([]byte) ([]byte, fuse.Status) { return nil, fuse.EIO }

// Done unpins the blocks: the reply was written.
func (r *reply) Done() {
	r.reset()
	select {
	case r.fs.replies <- r:
	default: // enough are kept
	}
}

// reset makes the reply empty.
func (r *reply) reset() {
	r.fs.blocks.Release(r.pins)
	if r.copied {
		r.fs.copies.put()
	}
	clear(r.slices)
	r.size, r.copied = 0, false
	r.spans, r.numbers, r.pins, r.slices = r.spans[:0], r.numbers[:0], r.pins[:0], r.slices[:0]
}

// newReply returns an empty reply.
func (f *FS) newReply() *reply {
	select {
	case r := <-f.replies:
		return r
	default:
		return &reply{fs: f}
	}
}

// load makes the reply to a read of n bytes from off on. With an error, Done is still to be called.
func (r *reply) load(h *fuse.InHeader, off int64, n int) (err error) {
	for {
		if err = r.try(h, off, n); !errors.Is(err, vault.ErrMoved) {
			return err
		}
		r.reset()
	}
}

// try is load where no cleaner moves what is in a block between finding it and reading it: vault.ErrMoved.
func (r *reply) try(h *fuse.InHeader, off int64, n int) (err error) {
	ino := tree.Ino(h.NodeId)
	if r.spans, err = r.fs.spans(h, off, n, r.spans); err != nil {
		return err
	}
	pieces, total := 0, 0
	for _, s := range r.spans {
		pieces, total = pieces+1, total+s.Len
		if s.Hole {
			pieces += s.Len / zeroRun
			continue
		}
		if r.find(s.Block) < 0 {
			r.numbers = append(r.numbers, s.Block)
		}
	}
	if total > n {
		return fmt.Errorf("inode %d: %d bytes for a read of %d bytes", ino, total, n)
	}
	if pieces > maxPieces || len(r.numbers) > r.fs.blocks.MaxRequest() {
		return r.copy(h, total)
	}
	if err = r.acquire(h); err != nil {
		return err
	}
	for _, s := range r.spans {
		if err := r.add(s); err != nil {
			return err
		}
	}
	return nil
}

// acquire pins the blocks. If they are not there, and it took long to get such the last times, others are read meanwhile.
func (r *reply) acquire(h *fuse.InHeader) (err error) {
	if len(r.numbers) == 0 {
		return nil
	}
	var there bool
	if r.pins, there = r.fs.blocks.TryAcquire(r.numbers, r.pins); there {
		return nil
	}
	if r.fs.loads.slow() {
		r.fs.waits(h)
	}
	began := time.Now()
	r.pins, err = r.fs.blocks.Acquire(nil, r.numbers, r.pins)
	r.fs.loads.took(time.Since(began))
	return err
}

// loads knows how long it took to get blocks that were not there. Out of the page cache, a block is there sooner than another worker.
type loads struct{ slowFor atomic.Int32 }

const (
	slowLoad  = 200 * time.Microsecond // of a reader's time, that others would wait for
	staysSlow = 64                     // such loads, after a slow one
)

func (l *loads) slow() bool { return l.slowFor.Load() > 0 }

func (l *loads) took(d time.Duration) {
	if d >= slowLoad {
		l.slowFor.Store(staysSlow)
	} else if l.slow() {
		l.slowFor.Add(-1)
	}
}

// find returns the index of a block's number, or -1. Neighbouring spans share blocks, so it looks from the end.
func (r *reply) find(block uint64) int {
	for i := len(r.numbers) - 1; i >= 0; i-- {
		if r.numbers[i] == block {
			return i
		}
	}
	return -1
}

// add appends the bytes of a span, whose block is pinned.
func (r *reply) add(s vault.Span) error {
	if s.Hole {
		for left := s.Len; left > 0; left -= zeroRun {
			r.slices = append(r.slices, zeros[:min(left, zeroRun)])
		}
		r.size += s.Len
		return nil
	}
	b, err := r.bytes(s)
	if err != nil {
		return err
	}
	r.slices = append(r.slices, b)
	r.size += s.Len
	return nil
}

// bytes returns the bytes of a span where they lie, in a block that is pinned.
func (r *reply) bytes(s vault.Span) ([]byte, error) {
	data := r.pins[r.find(s.Block)].Bytes()
	if s.At < 0 || s.Len < 0 || s.At > len(data) || s.Len > len(data)-s.At {
		return nil, &vault.IntegrityError{
			Object: fmt.Sprintf("block %d", s.Block),
			Detail: fmt.Sprintf("holds %d bytes, not %d at %d", len(data), s.Len, s.At),
		}
	}
	return data[s.At : s.At+s.Len], nil
}
