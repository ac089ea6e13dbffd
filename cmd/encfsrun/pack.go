package main

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"runtime/debug"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"encfsrun/fs/vault"
	"encfsrun/fs/vault/transfer"
)

// packFlags are what pack is told.
type packFlags struct {
	fresh       newPasskeyFlags
	open        openFlags
	update      bool
	keepExtra   bool
	exclude     []string
	excludeFrom []string
	json        bool
}

func (a *app) packCommand() *cobra.Command {
	var f packFlags
	cmd := &cobra.Command{
		Use:   "pack [--update] SRC VAULT",
		Short: "make a vault of a directory, or bring one up to date",
		Long: `pack makes VAULT, asks for its new passkey (twice; empty input generates one) and imports SRC: files, directories, symlinks,
hard links, FIFOs, modes, owners, times, extended attributes and holes. It is one commit: all or nothing. It prints the root,
one hash for the whole tree, which --expect-root takes later.

With --update it makes an existing VAULT mirror SRC, comparing contents, and asks for its passkey. Patterns of --exclude are
those of .gitignore; a file .encfsrunignore in SRC is read too.`,
		Args: exactArgs("SRC", "VAULT"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := f.refuseOthers(cmd.Flags()); err != nil {
				return err
			}
			return a.pack(cmd.Context(), args[0], args[1], &f)
		},
	}
	flags := cmd.Flags()
	f.fresh.add(flags)
	f.open.add(flags)
	flags.BoolVar(&f.update, "update", false, "make the existing VAULT mirror SRC, also removing what SRC lacks")
	flags.BoolVar(&f.keepExtra, "keep-extra", false, "with --update, keep what SRC lacks")
	filledListVar(flags, &f.exclude, "exclude", "GLOB", "leave out what matches this; may be repeated")
	filledListVar(flags, &f.excludeFrom, "exclude-from", "FILE", "leave out what matches a pattern in this file; may be repeated")
	flags.BoolVar(&f.json, "json", false, "print the result as JSON")
	return cmd
}

// refuseOthers refuses the flags of an update without --update, and those of a new vault with it.
func (f *packFlags) refuseOthers(flags *pflag.FlagSet) error {
	if f.update {
		return refuse(flags, "is for a new vault, and --update keeps the passkeys; see: encfsrun key --help", newPasskeyNames()...)
	}
	return refuse(flags, "goes with --update; a new vault takes --new-passkey-file and the like", openNames()...)
}

// packResult is what pack --json prints.
type packResult struct {
	Vault    string          `json:"vault"`
	Root     string          `json:"root"`
	Files    uint64          `json:"files"`
	Dirs     uint64          `json:"directories"`
	Symlinks uint64          `json:"symlinks"`
	Other    uint64          `json:"other"`
	Bytes    uint64          `json:"bytes"`
	Added    uint64          `json:"added"`
	Changed  uint64          `json:"changed"`
	Removed  uint64          `json:"removed"`
	Notes    []transfer.Note `json:"notes"`
}

func (a *app) pack(ctx context.Context, src, path string, f *packFlags) error {
	// Names of a large directory are short-lived garbage beside a tree that the collector need not trace: collecting often is
	// cheap here, and keeps the memory of a pack to little more than the tree.
	debug.SetGCPercent(20)
	options, err := f.importOptions(path)
	if err != nil {
		return err
	}
	if !f.update {
		if err := vault.CheckNew(a.disk, path); err != nil {
			return err
		}
	}
	// Scanning finds an unreadable source before anybody types a passkey.
	if options.Total, err = transfer.Scan(ctx, src, options); err != nil {
		return err
	}
	var report transfer.Report
	var root vault.Root
	bar := &progress{}
	defer func() { bar.close() }()
	options.Progress = func(p transfer.Progress) {
		if bar.bar == nil {
			bar = a.newProgress("packing", int64(p.TotalBytes))
		}
		bar.set(int64(p.Bytes))
	}
	if f.update {
		report, root, err = a.updateVault(ctx, src, path, f, options)
	} else {
		root, err = a.createVault(ctx, path, &f.fresh, func(s *vault.Session) (err error) {
			report, err = transfer.Import(ctx, s, src, options)
			return err
		})
	}
	if err != nil {
		return err
	}
	bar.close()
	return a.printPack(src, packResult{
		Vault: path, Root: hex.EncodeToString(root[:]), Files: report.Files, Dirs: report.Dirs, Symlinks: report.Symlinks,
		Other: report.Other, Bytes: report.Bytes, Added: report.Added, Changed: report.Changed, Removed: report.Removed,
		Notes: append([]transfer.Note{}, report.Notes...),
	}, report, f)
}

