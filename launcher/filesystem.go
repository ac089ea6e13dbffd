package launcher

import "os"

// Filesystem serves a mount. It is all that the launcher knows of what is
// mounted: usually the far end is the daemon, another process.
type Filesystem interface {
	// Attach hands over the /dev/fuse descriptor of a mount that was just made
	// and returns once requests on it are answered. The launcher closes its own
	// copy of the descriptor afterwards, so whoever serves needs one of its own.
	Attach(fuse *os.File, m Mounted) error
	// Done is closed when the file system has ended, for whatever reason; a run
	// whose file system is gone is ended too.
	Done() <-chan struct{}
	// Finish is called once, when the mount is gone or never came to be. It
	// waits until everything is synced, wiped and ended, and says if that failed.
	Finish() error
	// Kill ends whoever serves at once, unwiped and unsynced as that leaves it:
	// the last resort against one that was stopped or is stuck. Done and Finish
	// then come to their end, and requests on the mount fail. It may be called
	// at any time, also more than once.
	Kill()
}

// Mounted describes a mount to the file system that is to serve it.
type Mounted struct {
	Dir       string `json:"dir"`       // where it is mounted, as those see it who use it
	Device    string `json:"device"`    // "major:minor", as the mount table of the machine has it; empty for a sandbox's
	Sandboxed bool   `json:"sandboxed"` // made inside a sandbox: requests of pid 0 come from outside and are to be refused
	ReadOnly  bool   `json:"read_only"`
	MaxRead   int    `json:"max_read"` // bytes; the limit in the mount options, which the server's must equal
	UID       int    `json:"uid"`      // the owner to answer in attributes: an unmapped one means
	GID       int    `json:"gid"`      // EACCES for everybody
}
