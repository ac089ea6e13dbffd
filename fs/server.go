package fs

import (
	"fmt"
	"io"
	"log"
	"os"

	"github.com/hanwen/go-fuse/v2/fuse"

	"encfsrun/fs/vault"
)

// fsName is the subtype of a mount: /proc/mounts shows the type fuse.encfsrun.
const fsName = "encfsrun"

const (
	// maxRead is the largest READ in bytes, the kernel's own limit (256 pages): each costs a round trip, and none needs a buffer.
	maxRead = 1 << 20
	// maxWrite is the largest WRITE in bytes, a compromise: each costs a round trip, and each worker has a buffer of this size.
	maxWrite = 128 << 10
	// minRead is the kernel's own least max_read, a page.
	minRead = 4 << 10
	// blockContents is how many bytes of a file a block holds at least where the file fills it.
	blockContents = vault.PayloadSize - 1<<10
	// requestShare is the part of the guarded memory that one request may take, a sixteenth.
	requestShare = 16
)

// MaxRead returns the largest read request in bytes, a power of two, for a budget of guarded memory in bytes. It is to be given
// as max_read=… to mount(2) and to NewServer: 128 KiB from 3 MiB on, 1 MiB from 18 MiB on. A file that lies in one piece then needs
// no more blocks for a read than one request may take, since it meets one more block than it could fill.
func MaxRead(budget int64) int {
	blocks := budget / requestShare / vault.BlockSize
	n := maxRead
	for n > minRead && int64(n) > (blocks-1)*blockContents {
		n /= 2
	}
	return n
}

// Server serves an FS on a mount.
type Server struct {
	loop *loop
}

// NewServer takes over dev, the descriptor of /dev/fuse of a mount that exists, and answers the kernel's first request; Serve
// answers the others. The mount must have the options default_permissions and max_read=maxRead. An FS is for one Server.
//
// dev is closed in any case. The mount dies with the Server's own copy of the descriptor, when Serve or the process ends.
func NewServer(dev *os.File, f *FS, maxRead int) (*Server, error) {
	return newServer(dev, f, maxRead, f.capabilities())
}

func newServer(dev *os.File, f fuse.RawFileSystem, maxRead int, capabilities uint64) (*Server, error) {
	d, err := takeOver(dev)
	if err != nil {
		return nil, fmt.Errorf("/dev/fuse: %w", err)
	}
	write := min(maxRead, maxWrite)
	l := &loop{dev: d, fs: f, maxWrite: write, protocol: fuse.NewProtocolServer(f, protocolOptions(write, capabilities))}
	if err := l.start(maxRead); err != nil {
		d.close()
		return nil, err
	}
	if a, ok := f.(interface{ attach(kernel) }); ok {
		a.attach(l)
	}
	return &Server{loop: l}, nil
}

// protocolOptions says what is agreed with the kernel.
func protocolOptions(maxWrite int, capabilities uint64) *fuse.MountOptions {
	return &fuse.MountOptions{
		Name:     fsName,
		MaxWrite: maxWrite,
		// The kernel need not guess from times whether contents changed: they don't.
		ExplicitDataCacheControl: true,
		ExtraCapabilities:        capabilities,
		// What is not used is not negotiated.
		DisabledCapabilities: fuse.CAP_NO_OPEN_SUPPORT | fuse.CAP_PASSTHROUGH,
		// None of its lines helps a user, and it must never hold a name.
		Logger:       log.New(io.Discard, "", 0),
		PanicHandler: failStop,
	}
}

// failStop ends the process after a panic in a handler. go-fuse would answer EIO and live on, with locks that nobody unlocks,
// and guarded memory that memguard may have purged. This is called while the panic unwinds, so the stack that is printed shows
// where it began. A handler that is not called through go-fuse ends the process by itself.
func failStop(value any) fuse.Status { panic(value) }

// Serve answers requests until the kernel lets go of the mount, which is after the last unmount and the last descriptor.
func (s *Server) Serve() {
	s.loop.run()
	s.loop.fs.OnUnmount()
	s.loop.dev.close()
}
