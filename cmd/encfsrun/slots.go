package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"

	"encfsrun/fs/vault"
	"encfsrun/keyring"
)

// addSlot adds a slot for a new passphrase, or for the machine key in a file, if one is named.
func (a *app) addSlot(ctx context.Context, path string, passkey *passkeyFlags, fresh *newPasskeyFlags, machine string) (slot keyring.Slot, err error) {
	made := false // the machine key, by us
	err = a.changeSlots(ctx, path, passkey, func(u *unlocked, slots []keyring.Slot) (_ []keyring.Slot, err error) {
		if len(slots) >= keyring.MaxSlots {
			return nil, fmt.Errorf("%s has %d key slots already, and can have no more; remove one with: encfsrun key remove", path, len(slots))
		}
		if machine == "" {
			slot, err = fresh.slot(ctx, a, u.Header.VaultID, u.Master, path)
		} else {
			slot, made, err = machineSlot(ctx, u, machine)
		}
		return append(slots, slot), err
	})
	if err != nil && made {
		a.removeUnused(machine, slot, path)
	}
	return slot, err
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

// removeSlot removes the slot whose id begins with prefix.
func (a *app) removeSlot(ctx context.Context, path string, passkey *passkeyFlags, prefix string) (removed keyring.SlotID, err error) {
	err = a.changeSlots(ctx, path, passkey, func(_ *unlocked, slots []keyring.Slot) ([]keyring.Slot, error) {
		i, err := findSlot(slots, prefix, path)
		if err != nil {
			return nil, err
		}
		if len(slots) == 1 {
			return nil, fmt.Errorf("the last key slot of %s can't be removed: nobody could open it any more", path)
		}
		removed = slots[i].ID
		return slices.Delete(slots, i, i+1), nil
	})
	return removed, err
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

// replaceSlot puts a slot for a new passphrase in the place of the one that opens the vault.
func (a *app) replaceSlot(ctx context.Context, path string, passkey *passkeyFlags, fresh *newPasskeyFlags) (slot keyring.Slot, err error) {
	err = a.changeSlots(ctx, path, passkey, func(u *unlocked, slots []keyring.Slot) (_ []keyring.Slot, err error) {
		i := slices.IndexFunc(slots, func(s keyring.Slot) bool { return s.ID == u.slot })
		if i < 0 {
			return nil, fmt.Errorf("the key slot that opened %s was removed meanwhile; try again", path)
		}
		slot, err = fresh.slot(ctx, a, u.Header.VaultID, u.Master, path)
		slots[i] = slot
		return slots, err
	})
	return slot, err
}

// changeSlots unlocks a vault and replaces its key slots.
func (a *app) changeSlots(ctx context.Context, path string, passkey *passkeyFlags, change func(*unlocked, []keyring.Slot) ([]keyring.Slot, error)) error {
	source, err := passkey.complete()
	if err != nil {
		return err
	}
	u, err := a.unlock(ctx, path, source)
	if err != nil {
		return err
	}
	defer u.Close()
	err = u.ChangeSlots(a.disk, a.pins(), func(slots []keyring.Slot) ([]keyring.Slot, error) { return change(u, slots) })
	if is[*vault.RollbackError](err) { // only opening can accept it: it sees, and pins, the whole vault
		return &advised{err, "if you put an older copy back on purpose, accept it first with: encfsrun check --accept-rollback " + path}
	}
	if is[*vault.PinError](err) { // the slots are changed
		a.messages.alert("%v", err)
		return nil
	}
	return err
}