func (a *app) updateVault(ctx context.Context, src, path string, f *packFlags, options transfer.ImportOptions) (report transfer.Report, root vault.Root, err error) {
	v, closeVault, err := a.openVault(ctx, path, &f.open, true)
	if err != nil {
		return report, root, err
	}
	defer closeVault()
	s, err := v.Begin()
	if err != nil {
		return report, root, err
	}
	if report, err = transfer.Update(ctx, s, v, src, options); err != nil {
		return report, root, errors.Join(err, s.Abort())
	}
	if report.Added+report.Changed+report.Removed > 0 {
		err = s.Checkpoint() // commits first
	}
	if err != nil {
		return report, root, errors.Join(err, s.Abort())
	}
	if err := s.Close(); err != nil {
		return report, root, err
	}
	return report, v.Root(), nil
}

func (f *packFlags) importOptions(path string) (o transfer.ImportOptions, err error) {
	o.Vault, o.KeepExtra = path, f.keepExtra
	if f.keepExtra && !f.update {
		return o, usagef("--keep-extra goes with --update")
	}
	if err := f.fresh.validate(); err != nil {
		return o, err
	}
	for _, file := range f.excludeFrom {
		r, err := os.Open(file)
		if err != nil {
			return o, usagef("--exclude-from: %v", err)
		}
		patterns, err := transfer.ReadPatterns(r)
		r.Close()
		if err != nil {
			return o, usagef("--exclude-from %s: %v", file, err)
		}
		o.Exclude = append(o.Exclude, patterns...)
	}
	for _, glob := range f.exclude {
		p, err := transfer.ParsePattern(glob)
		if err != nil {
			return o, usagef("--exclude: %v", err)
		}
		o.Exclude = append(o.Exclude, p)
	}
	return o, nil
}

func (a *app) printPack(src string, r packResult, report transfer.Report, f *packFlags) error {
	if f.json {
		return a.printJSON(r)
	}
	for _, n := range report.Notes {
		a.messages.warn("%s", noteText(n))
	}
	for kind, n := range report.Unlisted {
		a.messages.warn("and %d more notes of the kind %q", n, kind)
	}
	if f.update {
		a.messages.info("%s now mirrors %s: %d added, %d changed, %d removed", r.Vault, src, r.Added, r.Changed, r.Removed)
	} else {
		a.messages.info("packed %d files (%s) into %s", r.Files, formatBytes(int64(r.Bytes)), r.Vault)
	}
	a.messages.info("%s is still there in plaintext", src)
	fmt.Fprintf(a.stdout, "root %s\n", r.Root)
	return nil
}

// noteText says what a note means to somebody who ships the vault.
func noteText(n transfer.Note) string {
	texts := map[transfer.NoteKind]string{
		transfer.NoteSocket:     "%s is a socket and was left out",
		transfer.NoteDevice:     "%s is a device node and was left out",
		transfer.NoteVault:      "%s is the vault itself and was left out",
		transfer.NoteGit:        "%s is a repository's history: whoever has the passkey gets it too; leave it out with --exclude",
		transfer.NoteEnv:        "%s may hold passwords: whoever has the passkey gets them too; leave it out with --exclude",
		transfer.NotePrivateKey: "%s is a private key: whoever has the passkey gets it too; leave it out with --exclude",
		transfer.NoteAbsolute:   "%s is a link to an absolute path, which has to be there where the code runs",
		transfer.NoteOutside:    "%s is a link that leaves the packed tree",
		transfer.NoteShebang:    "%s names an interpreter by its path on this machine, inside the packed tree",
		transfer.NoteXattr:      "%s lost an extended attribute that this machine refuses",
		transfer.NoteSetID:      "%s lost its setuid or setgid bit with its owner",
	}
	text := fmt.Sprintf(texts[n.Kind], n.Path)
	if n.Detail != "" {
		text += " (" + n.Detail + ")"
	}
	return text
}
