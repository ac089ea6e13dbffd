package keyring

import (
	"context"
	"errors"
	"io"
	"os"

	"golang.org/x/sys/unix"

	"encfsrun/fs/guarded"
)

// reader reads a descriptor with read(2) straight into guarded memory: no
// buffer of the standard library ever holds a byte of it. A read ends when the
// context does, also on a pipe that nobody writes to.
type reader struct {
	ctx  context.Context
	fd   int
	wake *os.File // becomes readable when ctx is done
	stop func()
}

func newReader(ctx context.Context, fd int) (*reader, error) {
	wake, done, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	// Closing the write end is what wakes poll.
	disarm := context.AfterFunc(ctx, func() { done.Close() })
	stop := func() {
		disarm()
		done.Close()
		wake.Close()
	}
	return &reader{ctx: ctx, fd: fd, wake: wake, stop: stop}, nil
}

func (r *reader) close() { r.stop() }

// read waits for the descriptor and reads once. It returns io.EOF at the end,
// and the context's cause when that is done first.
func (r *reader) read(b []byte) (int, error) {
	wake := int32(r.wake.Fd())
	for {
		fds := []unix.PollFd{{Fd: int32(r.fd), Events: unix.POLLIN}, {Fd: wake, Events: unix.POLLIN}}
		if _, err := unix.Poll(fds, -1); err != nil && err != unix.EINTR {
			return 0, os.NewSyscallError("poll", err)
		}
		if r.ctx.Err() != nil {
			return 0, context.Cause(r.ctx)
		}
		if fds[0].Revents == 0 {
			continue
		}
		n, err := unix.Read(r.fd, b)
		switch {
		case err == unix.EINTR || err == unix.EAGAIN:
			continue
		case err != nil:
			return 0, os.NewSyscallError("read", err)
		case n == 0:
			return 0, io.EOF
		}
		return n, nil
	}
}

// fill reads until b is full or the descriptor ends, and returns how much came.
func (r *reader) fill(b []byte) (n int, err error) {
	for n < len(b) {
		m, err := r.read(b[n:])
		n += m
		if errors.Is(err, io.EOF) {
			return n, nil
		}
		if err != nil {
			return n, err
		}
	}
	return n, nil
}

// maxContent is enough for the longest passphrase, its newline and one byte
// more, which shows that there is too much.
const maxContent = MaxPassphrase + len("\r\n") + 1

// readPasskey makes a passkey of all that a descriptor delivers. Errors name
// the origin.
func readPasskey(ctx context.Context, fd int, origin string) (*Passkey, error) {
	content, err := guarded.NewBuffer(maxContent)
	if err != nil {
		return nil, err
	}
	defer content.Destroy()
	r, err := newReader(ctx, fd)
	if err != nil {
		return nil, err
	}
	defer r.close()
	n, err := r.fill(content.Bytes())
	if err != nil {
		return nil, &PasskeyError{Origin: origin, Reason: "can't be read", Err: err}
	}
	return contentPasskey(content.Bytes()[:n], origin)
}
