package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"encfsrun/launcher"
	"encfsrun/launcher/control"
	"encfsrun/launcher/wire"
)

// endTime bounds how long a daemon that lost its mount, or never had one, may take to wipe and end.
const endTime = launcher.DefaultEndTimeout

// writableEndTime is that of a daemon that has something to make durable first: what fills its guarded memory, and the cleaning of the
// log, on a slow disk. To kill it earlier loses what programs were told is accepted.
const writableEndTime = 10 * time.Minute

// daemonClient is a launcher's side of its daemon. It is the launcher.Filesystem of a run.
type daemonClient struct {
	cmd     *exec.Cmd
	conn    *wire.Conn
	maxRead int
	endTime time.Duration

	serving  bool       // a mount was handed over
	attached chan error // of that
	done     chan struct{}
	mu       sync.Mutex
	finished *finishedMessage
}

// startDaemon starts a daemon for a vault and returns when it has the passkey and has opened the vault.
func (a *app) startDaemon(ctx context.Context, vaultPath string, o *openFlags, budget byteSize, may access, name string) (*daemonClient, error) {
	source, err := o.passkey.complete()
	if err != nil {
		return nil, err
	}
	config := daemonConfig{
		Source: source, Open: o.openSettings, Budget: int64(budget), Name: name, Access: may,
		Quiet: a.messages.quiet, JSON: a.messages.json,
	}
	if _, err := config.Open.options(a); err != nil {
		return nil, err
	}
	for _, p := range []struct {
		to   *string
		path string
	}{{&config.Vault, vaultPath}, {&config.StateDir, a.stateDir}, {&config.Source.File, source.File}, {&config.Source.EnvFile, source.EnvFile}} {
		if p.path == "" {
			continue
		}
		if *p.to, err = filepath.Abs(p.path); err != nil {
			return nil, err
		}
	}
	d, err := spawnDaemon()
	if err != nil {
		return nil, err
	}
	if d.endTime = endTime; may.Writable {
		d.endTime = writableEndTime
	}
	if err := d.configure(ctx, config); err != nil {
		d.conn.Close()
		ended := make(chan struct{})
		go func() { d.cmd.Wait(); close(ended) }()
		d.hurry(ended)
		<-ended
		return nil, err
	}
	return d, nil
}

func spawnDaemon() (*daemonClient, error) {
	conn, child, err := wire.Pair()
	if err != nil {
		return nil, fmt.Errorf("start the daemon: %w", err)
	}
	defer child.Close()
	cmd := exec.Command("/proc/self/exe", daemonCommand)
	cmd.Stderr = os.Stderr
	cmd.ExtraFiles = []*os.File{child}
	if err := cmd.Start(); err != nil {
		conn.Close()
		return nil, fmt.Errorf("start the daemon: %w", err)
	}
	return &daemonClient{cmd: cmd, conn: conn, attached: make(chan error, 1), done: make(chan struct{})}, nil
}

// configure sends the configuration and waits until the vault is open.
func (d *daemonClient) configure(ctx context.Context, config daemonConfig) error {
	stop := context.AfterFunc(ctx, func() { d.conn.Close() }) // the daemon ends with the connection
	defer stop()
	var err error
	if config.Source.FD >= 0 {
		err = d.sendWithPasskey(config)
	} else {
		err = d.conn.Send(config)
	}
	if err != nil {
		return err
	}
	var m daemonMessage
	_, err = d.conn.Receive(&m)
	switch {
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case err != nil:
		return d.died(err)
	case m.Finished != nil && m.Finished.Error != nil:
		return m.Finished.Error.err()
	case m.Ready == nil:
		return errors.New("the daemon said something unexpected")
	}
	d.maxRead = m.Ready.MaxRead
	go d.listen()
	return nil
}

