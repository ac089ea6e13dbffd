package main

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"

	"github.com/spf13/pflag"

	"encfsrun/fs/guarded"
	"encfsrun/fs/vault"
	"encfsrun/fs/vault/seal"
	"encfsrun/keyring"
)

// openFlags are those of commands that open a vault.
type openFlags struct {
	passkey passkeyFlags
	openSettings
}

// openSettings are those of them that the daemon obeys.
type openSettings struct {
	AcceptRollback bool
	ExpectRoot     string
}

// openNames are the flags of an openFlags.
func openNames() []string {
	return []string{"passkey-fd", "passkey-file", "passkey-command", "accept-rollback", "expect-root"}
}

func (o *openFlags) add(flags *pflag.FlagSet) {
	o.passkey.add(flags)
	flags.BoolVar(&o.AcceptRollback, "accept-rollback", false, "accept a vault that is older than, or another than, the one this machine has seen")
	filledVar(flags, &o.ExpectRoot, "expect-root", "ROOT", "refuse the vault unless its root is this one, and verify every block's hash")
}

func (o openSettings) options(a *app) (vault.Options, error) {
	options := vault.Options{AcceptRollback: o.AcceptRollback, Warn: a.warnOnce()}
	if o.ExpectRoot == "" {
		return options, nil
	}
	root, err := hex.DecodeString(o.ExpectRoot)
	if err != nil || len(root) != len(vault.Root{}) {
		return options, usagef("--expect-root takes the 64 hexadecimal digits that pack and check print")
	}
	options.ExpectRoot = (*vault.Root)(root)
	return options, nil
}

// warnOnce passes on what a vault warns of, each thing once: the end of a write can fail as its beginning did.
func (a *app) warnOnce() func(error) {
	var last string
	return func(err error) {
		if text := err.Error(); text != last {
			last = text
			a.messages.alert("%s", text)
		}
	}
}

// unlocked is an open header, and which slot opened it.
type unlocked struct {
	*vault.Unlocked
	slot keyring.SlotID
}

// unlock reads the header of the vault, then asks for the passkey, and returns the keys.
func (a *app) unlock(ctx context.Context, path string, source keyring.Source) (*unlocked, error) {
	if err := a.harden(); err != nil {
		return nil, err
	}
	u := &unlocked{}
	var passkey *keyring.Passkey
	defer func() { passkey.Destroy() }()
	var err error
	u.Unlocked, err = vault.Unlock(a.disk, path, func(id seal.ID, slots []keyring.Slot) (master *guarded.Buffer, err error) {
		if passkey == nil {
			if passkey, err = source.Read(ctx, path); err != nil {
				return nil, err
			}
		}
		if master, u.slot, err = keyring.Unlock(id, slots, passkey, helperKDF(ctx)); err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
		return master, nil
	})
	if err != nil {
		return nil, a.ifAbsent(path, err)
	}
	return u, nil
}

// ifAbsent says of what is no vault whether it is anything at all.
func (a *app) ifAbsent(path string, err error) error {
	if is[*vault.NotVaultError](err) {
		if _, absent := a.disk.Lstat(path); errors.Is(absent, fs.ErrNotExist) {
			return &absentError{path}
		}
	}
	return err
}

// openVault unlocks and opens a vault for reading, or, for a writer, for writing. close ends both.
func (a *app) openVault(ctx context.Context, path string, o *openFlags, writer bool) (v *vault.Vault, closeAll func(), err error) {
	source, err := o.passkey.complete()
	if err != nil {
		return nil, nil, err
	}
	options, err := o.options(a)
	if err != nil {
		return nil, nil, err
	}
	u, err := a.unlock(ctx, path, source)
	if err != nil {
		return nil, nil, err
	}
	u.Master.Destroy()
	options.Pins = a.pins()
	if writer {
		v, err = u.OpenWriter(a.disk, options)
	} else {
		v, err = u.Open(a.disk, options)
	}
	if err != nil {
		u.Close()
		return nil, nil, err
	}
	return v, func() { v.Close(); u.Close() }, nil
}
