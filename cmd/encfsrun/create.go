package main

import (
	"context"
	"crypto/rand"

	"encfsrun/fs/guarded"
	"encfsrun/fs/vault"
	"encfsrun/fs/vault/seal"
	"encfsrun/keyring"
)

// createVault makes a vault with a new passkey; fill writes its first commit.
func (a *app) createVault(ctx context.Context, path string, fresh *newPasskeyFlags, fill func(*vault.Session) error) (root vault.Root, err error) {
	if err := a.harden(); err != nil {
		return root, err
	}
	master, err := newMaster()
	if err != nil {
		return root, err
	}
	defer master.Destroy()
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

// newMaster draws a master key.
func newMaster() (*guarded.Buffer, error) {
	b, err := guarded.NewBuffer(keyring.MasterKeySize)
	if err != nil {
		return nil, err
	}
	rand.Read(b.Bytes())
	return b, nil
}