// sendWithPasskey hands over the passkey's descriptor too. What is left here in its place is /dev/null: the program must not
// inherit it, standard input least of all, for it could read the passkey again.
func (d *daemonClient) sendWithPasskey(config daemonConfig) error {
	fd := config.Source.FD
	duplicate, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 3)
	if err != nil {
		return usagef("--passkey-fd %d is no open descriptor", fd)
	}
	passkey := os.NewFile(uintptr(duplicate), "passkey")
	defer passkey.Close()
	null, err := os.Open(os.DevNull)
	if err != nil {
		return err
	}
	defer null.Close()
	if err := unix.Dup2(int(null.Fd()), fd); err != nil {
		return fmt.Errorf("put %s in the place of descriptor %d: %w", os.DevNull, fd, err)
	}
	return d.conn.Send(config, passkey)
}

func (d *daemonClient) died(err error) error {
	if errors.Is(err, io.EOF) {
		return errors.New("the daemon ended without a word; the kernel's log may say why (out of memory?)")
	}
	return fmt.Errorf("hear from the daemon: %w", err)
}

// listen takes in what the daemon says until it ends.
func (d *daemonClient) listen() {
	defer close(d.done)
	for {
		var m daemonMessage
		if _, err := d.conn.Receive(&m); err != nil {
			select {
			case d.attached <- d.died(err):
			default:
			}
			return
		}
		switch {
		case m.Serving:
			d.attached <- nil
		case m.Finished != nil:
			d.mu.Lock()
			d.finished = m.Finished
			d.mu.Unlock()
			if m.Finished.Error != nil {
				select {
				case d.attached <- m.Finished.Error.err():
				default:
				}
			}
		}
	}
}

// attach hands over the descriptor of a mount and returns when it is served, or ctx is done.
func (d *daemonClient) attach(ctx context.Context, fuse *os.File, m attachMessage) error {
	if err := d.conn.Send(m, fuse); err != nil {
		return err
	}
	d.serving = true
	select {
	case err := <-d.attached:
		return err
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// Attach is launcher.Filesystem's, for the mount of a sandbox.
func (d *daemonClient) Attach(fuse *os.File, m launcher.Mounted) error {
	return d.attach(context.Background(), fuse, attachMessage{Mounted: m}) // launcher.Run kills what takes too long
}

// Done is closed when the daemon has ended, or said its last word.
func (d *daemonClient) Done() <-chan struct{} { return d.done }

// Kill ends the daemon at once: one that was stopped, or is stuck, obeys nothing else.
func (d *daemonClient) Kill() { d.cmd.Process.Kill() }

// hurry returns when ended is closed. After its endTime, or when a signal asks for the end (once more), it kills the daemon and returns:
// a daemon that was stopped must not make its launcher deaf too.
func (d *daemonClient) hurry(ended <-chan struct{}) {
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, heeded(syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP)...)
	defer signal.Stop(signals)
	late := time.NewTimer(d.endTime)
	defer late.Stop()
	select {
	case <-ended:
		return
	case <-signals:
	case <-late.C:
	}
	d.Kill()
}

// end is Finish where no launcher.Run watches over it: the daemon has no mount, or is about to lose it.
func (d *daemonClient) end() error {
	d.abandon()
	d.hurry(d.done)
	return d.Finish()
}

// abandon tells a daemon that waits for a mount that there will be none.
func (d *daemonClient) abandon() {
	if !d.serving {
		d.conn.Send(attachMessage{Abandon: true}) // a daemon that is gone needs no telling
	}
}

// Finish waits until the daemon has wiped everything and ended, and returns what it says of that.
func (d *daemonClient) Finish() error {
	d.abandon()
	<-d.done
	d.cmd.Wait()
	d.conn.Close()
	d.mu.Lock()
	defer d.mu.Unlock()
	switch {
	case d.finished == nil:
		control.Default().List(context.Background()) // removes the socket that it could not
		return errors.New("the daemon was killed")
	case d.finished.Error != nil:
		return d.finished.Error.err()
	}
	return nil
}
