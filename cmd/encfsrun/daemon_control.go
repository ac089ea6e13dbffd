package main

import (
	"context"
	"encoding/hex"
	"errors"
	"os"
	"os/signal"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"encfsrun/fs"
	"encfsrun/launcher"
	"encfsrun/launcher/control"
)

// controlServer answers status and umount on the daemon's control socket.
type controlServer struct {
	server   *control.Server
	reporter *reporter
	cancel   context.CancelFunc
	done     sync.WaitGroup
}

// startControl lists the daemon. A mount without a control socket works, but status and umount would know nothing of it, so
// it is refused; a run is not.
func (d *daemon) startControl(attach attachMessage, system *fs.FS) error {
	id := d.vault.ID()
	reporter := &reporter{daemon: d, system: system, base: control.Status{
		Mountpoint: attach.Mounted.Dir, Vault: d.config.Vault, VaultID: hex.EncodeToString(id[:]), Name: d.config.Name,
		Device: attach.Mounted.Device, Sandboxed: attach.Mounted.Sandboxed,
		PID: os.Getpid(), UID: os.Getuid(), State: control.Serving, ReadOnly: attach.Mounted.ReadOnly, Started: time.Now().UTC(),
	}}
	server, err := control.Default().Listen(reporter.base)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(context.Background())
	d.control = &controlServer{server: server, reporter: reporter, cancel: cancel}
	d.control.done.Go(func() {
		if err := server.Serve(ctx, reporter); err != nil && !errors.Is(err, context.Canceled) {
			d.app.messages.warn("the control socket failed: %v", err)
		}
	})
	return nil
}

func (c *controlServer) close() {
	c.cancel()
	c.server.Close()
	c.done.Wait()
}

// reporter is the control.Daemon of a mount.
type reporter struct {
	daemon *daemon
	system *fs.FS
	base   control.Status
	lost   atomic.Bool // what was accepted could not be made durable at the end
}

// Status returns the present figures.
func (r *reporter) Status() control.Status {
	s := r.base
	stats := r.system.Stats()
	s.OpenFiles, s.DamagedFiles = stats.OpenFiles, stats.DamagedFiles
	s.GuardedBytes, s.DirtyBytes = r.daemon.pool.Used(), int64(stats.DirtyBytes)
	if r.daemon.dirty != nil {
		s.GuardedBytes += r.daemon.dirty.Used()
	}
	if stats.Unsynced || r.lost.Load() {
		s.State = control.Unsynced
	}
	return s
}

// Sync makes durable what was accepted.
func (r *reporter) Sync() error { return r.system.Sync() }

// background lets go of the terminal and of the launcher, which ends now. SIGTERM and SIGINT sync and unmount from here on; where
// that can't be made durable, or programs use the mount, it goes on being served, and the next signal tries again.
//
// Only the mount of this device is unmounted: after umount -l, which leaves the daemon to those who still hold files, the mount
// point can be another mount's.
func (d *daemon) background(mountpoint, device string, system *fs.FS, served <-chan struct{}) {
	if null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0); err == nil {
		for fd := range 3 {
			unix.Dup2(int(null.Fd()), fd)
		}
		null.Close()
	}
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGTERM, syscall.SIGINT)
	go func() {
		for {
			select {
			case <-signals:
				if system.Sync() == nil {
					launcher.UnmountDevice(mountpoint, device) // nobody is there to be told; the state stays visible in status
				}
			case <-served:
				return
			}
		}
	}()
}
