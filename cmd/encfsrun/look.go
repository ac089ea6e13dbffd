package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"time"

	"github.com/spf13/cobra"

	"encfsrun/fs/vault"
	"encfsrun/fs/vault/transfer"
)

// The commands that look inside a vault without mounting it.

// looking opens the vault that is a command's first argument, for as long as look runs.
func (a *app) looking(open *openFlags, look func(ctx context.Context, v *vault.Vault, args []string) error) func(*cobra.Command, []string) error {
	return func(cmd *cobra.Command, args []string) error {
		v, closeVault, err := a.openVault(cmd.Context(), args[0], open, false)
		if err != nil {
			return err
		}
		defer closeVault()
		return look(cmd.Context(), v, args)
	}
}

func (a *app) lsCommand() *cobra.Command {
	var open openFlags
	var long, recursive, asJSON bool
	cmd := &cobra.Command{
		Use:   "ls [-l] [-R] VAULT [PATH]",
		Short: "list what is in a vault",
		Args:  rangeArgs(1, "VAULT", "PATH"),
		RunE: a.looking(&open, func(_ context.Context, v *vault.Vault, args []string) error {
			path := ""
			if len(args) > 1 {
				path = args[1]
			}
			if asJSON {
				return a.listJSON(v, path, recursive)
			}
			return transfer.List(v, path, recursive, func(l transfer.Listed) error {
				_, err := fmt.Fprintln(a.stdout, listLine(l, long))
				return err
			})
		}),
	}
	open.add(cmd.Flags())
	cmd.Flags().BoolVarP(&long, "long", "l", false, "with mode, owner, size and time")
	cmd.Flags().BoolVarP(&recursive, "recursive", "R", false, "with all subdirectories")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print the result as JSON")
	return cmd
}

func listLine(l transfer.Listed, long bool) string {
	name := printable(l.Path)
	if !long {
		return name
	}
	if l.Target != "" {
		name += " -> " + printable(l.Target)
	}
	modified := time.Unix(l.Attr.Mtime.Sec, int64(l.Attr.Mtime.Nsec))
	return fmt.Sprintf("%s %3d %5d %5d %10d %s %s", fileMode(l.Attr.Mode), l.Attr.Nlink, l.Attr.UID, l.Attr.GID,
		l.Attr.Size, modified.Format("2006-01-02 15:04"), name)
}

// fileMode prints a mode as ls(1) does.
func fileMode(mode uint32) string {
	types := map[uint32]byte{0o140000: 's', 0o120000: 'l', 0o100000: '-', 0o060000: 'b', 0o040000: 'd', 0o020000: 'c', 0o010000: 'p'}
	b := []byte{types[mode&0o170000]}
	for i, c := range "rwxrwxrwx" {
		if mode&(1<<(8-i)) == 0 {
			c = '-'
		}
		b = append(b, byte(c))
	}
	special := func(bit uint32, at int, with, without byte) {
		if mode&bit == 0 {
			return
		}
		if b[at] == '-' {
			b[at] = without
		} else {
			b[at] = with
		}
	}
	special(0o4000, 3, 's', 'S')
	special(0o2000, 6, 's', 'S')
	special(0o1000, 9, 't', 'T')
	return string(b)
}

// listedJSON is an element of what ls --json prints. A path that is no UTF-8 is printed with replacement characters.
type listedJSON struct {
	Path   string    `json:"path"`
	Mode   string    `json:"mode"`
	UID    uint32    `json:"uid"`
	GID    uint32    `json:"gid"`
	Links  uint32    `json:"links"`
	Size   uint64    `json:"size"`
	Mtime  time.Time `json:"mtime"`
	Target string    `json:"target,omitempty"`
}

// listJSON prints an array, an element a line: a vault may hold a million of them.
func (a *app) listJSON(v *vault.Vault, path string, recursive bool) error {
	separator := "[\n"
	err := transfer.List(v, path, recursive, func(l transfer.Listed) error {
		b, err := json.Marshal(listedJSON{
			Path: l.Path, Mode: fmt.Sprintf("%06o", l.Attr.Mode), UID: l.Attr.UID, GID: l.Attr.GID, Links: l.Attr.Nlink,
			Size: l.Attr.Size, Mtime: time.Unix(l.Attr.Mtime.Sec, int64(l.Attr.Mtime.Nsec)).UTC(), Target: l.Target,
		})
		if err != nil {
			return err
		}
		_, err = fmt.Fprintf(a.stdout, "%s  %s", separator, b)
		separator = ",\n"
		return err
	})
	if err != nil {
		return err
	}
	if separator == "[\n" {
		_, err = fmt.Fprintln(a.stdout, "[]")
	} else {
		_, err = fmt.Fprintln(a.stdout, "\n]")
	}
	return err
}

func (a *app) catCommand() *cobra.Command {
	var open openFlags
	cmd := &cobra.Command{
		Use:   "cat VAULT PATH…",
		Short: "print files of a vault",
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) < 2 {
				return rangeArgs(2, "VAULT", "PATH")(cmd, args)
			}
			return nil
		},
		RunE: a.looking(&open, func(ctx context.Context, v *vault.Vault, args []string) error {
			for _, path := range args[1:] {
				if err := transfer.Cat(ctx, v, path, os.Stdout); err != nil {
					return err
				}
			}
			return nil
		}),
	}
	open.add(cmd.Flags())
	return cmd
}

func (a *app) exportCommand() *cobra.Command {
	var open openFlags
	var path string
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "export VAULT DIR",
		Short: "write a vault's tree, in plaintext, to a new directory",
		Args:  exactArgs("VAULT", "DIR"),
		RunE: a.looking(&open, func(ctx context.Context, v *vault.Vault, args []string) error {
			bar := a.newProgress("exporting", int64(v.Stats().Bytes))
			report, err := transfer.Export(ctx, v, path, args[1], transfer.ExportOptions{
				Progress: func(p transfer.Progress) { bar.set(int64(p.Bytes)) },
			})
			bar.close()
			if err != nil {
				return err
			}
			if asJSON {
				return a.printJSON(exportResult{args[1], report.Files, report.Bytes, append([]transfer.Note{}, report.Notes...)})
			}
			for _, n := range report.Notes {
				a.messages.warn("%s", noteText(n))
			}
			a.messages.info("wrote %d files (%s) to %s, in plaintext", report.Files, formatBytes(int64(report.Bytes)), args[1])
			return nil
		}),
	}
	open.add(cmd.Flags())
	filledVar(cmd.Flags(), &path, "path", "PATH", "only this directory of the vault")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print the result as JSON")
	return cmd
}

// exportResult is what export --json prints.
type exportResult struct {
	Directory string          `json:"directory"`
	Files     uint64          `json:"files"`
	Bytes     uint64          `json:"bytes"`
	Notes     []transfer.Note `json:"notes"`
}
