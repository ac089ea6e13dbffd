package wire

import (
	"errors"
	"io"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

type note struct {
	Text string `json:"text"`
}

// init turns this test binary into the child of TestChildProcess.
func init() {
	if os.Getenv("WIRE_TEST_CHILD") == "" {
		return
	}
	conn, err := FromFD(3)
	if err != nil {
		os.Exit(10)
	}
	var in note
	files, err := conn.Receive(&in)
	if err != nil || len(files) != 1 {
		os.Exit(11)
	}
	body, err := io.ReadAll(files[0])
	if err != nil {
		os.Exit(12)
	}
	if conn.Send(note{in.Text + " " + string(body)}, files[0]) != nil {
		os.Exit(13)
	}
	os.Exit(0)
}

// pair returns both ends in this process.
func pair(t *testing.T) (*Conn, *Conn) {
	t.Helper()
	a, file, err := Pair()
	if err != nil {
		t.Fatal(err)
	}
	fd, err := unix.FcntlInt(file.Fd(), unix.F_DUPFD, 0) // without close-on-exec, as a child finds it
	if err != nil {
		t.Fatal(err)
	}
	file.Close()
	b, err := FromFD(fd)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { a.Close(); b.Close() })
	return a, b
}

func TestChildProcess(t *testing.T) {
	conn, childEnd, err := Pair()
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = []string{"WIRE_TEST_CHILD=1"}
	cmd.ExtraFiles = []*os.File{childEnd}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	childEnd.Close()
	read, write, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer read.Close()
	if err := conn.Send(note{"hello"}, read); err != nil {
		t.Fatal(err)
	}
	write.WriteString("from the pipe")
	write.Close()
	var back note
	files, err := conn.Receive(&back)
	if err != nil {
		t.Fatal(err)
	}
	if back.Text != "hello from the pipe" || len(files) != 1 {
		t.Fatalf("got %q with %d files", back.Text, len(files))
	}
	defer files[0].Close()
	if flags, _ := unix.FcntlInt(files[0].Fd(), unix.F_GETFD, 0); flags&unix.FD_CLOEXEC == 0 {
		t.Fatal("a received descriptor would leak into the next program")
	}
	if err := cmd.Wait(); err != nil {
		t.Fatal(err)
	}
	if _, err := conn.Receive(&back); err != io.EOF {
		t.Fatalf("after the child's end: %v, want EOF", err)
	}
	if err := conn.Send(note{}); !errors.Is(err, unix.EPIPE) {
		t.Fatalf("send after the child's end: %v, want EPIPE", err)
	}
}

func TestDescriptorsAreCloseOnExec(t *testing.T) {
	a, file, err := Pair()
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	defer file.Close()
	raw, _ := a.socket.SyscallConn()
	raw.Control(func(fd uintptr) {
		if flags, _ := unix.FcntlInt(fd, unix.F_GETFD, 0); flags&unix.FD_CLOEXEC == 0 {
			t.Error("own end is inherited by children")
		}
	})
	if flags, _ := unix.FcntlInt(file.Fd(), unix.F_GETFD, 0); flags&unix.FD_CLOEXEC == 0 {
		t.Error("child's end is inherited by other children")
	}
}

func TestSendKeepsNonblockingMode(t *testing.T) {
	a, b := pair(t)
	read, write, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer read.Close()
	defer write.Close()
	if err := a.Send(note{}, read); err != nil {
		t.Fatal(err)
	}
	if _, err := b.Receive(&note{}); err != nil {
		t.Fatal(err)
	}
	if err := read.SetReadDeadline(time.Now()); err != nil {
		t.Fatalf("a sent pipe lost its deadlines: %v", err)
	}
}

