// Package wire carries short messages and file descriptors between the
// processes of encfsrun: the launcher on one side, the daemon or the sandbox's
// PID 1 on the other.
//
// A connection is one end of a SOCK_SEQPACKET socket pair. A message is one
// packet: a JSON object of at most [MaxMessage] bytes and up to [MaxFiles]
// descriptors, which arrive with it or not at all. Packets keep their
// boundaries, so there is no framing to get wrong, and the end of the other
// process shows as [io.EOF].
//
// The parent calls [Pair], gives the file to the child (exec.Cmd.ExtraFiles)
// and closes its own copy after the start, or it would never see the end of
// the child. The child calls [FromFD]. Every descriptor made here is
// close-on-exec: a socket or a /dev/fuse descriptor that leaks into the
// program being run would let it pose as the launcher or serve its own code.
//
// Send and Receive may be called at the same time from different goroutines.
package wire

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// MaxMessage is the largest JSON text of a message, in bytes. It is far
	// below the default socket buffer (208 KiB), so that a packet always fits.
	MaxMessage = 64 << 10
	// MaxFiles is the largest number of descriptors with one message.
	MaxFiles = 8
)

// ErrTooLarge is returned for a message or a set of descriptors over the limits.
var ErrTooLarge = errors.New("message is too large")

// Conn is one end of a connection.
type Conn struct {
	socket *net.UnixConn
}

// Pair makes a connection and returns its own end and the child's end as a
// file. The caller closes the file once the child has it.
func Pair() (*Conn, *os.File, error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, fmt.Errorf("make a socket pair: %w", err)
	}
	child := os.NewFile(uintptr(fds[1]), "wire")
	conn, err := FromFD(fds[0])
	if err != nil {
		child.Close()
		return nil, nil, err
	}
	return conn, child, nil
}

// FromFD takes over descriptor fd, the end that the parent passed at the start
// of this process. It refuses, and leaves alone, what is not a SOCK_SEQPACKET
// unix socket: the number comes from outside.
func FromFD(fd int) (*Conn, error) {
	domain, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_DOMAIN)
	if err != nil {
		return nil, fmt.Errorf("descriptor %d is not a socket: %w", fd, err)
	}
	kind, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_TYPE)
	if err != nil {
		return nil, fmt.Errorf("descriptor %d is not a socket: %w", fd, err)
	}
	if domain != unix.AF_UNIX || kind != unix.SOCK_SEQPACKET {
		return nil, fmt.Errorf("descriptor %d is not a packet socket of encfsrun", fd)
	}
	file := os.NewFile(uintptr(fd), "wire")
	defer file.Close()
	conn, err := net.FileConn(file) // a close-on-exec duplicate, known to the poller
	if err != nil {
		return nil, fmt.Errorf("use descriptor %d as a socket: %w", fd, err)
	}
	return &Conn{socket: conn.(*net.UnixConn)}, nil
}

// Close ends the connection; the other side receives [io.EOF].
func (c *Conn) Close() error { return c.socket.Close() }

// SetDeadline bounds pending and later calls; the zero time means no limit.
// A call that runs out of time fails with [os.ErrDeadlineExceeded].
func (c *Conn) SetDeadline(t time.Time) error { return c.socket.SetDeadline(t) }

// Send sends msg, encoded as JSON, together with duplicates of files, which
// stay the caller's. It fails with [ErrTooLarge] before anything is sent, and
// with EPIPE when the other side is gone.
func (c *Conn) Send(msg any, files ...*os.File) error {
	text, err := json.Marshal(msg)
	if err != nil {
		return fmt.Errorf("encode a message: %w", err)
	}
	if len(text) > MaxMessage || len(files) > MaxFiles {
		return fmt.Errorf("send %d bytes and %d files: %w", len(text), len(files), ErrTooLarge)
	}
	return withDescriptors(files, nil, func(fds []int) error {
		var control []byte
		if len(fds) > 0 {
			control = unix.UnixRights(fds...)
		}
		if _, _, err := c.socket.WriteMsgUnix(text, control, nil); err != nil {
			return fmt.Errorf("send a message: %w", err)
		}
		return nil
	})
}

// withDescriptors calls use with the numbers of all files while each is held
// open. It goes through SyscallConn because os.File.Fd would switch a
// descriptor that both processes share to blocking mode.
func withDescriptors(files []*os.File, fds []int, use func([]int) error) error {
	if len(files) == 0 {
		return use(fds)
	}
	raw, err := files[0].SyscallConn()
	if err != nil {
		return fmt.Errorf("send %s: %w", files[0].Name(), err)
	}
	var inner error
	err = raw.Control(func(fd uintptr) {
		inner = withDescriptors(files[1:], append(fds, int(fd)), use)
	})
	return errors.Join(err, inner)
}

// Receive waits for the next message, decodes it into msg (a pointer) and
// returns the descriptors that came with it, close-on-exec, now the caller's.
// The decoding is strict: a field that msg does not have or anything after the
// object is an error, and then the descriptors have been closed. The error is
// [io.EOF] when the other side has closed or died.
func (c *Conn) Receive(msg any) ([]*os.File, error) {
	text := make([]byte, MaxMessage)
	control := make([]byte, unix.CmsgSpace(4*MaxFiles))
	n, controlLen, flags, _, err := c.socket.ReadMsgUnix(text, control)
	if errors.Is(err, io.EOF) || errors.Is(err, unix.ECONNRESET) {
		return nil, io.EOF // a reset is an end that left our last message unread
	}
	if err != nil {
		return nil, fmt.Errorf("receive a message: %w", err)
	}
	files, err := received(control[:controlLen])
	if err == nil && flags&(unix.MSG_TRUNC|unix.MSG_CTRUNC) != 0 {
		err = fmt.Errorf("receive a message: %w", ErrTooLarge)
	}
	if err == nil {
		err = decode(text[:n], msg)
	}
	if err != nil {
		for _, file := range files {
			file.Close()
		}
		return nil, err
	}
	return files, nil
}

// received turns a control message into files. The net package asked the
// kernel for close-on-exec descriptors.
func received(control []byte) ([]*os.File, error) {
	if len(control) == 0 {
		return nil, nil
	}
	messages, err := unix.ParseSocketControlMessage(control)
	if err != nil {
		return nil, fmt.Errorf("receive descriptors: %w", err)
	}
	var files []*os.File
	for i := range messages {
		fds, err := unix.ParseUnixRights(&messages[i])
		if err != nil {
			return files, fmt.Errorf("receive descriptors: %w", err)
		}
		for _, fd := range fds {
			files = append(files, os.NewFile(uintptr(fd), "received"))
		}
	}
	return files, nil
}

func decode(text []byte, msg any) error {
	decoder := json.NewDecoder(bytes.NewReader(text))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(msg); err != nil {
		return fmt.Errorf("decode a message: %w", err)
	}
	if _, err := decoder.Token(); err != io.EOF {
		return errors.New("decode a message: something follows it")
	}
	return nil
}
