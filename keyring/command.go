package keyring

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// commandLimit is how long a passkey command may take: a person may have to
// find and touch a token.
const commandLimit = 60 * time.Second

var errLimit = errors.New("time limit")

// readCommand runs a command without a shell and makes a passkey of its
// standard output. Its standard input is empty, its standard error and its
// terminal are ours: it may ask its own questions there. It runs in its own
// process group, all of which is killed when the limit or the context is over.
func readCommand(ctx context.Context, line string, limit time.Duration) (*Passkey, error) {
	words, err := splitWords(line)
	if err != nil {
		return nil, &UsageError{err.Error()}
	}
	ctx, cancel := context.WithTimeoutCause(ctx, limit, errLimit)
	defer cancel()
	out, in, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer out.Close()
	cmd := exec.Command(words[0], words[1:]...)
	cmd.Stdout, cmd.Stderr = in, os.Stderr
	release := ownGroup(cmd)
	defer release()
	err = cmd.Start()
	in.Close()
	if err != nil {
		return nil, &CommandError{Command: words[0], Err: err}
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		awaitUnreaped(cmd.Process.Pid)
	}()
	passkey, readErr := readPasskey(ctx, int(out.Fd()), fmt.Sprintf("the output of passkey command %q", words[0]))
	out.Close() // one that has more to say than a passkey gets SIGPIPE
	select {
	case <-ended:
	case <-ctx.Done():
		// The group's id can't be anybody else's: its leader is not reaped yet.
		_ = unix.Kill(-cmd.Process.Pid, unix.SIGKILL)
		<-ended
	}
	waitErr := cmd.Wait()
	if err := commandOutcome(ctx, words[0], limit, readErr, waitErr); err != nil {
		passkey.Destroy()
		return nil, err
	}
	return passkey, nil
}

// commandOutcome gives the one error that explains what happened. A command
// that failed is to blame before what it wrote.
func commandOutcome(ctx context.Context, command string, limit time.Duration, readErr, waitErr error) error {
	if cause := context.Cause(ctx); cause != nil {
		if errors.Is(cause, errLimit) {
			return &CommandError{Command: command, Limit: limit, Err: context.DeadlineExceeded}
		}
		return &CommandError{Command: command, Err: cause}
	}
	var exit *exec.ExitError
	if readErr != nil && errors.As(waitErr, &exit) {
		// We have closed its output: that is not its own failure.
		status, _ := exit.Sys().(syscall.WaitStatus)
		if status.Signaled() && status.Signal() == syscall.SIGPIPE {
			return readErr
		}
	}
	if waitErr != nil {
		return &CommandError{Command: command, Err: waitErr}
	}
	return readErr
}

// awaitUnreaped returns when a child has ended, and leaves it a zombie.
func awaitUnreaped(pid int) {
	for {
		err := unix.Waitid(unix.P_PID, pid, nil, unix.WEXITED|unix.WNOWAIT, nil)
		if err != unix.EINTR {
			return
		}
	}
}

// ownGroup puts a command into a process group of its own. Where this process
// is in the foreground of a terminal, so is that group, else a command that
// asks for a PIN would be stopped by SIGTTIN. release takes the terminal back
// after the command was reaped.
func ownGroup(cmd *exec.Cmd) (release func()) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	tty, err := openRetry(terminalPath, unix.O_RDWR|unix.O_CLOEXEC)
	if err != nil {
		return func() {}
	}
	foreground, err := unix.IoctlGetInt(tty, unix.TIOCGPGRP)
	if err != nil || foreground != unix.Getpgrp() {
		unix.Close(tty)
		return func() {}
	}
	cmd.SysProcAttr.Foreground = true
	cmd.SysProcAttr.Ctty = tty
	return func() {
		defer unix.Close(tty)
		takeForeground(tty, foreground)
	}
}

// takeForeground makes a process group the terminal's foreground again. The
// caller is in the background: unless SIGTTOU is blocked, the kernel stops
// whoever does this from there.
func takeForeground(tty, group int) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	var blocked, before unix.Sigset_t
	blocked.Val[0] = 1 << (unix.SIGTTOU - 1)
	if err := unix.PthreadSigmask(unix.SIG_BLOCK, &blocked, &before); err != nil {
		return
	}
	_ = unix.IoctlSetPointerInt(tty, unix.TIOCSPGRP, group)
	_ = unix.PthreadSigmask(unix.SIG_SETMASK, &before, nil)
}
