package keyring

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// pty runs a child on a terminal of its own.
type pty struct {
	t      *testing.T
	master *os.File
	slave  *os.File
	before unix.Termios // the terminal's modes before the child was started
	cmd    *exec.Cmd
	stdout bytes.Buffer

	mu     sync.Mutex
	output []byte // what the terminal shows
	seen   int    // how much of it expect has passed
}

// openPTY returns both ends of a new terminal, which is nobody's yet.
func openPTY(t *testing.T) (master, slave *os.File) {
	t.Helper()
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { master.Close() })
	conn, err := master.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	var number int
	var ioctlErr error
	err = conn.Control(func(fd uintptr) {
		if ioctlErr = unix.IoctlSetPointerInt(int(fd), unix.TIOCSPTLCK, 0); ioctlErr == nil {
			number, ioctlErr = unix.IoctlGetInt(int(fd), unix.TIOCGPTN)
		}
	})
	if err != nil || ioctlErr != nil {
		t.Fatal(err, ioctlErr)
	}
	slave, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", number), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { slave.Close() })
	return master, slave
}

// startOnPTY starts a command as the leader of a session on a new terminal.
// Its standard streams are elsewhere.
func startOnPTY(t *testing.T, cmd *exec.Cmd) *pty {
	t.Helper()
	p := &pty{t: t, cmd: cmd}
	p.master, p.slave = openPTY(t)
	p.before = p.modes()
	cmd.ExtraFiles = []*os.File{p.slave}
	cmd.Stdout = &p.stdout
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true, Ctty: 3}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill() })
	go func() {
		b := make([]byte, 1024)
		for {
			n, err := p.master.Read(b)
			p.mu.Lock()
			p.output = append(p.output, b[:n]...)
			p.mu.Unlock()
			if err != nil {
				return
			}
		}
	}()
	return p
}

// expect waits until the terminal shows text after what was expected before.
func (p *pty) expect(text string) {
	p.t.Helper()
	for began := time.Now(); time.Since(began) < 10*time.Second; time.Sleep(2 * time.Millisecond) {
		p.mu.Lock()
		i := bytes.Index(p.output[p.seen:], []byte(text))
		if i >= 0 {
			p.seen += i + len(text)
		}
		p.mu.Unlock()
		if i >= 0 {
			return
		}
	}
	p.t.Fatalf("terminal shows %q, not %q", p.shown(), text)
}

func (p *pty) shown() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return string(p.output)
}

// enter is what somebody types.
func (p *pty) enter(keys string) {
	p.t.Helper()
	if _, err := p.master.WriteString(keys); err != nil {
		p.t.Fatal(err)
	}
}

func (p *pty) modes() unix.Termios {
	p.t.Helper()
	modes, err := unix.IoctlGetTermios(int(p.slave.Fd()), unix.TCGETS)
	if err != nil {
		p.t.Fatal(err)
	}
	return *modes
}

func (p *pty) echoes() bool { return p.modes().Lflag&unix.ECHO != 0 }

// outcome waits for the child's end and decodes its report.
func (p *pty) outcome() outcome {
	p.t.Helper()
	kill := time.AfterFunc(20*time.Second, func() { _ = p.cmd.Process.Kill() })
	defer kill.Stop()
	if err := p.cmd.Wait(); err != nil {
		p.t.Fatalf("child: %v; terminal shows %q", err, p.shown())
	}
	return decodeOutcome(p.t, p.stdout.Bytes())
}

// unread returns what was typed and nobody has read, after one more newline.
func (p *pty) unread() string {
	p.t.Helper()
	p.enter("\n")
	fd := int(p.slave.Fd())
	fds := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
	if n, err := unix.Poll(fds, 5000); n != 1 {
		p.t.Fatalf("the newline did not come: %v", err)
	}
	b := make([]byte, 100)
	n, err := unix.Read(fd, b)
	if err != nil {
		p.t.Fatal(err)
	}
	return string(b[:n])
}