func TestLargestMessage(t *testing.T) {
	a, b := pair(t)
	frame := len(`{"text":""}`)
	if err := a.Send(note{strings.Repeat("x", MaxMessage-frame)}); err != nil {
		t.Fatal(err)
	}
	var got note
	if _, err := b.Receive(&got); err != nil || len(got.Text) != MaxMessage-frame {
		t.Fatalf("%d bytes, %v", len(got.Text), err)
	}
	if err := a.Send(note{strings.Repeat("x", MaxMessage-frame+1)}); !errors.Is(err, ErrTooLarge) {
		t.Fatalf("over the limit: %v", err)
	}
}

// TestBadPackets sends what no Conn would: every packet is refused, no
// descriptor stays open, and the connection goes on working.
func TestBadPackets(t *testing.T) {
	devNull, err := os.Open("/dev/null")
	if err != nil {
		t.Fatal(err)
	}
	defer devNull.Close()
	many := make([]int, MaxFiles+1)
	for i := range many {
		many[i] = int(devNull.Fd())
	}
	for name, bad := range map[string]struct {
		text string
		fds  []int
		want error
	}{
		"too long":          {text: `{"text":"` + strings.Repeat("x", MaxMessage) + `"}`, want: ErrTooLarge},
		"too many files":    {text: `{}`, fds: many, want: ErrTooLarge},
		"not JSON":          {text: `hello`, fds: many[:1]},
		"unknown field":     {text: `{"text":"a","other":1}`, fds: many[:1]},
		"two objects":       {text: `{"text":"a"} {}`, fds: many[:1]},
		"wrong type":        {text: `{"text":1}`},
		"cut short":         {text: `{"text":`},
		"garbage behind it": {text: `{}x`},
	} {
		t.Run(name, func(t *testing.T) {
			a, b := pair(t)
			before := openFiles(t)
			var control []byte
			if len(bad.fds) > 0 {
				control = unix.UnixRights(bad.fds...)
			}
			if _, _, err := a.socket.WriteMsgUnix([]byte(bad.text), control, nil); err != nil {
				t.Fatal(err)
			}
			_, err := b.Receive(&note{})
			if err == nil || (bad.want != nil && !errors.Is(err, bad.want)) {
				t.Fatalf("got %v, want %v", err, bad.want)
			}
			if after := openFiles(t); after != before {
				t.Fatalf("%d descriptors before, %d after", before, after)
			}
			if err := a.Send(note{"next"}); err != nil {
				t.Fatal(err)
			}
			var next note
			if _, err := b.Receive(&next); err != nil || next.Text != "next" {
				t.Fatalf("the next message: %q, %v", next.Text, err)
			}
		})
	}
}

func openFiles(t *testing.T) int {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(entries)
}

func TestEndWithUnreadMessageIsEOF(t *testing.T) {
	a, b := pair(t)
	if err := a.Send(note{"never read"}); err != nil {
		t.Fatal(err)
	}
	b.Close()
	if _, err := a.Receive(&note{}); err != io.EOF {
		t.Fatalf("got %v, want EOF", err)
	}
}

func TestDeadline(t *testing.T) {
	a, _ := pair(t)
	a.SetDeadline(time.Now().Add(10 * time.Millisecond))
	if _, err := a.Receive(&note{}); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatalf("got %v", err)
	}
}

func TestFromFDRefusesOthers(t *testing.T) {
	file, err := os.Open("/dev/null")
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	stream, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(stream[0])
	defer unix.Close(stream[1])
	for name, fd := range map[string]int{"not a socket": int(file.Fd()), "stream socket": stream[0], "closed": 1 << 19} {
		if _, err := FromFD(fd); err == nil {
			t.Errorf("%s was taken", name)
		}
	}
	if _, err := unix.FcntlInt(file.Fd(), unix.F_GETFD, 0); err != nil {
		t.Error("a refused descriptor was closed")
	}
}

func TestSendRefusesClosedFile(t *testing.T) {
	a, _ := pair(t)
	file, err := os.Open("/dev/null")
	if err != nil {
		t.Fatal(err)
	}
	file.Close()
	if err := a.Send(note{}, file); err == nil {
		t.Fatal("a closed file was sent")
	}
}
