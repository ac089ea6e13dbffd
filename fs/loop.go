package fs

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"sync"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

const (
	// maxWorkers is how many requests are answered at once, and how many guarded buffers there are: 2.1 MiB at the largest. Beyond
	// that requests wait in the kernel. None waits for another's handler for ever, so these are enough.
	maxWorkers = 16
	// backlog is how many requests in a row a reader finds waiting until it takes them for more than it can read alone.
	backlog = 8
)

// loop reads the requests of a mount and lets an FS answer them.
//
// One worker leads: it reads a request, answers it, reads the next. Handing requests over to others would cost more than most
// answers do. Whoever is going to wait in an answer, for the disk or for guarded memory, hands the lead over first (operation.long,
// FS.waits), so that others are answered meanwhile, and from whom waits without having said so it is taken (watch.go). Having
// answered, he leads again if nobody does, or is parked. Where requests wait in the kernel, more workers read, on half of the
// processors at most: those who ask need the others.
//
// The leader does not wait in a read but polls the device for a while, see pace, and then sleeps in poll(2).
type loop struct {
	dev          *device
	fs           fuse.RawFileSystem
	protocol     *fuse.ProtocolServer
	maxWrite     int    // bytes that one WRITE brings
	capabilities uint64 // what was agreed with the kernel
	born         time.Time
	processors   int // that this process may use

	pace  pace // belongs to the only leader
	watch watch

	mu      sync.Mutex
	workers []*worker
	parked  []*worker
	leaders int
	full    bool // there is no memory for more workers
	ended   bool
	all     sync.WaitGroup

	// retrieved, unless nil, gets what the kernel sends of its page cache. Only tests ask for that, and set it before Serve.
	retrieved func(in *fuse.NotifyRetrieveIn, data []byte)
}

// start answers the first request, INIT, and makes the first worker. The mount must exist.
func (l *loop) start(maxRead int) error {
	l.born = time.Now()
	l.processors = runtime.GOMAXPROCS(0)
	w, err := newWorker(l)
	if err != nil {
		return fmt.Errorf("the requests of a mount: %w", err)
	}
	l.workers = append(l.workers, w)
	if err := l.hello(w, maxRead); err != nil {
		w.memory.Destroy()
		return fmt.Errorf("the mount does not answer: %w", err)
	}
	return nil
}

// hello answers INIT.
func (l *loop) hello(w *worker, maxRead int) error {
	n, errno := l.dev.read(w.buf[:w.limit])
	for errno == unix.EAGAIN || errno == unix.EINTR {
		if err := l.dev.wait(); err != nil {
			return err
		}
		n, errno = l.dev.read(w.buf[:w.limit])
	}
	if errno != 0 {
		return errno
	}
	w.take(n)
	if n < inHeader || w.header().Opcode != opInit {
		return errors.New("its first request is not INIT")
	}
	reply := w.buf[w.base:]
	n, status := l.protocol.HandleRequest([][]byte{w.in}, [][]byte{reply})
	if !status.Ok() {
		return fmt.Errorf("INIT: %v", status)
	}
	head := at[fuse.OutHeader](reply)
	if head.Status == 0 {
		// go-fuse knows one limit for both directions. A READ takes no room here, so it may be larger than a WRITE.
		out := at[fuse.InitOut](reply[outHeader:])
		out.MaxPages = uint16(max(maxRead, l.maxWrite) / os.Getpagesize())
		l.capabilities = out.Flags64()
	}
	if errno := l.dev.write(reply[:n]); errno != 0 {
		return errno
	}
	if head.Status != 0 {
		return fmt.Errorf("the protocol of this kernel is not known: %v", fuse.Status(-head.Status))
	}
	w.wipe()
	return nil
}

// run serves until the kernel lets go.
func (l *loop) run() {
	first := l.workers[0]
	l.leaders, first.leads = 1, true
	l.all.Go(first.run)
	l.watch.begin(l)
	l.all.Wait()
	l.watch.end()
	for _, w := range l.workers {
		w.memory.Destroy()
	}
}

// next returns the length of the next request, or 0 if the worker leads no more.
func (l *loop) next(w *worker) int {
	for {
		n, errno := l.dev.read(w.buf[:w.limit])
		if errno == unix.EAGAIN {
			w.streak = 0
			if l.surplus(w) {
				return 0
			}
			n, errno = l.await(w)
		} else if w.streak++; w.streak%backlog == 0 {
			l.help()
		}
		switch errno {
		case 0:
			if n >= inHeader {
				return n
			}
		case unix.EAGAIN, unix.EINTR:
		case unix.ENOENT, unix.EIO, unix.EFAULT: // a request that is gone, and its program was told so
		case unix.ENODEV:
			l.end(w)
			return 0
		default:
			// Serving on is impossible, and so is ending without leaving programs that wait for ever.
			panic(fmt.Sprintf("reading /dev/fuse: %v", errno))
		}
	}
}

