package control

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// Watch holds on to a daemon's process, whatever becomes of its socket.
type Watch struct {
	process *os.File // a pidfd; nil when the daemon was gone already
}

// Watch starts to watch the daemon that List found. To learn of its end after
// an unmount, watch before it: the daemon removes its socket before it wipes
// and ends.
func (r *Registry) Watch(ctx context.Context, s Status) (*Watch, error) {
	conn, err := r.dial(ctx, s)
	if errors.Is(err, errGone) {
		return &Watch{}, nil
	}
	if err != nil {
		return nil, fmt.Errorf("watch the daemon of %s: %w", s.Mountpoint, err)
	}
	defer conn.Close()
	peer, err := peerOf(conn)
	if err != nil {
		return nil, fmt.Errorf("watch the daemon of %s: %w", s.Mountpoint, err)
	}
	fd, err := unix.PidfdOpen(int(peer.Pid), unix.PIDFD_NONBLOCK)
	if errors.Is(err, unix.ESRCH) {
		return &Watch{}, nil
	}
	if err != nil {
		return nil, fmt.Errorf("watch process %d: %w", peer.Pid, err)
	}
	// The number could have been given to a new process by now. While a second
	// connection is accepted the listener lives, and so the number was its own.
	again, err := r.dial(ctx, s)
	if errors.Is(err, errGone) {
		unix.Close(fd)
		return &Watch{}, nil
	}
	if err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("watch the daemon of %s: %w", s.Mountpoint, err)
	}
	again.Close()
	return &Watch{process: os.NewFile(uintptr(fd), "pidfd")}, nil
}

// Wait returns nil when the daemon's process has ended, else ctx's error.
func (w *Watch) Wait(ctx context.Context) error {
	if w.process == nil {
		return nil
	}
	raw, err := w.process.SyscallConn()
	if err != nil {
		return err
	}
	stop := context.AfterFunc(ctx, func() { w.process.SetReadDeadline(time.Now()) })
	defer stop()
	err = raw.Read(func(fd uintptr) bool {
		ready, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 0)
		return err == nil && ready > 0
	})
	if ctx.Err() != nil && err != nil {
		return ctx.Err()
	}
	return err
}

// Close lets go of the process.
func (w *Watch) Close() error {
	if w.process == nil {
		return nil
	}
	return w.process.Close()
}
