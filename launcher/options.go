package launcher

import (
	"os"
	"strings"
)

// DefaultAt is where a vault is mounted in a sandbox unless Options.At says otherwise.
const DefaultAt = "/app"

// DefaultMaxRead is the largest READ request of a mount in bytes: what the
// kernel asks for at once by default (32 pages).
const DefaultMaxRead = 128 << 10

// Options is what a user may ask of a sandbox.
type Options struct {
	Command  []string // Command[0] is looked up in the sandbox's PATH
	At       string   // mount point inside; "" is DefaultAt
	Dir      string   // working directory; "" is At
	Net      Net      // "" is NetNone
	Binds    []Bind
	Env      []string // "K=V", or "K" for the caller's value
	User     string   // "", "uid", "uid:gid" or a name of /etc/passwd
	Writable bool
	MaxRead  int // bytes; 0 is DefaultMaxRead
}

// Bind gives the program a file or directory of the machine.
type Bind struct {
	Source   string // on the machine
	Target   string // inside; "" is Source
	ReadOnly bool
}

// ParseBind reads SRC or SRC:DST, as --bind and --ro-bind take them. A colon in
// a name can't be written.
func ParseBind(text string, readOnly bool) (Bind, error) {
	parts := strings.Split(text, ":")
	switch {
	case text == "" || parts[0] == "":
		return Bind{}, planErrorf("bind %q names no source", text)
	case len(parts) == 1:
		return Bind{Source: parts[0], ReadOnly: readOnly}, nil
	case len(parts) == 2 && parts[1] != "":
		return Bind{Source: parts[0], Target: parts[1], ReadOnly: readOnly}, nil
	default:
		return Bind{}, planErrorf("bind %q is not of the form SRC or SRC:DST", text)
	}
}

// Host is what a plan needs to know of the machine and of the caller.
type Host struct {
	Root    string   // of the machine's files; "/" but in tests
	UID     int      // of the caller
	GID     int      // of the caller
	PID     int      // of the launcher: sets concurrent runs of root apart
	Environ []string // of the caller
}

// ThisHost is the machine and the caller as they are.
func ThisHost() Host {
	return Host{Root: "/", UID: os.Getuid(), GID: os.Getgid(), PID: os.Getpid(), Environ: os.Environ()}
}
