package launcher

import (
	"os"
	"runtime"

	"golang.org/x/sys/unix"
)

// Until a program has a pty of its own, it shares the terminal of the launcher,
// as a job of its own: its process group is made the foreground one, so that
// what is typed (Ctrl-C, Ctrl-\, Ctrl-Z) goes to the program alone, once, and
// the launcher takes the terminal back when the program stops or ends. A
// program in a pipeline (its standard files are not all the terminal) gets the
// terminal only when it asks for it, by reading it: others of the pipeline,
// such as a pager, need it too.

// terminal is the launcher's controlling terminal.
type terminal struct {
	file   *os.File
	group  int  // of the launcher
	given  bool // the program was put in the foreground and the terminal not taken back
	wanted bool // the program is to be in the foreground whenever the launcher is
}

// openTerminal returns nil where there is no controlling terminal.
func openTerminal() *terminal {
	file, err := os.OpenFile("/dev/tty", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		return nil
	}
	return &terminal{file: file, group: unix.Getpgrp()}
}

func (t *terminal) close() {
	if t != nil {
		t.file.Close()
	}
}

// inFront says whether the launcher's own process group is in the foreground.
func (t *terminal) inFront() bool {
	if t == nil {
		return false
	}
	group, err := unix.IoctlGetInt(int(t.file.Fd()), unix.TIOCGPGRP)
	return err == nil && group == t.group
}

// reclaim makes the launcher's group the foreground one again, if the program
// had the terminal.
func (t *terminal) reclaim() {
	if t != nil && t.given {
		setForeground(t.file, t.group)
		t.given = false
	}
}

// stoppable says whether somebody could continue the launcher if it stopped
// itself: a shell, which leads the session and is in another process group.
func (t *terminal) stoppable() bool {
	session, err := unix.Getsid(0)
	return err == nil && session != t.group
}

// interactive says whether all of files are the controlling terminal.
func interactive(files ...*os.File) bool {
	for _, file := range files {
		if file == nil {
			return false
		}
		raw, err := file.SyscallConn()
		if err != nil {
			return false
		}
		var answer error
		err = raw.Control(func(fd uintptr) { _, answer = unix.IoctlGetInt(int(fd), unix.TIOCGPGRP) })
		if err != nil || answer != nil {
			return false
		}
	}
	return true
}

// giveTerminal puts the process group of the program in the foreground. PID 1
// does this, because only it can name the group. Without a terminal any more
// there is nothing to give.
func giveTerminal(group int) {
	file, err := os.OpenFile("/dev/tty", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		return
	}
	defer file.Close()
	setForeground(file, group)
}

// setForeground is tcsetpgrp(3). A process in the background that asks for it
// is stopped by SIGTTOU unless it blocks that. An error means that the terminal
// or the group has gone, which the next to use the terminal will notice.
func setForeground(file *os.File, group int) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	var block, before unix.Sigset_t
	block.Val[0] = 1 << (uint(unix.SIGTTOU) - 1)
	if unix.PthreadSigmask(unix.SIG_BLOCK, &block, &before) != nil {
		return
	}
	unix.IoctlSetPointerInt(int(file.Fd()), unix.TIOCSPGRP, group)
	unix.PthreadSigmask(unix.SIG_SETMASK, &before, nil)
}
