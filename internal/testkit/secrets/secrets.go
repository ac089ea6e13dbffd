// Package secrets holds the keys of vaults that tests make. It knows no vault, so that the tests of package vault can use it.
package secrets

import (
	"bytes"
	"testing"

	"encfsrun/fs/guarded"
	"encfsrun/fs/vault/seal"
	"encfsrun/keyring"
)

// Secrets are the keys of one vault with one slot, that of a machine key.
type Secrets struct {
	ID      seal.ID
	Master  *guarded.Buffer
	Machine *guarded.Buffer // the machine key
	Slot    keyring.Slot
	Keys    *seal.Keys
}

// New makes the secrets of a vault. Master and machine key are 32 bytes of the given value each.
func New(id seal.ID, master, machine byte) (*Secrets, error) {
	s := &Secrets{ID: id}
	var err error
	if s.Master, err = filled(master); err == nil {
		s.Machine, err = filled(machine)
	}
	if err == nil {
		s.Slot, err = keyring.NewMachineSlot(id, s.Master.Bytes(), s.Machine)
	}
	if err == nil {
		s.Keys, err = seal.NewKeys(id, s.Master.Bytes())
	}
	if err != nil {
		s.Destroy()
		return nil, err
	}
	return s, nil
}

// Of is New for a test, which destroys them at its end.
func Of(t testing.TB, id seal.ID, master, machine byte) *Secrets {
	t.Helper()
	s, err := New(id, master, machine)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Destroy)
	return s
}

// Destroy wipes them.
func (s *Secrets) Destroy() {
	if s.Keys != nil {
		s.Keys.Destroy()
	}
	s.Machine.Destroy()
	s.Master.Destroy()
}

// Unlock gives out the master key, as a passkey would; it is for vault.Unlock.
func (s *Secrets) Unlock(id seal.ID, _ []keyring.Slot) (*guarded.Buffer, error) {
	if id != s.ID {
		return nil, &keyring.WrongPasskeyError{}
	}
	b, err := guarded.NewBuffer(len(s.Master.Bytes()))
	if err == nil {
		copy(b.Bytes(), s.Master.Bytes())
	}
	return b, err
}

// Key returns a key of 32 bytes of that value, which is destroyed at the end of the test.
func Key(t testing.TB, value byte) *guarded.Buffer {
	t.Helper()
	b, err := filled(value)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(b.Destroy)
	return b
}

func filled(value byte) (*guarded.Buffer, error) {
	b, err := guarded.NewBuffer(seal.KeySize)
	if err == nil {
		copy(b.Bytes(), bytes.Repeat([]byte{value}, seal.KeySize))
	}
	return b, err
}
