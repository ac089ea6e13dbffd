package fs

import (
	"errors"
	"fmt"
	"os"
	"sync"
	"unsafe"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// outHeader is the length in bytes of what every reply begins with.
const outHeader = int(unsafe.Sizeof(fuse.OutHeader{}))

// device is the descriptor of /dev/fuse of one mount. It never blocks in read: whoever wants to wait calls wait.
//
// Requests and replies go through system calls that Go's scheduler is not told of (RawSyscall): the kernel copies some bytes and
// returns, and telling the scheduler costs as much again. What may wait in the kernel, wait and the notifications, does tell it.
type device struct {
	fd int

	mu     sync.RWMutex // held shared by notifications, which anybody may send at any time
	closed bool
}

// takeOver makes a device of a copy of dev and closes dev, so that nobody's finalizer closes it later.
func takeOver(dev *os.File) (*device, error) {
	defer dev.Close()
	conn, err := dev.SyscallConn()
	if err != nil {
		return nil, err
	}
	d := &device{fd: -1}
	var copyErr error
	err = conn.Control(func(old uintptr) {
		d.fd, copyErr = unix.FcntlInt(old, unix.F_DUPFD_CLOEXEC, 0)
	})
	if err = errors.Join(err, copyErr); err != nil {
		return nil, err
	}
	if err := unix.SetNonblock(d.fd, true); err != nil {
		d.close()
		return nil, err
	}
	return d, nil
}

// close ends the mount, if this is the last copy of its descriptor. Nobody may be reading.
func (d *device) close() {
	d.mu.Lock()
	defer d.mu.Unlock()
	if !d.closed {
		d.closed = true
		unix.Close(d.fd)
	}
}

// read puts the next request into buf, or returns EAGAIN if there is none.
func (d *device) read(buf []byte) (int, unix.Errno) {
	n, _, errno := unix.RawSyscall(unix.SYS_READ, uintptr(d.fd), uintptr(unsafe.Pointer(unsafe.SliceData(buf))), uintptr(len(buf)))
	return int(n), errno
}

// wait returns when there is something to read, or the mount is gone.
func (d *device) wait() error {
	for {
		_, err := unix.Poll([]unix.PollFd{{Fd: int32(d.fd), Events: unix.POLLIN}}, -1)
		if err != unix.EINTR {
			return err
		}
	}
}

// write sends one reply.
func (d *device) write(reply []byte) unix.Errno {
	_, _, errno := unix.RawSyscall(unix.SYS_WRITE, uintptr(d.fd), uintptr(unsafe.Pointer(unsafe.SliceData(reply))), uintptr(len(reply)))
	return errno
}

// writev sends one reply that lies in several places.
func (d *device) writev(reply []unix.Iovec) unix.Errno {
	_, _, errno := unix.RawSyscall(unix.SYS_WRITEV, uintptr(d.fd), uintptr(unsafe.Pointer(unsafe.SliceData(reply))), uintptr(len(reply)))
	return errno
}

// notify sends the kernel a message that it did not ask for: one of fuse.NOTIFY_*, a structure and what follows it. It may
// wait until a request is answered, so no handler may call it.
func (d *device) notify(code int32, parts ...[]byte) fuse.Status {
	length := outHeader
	for _, p := range parts {
		length += len(p)
	}
	head := fuse.OutHeader{Length: uint32(length), Status: -code}
	message := append([][]byte{bytesOf(&head)}, parts...)
	d.mu.RLock()
	defer d.mu.RUnlock()
	if d.closed {
		return fuse.EBADF
	}
	if _, err := unix.Writev(d.fd, message); err != nil {
		return fuse.ToStatus(err)
	}
	return fuse.OK
}

// InodeNotify makes the kernel drop the attributes that it keeps of an inode, and its pages from off on: length bytes, or all with
// 0, or none with a negative off.
func (d *device) InodeNotify(ino uint64, off, length int64) fuse.Status {
	out := fuse.NotifyInvalInodeOut{Ino: ino, Off: off, Length: length}
	return d.notify(fuse.NOTIFY_INVAL_INODE, bytesOf(&out))
}

// EntryNotify makes the kernel drop what it knows of a name, also that there is none.
func (d *device) EntryNotify(parent uint64, name string) fuse.Status {
	out := fuse.NotifyInvalEntryOut{Parent: parent, NameLen: uint32(len(name))}
	return d.notify(fuse.NOTIFY_INVAL_ENTRY, bytesOf(&out), cString(name))
}

// DeleteNotify tells the kernel that a name is gone, also where it is somebody's working directory.
func (d *device) DeleteNotify(parent, child uint64, name string) fuse.Status {
	out := fuse.NotifyInvalDeleteOut{Parent: parent, Child: child, NameLen: uint32(len(name))}
	return d.notify(fuse.NOTIFY_DELETE, bytesOf(&out), cString(name))
}

func cString(s string) []byte { return append([]byte(s), 0) }

// bytesOf returns the bytes of a structure of the protocol in memory, not a copy.
func bytesOf[T any](p *T) []byte {
	return unsafe.Slice((*byte)(unsafe.Pointer(p)), unsafe.Sizeof(*p))
}

// at returns the structure of the protocol that begins at b, which is aligned and long enough. T has no pointers.
func at[T any](b []byte) *T {
	var size = unsafe.Sizeof(*new(T))
	if uintptr(len(b)) < size {
		panic(fmt.Sprintf("a structure of %d bytes in %d bytes", size, len(b)))
	}
	return (*T)(unsafe.Pointer(unsafe.SliceData(b)))
}
