package launcher_test

import (
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// session is a program on a terminal of its own.
type session struct {
	t      *testing.T
	master *os.File
	cmd    *exec.Cmd
	seen   chan []byte
	text   string
}

// newSession starts a program that leads a session on a new pty.
func newSession(t *testing.T, command ...string) *session {
	t.Helper()
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	must(t, err)
	must(t, unix.IoctlSetPointerInt(int(master.Fd()), unix.TIOCSPTLCK, 0))
	number, err := unix.IoctlGetInt(int(master.Fd()), unix.TIOCGPTN)
	must(t, err)
	slave, err := os.OpenFile(fmt.Sprintf("/dev/pts/%d", number), os.O_RDWR|unix.O_NOCTTY, 0)
	must(t, err)
	defer slave.Close()
	cmd := exec.Command(command[0], command[1:]...)
	cmd.Env = []string{"PATH=/usr/bin:/bin", "TERM=dumb", "PS1=outer> "}
	cmd.Stdin, cmd.Stdout, cmd.Stderr = slave, slave, slave
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	must(t, cmd.Start())
	s := &session{t: t, master: master, cmd: cmd, seen: make(chan []byte, 64)}
	go func() {
		defer close(s.seen)
		for {
			buffer := make([]byte, 4096)
			n, err := master.Read(buffer)
			if err != nil {
				return
			}
			s.seen <- buffer[:n]
		}
	}()
	t.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
		master.Close()
	})
	return s
}

// types sends keys.
func (s *session) types(keys string) {
	s.t.Helper()
	if _, err := s.master.WriteString(keys); err != nil {
		s.t.Fatal(err)
	}
}

// expect waits until the terminal shows want, and forgets everything up to it.
func (s *session) expect(want string) {
	s.t.Helper()
	if !s.shows(want, 30*time.Second) {
		s.t.Fatalf("the terminal does not show %q but %q", want, s.text)
	}
}

// shows waits for it.
func (s *session) shows(want string, patience time.Duration) bool {
	for late := time.After(patience); ; {
		if _, after, ok := strings.Cut(s.text, want); ok {
			s.text = after
			return true
		}
		select {
		case more, ok := <-s.seen:
			if !ok {
				return false // it was closed
			}
			s.text += string(more)
		case <-late:
			return false
		}
	}
}

// insists types a key until the terminal shows want: who it is meant for may
// not be there yet, and no terminal says so.
func (s *session) insists(key, want string) {
	s.t.Helper()
	for range 10 {
		s.types(key)
		if s.shows(want, 3*time.Second) {
			return
		}
	}
	s.t.Fatalf("the terminal does not show %q but %q", want, s.text)
}

// roleTrap says when it is interrupted.
func roleTrap([]string) int {
	interrupts := make(chan os.Signal, 8)
	signal.Notify(interrupts, unix.SIGINT)
	fmt.Println("ready")
	for range interrupts {
		fmt.Println("interrupt")
	}
	return 0
}

// testTerminal uses a program in a sandbox from an interactive shell, as a person does.
func testTerminal(t *testing.T) {
	binary, err := os.Readlink("/proc/self/exe")
	must(t, err)
	s := newSession(t, "/bin/bash", "--norc", "--noprofile", "--noediting", "-i")
	s.expect("outer> ")
	launch := binary + " role-launch "

	// Ctrl-C reaches the program once, and ends neither it nor the launcher.
	s.types(launch + self + " role-trap\n")
	s.expect("ready")
	s.types("\x03")
	s.expect("interrupt")
	time.Sleep(500 * time.Millisecond)
	s.types("\x03")
	s.expect("interrupt")
	if strings.Count(s.text, "interrupt") != 0 {
		t.Errorf("one Ctrl-C was seen twice: %q", s.text)
	}
	// Ctrl-Z stops the job, fg continues it.
	s.types("\x1a")
	s.expect("Stopped")
	s.expect("outer> ")
	s.types("echo shell is ba''ck\n")
	s.expect("shell is back")
	s.types("fg\n")
	s.expect("role-trap") // Ctrl-C also discards what is typed and not read
	s.insists("\x03", "interrupt")
	s.types("\x1c") // Ctrl-\
	s.expect("outer> ")
	s.types("echo status $?\n")
	s.expect("status 2") // as the Go runtime ends

	// A read-eval-print loop reads the terminal from its first moment.
	s.types(launch + "/usr/bin/python3 -q\n")
	s.expect(">>> ")
	s.types("print(6*7)\n")
	s.expect("42")
	s.expect(">>> ")
	s.insists("\x03", "KeyboardInterrupt") // Python loses a signal that comes between its prompt and its select
	s.expect(">>> ")
	s.types("exit(4)\n")
	s.expect("outer> ")
	s.types("echo status $?\n")
	s.expect("status 4")

	// A shell inside does its own job control.
	s.types(launch + "/bin/bash --norc --noprofile --noediting -i\n")
	s.expect("$ ")
	s.types("sh -c 'echo go''ing; exec sleep 100'\n")
	s.expect("going")
	s.types("\x1a")
	s.expect("Stopped")
	s.expect("$ ")
	s.types("fg\n")
	s.expect("exec sleep")
	s.insists("\x03", "$ ")
	s.types("exit 6\n")
	s.expect("outer> ")
	s.types("echo status $?\n")
	s.expect("status 6")

	// In a pipeline the pager keeps the terminal; the program gets it by reading it.
	s.types(launch + "/bin/echo through the pipe | /bin/cat\n")
	s.expect("through the pipe")
	s.expect("outer> ")
	s.types(launch + "/bin/cat | /usr/bin/tr a-z A-Z\n")
	time.Sleep(300 * time.Millisecond) // so that it is read by a program in the background
	s.types("typed\n")
	s.expect("TYPED")
	s.types("\x04")
	s.expect("outer> ")
}

// roleStopper is a program that stops itself when it is asked to end.
func roleStopper([]string) int {
	ends := make(chan os.Signal, 8)
	signal.Notify(ends, unix.SIGTERM)
	fmt.Println("ready")
	for range ends {
		unix.Kill(os.Getpid(), unix.SIGSTOP)
	}
	return 0
}

// testStopsItself: a program can't make the launcher stop as a job, and with it
// the clock that is to end the program.
func testStopsItself(t *testing.T) {
	binary, err := os.Readlink("/proc/self/exe")
	must(t, err)
	s := newSession(t, "/bin/bash", "--norc", "--noprofile", "--noediting", "-i")
	s.expect("outer> ")
	s.types(binary + " role-launch " + self + " role-stopper\n")
	s.expect("ready")
	children, err := os.ReadFile(fmt.Sprintf("/proc/%[1]d/task/%[1]d/children", s.cmd.Process.Pid))
	must(t, err)
	pid, err := strconv.Atoi(strings.TrimSpace(string(children)))
	must(t, err)
	must(t, unix.Kill(pid, unix.SIGTERM))
	s.expect("outer> ")
	s.types("echo status $?\n")
	s.expect("status 137")
}
