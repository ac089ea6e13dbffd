package main

import (
	"encoding/hex"
	"errors"
	"fmt"

	"github.com/spf13/cobra"
)

func (a *app) gcCommand() *cobra.Command {
	var open openFlags
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "gc VAULT",
		Short: "clean a vault: give back what changes have left behind",
		Long: `gc copies what is live out of the parts of the log that hold dead data too, and removes those. The tree stays as it is; the root
changes, since it names the history. A mount does this by itself when its log grows too long.`,
		Args: exactArgs("VAULT"),
		RunE: func(cmd *cobra.Command, args []string) error {
			result, err := a.gc(cmd, args[0], &open)
			if err != nil {
				return err
			}
			if asJSON {
				return a.printJSON(result)
			}
			a.messages.info("%s is %s shorter", result.Vault, formatBytes(max(0, result.Freed)))
			fmt.Fprintf(a.stdout, "root %s\n", result.Root)
			return nil
		},
	}
	open.add(cmd.Flags())
	cmd.Flags().BoolVar(&asJSON, "json", false, "print the result as JSON")
	return cmd
}

// gcResult is what gc --json prints.
type gcResult struct {
	Vault string `json:"vault"`
	Freed int64  `json:"freed_bytes"`
	Root  string `json:"root"`
}

func (a *app) gc(cmd *cobra.Command, path string, open *openFlags) (r gcResult, err error) {
	v, closeVault, err := a.openVault(cmd.Context(), path, open, true)
	if err != nil {
		return r, err
	}
	defer closeVault()
	s, err := v.Begin()
	if err != nil {
		return r, err
	}
	var bar *progress
	freed, err := s.Collect(cmd.Context(), func(done, total uint64) {
		if bar == nil {
			bar = a.newProgress("cleaning", int64(total))
		}
		bar.set(int64(done))
	})
	if bar != nil {
		bar.close()
	}
	if closed := s.Close(); err == nil { // a round that is done stays done
		err = closed
	} else {
		err = errors.Join(err, closed)
	}
	root := v.Root()
	return gcResult{path, freed, hex.EncodeToString(root[:])}, err
}
