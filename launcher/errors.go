package launcher

import (
	"errors"
	"fmt"
	"syscall"
)

// PlanError says that a plan can't be carried out as it stands: an option that
// makes no sense, or that contradicts another or the machine's files.
type PlanError struct {
	Reason string
}

func (e *PlanError) Error() string { return e.Reason }

func planErrorf(format string, args ...any) error {
	return &PlanError{Reason: fmt.Sprintf(format, args...)}
}

// SetupError says which step of making the sandbox failed.
type SetupError struct {
	Step  string        // "bind /usr on /usr"
	Errno syscall.Errno // why, or 0 when Detail says it
	// Detail is a sentence where an errno does not tell the story.
	Detail string
}

func (e *SetupError) Error() string {
	if e.Detail != "" {
		return fmt.Sprintf("%s: %s", e.Step, e.Detail)
	}
	return fmt.Sprintf("%s: %s", e.Step, e.Errno)
}

func (e *SetupError) Unwrap() error {
	if e.Errno == 0 {
		return nil
	}
	return e.Errno
}

// setupError names the step that err came from. An error that is typed already
// says more than that.
func setupError(step string, err error) error {
	var missing *MissingError
	var setup *SetupError
	if errors.As(err, &missing) || errors.As(err, &setup) {
		return err
	}
	failed := &SetupError{Step: step}
	if errno, bare := err.(syscall.Errno); bare {
		failed.Errno = errno
		return failed
	}
	errors.As(err, &failed.Errno)
	failed.Detail = err.Error()
	return failed
}

// ExecError says why the program could not be executed inside the sandbox.
type ExecError struct {
	Program     string // as it was given
	Interpreter string // the script's interpreter or the binary's loader, when that is what is missing
	NotFound    bool   // nothing there, else it is there and can't be executed
	Errno       syscall.Errno
}

// ExitCode is 127 for what can't be found and 126 for what can't be executed, as shells have it.
func (e *ExecError) ExitCode() int {
	if e.NotFound {
		return 127
	}
	return 126
}

func (e *ExecError) Error() string {
	switch {
	case e.Interpreter != "" && e.NotFound:
		return fmt.Sprintf("%s needs the interpreter %s, which is not in the sandbox", e.Program, e.Interpreter)
	case e.Interpreter != "":
		return fmt.Sprintf("%s needs the interpreter %s, which can't be executed: %s", e.Program, e.Interpreter, e.Errno)
	case e.NotFound:
		return fmt.Sprintf("%s is not in the sandbox", e.Program)
	default:
		return fmt.Sprintf("%s can't be executed: %s", e.Program, e.Errno)
	}
}

// FilesystemError says that the file system failed the run: it could not be
// attached, it ended before the program did, or it could not finish.
type FilesystemError struct {
	Stage FilesystemStage
	Err   error // what the file system said; nil when it ended without a word
}

// FilesystemStage is when a file system failed.
type FilesystemStage string

// The stages of a file system's life in a run.
const (
	StageAttach FilesystemStage = "attach"
	StageServe  FilesystemStage = "serve"
	StageFinish FilesystemStage = "finish"
	StageHang   FilesystemStage = "hang" // it did not come to its end, and was killed
)

func (e *FilesystemError) Error() string {
	switch e.Stage {
	case StageServe:
		return "the file system's process ended while the program was running, which was killed"
	case StageHang:
		return "the file system's process did not end and was killed; what it had in memory was not wiped by it"
	case StageAttach:
		return fmt.Sprintf("the file system could not be attached: %s", e.Err)
	default:
		return fmt.Sprintf("the file system could not finish: %s", e.Err)
	}
}

func (e *FilesystemError) Unwrap() error { return e.Err }
