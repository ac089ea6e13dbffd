package floor

import (
	"fmt"
	"io"
	"log"
	"os"
	"runtime/debug"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"encfsrun/launcher"
)

// maxRead is the largest request in bytes, encfsrun's.
const maxRead = launcher.DefaultMaxRead

// Mount mounts at dir as encfsrun does, and returns what Serve wants.
func Mount(dir string) (*os.File, error) {
	dir, err := launcher.PrepareMountpoint(dir)
	if err != nil {
		return nil, err
	}
	return launcher.Mount(dir, launcher.MountOptions{FSName: "floor", MaxRead: maxRead})
}

// Serve serves a mount until it is unmounted, with the options that encfsrun gives to go-fuse.
func Serve(dev *os.File, f *FS) error {
	debug.SetGCPercent(400) // it has little to collect, and much that would be looked at for that
	fd, err := unix.FcntlInt(dev.Fd(), unix.F_DUPFD_CLOEXEC, 3)
	dev.Close()
	if err != nil {
		return err
	}
	s, err := fuse.NewServer(f, fmt.Sprintf("/dev/fd/%d", fd), &fuse.MountOptions{
		Name:                     "floor",
		MaxWrite:                 maxRead,
		DisableSplice:            true,
		ExplicitDataCacheControl: true,
		EnableSymlinkCaching:     true,
		ExtraCapabilities:        fuse.CAP_DIRECT_IO_ALLOW_MMAP,
		DisabledCapabilities:     fuse.CAP_NO_OPEN_SUPPORT | fuse.CAP_PASSTHROUGH,
		Logger:                   log.New(io.Discard, "", 0),
	})
	if err != nil {
		return err
	}
	s.Serve()
	return nil
}
