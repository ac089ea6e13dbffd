package main

import (
	"errors"

	"encfsrun/keyring"
	"encfsrun/launcher"
)

// The messages between a launcher and its daemon. None holds a secret.

// daemonConfig is the first message. The passkey's descriptor, if there is one, comes with it.
type daemonConfig struct {
	Vault    string // absolute
	Source   keyring.Source
	Open     openSettings
	StateDir string
	Budget   int64 // bytes of guarded memory; 0 for the machine's default
	Name     string
	Access   access
	Quiet    bool
	JSON     bool
}

// access is what a mount lets programs do, and the kernel keep.
type access struct {
	Writable  bool
	PageCache bool // the kernel keeps contents while mounted
}

// attachMessage hands over the descriptor of the mount, which comes with it.
type attachMessage struct {
	Mounted    launcher.Mounted
	Background bool // the launcher goes once the mount is served
	Abandon    bool // there is no mount and never will be; no descriptor comes
}

// daemonMessage is what the daemon says: one of its fields is set.
type daemonMessage struct {
	Ready    *readyMessage
	Serving  bool
	Finished *finishedMessage
}

type readyMessage struct{ MaxRead int }

// finishedMessage is the last: all is wiped.
type finishedMessage struct{ Error *failure }

// failure is an error on its way to the user's terminal.
type failure struct {
	Message string
	Code    int
}

func failureOf(err error) *failure {
	var known *codeError
	if errors.As(err, &known) {
		return &failure{sentence(err), known.code}
	}
	message := sentence(err)
	if next := hint(err); next != "" {
		message += "; " + next
	}
	return &failure{message, exitCode(err)}
}

func (f *failure) err() error { return &codeError{f.Code, f.Message} }
