package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"encfsrun/fs/guarded"
	"encfsrun/fs/vault"
	"encfsrun/fs/vault/seal"
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

func (a *app) keyAddCommand() *cobra.Command {
	var passkey passkeyFlags
	var fresh newPasskeyFlags
	var machine string
	var asJSON bool
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
			var slot keyring.Slot
			made := false // the machine key, by us
			err := a.changeSlots(cmd.Context(), args[0], &passkey, func(ctx context.Context, u *unlocked, slots []keyring.Slot) (_ []keyring.Slot, err error) {
				if len(slots) >= keyring.MaxSlots {
					return nil, fmt.Errorf("%s has %d key slots already, and can have no more; remove one with: encfsrun key remove", args[0], len(slots))
				}
				if machine == "" {
					slot, err = fresh.slot(ctx, a, u.Header.VaultID, u.Master, args[0])
				} else {
					slot, made, err = machineSlot(ctx, u, machine)
				}
				return append(slots, slot), err
			})
			if err != nil && made {
				a.removeUnused(machine, slot, args[0])
			}
			if err != nil {
				return err
			}
			return a.printSlot(slotResult{Vault: args[0], Slot: slot.ID.String()}, asJSON)
		},
	}
	passkey.add(cmd.Flags())
	fresh.add(cmd.Flags())
	cmd.Flags().BoolVar(&asJSON, "json", false, "print the new slot as JSON")
	filledVar(cmd.Flags(), &machine, "machine", "FILE", "add this machine key: a file of 32 random bytes, made if it does not exist")
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

// machineSlot wraps the master key under the machine key in a file; made says that it is a new one.
func machineSlot(ctx context.Context, u *unlocked, file string) (slot keyring.Slot, made bool, err error) {
	key, err := keyring.GenerateMachineKey(file)
	made = err == nil
	if errors.Is(err, fs.ErrExist) {
		key, err = keyring.ReadMachineKey(ctx, file, os.Getenv("CREDENTIALS_DIRECTORY"))
	}
	if err != nil {
		return slot, made, err
	}
	defer key.Destroy()
	slot, err = keyring.NewMachineSlot(u.Header.VaultID, u.Master.Bytes(), key.MachineKey())
	return slot, made, err
}

// removeUnused removes a machine key that was made for a slot which did not come to be. A change of slots can also fail after
// it was made: where the vault has the slot, or can't say, the key stays.
func (a *app) removeUnused(file string, slot keyring.Slot, vaultPath string) {
	h, err := vault.ReadHeader(a.disk, vaultPath)
	if err != nil || slices.ContainsFunc(h.Slots, func(s keyring.Slot) bool { return s.ID == slot.ID }) {
		return
	}
	if err := os.Remove(file); err != nil {
		a.messages.warn("the machine key in %s opens nothing; it could not be removed: %v", file, err)
	}
}

func (a *app) keyRemoveCommand() *cobra.Command {
	var passkey passkeyFlags
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "remove VAULT SLOT",
		Short: "remove the slot whose id begins with SLOT; the last one stays",
		Args:  exactArgs("VAULT", "SLOT"),
		RunE: func(cmd *cobra.Command, args []string) error {
			var removed keyring.SlotID
			err := a.changeSlots(cmd.Context(), args[0], &passkey, func(_ context.Context, _ *unlocked, slots []keyring.Slot) ([]keyring.Slot, error) {
				i, err := findSlot(slots, args[1], args[0])
				if err != nil {
					return nil, err
				}
				if len(slots) == 1 {
					return nil, fmt.Errorf("the last key slot of %s can't be removed: nobody could open it any more", args[0])
				}
				removed = slots[i].ID
				return slices.Delete(slots, i, i+1), nil
			})
			if err != nil {
				return err
			}
			a.messages.info("the slot is gone from %s; the master key is unchanged, so older copies of the vault still open with that passkey", args[0])
			if asJSON {
				return a.printJSON(slotResult{args[0], removed.String(), true})
			}
			return nil
		},
	}
	passkey.add(cmd.Flags())
	cmd.Flags().BoolVar(&asJSON, "json", false, "print the removed slot as JSON")
	return cmd
}

