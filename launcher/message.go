package launcher

import (
	"errors"
	"syscall"
)

// What the launcher and PID 1 say to each other over their socket, in order:
//
//	PID 1     mounted, with the /dev/fuse descriptor
//	launcher  go, once requests are answered
//	PID 1     started
//	launcher  signal, resume: any number
//	PID 1     stopped: any number
//	PID 1     exited, and ends
//
// PID 1 says failed at any time instead, and ends. The end of either side is
// the end of the run.
type message struct {
	Kind       messageKind    `json:"kind"`
	Failure    *failure       `json:"failure,omitempty"`    // failed
	Status     *Status        `json:"status,omitempty"`     // exited
	VaultGone  bool           `json:"vault_gone,omitempty"` // exited: the vault's mount no longer answers
	Signal     syscall.Signal `json:"signal,omitempty"`     // signal, stopped
	Group      bool           `json:"group,omitempty"`      // signal: to the program's process group
	Foreground bool           `json:"foreground,omitempty"` // go, resume: the terminal is the program's
}

type messageKind string

const (
	sayMounted messageKind = "mounted"
	sayGo      messageKind = "go"
	sayStarted messageKind = "started"
	saySignal  messageKind = "signal"
	sayResume  messageKind = "resume"
	sayStopped messageKind = "stopped"
	sayExited  messageKind = "exited"
	sayFailed  messageKind = "failed"
)

// failure carries one of the typed errors from PID 1 to the launcher.
type failure struct {
	Missing *MissingError `json:"missing,omitempty"`
	Exec    *ExecError    `json:"exec,omitempty"`
	Setup   *SetupError   `json:"setup,omitempty"`
}

func packFailure(err error) *failure {
	var f failure
	switch {
	case errors.As(err, &f.Missing):
	case errors.As(err, &f.Exec):
	case errors.As(err, &f.Setup):
	default:
		f.Setup = &SetupError{Step: "make the sandbox", Detail: err.Error()}
	}
	return &f
}

func (f *failure) unpack() error {
	switch {
	case f == nil:
		return errors.New("the sandbox failed without saying why")
	case f.Missing != nil:
		return f.Missing
	case f.Exec != nil:
		return f.Exec
	default:
		return f.Setup
	}
}
