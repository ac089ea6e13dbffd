package vault

import (
	"fmt"
	"slices"

	"encfsrun/fs/vault/disk"
	"encfsrun/fs/vault/seal"
	"encfsrun/keyring"
)

// ChangeSlots replaces the key slots by what change makes of them, atomically: afterwards, and after a crash, the vault opens
// with the slots as before or as after. It works beside a writer and readers; two changes at once are a *BusyError. The new
// generation is pinned; a *PinError says that this alone failed. change gets the slots as they are now, not as they were at Unlock.
func (u *Unlocked) ChangeSlots(fsys disk.FS, pins *Pins, change func([]keyring.Slot) ([]keyring.Slot, error)) error {
	lock, err := takeLock(fsys, u.Path, headerByte)
	if err != nil {
		return err
	}
	defer lock.Close()
	now, err := currentHeader(fsys, u.Path, u.Keys, u.Header.VaultID)
	if err != nil {
		return err
	}
	if now.unread != nil {
		return now.unread
	}
	if err := syncName(fsys, u.Path); err != nil {
		return err
	}
	if pins != nil { // a header put back from an older copy must not become the newest again
		if old, err := pins.load(now.VaultID); err == nil && old != nil && old.Generation > now.Generation {
			return &RollbackError{u.Path, fmt.Sprintf("its header has generation %d, and this machine has seen %d", now.Generation, old.Generation)}
		}
	}
	slots, err := change(slices.Clone(now.Slots))
	if err != nil {
		return err
	}
	if err := keyring.ValidateSlots(slots); err != nil {
		return err
	}
	next := &Header{VaultID: now.VaultID, Generation: now.Generation + 1, Slots: slots}
	if err := writeHeader(fsys, u.Path, next, u.Keys); err != nil {
		return err
	}
	u.Header = next
	if pins == nil {
		return nil
	}
	if err := pins.save(Pin{VaultID: next.VaultID, Generation: next.Generation}, false); err != nil {
		return &PinError{err}
	}
	return nil
}

// currentHeader reads the header again: the newest twin that authenticates.
func currentHeader(fsys disk.FS, vault string, keys *seal.Keys, id seal.ID) (*Header, error) {
	candidates, err := readHeaders(fsys, vault)
	if err != nil {
		return nil, err
	}
	for _, h := range candidates {
		if h.VaultID == id && h.authentic(keys) {
			return h, nil
		}
	}
	return nil, &IntegrityError{fmt.Sprintf("%s of %s", headerName, vault), "was altered: it does not authenticate"}
}
