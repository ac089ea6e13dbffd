package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"

	"github.com/spf13/pflag"

	"encfsrun/fs/guarded"
	"encfsrun/fs/vault/seal"
	"encfsrun/keyring"
)

// passkeyFlags are the sources of an existing vault's passkey.
type passkeyFlags struct{ source keyring.Source }

func (p *passkeyFlags) add(flags *pflag.FlagSet) {
	flags.IntVar(&p.source.FD, "passkey-fd", -1, "read the passkey from descriptor `N`")
	filledVar(flags, &p.source.File, "passkey-file", "FILE", "read the passkey from this file: one line, or a machine key")
	filledVar(flags, &p.source.Command, "passkey-command", "CMD", "read the passkey from what this command prints (no shell; 60 s)")
}

func (p *passkeyFlags) complete() (keyring.Source, error) {
	s := p.source
	s.EnvFile = os.Getenv("ENCFSRUN_PASSKEY_FILE")
	s.CredentialsDir = os.Getenv("CREDENTIALS_DIRECTORY")
	if err := checkDescriptor("--passkey-fd", s.FD); err != nil {
		return s, err
	}
	return s, s.Validate()
}

// newPasskeyFlags are the sources of a new passkey, and what its derivation costs.
type newPasskeyFlags struct {
	source keyring.NewSource
	memory byteSize
	time   count
}

func (p *newPasskeyFlags) add(flags *pflag.FlagSet) {
	flags.IntVar(&p.source.FD, "new-passkey-fd", -1, "read the new passkey from descriptor `N`")
	filledVar(flags, &p.source.File, "new-passkey-file", "FILE", "read the new passkey from this file")
	filledVar(flags, &p.source.Command, "new-passkey-command", "CMD", "read the new passkey from what this command prints")
	flags.Var(&p.memory, "kdf-memory", "memory that each try of the passkey takes (default 256 MiB, less on a small machine)")
	flags.Var(&p.time, "kdf-time", "passes over that memory (default: about one second)")
}

// newPasskeyNames are the flags of a newPasskeyFlags.
func newPasskeyNames() []string {
	return []string{"new-passkey-fd", "new-passkey-file", "new-passkey-command", "kdf-memory", "kdf-time"}
}

func (p *newPasskeyFlags) validate() error {
	if err := p.source.Validate(); err != nil {
		return err
	}
	if err := checkDescriptor("--new-passkey-fd", p.source.FD); err != nil {
		return err
	}
	_, _, err := p.params()
	return err
}

// params returns the cost of the new slot; reduced says that the machine's memory made it less than usual.
func (p *newPasskeyFlags) params() (params keyring.Params, reduced bool, err error) {
	params = keyring.DefaultParams()
	if p.memory == 0 {
		if available, err := keyring.AvailableMemory(); err == nil {
			params, reduced = keyring.Calibrate(available)
		}
	} else {
		params.MemoryKiB = uint32(min(int64(p.memory)/1024, 1<<32-1))
	}
	if p.time != 0 {
		params.Time = uint32(p.time)
	}
	if err = params.Validate(); err != nil && p.memory+byteSize(p.time) > 0 {
		err = usagef("%s", p.excess(params))
	}
	return params, reduced, err
}

// excess says of costs that were asked for, and are out of range, what the range is.
func (p *newPasskeyFlags) excess(params keyring.Params) string {
	lowest := keyring.Params{MemoryKiB: params.MemoryKiB, Time: keyring.MinTime, Parallelism: params.Parallelism}
	switch {
	case p.time > keyring.MaxTime:
		return fmt.Sprintf("--kdf-time takes %d to %d", keyring.MinTime, keyring.MaxTime)
	case lowest.Validate() != nil:
		var bad *keyring.ParameterError
		errors.As(lowest.Validate(), &bad)
		return fmt.Sprintf("--kdf-memory takes %s to %s", formatBytes(int64(bad.Lowest)<<10), formatBytes(int64(bad.Highest)<<10))
	}
	return fmt.Sprintf("--kdf-time takes %d to %d with --kdf-memory %dM", keyring.MinTime, keyring.MaxCost/params.MemoryKiB, params.MemoryKiB>>10)
}

// slot asks for a new passkey and wraps the master key under it.
func (p *newPasskeyFlags) slot(ctx context.Context, a *app, id seal.ID, master *guarded.Buffer, name string) (keyring.Slot, error) {
	source := p.source
	source.CredentialsDir = os.Getenv("CREDENTIALS_DIRECTORY")
	passkey, generated, err := source.Read(ctx, name)
	if err != nil {
		return keyring.Slot{}, err
	}
	defer passkey.Destroy()
	params, reduced, err := p.params()
	if err != nil {
		return keyring.Slot{}, err
	}
	if reduced {
		a.messages.alert("this machine is short of memory, so each try of the passkey takes %d MiB instead of %d: choose a longer passphrase",
			params.MemoryKiB>>10, keyring.DefaultParams().MemoryKiB>>10)
	}
	slot, err := keyring.NewPassphraseSlot(id, master.Bytes(), passkey.Passphrase(), params, helperKDF(ctx))
	if err == nil && generated {
		err = showPassphrase(passkey, name)
	}
	return slot, err
}

// showPassphrase shows a generated passphrase, once, on the terminal it was asked for at, straight from guarded memory: neither
// a pipe nor a log of messages gets it.
func showPassphrase(p *keyring.Passkey, name string) error {
	tty, err := os.OpenFile("/dev/tty", os.O_WRONLY, 0)
	if err != nil {
		return fmt.Errorf("show the generated passphrase: %w", err)
	}
	defer tty.Close()
	fmt.Fprintf(tty, "The passphrase of %s is shown this once. Keep it safe:\n\n    ", printable(name))
	if _, err = tty.Write(p.Passphrase().Bytes()); err == nil {
		_, err = tty.WriteString("\n\n")
	}
	return err
}

// helperKDF derives keys in a process of its own, so that the memory it takes and what is left in it go with that process.
func helperKDF(ctx context.Context) keyring.KDF {
	return keyring.HelperKDF(ctx, func() *exec.Cmd { return exec.Command("/proc/self/exe", kdfCommand) })
}
