package keyring

import (
	"fmt"
	"os"
	"strings"
	"syscall"
	"time"
)

// ParameterError reports KDF parameters outside of the accepted range, in a
// header or asked for. No memory was allocated for them.
type ParameterError struct {
	Parameter       string // with its unit
	Value           uint64
	Lowest, Highest uint64 // the accepted range, both included
}

func (e *ParameterError) Error() string {
	return fmt.Sprintf("argon2id %s of %d is outside of the accepted %d to %d", e.Parameter, e.Value, e.Lowest, e.Highest)
}

// FormatError reports a key slot, or a set of them, that is not as the format
// prescribes.
type FormatError struct{ Reason string }

func (e *FormatError) Error() string { return "key slot is malformed: " + e.Reason }

// WrongPasskeyError reports that a passkey opens none of the slots it was
// tried on.
type WrongPasskeyError struct{ Tried int }

func (e *WrongPasskeyError) Error() string {
	return fmt.Sprintf("wrong passkey: it opens none of the %d key slots it was tried on", e.Tried)
}

// NoUsableSlotError reports that a vault has no slot for a passkey of this
// kind.
type NoUsableSlotError struct{ Kind Kind }

func (e *NoUsableSlotError) Error() string {
	if e.Kind == KindMachine {
		return "the vault has no key slot for a machine key"
	}
	return "the vault has no key slot for a passphrase"
}

// DamagedSlotError is an integrity failure: the passkey is the slot's own (the
// commitment says so), but the wrapped key does not authenticate with it.
type DamagedSlotError struct{ ID SlotID }

func (e *DamagedSlotError) Error() string {
	return fmt.Sprintf("key slot %s is damaged: the passkey is right but the wrapped key does not authenticate", e.ID)
}

// KDFError reports that deriving a key failed for a reason other than the
// passphrase.
type KDFError struct {
	MemoryKiB uint32 // what the derivation needs
	Killed    bool   // the helper died of SIGKILL, which nearly always is the kernel's out-of-memory killer
	Short     bool   // it was not begun, because no more than Available is there
	Available int64  // in bytes; see Short
	Err       error  // what happened, else
}

func (e *KDFError) Error() string {
	needs := (e.MemoryKiB + 1023) / 1024
	switch {
	case e.Killed:
		return fmt.Sprintf("key derivation was killed: it needs %d MiB of memory", needs)
	case e.Short:
		return fmt.Sprintf("key derivation needs %d MiB of memory, and only %d MiB are available", needs, e.Available>>20)
	}
	return "key derivation failed: " + e.Err.Error()
}

func (e *KDFError) Unwrap() error { return e.Err }

// UsageError reports sources of a passkey that can't be meant.
type UsageError struct{ Reason string }

func (e *UsageError) Error() string { return e.Reason }

// PasskeyError reports a source that can't be read, or what it delivered and
// can't be a passkey.
type PasskeyError struct {
	Origin string // where it came from, such as `passkey file "k"`
	Reason string
	Err    error // what the system said, if it did
}

func (e *PasskeyError) Error() string {
	if e.Err != nil {
		return e.Origin + " " + e.Reason + ": " + e.Err.Error()
	}
	return e.Origin + " " + e.Reason
}

func (e *PasskeyError) Unwrap() error { return e.Err }

// UnsafeFileError reports a file of a passkey that other users can read, or
// that is not the caller's or root's.
type UnsafeFileError struct {
	Origin  string // such as `passkey file "k"`
	Path    string // of the file; empty where it is not known
	Mode    os.FileMode
	Owner   uint32 // a uid
	Foreign bool   // the owner is what is wrong, else the mode
}

func (e *UnsafeFileError) Error() string {
	if e.Foreign {
		return fmt.Sprintf("%s belongs to another user (uid %d)", e.Origin, e.Owner)
	}
	return fmt.Sprintf("%s can be read by others (mode %04o)", e.Origin, e.Mode.Perm())
}

// CommandError reports that the command of a passkey failed.
type CommandError struct {
	Command string        // its first word
	Limit   time.Duration // set when it was stopped for taking longer
	Err     error         // how it ended, else
}

func (e *CommandError) Error() string {
	if e.Limit > 0 {
		return fmt.Sprintf("passkey command %q took longer than %v and was stopped", e.Command, e.Limit)
	}
	return fmt.Sprintf("passkey command %q failed: %v", e.Command, e.Err)
}

func (e *CommandError) Unwrap() error { return e.Err }

// NoTerminalError reports that no source was given and that there is no
// terminal to ask at.
type NoTerminalError struct {
	Others []string // the sources that need no terminal
	Err    error    // why there is none
}

func (e *NoTerminalError) Error() string {
	return "there is no terminal to ask for the passkey: give it with " + strings.Join(e.Others, ", ")
}

func (e *NoTerminalError) Unwrap() error { return e.Err }

// InterruptedError reports that a signal ended a prompt. The terminal is as it
// was before.
type InterruptedError struct{ Signal syscall.Signal }

func (e *InterruptedError) Error() string {
	return fmt.Sprintf("interrupted by %v at the passkey prompt", e.Signal)
}

// MismatchError reports that a new passkey was never typed twice the same.
type MismatchError struct{ Tries int }

func (e *MismatchError) Error() string {
	return fmt.Sprintf("the two passkeys differed, %d times", e.Tries)
}
