package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"encfsrun/launcher"
	"encfsrun/launcher/control"
)

// wipeTime bounds how long umount waits for a daemon to wipe and end once the kernel has let go of it.
const wipeTime = 30 * time.Second

func (a *app) umountCommand() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "umount DIR",
		Short: "unmount a vault and wipe its keys and contents",
		Long: `umount unmounts the vault mounted on DIR, and returns when all is durable and its daemon has wiped everything and ended. A mount
in use is left as it was: exit 5; so is one whose changes can't be made durable: exit 8. What a dead daemon left behind is cleared.`,
		Args: exactArgs("DIR"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := a.umount(cmd.Context(), args[0]); err != nil {
				return err
			}
			if asJSON {
				return a.printJSON(umountResult{args[0], true})
			}
			return nil
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print the result as JSON")
	return cmd
}

// umountResult is what umount --json prints.
type umountResult struct {
	Mountpoint string `json:"mountpoint"`
	Unmounted  bool   `json:"unmounted"`
}

func (a *app) umount(ctx context.Context, dir string) error {
	m, err := launcher.FindMount(dir)
	if err != nil {
		return err
	}
	registry := control.Default()
	var watch *control.Watch
	var status control.Status
	if status, err = findDaemon(ctx, registry, &m); err == nil {
		if err := syncMount(ctx, registry, status); is[*control.SyncError](err) {
			return err // unmounted, it would be lost
		}
		// A daemon that is hard to watch is unmounted all the same.
		if watch, err = registry.Watch(ctx, status); err == nil {
			defer watch.Close()
		}
	}
	if err := launcher.Unmount(m.Mountpoint); err != nil {
		return err
	}
	if mounts, err := launcher.Mounts(); watch == nil || err != nil || len(m.Copies(mounts)) > 0 {
		return nil // bind mounts keep the daemon serving
	}
	waiting, cancel := context.WithTimeout(ctx, wipeTime)
	defer cancel()
	if err := watch.Wait(waiting); err != nil {
		return a.notEnded(ctx, registry, status, m.Mountpoint, err)
	}
	return nil
}

// notEnded says why the daemon of a mount that is gone is still there.
func (a *app) notEnded(ctx context.Context, registry *control.Registry, was control.Status, dir string, err error) error {
	list, _ := registry.List(ctx)
	for _, s := range list {
		if s.Socket == was.Socket && s.State == control.Unsynced {
			return &unsyncedError{was.Vault, fmt.Errorf("%s is unmounted, and its daemon, pid %d, holds what was lost; end it with: kill %d", dir, s.PID, s.PID)}
		}
	}
	return fmt.Errorf("%s is unmounted, but its daemon, pid %d, has not ended: %w; see: encfsrun status", dir, was.PID, err)
}

// syncDevice is syncMount for this user's own mount of a device. Without a daemon that can be asked there is nothing to sync.
func syncDevice(ctx context.Context, device string) error {
	registry := control.Default()
	status, err := registry.FindMount(ctx, os.Getuid(), device)
	if err == nil {
		err = syncMount(ctx, registry, status)
	}
	if is[*control.SyncError](err) {
		return err
	}
	return nil
}

// syncMount makes durable what programs have written to a mount.
func syncMount(ctx context.Context, registry *control.Registry, status control.Status) error {
	if status.ReadOnly || status.State == control.NotAnswering {
		return nil
	}
	return registry.Sync(ctx, status)
}

func (a *app) syncCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "sync DIR",
		Short: "make durable what was written to a mount",
		Long:  `sync returns when everything that the mount on DIR has accepted so far is durable; exit 8 if that can't be had.`,
		Args:  exactArgs("DIR"),
		RunE: func(cmd *cobra.Command, args []string) error {
			m, err := launcher.FindMount(args[0])
			if err != nil {
				return err
			}
			registry := control.Default()
			status, err := findDaemon(cmd.Context(), registry, &m)
			if errors.Is(err, control.ErrNotFound) {
				return fmt.Errorf("nothing serves %s; encfsrun status lists what does", args[0])
			}
			if err != nil {
				return err
			}
			if status.State == control.NotAnswering {
				return fmt.Errorf("the daemon of %s does not answer", args[0])
			}
			return syncMount(cmd.Context(), registry, status)
		},
	}
}

// findDaemon returns the daemon of a mount.
func findDaemon(ctx context.Context, registry *control.Registry, m *launcher.MountInfo) (control.Status, error) {
	uid, ok := m.Owner()
	if !ok {
		return control.Status{}, control.ErrNotFound
	}
	return registry.FindMount(ctx, uid, m.Device)
}

func (a *app) statusCommand() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "status [DIR|NAME]",
		Short: "show every mount and run of this user (root: of all)",
		Long:  `status shows what is mounted and running. With DIR or NAME it exits with 0 only if that serves.`,
		Args:  rangeArgs(0, "DIR"),
		RunE: func(cmd *cobra.Command, args []string) error {
			list, err := a.statusList(cmd.Context(), args)
			if err != nil {
				return err
			}
			if asJSON {
				err = a.printJSON(list)
			} else {
				err = a.printStatus(list)
			}
			if err == nil && len(args) > 0 && list[0].State != control.Serving {
				return &codeError{exitFailure, fmt.Sprintf("%s is %s", args[0], list[0].State)}
			}
			return err
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print the result as JSON")
	return cmd
}

func (a *app) statusList(ctx context.Context, args []string) ([]control.Status, error) {
	registry := control.Default()
	if len(args) == 0 {
		list, err := registry.List(ctx)
		return append([]control.Status{}, list...), err
	}
	var s control.Status
	m, err := launcher.FindMount(args[0])
	if err == nil {
		s, err = findDaemon(ctx, registry, &m)
	} else {
		s, err = registry.FindName(ctx, args[0])
	}
	if errors.Is(err, control.ErrNotFound) {
		return nil, fmt.Errorf("nothing serves %s; encfsrun status lists what does", args[0])
	}
	return []control.Status{s}, err
}

func (a *app) printStatus(list []control.Status) error {
	if len(list) == 0 {
		a.messages.info("nothing is mounted")
		return nil
	}
	w := tabwriter.NewWriter(a.stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "MOUNTPOINT\tVAULT\tNAME\tPID\tSTATE\tOPEN\tGUARDED\tDIRTY\tDAMAGED\tSINCE")
	for _, s := range list {
		fmt.Fprintf(w, "%s\t%s\t%s\t%d\t%s\t%d\t%s\t%s\t%d\t%s\n", inTable(s.Mountpoint), inTable(s.Vault), inTable(s.Name), s.PID, inTable(string(s.State)),
			s.OpenFiles, formatBytes(s.GuardedBytes), formatBytes(s.DirtyBytes), s.DamagedFiles, s.Started.Local().Format(time.DateTime))
	}
	return w.Flush()
}

// inTable quotes what would break a table's line; root sees strings of strangers.
func inTable(s string) string {
	if s == "" {
		return "-"
	}
	q, _ := json.Marshal(s)                   // a string: it can't fail
	return printable(string(q[1 : len(q)-1])) // JSON leaves C1 controls as they are
}
