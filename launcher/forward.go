package launcher

import (
	"os"
	"os/signal"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// forwarded are the signals that are passed on to the program: all but those
// that can't be caught, that are about this process alone, and that its caller
// told it to ignore.
func forwarded() []os.Signal {
	var list []os.Signal
	for number := syscall.Signal(1); number < 65; number++ {
		switch number {
		case unix.SIGKILL, unix.SIGSTOP, unix.SIGCHLD, unix.SIGURG, unix.SIGPIPE, unix.SIGTTIN, unix.SIGTTOU,
			unix.SIGILL, unix.SIGTRAP, unix.SIGABRT, unix.SIGBUS, unix.SIGFPE, unix.SIGSEGV, unix.SIGSTKFLT, unix.SIGPROF:
			continue
		}
		if !signal.Ignored(number) {
			list = append(list, number)
		}
	}
	return list
}

// signal passes a signal on. Before PID 1 was told to go on, one that asks for
// the end ends the run; from then on PID 1 delivers it when the program is there.
func (r *run) signal(s syscall.Signal) {
	r.count(s)
	if !r.going {
		switch s {
		case unix.SIGINT, unix.SIGTERM, unix.SIGHUP, unix.SIGQUIT:
			r.cut(s)
		}
		return
	}
	if s == unix.SIGCONT {
		r.resume(r.terminal.inFront() && r.terminal.wanted)
		return
	}
	// A Ctrl-C of the moment before the program had the terminal is the
	// program's business, as all later ones are.
	early := s == unix.SIGINT && !r.started && r.terminal != nil && r.terminal.wanted
	if (s == unix.SIGINT || s == unix.SIGTERM) && !r.stopping && !early {
		r.stopping = true
		patience := r.o.StopTimeout
		if patience == 0 {
			patience = DefaultStopTimeout
		}
		r.stop = time.After(patience)
	}
	// What is typed at a terminal is meant for a whole process group.
	typed := s == unix.SIGTSTP || (s == unix.SIGINT || s == unix.SIGQUIT) && r.terminal.inFront()
	r.say(message{Kind: saySignal, Signal: s, Group: typed})
}

// count counts a signal that asks for the end. The second one during the end
// says that it takes too long.
func (r *run) count(s syscall.Signal) {
	if s != unix.SIGINT && s != unix.SIGTERM {
		return
	}
	if r.asked++; r.asked > 1 && r.late != nil {
		r.giveUp()
	}
}

// stopped does what a shell would if it were the program's parent: give it the
// terminal if that is what it stopped for, else stop too, so that the shell
// that started the launcher sees a stopped job. Its fg or bg sends SIGCONT.
//
// A program that was asked to end and stops instead is continued: if the
// launcher stopped with it, the clock of StopTimeout would stand still, and the
// program would live for as long as it likes.
func (r *run) stopped(s syscall.Signal) {
	if r.stopping {
		r.resume(false)
		return
	}
	if r.terminal == nil {
		return
	}
	asks := s == unix.SIGTTIN || s == unix.SIGTTOU
	if asks && (r.terminal.given || r.terminal.inFront()) {
		r.resume(true)
		return
	}
	if !r.terminal.stoppable() {
		if s != unix.SIGSTOP {
			r.resume(false)
		}
		return
	}
	r.terminal.wanted = r.terminal.wanted || asks
	r.terminal.reclaim()
	unix.Kill(unix.Getpid(), unix.SIGSTOP)
}

// resume continues the program, in the foreground or not.
func (r *run) resume(front bool) {
	if front {
		r.terminal.given, r.terminal.wanted = true, true
	}
	r.say(message{Kind: sayResume, Foreground: front})
}
