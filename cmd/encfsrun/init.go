package main

import (
	"encoding/hex"
	"fmt"
	"os"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"encfsrun/fs/vault"
	"encfsrun/fs/vault/tree"
)

func (a *app) initCommand() *cobra.Command {
	var fresh newPasskeyFlags
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "init VAULT",
		Short: "make an empty vault",
		Args:  exactArgs("VAULT"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := fresh.validate(); err != nil {
				return err
			}
			if err := vault.CheckNew(a.disk, args[0]); err != nil {
				return err
			}
			root, err := a.createVault(cmd.Context(), args[0], &fresh, emptyTree)
			if err != nil {
				return err
			}
			if asJSON {
				return a.printJSON(initResult{args[0], hex.EncodeToString(root[:])})
			}
			a.messages.info("made the empty vault %s", args[0])
			fmt.Fprintf(a.stdout, "root %x\n", root)
			return nil
		},
	}
	fresh.add(cmd.Flags())
	cmd.Flags().BoolVar(&asJSON, "json", false, "print the result as JSON")
	return cmd
}

// initResult is what init --json prints.
type initResult struct {
	Vault string `json:"vault"`
	Root  string `json:"root"`
}

// emptyTree is a root directory of the caller's.
func emptyTree(s *vault.Session) error {
	now := time.Now()
	at := tree.Time{Sec: now.Unix(), Nsec: uint32(now.Nanosecond())}
	return s.Put(tree.Attr{
		Ino: s.NewIno(), Mode: syscall.S_IFDIR | 0o755, UID: uint32(os.Getuid()), GID: uint32(os.Getgid()),
		Atime: at, Mtime: at, Ctime: at,
	})
}
