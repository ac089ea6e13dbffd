package launcher

import (
	"fmt"
	"syscall"
)

// Status is how the program ended.
type Status struct {
	Code   int            `json:"code"`             // 0 to 255, when Signal is 0
	Signal syscall.Signal `json:"signal,omitempty"` // that killed it, or 0
}

// ExitCode is the status as a shell reports it: the code, or 128 plus the signal.
func (s Status) ExitCode() int {
	if s.Signal != 0 {
		return 128 + int(s.Signal)
	}
	return s.Code
}

func (s Status) String() string {
	if s.Signal != 0 {
		return fmt.Sprintf("killed by signal %d (%s)", int(s.Signal), s.Signal)
	}
	return fmt.Sprintf("exit status %d", s.Code)
}
