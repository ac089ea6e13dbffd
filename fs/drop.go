package fs

import (
	"sync"
	"sync/atomic"
	"syscall"

	"github.com/hanwen/go-fuse/v2/fuse"

	"encfsrun/fs/vault/tree"
)

// notifier tells the kernel to drop what it has cached of an inode.
type notifier interface {
	InodeNotify(ino uint64, off, length int64) fuse.Status
}

// dropper tells the kernel to drop the page cache of files after their last release. Under direct I/O only mmap(2) and execve(2)
// fill it, and without this the plaintext would stay there until the machine needs the memory.
//
// It works in a goroutine of its own: the notification waits until pages that are being read are there, so a handler that sent it
// could wait for the very READ that it keeps from being answered. The queue holds each file at most once, so it needs no other
// bound: 8 bytes per file.
type dropper struct {
	files  *openFiles
	failed atomic.Uint64

	mu      sync.Mutex
	wake    sync.Cond
	queue   []tree.Ino
	stopped bool
	done    sync.WaitGroup
}

func (d *dropper) init(files *openFiles) {
	d.files = files
	d.wake.L = &d.mu
}

func (d *dropper) start(kernel notifier) { d.done.Go(func() { d.run(kernel) }) }

// push queues a file that openFiles.release asked for.
func (d *dropper) push(ino tree.Ino) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.queue = append(d.queue, ino)
	d.wake.Signal()
}

// stop lets the queue run empty and waits for that.
func (d *dropper) stop() {
	d.mu.Lock()
	d.stopped = true
	d.wake.Signal()
	d.mu.Unlock()
	d.done.Wait()
}

func (d *dropper) run(kernel notifier) {
	var batch []tree.Ino
	for {
		d.mu.Lock()
		for len(d.queue) == 0 && !d.stopped {
			d.wake.Wait()
		}
		batch, d.queue = d.queue, batch[:0]
		d.mu.Unlock()
		if len(batch) == 0 {
			return
		}
		for _, ino := range batch {
			if d.files.takeDrop(ino) {
				d.drop(kernel, ino)
			}
		}
	}
}

// drop invalidates a file from its first byte to its end (length 0). An inode that the kernel does not know any more (ENOENT)
// and a connection that is gone (ENODEV, EBADF) have no page cache left.
func (d *dropper) drop(kernel notifier, ino tree.Ino) {
	switch status := kernel.InodeNotify(uint64(ino), 0, 0); status {
	case fuse.OK, fuse.ENOENT, fuse.ENODEV, fuse.Status(syscall.ENOTCONN), fuse.EBADF:
	default:
		d.failed.Add(1)
	}
}
