package keyring

import (
	"cmp"
	"errors"
	"slices"

	"encfsrun/fs/guarded"
)

// Unlock finds the slot that a passkey opens, and returns the master key,
// which the caller destroys, and the slot's id.
//
// Slots of the passkey's kind are tried, cheapest first: machine keys take no
// time, and a slot made for a small machine comes before one that may need
// more memory than there is. A damaged slot does not keep another from
// opening.
//
// Errors: *ParameterError and *FormatError for slots that must not be used,
// before anything is tried; *NoUsableSlotError; *WrongPasskeyError;
// *DamagedSlotError when a slot is this passkey's, is damaged and no other
// opens; what the KDF returns.
func Unlock(vaultID [16]byte, slots []Slot, passkey *Passkey, kdf KDF) (*guarded.Buffer, SlotID, error) {
	if err := ValidateSlots(slots); err != nil {
		return nil, SlotID{}, err
	}
	usable := usableSlots(slots, passkey)
	if len(usable) == 0 {
		return nil, SlotID{}, &NoUsableSlotError{passkey.kind()}
	}
	master, err := guarded.NewBuffer(MasterKeySize)
	if err != nil {
		return nil, SlotID{}, err
	}
	var damaged *DamagedSlotError
	for _, s := range usable {
		opened, err := s.try(vaultID, master, passkey, kdf)
		if opened {
			return master, s.ID, nil
		}
		if err != nil && !errors.As(err, &damaged) {
			master.Destroy()
			return nil, SlotID{}, err
		}
	}
	master.Destroy()
	if damaged != nil {
		return nil, SlotID{}, damaged
	}
	return nil, SlotID{}, &WrongPasskeyError{len(usable)}
}

// usableSlots returns the slots that fit the passkey, cheapest first.
func usableSlots(slots []Slot, passkey *Passkey) []Slot {
	var usable []Slot
	for _, s := range slots {
		if s.Kind == KindMachine && passkey.machineKey != nil || s.Kind == KindPassphrase && passkey.passphrase != nil {
			usable = append(usable, s)
		}
	}
	cost := func(s Slot) uint64 { return uint64(s.Params.MemoryKiB) * uint64(s.Params.Time) }
	slices.SortStableFunc(usable, func(a, b Slot) int {
		return cmp.Or(cmp.Compare(a.Params.MemoryKiB, b.Params.MemoryKiB), cmp.Compare(cost(a), cost(b)))
	})
	return usable
}

// try is unwrap with the input key that the slot's kind asks for.
func (s *Slot) try(vaultID [16]byte, master *guarded.Buffer, passkey *Passkey, kdf KDF) (bool, error) {
	if s.Kind == KindMachine {
		return s.unwrap(vaultID, master.Bytes(), passkey.machineKey.Bytes())
	}
	ikm, err := kdf(passkey.passphrase, s.Salt[:], s.Params)
	if err != nil {
		return false, err
	}
	defer ikm.Destroy()
	return s.unwrap(vaultID, master.Bytes(), ikm.Bytes())
}
