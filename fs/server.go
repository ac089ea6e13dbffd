package fs

import (
	"errors"
	"fmt"
	"io"
	"log"
	"os"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"encfsrun/fs/vault"
)

// fsName is the subtype of a mount: /proc/mounts shows the type fuse.encfsrun.
const fsName = "encfsrun"

const (
	// maxRead is the largest request in bytes, a compromise: each costs a round trip, and go-fuse keeps a buffer of this size
	// for each reader.
	maxRead = 128 << 10
	// minRead is the kernel's own least max_read, a page.
	minRead = 4 << 10
	// blockContents is how many bytes of a file a block holds at least where the file fills it.
	blockContents = vault.PayloadSize - 1<<10
	// requestShare is the part of the guarded memory that one request may take, a sixteenth.
	requestShare = 16
)

// MaxRead returns the largest read request in bytes, a power of two, for a budget of guarded memory in bytes. It is to be given
// as max_read=… to mount(2) and to NewServer: 128 KiB from 3 MiB on. A file that lies in one piece then needs no more blocks for
// a read than one request may take, since it meets one more block than it could fill.
func MaxRead(budget int64) int {
	blocks := budget / requestShare / vault.BlockSize
	n := maxRead
	for n > minRead && int64(n) > (blocks-1)*blockContents {
		n /= 2
	}
	return n
}

// Server serves an FS on a mount.
type Server struct{ fuse *fuse.Server }

// NewServer takes over dev, the descriptor of /dev/fuse of a mount that exists, and answers the kernel's first request; Serve
// answers the others. The mount must have the options default_permissions and max_read=maxRead. An FS is for one Server.
//
// dev is closed in any case. The mount dies with the Server's own copy of the descriptor, when Serve or the process ends.
func NewServer(dev *os.File, f *FS, maxRead int) (*Server, error) {
	return newServer(dev, f, maxRead, f.capabilities())
}

func newServer(dev *os.File, f fuse.RawFileSystem, maxRead int, capabilities uint64) (*Server, error) {
	fd, err := takeOver(dev)
	if err != nil {
		return nil, fmt.Errorf("/dev/fuse: %w", err)
	}
	s, err := fuse.NewServer(f, fmt.Sprintf("/dev/fd/%d", fd), &fuse.MountOptions{
		Name:     fsName,
		MaxWrite: maxRead, // go-fuse asks for as much in a read as in a write
		// Replies are written from guarded memory; pipes would add system calls.
		DisableSplice: true,
		// The kernel need not guess from times whether contents changed: they don't.
		ExplicitDataCacheControl: true,
		ExtraCapabilities:        capabilities,
		// What is not used is not negotiated.
		DisabledCapabilities: fuse.CAP_NO_OPEN_SUPPORT | fuse.CAP_PASSTHROUGH,
		// None of its lines helps a user, and it must never hold a name.
		Logger:       log.New(io.Discard, "", 0),
		PanicHandler: failStop,
	})
	if err != nil { // go-fuse has closed its copy
		return nil, fmt.Errorf("the mount does not answer: %w", err)
	}
	return &Server{fuse: s}, nil
}

// takeOver returns a blocking copy of a descriptor and closes the original, so that nobody's finalizer closes it later.
func takeOver(dev *os.File) (fd int, err error) {
	defer dev.Close()
	conn, err := dev.SyscallConn()
	if err != nil {
		return -1, err
	}
	var copyErr error
	err = conn.Control(func(old uintptr) {
		// From 3 on: go-fuse takes 0 for no descriptor.
		fd, copyErr = unix.FcntlInt(old, unix.F_DUPFD_CLOEXEC, 3)
	})
	if err = errors.Join(err, copyErr); err != nil {
		return -1, err
	}
	if err := unix.SetNonblock(fd, false); err != nil {
		unix.Close(fd)
		return -1, err
	}
	return fd, nil
}

// failStop ends the process after a panic in a handler. go-fuse would answer EIO and live on, with locks that nobody unlocks,
// and guarded memory that memguard may have purged. This is called while the panic unwinds, so the stack that is printed shows
// where it began.
func failStop(value any) fuse.Status { panic(value) }

// Serve answers requests until the kernel lets go of the mount, which is after the last unmount and the last descriptor.
func (s *Server) Serve() { s.fuse.Serve() }
