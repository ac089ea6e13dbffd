package launcher

import (
	"os"
	"time"
)

// DefaultStopTimeout is how long a program has to end after a SIGTERM or SIGINT.
const DefaultStopTimeout = 8 * time.Second

// RunOptions is how a plan is run, as far as it is not the sandbox's business.
type RunOptions struct {
	Stdin, Stdout, Stderr *os.File      // nil is /dev/null
	StopTimeout           time.Duration // 0 is DefaultStopTimeout
	// Started is called when the program has been executed, with the pid of the
	// sandbox's PID 1 on this machine. May be nil.
	Started func(pid int)
}
