package main

import (
	"context"
	"errors"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"

	"github.com/spf13/cobra"

	"encfsrun/launcher"
)

func (a *app) mountCommand() *cobra.Command {
	var open openFlags
	var budget byteSize
	var readOnly, foreground bool
	var cache pageCacheFlag
	cmd := &cobra.Command{
		Use:   "mount VAULT DIR",
		Short: "mount a vault on a directory",
		Long: `mount asks for the passkey, mounts VAULT on DIR, an empty directory, and returns when the mount answers; a daemon serves it
in the background until encfsrun umount, umount(8) or fusermount3 -u. Only the user who mounts sees the tree. What is written
is durable after fsync, encfsrun sync or an unmount, and after five seconds at most.`,
		Args: exactArgs("VAULT", "DIR"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.mount(cmd.Context(), args[0], args[1], &open, budget, access{!readOnly, bool(cache)}, foreground)
		},
	}
	open.add(cmd.Flags())
	cmd.Flags().Var(&budget, "guarded-memory", "locked memory for contents (default: by the machine, at most 256 MiB, read-only 64 MiB)")
	cmd.Flags().Var(&cache, "page-cache", "on: the kernel keeps contents in its page cache, outside guarded memory, while mounted (faster)")
	cmd.Flags().BoolVar(&readOnly, "read-only", false, "nothing in the mount can be changed")
	cmd.Flags().BoolVar(&foreground, "foreground", false, "stay until the mount ends; SIGINT and SIGTERM unmount it")
	return cmd
}

// pageCacheFlag is --page-cache.
type pageCacheFlag bool

func (f *pageCacheFlag) Type() string { return "on|off" }
func (f *pageCacheFlag) String() string {
	if *f {
		return "on"
	}
	return "off"
}

func (f *pageCacheFlag) Set(text string) error {
	if text != "on" && text != "off" {
		return errors.New("it is on or off")
	}
	*f = text == "on"
	return nil
}

func (a *app) mount(ctx context.Context, vaultPath, dir string, open *openFlags, budget byteSize, may access, foreground bool) error {
	dir, err := launcher.PrepareMountpoint(dir)
	if err != nil {
		return err
	}
	daemon, err := a.startDaemon(ctx, vaultPath, open, budget, may, "")
	if err != nil {
		return err
	}
	if may.PageCache {
		a.messages.alert("with --page-cache on, plaintext of files stays in the kernel's memory, outside guarded memory, until the unmount")
	}
	device, err := a.attachMount(ctx, daemon, vaultPath, dir, !may.Writable, !foreground)
	if err != nil {
		return errors.Join(err, daemon.end())
	}
	if foreground {
		return a.hold(ctx, daemon, dir, device)
	}
	return nil
}

// attachMount mounts and hands the mount to the daemon; it returns the mount's device when the mount answers.
func (a *app) attachMount(ctx context.Context, daemon *daemonClient, vaultPath, dir string, readOnly, background bool) (device string, err error) {
	source, err := filepath.Abs(vaultPath)
	if err != nil {
		return "", err
	}
	fuse, err := launcher.Mount(dir, launcher.MountOptions{ReadOnly: readOnly, FSName: source, MaxRead: daemon.maxRead})
	if err != nil {
		return "", err
	}
	defer fuse.Close()
	mounted, err := launcher.FindMount(dir)
	if err != nil {
		return "", err
	}
	device = mounted.Device
	m := launcher.Mounted{Dir: dir, Device: device, ReadOnly: readOnly, MaxRead: daemon.maxRead, UID: os.Getuid(), GID: os.Getgid()}
	err = daemon.attach(ctx, fuse, attachMessage{Mounted: m, Background: background})
	if err == nil {
		// The daemon answers by now; the mount is ready when a stranger's request is answered too.
		answer := make(chan error, 1)
		go func() { _, err := os.Stat(dir); answer <- err }()
		select {
		case err = <-answer:
		case <-ctx.Done():
			err = context.Cause(ctx)
			daemon.Kill() // a request that it never answers would keep this process too
		}
	}
	if err != nil {
		fuse.Close() // else the mount that nobody serves would hang
		return "", errors.Join(err, launcher.UnmountDevice(dir, device))
	}
	return device, nil
}

// hold keeps a foreground mount until it ends. A signal unmounts it; where programs still use it, it stays, and the next
// signal tries again.
//
// It unmounts its own mount only: after umount -l and a mount of another vault at dir, dir is that one's.
func (a *app) hold(ctx context.Context, daemon *daemonClient, dir, device string) error {
	signals := make(chan os.Signal, 4)
	signal.Notify(signals, heeded(syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP)...)
	defer signal.Stop(signals)
	if a.releaseSignals(); ctx.Err() != nil {
		select {
		case signals <- syscall.SIGTERM: // one came while it was mounted
		default: // and more since
		}
	}
	for {
		select {
		case <-daemon.Done():
			return daemon.Finish()
		case <-signals:
			if err := syncDevice(context.WithoutCancel(ctx), device); err != nil {
				a.messages.error(err) // unmounted, it would be lost
			} else if err := launcher.UnmountDevice(dir, device); errors.Is(err, launcher.ErrNotMounted) {
				a.messages.warn("%s is unmounted already; what programs still hold of it is served until they let go", dir)
			} else if err != nil {
				a.messages.error(err)
			} else {
				return daemon.end()
			}
		}
	}
}
