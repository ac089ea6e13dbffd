package main

import (
	"encoding/hex"
	"fmt"

	"github.com/spf13/cobra"

	"encfsrun/fs/vault"
)

func (a *app) checkCommand() *cobra.Command {
	var open openFlags
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "check VAULT",
		Short: "verify every byte, name each damaged file and print the root",
		Long: `check verifies every byte of VAULT: each block of the log, its place in the chain, and the header against its twin.
It names what is damaged, and prints the root of what it verified. Exit 6 if anything is wrong.`,
		Args: exactArgs("VAULT"),
		RunE: func(cmd *cobra.Command, args []string) error {
			v, closeVault, err := a.openVault(cmd.Context(), args[0], &open, false)
			if err == nil {
				defer closeVault()
				err = a.check(cmd, v, args[0], asJSON)
			}
			if is[*vault.IntegrityError](err) { // whoever checks needs no advice to check
				err = &advised{err, restore}
			}
			return err
		},
	}
	open.add(cmd.Flags())
	cmd.Flags().BoolVar(&asJSON, "json", false, "print the result as JSON")
	return cmd
}

// checkResult is what check --json prints.
type checkResult struct {
	Vault    string         `json:"vault"`
	OK       bool           `json:"ok"`
	Root     string         `json:"root"`
	Sequence uint64         `json:"sequence"`
	Closed   bool           `json:"closed_cleanly"`
	Bytes    uint64         `json:"bytes"`
	Damage   []vault.Damage `json:"damage"`
}

func (a *app) check(cmd *cobra.Command, v *vault.Vault, path string, asJSON bool) error {
	var bar *progress
	report, err := v.Check(cmd.Context(), func(done, total uint64) {
		if bar == nil {
			bar = a.newProgress("checking", int64(total)*vault.BlockSize)
		}
		bar.set(int64(done) * vault.BlockSize)
	})
	if bar != nil {
		bar.close()
	}
	if err != nil {
		return err
	}
	result := checkResult{
		Vault: path, OK: len(report.Damage) == 0, Root: hex.EncodeToString(report.Root[:]), Sequence: report.Sequence,
		Closed: report.Closed, Bytes: report.Bytes, Damage: append([]vault.Damage{}, report.Damage...),
	}
	if asJSON {
		if err := a.printJSON(result); err != nil {
			return err
		}
	} else {
		a.printCheck(result)
	}
	if !result.OK {
		return &damageError{path}
	}
	return nil
}

func (a *app) printCheck(r checkResult) {
	for _, d := range r.Damage {
		fmt.Fprintf(a.stdout, "damaged: %s %s\n", printable(d.Object), printable(d.Detail))
	}
	if !r.Closed {
		a.messages.info("%s was not closed cleanly: what was reported durable is there", r.Vault)
	}
	a.messages.info("%s verified, commit %d", formatBytes(int64(r.Bytes)), r.Sequence)
	fmt.Fprintf(a.stdout, "root %s\n", r.Root)
}
