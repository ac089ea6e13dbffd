package fs

import (
	"sync/atomic"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"encfsrun/fs/guarded"
)

const (
	// maxXattr is the largest value of an extended attribute, and the largest list of names, in bytes (XATTR_SIZE_MAX).
	maxXattr = 64 << 10
	// smallReply is more than the longest reply without a payload, in bytes.
	smallReply = 512
	// replyAlign is the alignment of the structures of the protocol.
	replyAlign = 8
)

// taken is the number of no request: the lead was taken from a worker while it answered.
const taken = ^uint64(0)

// worker reads requests, one after the other, and answers them. A request lies at the beginning of its buffer and the reply behind
// it; both are wiped when the reply was sent, so that the next finds zeros.
type worker struct {
	loop   *loop
	fs     fuse.RawFileSystem
	memory *guarded.Buffer
	buf    []byte // memory's
	limit  int    // bytes of buf that a request may take

	callers callers

	leads  bool          // it reads the device, or answers what it read last, as far as it knows
	led    atomic.Uint64 // the number of the request that it answers while it leads, else 0; or taken
	wake   chan struct{} // ends its being parked
	streak int           // requests that were there already when it looked

	in     []byte        // the request
	base   int           // where in buf the reply begins
	dirty  int           // where in buf what is not zero may end
	unique atomic.Uint64 // the number of the request, 0 without one
	passed atomic.Bool   // the ProtocolServer has it, and can interrupt it

	iov    []unix.Iovec
	pieces [1][]byte
	ins    [1][]byte
	outs   [1][]byte
}

// inputSize returns the length in bytes of the largest request when one WRITE brings at most maxWrite bytes.
func inputSize(maxWrite int) int {
	return max(size[fuse.WriteIn]()+maxWrite, size[fuse.SetXAttrIn]()+maxXattr+1<<10)
}

func newWorker(l *loop) (*worker, error) {
	limit := inputSize(l.maxWrite)
	memory, err := guarded.NewIOBuffer(limit + smallReply)
	if err != nil {
		return nil, err
	}
	return &worker{loop: l, fs: l.fs, memory: memory, buf: memory.Bytes(), limit: limit, wake: make(chan struct{}, 1)}, nil
}

// run is the life of a worker.
func (w *worker) run() {
	for w.leads || w.loop.park(w) {
		n := w.loop.next(w)
		if n == 0 {
			continue
		}
		w.take(n)
		unique := w.header().Unique
		w.led.Store(unique)
		w.loop.watch.stir()
		w.serve()
		w.leads = w.led.CompareAndSwap(unique, 0)
		w.wipe()
	}
}

// take makes the n bytes that were read the request.
func (w *worker) take(n int) {
	w.in = w.buf[:n]
	w.base = (n + replyAlign - 1) &^ (replyAlign - 1)
	w.dirty = w.base + outHeader
}

// wipe wipes request and reply.
func (w *worker) wipe() {
	guarded.Wipe(w.in)
	guarded.Wipe(w.buf[w.base:min(w.dirty, len(w.buf))])
}

// serve answers the request.
func (w *worker) serve() {
	h := w.header()
	w.callers.add(h.Pid)
	w.passed.Store(false)
	w.unique.Store(h.Unique)
	var o operation
	if int(h.Opcode) < len(operations) {
		o = operations[h.Opcode]
	}
	if o.long {
		w.loop.handOver(w, h.Unique)
	}
	switch {
	case len(w.in) < o.in:
		w.reply(fuse.EIO, 0)
	case o.do != nil:
		o.do(w)
	default:
		w.pass()
	}
	w.unique.Store(0)
}

func (w *worker) header() *fuse.InHeader { return at[fuse.InHeader](w.in) }

// out returns the room for what follows the header of the reply.
func (w *worker) out() []byte { return w.buf[w.base+outHeader:] }

// reply sends a status, and if that is OK n bytes of out. The kernel refuses a reply whose length is not what it expects, and would
// let the program wait for ever.
func (w *worker) reply(status fuse.Status, n int) {
	w.dirty = max(w.dirty, w.base+outHeader+n)
	if !status.Ok() {
		n = 0
	}
	w.head(status, n)
	w.check(w.loop.dev.write(w.buf[w.base:w.base+outHeader+n]), status)
}

// replyPieces sends a status, and if that is OK the bytes of pieces.
func (w *worker) replyPieces(status fuse.Status, pieces [][]byte) {
	n := 0
	w.iov = append(w.iov[:0], unix.Iovec{})
	if status.Ok() {
		for _, p := range pieces {
			if len(p) > 0 {
				w.iov = append(w.iov, unix.Iovec{Base: &p[0], Len: uint64(len(p))})
				n += len(p)
			}
		}
	}
	w.head(status, n)
	w.iov[0] = unix.Iovec{Base: &w.buf[w.base], Len: uint64(outHeader)}
	w.check(w.loop.dev.writev(w.iov), status)
	clear(w.iov)
}

func (w *worker) head(status fuse.Status, n int) {
	*at[fuse.OutHeader](w.buf[w.base:]) = fuse.OutHeader{
		Length: uint32(outHeader + n), Status: -int32(status), Unique: w.header().Unique,
	}
}

// check looks at what became of a reply. The kernel may have given up a request (ENOENT) or the mount (ENODEV) meanwhile. If it does
// not take the reply, it must at least get an error.
func (w *worker) check(errno unix.Errno, status fuse.Status) {
	if errno == 0 || errno == unix.ENOENT || errno == unix.ENODEV || !status.Ok() {
		return
	}
	w.head(fuse.EIO, 0)
	w.loop.dev.write(w.buf[w.base : w.base+outHeader])
}

// pass lets go-fuse's ProtocolServer answer.
func (w *worker) pass() {
	w.ins[0], w.outs[0] = w.in, w.buf[w.base:]
	w.passed.Store(true)
	n, status := w.loop.protocol.HandleRequest(w.ins[:], w.outs[:])
	w.passed.Store(false)
	switch {
	case n > 0 && at[fuse.OutHeader](w.buf[w.base:]).Status == 0:
		w.dirty = max(w.dirty, w.base+n)
	default:
		w.dirty = len(w.buf) // whatever was begun in it
	}
	if !status.Ok() {
		w.reply(fuse.EIO, 0)
	} else if n > 0 {
		w.check(w.loop.dev.write(w.buf[w.base:w.base+n]), fuse.OK)
	}
}

// interrupt tells the handler of a request that a signal came for the program that waits for it, if that request was passed on;
// what is answered here ends soon by itself, or like on a local disk when it ends. A request that nobody has, or not yet, is EAGAIN:
// the kernel will ask again as long as it has it.
func (w *worker) interrupt() {
	switch other := w.loop.find(at[fuse.InterruptIn](w.in).Unique); {
	case other == nil:
		w.reply(fuse.EAGAIN, 0)
	case other.passed.Load():
		w.pass()
	}
}
