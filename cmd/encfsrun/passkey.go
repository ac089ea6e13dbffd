package main

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"strconv"

	"github.com/spf13/pflag"
	"golang.org/x/sys/unix"

	"encfsrun/fs/guarded"
	"encfsrun/fs/vault"
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

// checkDescriptor refuses a descriptor that nobody opened for us.
func checkDescriptor(flag string, fd int) error {
	if fd < 0 {
		return nil
	}
	if _, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0); err != nil {
		return usagef("%s %d is no open descriptor", flag, fd)
	}
	return nil
}

// filled is a flag that must not be empty: an unset variable in a script must not mean "ask somebody else".
type filled struct {
	to   *string
	kind string
}

// filledVar adds one; what to holds already is its default, which --help shows.
func filledVar(flags *pflag.FlagSet, to *string, name, kind, usage string) {
	flags.Var(&filled{to, kind}, name, usage)
}

func (f *filled) String() string {
	if f.to == nil { // the zero value, which pflag compares with
		return ""
	}
	return *f.to
}
func (f *filled) Type() string { return f.kind }
func (f *filled) Set(text string) error {
	if text == "" {
		return errors.New("it is empty")
	}
	*f.to = text
	return nil
}

// filledList is a flag that may be repeated, and never be empty.
type filledList struct {
	to   *[]string
	kind string
}

func filledListVar(flags *pflag.FlagSet, to *[]string, name, kind, usage string) {
	flags.Var(&filledList{to, kind}, name, usage)
}

func (f *filledList) String() string { return "" }
func (f *filledList) Type() string   { return f.kind }
func (f *filledList) Set(text string) error {
	if text == "" {
		return errors.New("it is empty")
	}
	*f.to = append(*f.to, text)
	return nil
}

// refuse is a usage error when one of the flags was given: one that is accepted and then ignored would let its user believe in a
// check, or a passkey, that is not there.
func refuse(flags *pflag.FlagSet, reason string, names ...string) error {
	for _, name := range names {
		if flags.Changed(name) {
			return usagef("--%s %s", name, reason)
		}
	}
	return nil
}

// newPasskeyFlags are the sources of a new passkey, and what its derivation costs.
type newPasskeyFlags struct {
	source keyring.NewSource
	memory byteSize
	time   count
}

// count is a flag of a number above zero.
type count uint32

func (c *count) String() string { return "" }
func (c *count) Type() string   { return "N" }
func (c *count) Set(text string) error {
	n, err := strconv.ParseUint(text, 10, 32)
	if err != nil || n == 0 {
		return fmt.Errorf("%q is no number of times", text)
	}
	*c = count(n)
	return nil
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

// newMaster draws a master key.
func newMaster() (*guarded.Buffer, error) {
	b, err := guarded.NewBuffer(keyring.MasterKeySize)
	if err != nil {
		return nil, err
	}
	rand.Read(b.Bytes())
	return b, nil
}
