package main

import (
	"fmt"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"encfsrun/fs/vault"
	"encfsrun/keyring"
)

func (a *app) keyCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "key COMMAND",
		Short: "list, add, remove and change the passkeys of a vault",
		Long: `key manages the slots of a vault, at most 8: each wraps the same master key under one passkey. A change is atomic: after
a crash the vault opens with the slots as before or as after. The master key never changes: old copies of the vault's
header still open with the passkeys of their time.`,
		Args: cobra.ArbitraryArgs,
		RunE: wantsCommand,
	}
	cmd.AddCommand(a.keyListCommand(), a.keyAddCommand(), a.keyRemoveCommand(), a.keyPasswdCommand())
	return cmd
}

func (a *app) keyListCommand() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "list VAULT",
		Short: "list the key slots (needs no passkey, so nothing is authenticated)",
		Args:  exactArgs("VAULT"),
		RunE: func(_ *cobra.Command, args []string) error {
			h, err := vault.ReadHeader(a.disk, args[0])
			if err != nil {
				return a.ifAbsent(args[0], err)
			}
			if asJSON {
				return a.printJSON(slotList(h.Slots))
			}
			for _, s := range slotList(h.Slots) {
				fmt.Fprintf(a.stdout, "%s  %-10s  %s\n", s.ID, s.Type, s.cost())
			}
			return nil
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print the slots as JSON")
	return cmd
}

// slotInfo is what key list prints of a slot.
type slotInfo struct {
	ID        string `json:"id"`
	Type      string `json:"type"`
	MemoryKiB uint32 `json:"kdf_memory_kib,omitempty"`
	Time      uint32 `json:"kdf_time,omitempty"`
}

func slotList(slots []keyring.Slot) []slotInfo {
	list := []slotInfo{}
	for _, s := range slots {
		list = append(list, slotInfo{s.ID.String(), s.Kind.String(), s.Params.MemoryKiB, s.Params.Time})
	}
	return list
}

func (s slotInfo) cost() string {
	if s.MemoryKiB == 0 {
		return "no derivation"
	}
	return fmt.Sprintf("argon2id, %s, %d passes", formatBytes(int64(s.MemoryKiB)<<10), s.Time)
}

// slotFlags are those of every command that changes key slots.
type slotFlags struct {
	passkey passkeyFlags
	json    bool
}

func (f *slotFlags) add(flags *pflag.FlagSet, which string) {
	f.passkey.add(flags)
	flags.BoolVar(&f.json, "json", false, "print the "+which+" slot as JSON")
}

func (a *app) keyAddCommand() *cobra.Command {
	var f slotFlags
	var fresh newPasskeyFlags
	var machine string
	cmd := &cobra.Command{
		Use:   "add VAULT",
		Short: "add a passkey: a passphrase, or with --machine a key file",
		Args:  exactArgs("VAULT"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if machine != "" {
				if err := refuse(cmd.Flags(), "is for a passphrase, and --machine adds a key file", newPasskeyNames()...); err != nil {
					return err
				}
			}
			if err := fresh.validate(); err != nil {
				return err
			}
			slot, err := a.addSlot(cmd.Context(), args[0], &f.passkey, &fresh, machine)
			if err != nil {
				return err
			}
			return a.printSlot(slotResult{Vault: args[0], Slot: slot.ID.String()}, f.json)
		},
	}
	f.add(cmd.Flags(), "new")
	fresh.add(cmd.Flags())
	filledVar(cmd.Flags(), &machine, "machine", "FILE", "add this machine key: a file of 32 random bytes, made if it does not exist")
	return cmd
}

func (a *app) keyRemoveCommand() *cobra.Command {
	var f slotFlags
	cmd := &cobra.Command{
		Use:   "remove VAULT SLOT",
		Short: "remove the slot whose id begins with SLOT; the last one stays",
		Args:  exactArgs("VAULT", "SLOT"),
		RunE: func(cmd *cobra.Command, args []string) error {
			removed, err := a.removeSlot(cmd.Context(), args[0], &f.passkey, args[1])
			if err != nil {
				return err
			}
			a.messages.info("the slot is gone from %s; the master key is unchanged, so older copies of the vault still open with that passkey", args[0])
			if f.json {
				return a.printJSON(slotResult{args[0], removed.String(), true})
			}
			return nil
		},
	}
	f.add(cmd.Flags(), "removed")
	return cmd
}

func (a *app) keyPasswdCommand() *cobra.Command {
	var f slotFlags
	var fresh newPasskeyFlags
	cmd := &cobra.Command{
		Use:   "passwd VAULT",
		Short: "replace the passkey that opens the vault by a new passphrase",
		Args:  exactArgs("VAULT"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := fresh.validate(); err != nil {
				return err
			}
			slot, err := a.replaceSlot(cmd.Context(), args[0], &f.passkey, &fresh)
			if err != nil {
				return err
			}
			return a.printSlot(slotResult{Vault: args[0], Slot: slot.ID.String()}, f.json)
		},
	}
	f.add(cmd.Flags(), "new")
	fresh.add(cmd.Flags())
	return cmd
}

// slotResult is what key add, passwd and remove print with --json.
type slotResult struct {
	Vault   string `json:"vault"`
	Slot    string `json:"slot"` // the new one, or the removed one
	Removed bool   `json:"removed,omitempty"`
}

// printSlot prints the id of a new slot, which key remove takes later.
func (a *app) printSlot(r slotResult, asJSON bool) error {
	if asJSON {
		return a.printJSON(r)
	}
	_, err := fmt.Fprintf(a.stdout, "slot %s\n", r.Slot)
	return err
}