// await polls for a request, and sleeps if none comes soon; even then there may be none (EAGAIN).
func (l *loop) await(w *worker) (n int, errno unix.Errno) {
	began := l.now()
	polled := l.pace.pays(began) && w.callers.count() < l.processors
	for last := began; polled; {
		n, errno = l.dev.read(w.buf[:w.limit])
		now := l.now()
		if errno != unix.EAGAIN {
			l.pace.caught()
			return n, errno
		}
		if now-last > tornAway {
			l.pace.torn(now)
			break
		}
		if now-began > pollFor {
			l.pace.missed(now)
			break
		}
		last = now
	}
	if err := l.dev.wait(); err != nil {
		panic(fmt.Sprintf("waiting for /dev/fuse: %v", err))
	}
	if !polled {
		l.pace.slept(l.now() - began)
	}
	return l.dev.read(w.buf[:w.limit])
}

func (l *loop) now() time.Duration { return time.Since(l.born) }

// park waits until the worker is to lead, or says that there is nothing to lead any more.
func (l *loop) park(w *worker) (leads bool) {
	l.mu.Lock()
	switch {
	case l.ended:
		l.mu.Unlock()
		return false
	case l.leaders == 0:
		l.leaders, w.leads = 1, true
		l.mu.Unlock()
		return true
	}
	l.parked = append(l.parked, w)
	l.mu.Unlock()
	<-w.wake
	return w.leads
}

// surplus says whether a worker that found no request leads no more, because another does.
func (l *loop) surplus(w *worker) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.leaders == 1 {
		return false
	}
	l.leaders, w.leads = l.leaders-1, false
	return true
}

// help lets one more worker read.
func (l *loop) help() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.leaders < l.processors/2 {
		l.promote()
	}
}

// handOver sees to it that requests are read while a worker answers one, unless it is not leading any more or has answered.
func (l *loop) handOver(w *worker, unique uint64) {
	if !w.led.CompareAndSwap(unique, taken) {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.leaders--; l.leaders == 0 {
		l.promote()
	}
}

// promote makes a worker lead, if there is one to be had; if not, the first to have answered will. l.mu must be held.
func (l *loop) promote() {
	var w *worker
	switch last := len(l.parked) - 1; {
	case l.ended:
		return
	case last >= 0:
		w = l.parked[last]
		l.parked = l.parked[:last]
		w.leads = true
		w.wake <- struct{}{}
	case l.full || len(l.workers) == maxWorkers:
		return
	default:
		var err error
		if w, err = newWorker(l); err != nil {
			l.full = true
			return
		}
		w.leads = true
		l.workers = append(l.workers, w)
		l.all.Go(w.run)
	}
	l.leaders++
}

// end lets all workers end, once they have answered what they have. Nobody waits for the answers any more.
func (l *loop) end(w *worker) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.leaders, w.leads = l.leaders-1, false
	if l.ended {
		return
	}
	l.ended = true
	for _, p := range l.parked {
		close(p.wake)
	}
	for _, busy := range l.workers {
		if busy.passed.Load() {
			l.all.Go(func() { l.cancel(busy) })
		}
	}
}

// cancel lets the ProtocolServer interrupt what a worker passed on, as if the kernel had asked for it. It may have to ask again,
// when that has only just been passed on.
func (l *loop) cancel(w *worker) {
	unique := w.unique.Load()
	in := fuse.InterruptIn{InHeader: fuse.InHeader{Length: uint32(size[fuse.InterruptIn]()), Opcode: opInterrupt}, Unique: unique}
	for w.passed.Load() && w.unique.Load() == unique {
		if n, _ := l.protocol.HandleRequest([][]byte{bytesOf(&in)}, [][]byte{make([]byte, smallReply)}); n == 0 {
			return // it was found
		}
		time.Sleep(time.Millisecond)
	}
}

// find returns the worker that has a request, or nil.
func (l *loop) find(unique uint64) *worker {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, w := range l.workers {
		if w.unique.Load() == unique {
			return w
		}
	}
	return nil
}

// waits is what a handler calls before it waits for anything but a lock that is held for a moment.
func (l *loop) waits(unique uint64) {
	if w := l.find(unique); w != nil {
		l.handOver(w, unique)
	}
}

// InodeNotify is the device's.
func (l *loop) InodeNotify(ino uint64, off, length int64) fuse.Status {
	return l.dev.InodeNotify(ino, off, length)
}
