package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// terminal is a pty with a program on it that leads a session, as a login shell does.
type terminal struct {
	t      *testing.T
	master *os.File
	slave  *os.File // kept open to read the modes
	cmd    *exec.Cmd
	seen   chan []byte
	text   string // shown and not yet expected
	all    string // shown
	ended  chan struct{}
}

// on starts a command on a new terminal.
func (w *world) on(cmd *exec.Cmd) *terminal {
	t := w.t
	t.Helper()
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	must(t, err)
	must(t, unix.IoctlSetPointerInt(int(master.Fd()), unix.TIOCSPTLCK, 0))
	number, err := unix.IoctlGetInt(int(master.Fd()), unix.TIOCGPTN)
	must(t, err)
	slave, err := os.OpenFile(fmt.Sprintf("/dev/pts/%d", number), os.O_RDWR|unix.O_NOCTTY, 0)
	must(t, err)
	w.own(slave.Name()) // as login does
	cmd.Stdin, cmd.Stdout, cmd.Stderr = slave, slave, slave
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
	cmd.SysProcAttr.Setsid, cmd.SysProcAttr.Setctty = true, true
	must(t, cmd.Start())
	s := &terminal{t: t, master: master, slave: slave, cmd: cmd, seen: make(chan []byte, 1024), ended: make(chan struct{})}
	go s.read()
	go func() { cmd.Wait(); close(s.ended) }()
	t.Cleanup(func() {
		cmd.Process.Kill()
		<-s.ended
		slave.Close()
		master.Close()
	})
	return s
}

// shell starts an interactive shell on a terminal.
func (w *world) shell() *terminal {
	cmd := w.exec("/bin/bash", "--norc", "--noprofile", "--noediting", "-i")
	cmd.Env = append(cmd.Env, "PS1="+prompt)
	s := w.on(cmd)
	s.expect(prompt)
	return s
}

const prompt = "shell> "

func (s *terminal) read() {
	defer close(s.seen)
	for {
		buffer := make([]byte, 4096)
		n, err := s.master.Read(buffer)
		if err != nil {
			return
		}
		s.seen <- buffer[:n]
	}
}

// types sends keys.
func (s *terminal) types(keys string) {
	s.t.Helper()
	_, err := s.master.WriteString(keys)
	must(s.t, err)
}

// expect waits until the terminal shows one of the texts, forgets everything up to it, and returns which.
func (s *terminal) expect(texts ...string) int {
	s.t.Helper()
	for late := time.After(30 * time.Second); ; {
		first, which := -1, 0
		for i, text := range texts {
			if at := strings.Index(s.text, text); at >= 0 && (first < 0 || at < first) {
				first, which = at, i
			}
		}
		if first >= 0 {
			s.text = s.text[first+len(texts[which]):]
			return which
		}
		select {
		case more, ok := <-s.seen:
			if !ok {
				s.t.Fatalf("the terminal closed before %q; it shows %q", texts, s.text)
			}
			s.text += string(more)
			s.all += string(more)
		case <-late:
			s.t.Fatalf("the terminal does not show %q but %q", texts, s.text)
		}
	}
}

// status wants the exit status of the shell's last command.
func (s *terminal) status(code int) {
	s.t.Helper()
	s.types("echo status=$?.\n")
	s.expect("status=$?.")
	s.expect("status=")
	s.expect(fmt.Sprint(code, "."))
	s.expect(prompt)
}

// modes returns the terminal's settings.
func (s *terminal) modes() unix.Termios {
	s.t.Helper()
	m, err := unix.IoctlGetTermios(int(s.slave.Fd()), unix.TCGETS)
	must(s.t, err)
	return *m
}

// echoes says whether what is typed is shown.
func (s *terminal) echoes() bool { return s.modes().Lflag&unix.ECHO != 0 }

// exit waits for the end of the terminal's program and returns its exit code.
func (s *terminal) exit() int {
	s.t.Helper()
	select {
	case <-s.ended:
	case <-time.After(30 * time.Second):
		s.t.Fatalf("the program on the terminal does not end; it shows %q", s.text)
	}
	return s.cmd.ProcessState.ExitCode()
}