func findSlot(slots []keyring.Slot, id, vaultPath string) (int, error) {
	found := -1
	for i, s := range slots {
		if strings.HasPrefix(s.ID.String(), strings.ToLower(id)) && id != "" {
			if found >= 0 {
				return 0, usagef("%q fits more than one key slot of %s; give more of its id", id, vaultPath)
			}
			found = i
		}
	}
	if found < 0 {
		return 0, usagef("%s has no key slot %q; see: encfsrun key list %s", vaultPath, id, vaultPath)
	}
	return found, nil
}

func (a *app) keyPasswdCommand() *cobra.Command {
	var passkey passkeyFlags
	var fresh newPasskeyFlags
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "passwd VAULT",
		Short: "replace the passkey that opens the vault by a new passphrase",
		Args:  exactArgs("VAULT"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := fresh.validate(); err != nil {
				return err
			}
			var slot keyring.Slot
			err := a.changeSlots(cmd.Context(), args[0], &passkey, func(ctx context.Context, u *unlocked, slots []keyring.Slot) ([]keyring.Slot, error) {
				i := slices.IndexFunc(slots, func(s keyring.Slot) bool { return s.ID == u.slot })
				if i < 0 {
					return nil, fmt.Errorf("the key slot that opened %s was removed meanwhile; try again", args[0])
				}
				var err error
				slot, err = fresh.slot(ctx, a, u.Header.VaultID, u.Master, args[0])
				slots[i] = slot
				return slots, err
			})
			if err != nil {
				return err
			}
			return a.printSlot(slotResult{Vault: args[0], Slot: slot.ID.String()}, asJSON)
		},
	}
	passkey.add(cmd.Flags())
	fresh.add(cmd.Flags())
	cmd.Flags().BoolVar(&asJSON, "json", false, "print the new slot as JSON")
	return cmd
}

// changeSlots unlocks a vault and replaces its key slots.
func (a *app) changeSlots(ctx context.Context, path string, passkey *passkeyFlags, change func(context.Context, *unlocked, []keyring.Slot) ([]keyring.Slot, error)) error {
	source, err := passkey.complete()
	if err != nil {
		return err
	}
	u, err := a.unlock(ctx, path, source)
	if err != nil {
		return err
	}
	defer u.Close()
	err = u.ChangeSlots(a.disk, a.pins(), func(slots []keyring.Slot) ([]keyring.Slot, error) { return change(ctx, u, slots) })
	if is[*vault.RollbackError](err) { // only opening can accept it: it sees, and pins, the whole vault
		return &advised{err, "if you put an older copy back on purpose, accept it first with: encfsrun check --accept-rollback " + path}
	}
	if is[*vault.PinError](err) { // the slots are changed
		a.messages.alert("%v", err)
		return nil
	}
	return err
}

// createVault makes a vault with a new passkey; fill writes its first commit.
func (a *app) createVault(ctx context.Context, path string, fresh *newPasskeyFlags, fill func(*vault.Session) error) (vault.Root, error) {
	var root vault.Root
	if err := a.harden(); err != nil {
		return root, err
	}
	master, err := newMaster()
	if err != nil {
		return root, err
	}
	defer master.Destroy()
	return a.createWith(ctx, path, fresh, master, fill)
}

func (a *app) createWith(ctx context.Context, path string, fresh *newPasskeyFlags, master *guarded.Buffer, fill func(*vault.Session) error) (root vault.Root, err error) {
	id := seal.NewID()
	slot, err := fresh.slot(ctx, a, id, master, path)
	if err != nil {
		return root, err
	}
	keys, err := seal.NewKeys(id, master.Bytes())
	if err != nil {
		return root, err
	}
	defer keys.Destroy()
	options := vault.Options{Pins: a.pins(), Warn: a.warnOnce()}
	return vault.Create(a.disk, path, keys, []keyring.Slot{slot}, options, fill)
}
