package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"encfsrun/fs/guarded"
	"encfsrun/fs/vault"
	"encfsrun/fs/vault/transfer"
	"encfsrun/keyring"
	"encfsrun/launcher"
	"encfsrun/launcher/control"
)

// Exit codes; part of the documented command line.
const (
	exitOK        = 0
	exitFailure   = 1
	exitUsage     = 2
	exitPasskey   = 3 // wrong passkey, or no usable key slot
	exitNotVault  = 4 // not a vault, too new, or it can't be read
	exitBusy      = 5 // holders at unmount, another writer
	exitIntegrity = 6 // integrity failure, rollback, or another root than the expected one
	exitMissing   = 7 // the machine lacks something needed
	exitUnsynced  = 8 // accepted writes could not be made durable

	exitOwn = 125 // of run, whose other codes are the program's: our own failure, before or after the program
)

// usageError is a command line that can't be meant.
type usageError struct{ reason string }

func (e *usageError) Error() string { return e.reason }

func usagef(format string, args ...any) error { return &usageError{fmt.Sprintf(format, args...)} }

// codeError carries an exit code that another process has found already, with its sentence.
type codeError struct {
	code    int
	message string
}

func (e *codeError) Error() string { return e.message }

// damageError says that check found something. The findings are printed by then.
type damageError struct{ vault string }

func (e *damageError) Error() string { return e.vault + " is damaged" }

// unsyncedError says that what programs wrote, and were told is accepted, could not be made durable.
type unsyncedError struct {
	vault string
	err   error
}

func (e *unsyncedError) Error() string {
	return fmt.Sprintf("what was written to %s could not be made durable: %v", e.vault, e.err)
}
func (e *unsyncedError) Unwrap() error { return e.err }

// absentError says that there is nothing where a vault should be.
type absentError struct{ path string }

func (e *absentError) Error() string { return e.path + " does not exist" }

// advised is an error with a next step of its own, where that of its kind would be no help.
type advised struct {
	error
	next string
}

func (e *advised) Unwrap() error { return e.error }

// signalError says that a signal ended the command after it had cleaned up.
type signalError struct{ signal syscall.Signal }

func (e *signalError) Error() string { return "stopped by " + unix.SignalName(e.signal) }

// exitCode is the one table from errors to exit codes.
func exitCode(err error) int {
	var code *codeError
	if errors.As(err, &code) {
		return code.code
	}
	var stopped *signalError
	var interrupted *keyring.InterruptedError
	switch {
	case err == nil:
		return exitOK
	case errors.As(err, &stopped):
		return 128 + int(stopped.signal)
	case errors.As(err, &interrupted):
		return 128 + int(interrupted.Signal)
	case is[*unsyncedError](err), is[*control.SyncError](err):
		return exitUnsynced
	case is[*usageError](err), is[*keyring.UsageError](err), is[*launcher.PlanError](err):
		return exitUsage
	case is[*keyring.WrongPasskeyError](err), is[*keyring.NoUsableSlotError](err):
		return exitPasskey
	case is[*vault.NotVaultError](err), is[*vault.TooNewError](err), is[*absentError](err):
		return exitNotVault
	case is[*vault.BusyError](err), is[*launcher.BusyError](err):
		return exitBusy
	case is[*vault.IntegrityError](err), is[*vault.RollbackError](err), is[*vault.RootError](err), is[*keyring.DamagedSlotError](err),
		is[*damageError](err):
		return exitIntegrity
	case is[*launcher.MissingError](err), is[*guarded.LockError](err):
		return exitMissing
	}
	return exitFailure
}

func is[T error](err error) bool {
	var target T
	return errors.As(err, &target)
}

// restore is the next step about a damaged vault.
const restore = "restore it from a copy you trust"

// hint is what to do next about an error, as the end of its sentence, or nothing where the error says it itself.
func hint(err error) string {
	var missing *launcher.MissingError
	var mountpoint *launcher.MountpointError
	var exists *vault.ExistsError
	var own *advised
	var absent *absentError
	var busy *launcher.BusyError
	var unsafe *keyring.UnsafeFileError
	switch {
	case errors.As(err, &own):
		return own.next
	case errors.As(err, &absent):
		return "make it with: encfsrun pack SRC " + absent.path
	case errors.As(err, &busy):
		return "close what uses it; who that is shows: fuser -vm " + shellQuote(busy.Dir)
	case errors.As(err, &missing) && missing.Mend != "":
		return "mend it with: " + missing.Mend
	case errors.As(err, &mountpoint) && mountpoint.Mend != "":
		return "mend it with: " + mountpoint.Mend
	case mountpoint != nil && mountpoint.Problem == launcher.MountpointNotYours:
		return "choose an empty directory of your own"
	case mountpoint != nil, errors.Is(err, transfer.ErrNotEmpty):
		return "choose an empty directory"
	case errors.As(err, &exists) && exists.Symlink:
		return "name the place itself"
	case errors.As(err, &exists):
		return "choose another name, or bring it up to date with: encfsrun pack --update"
	case is[*vault.RollbackError](err):
		return "if you put an older copy back on purpose, accept it with: --accept-rollback"
	case is[*vault.RootError](err):
		return "if this state is the one you mean, expect the root that its pack printed"
	case is[*vault.TooNewError](err):
		return "update encfsrun on this machine"
	case is[*vault.BusyError](err):
		return "wait until it is done"
	case is[*damageError](err):
		return restore
	case is[*vault.IntegrityError](err):
		return restore + "; encfsrun check names what is damaged"
	case errors.As(err, &unsafe) && unsafe.Foreign:
		return "copy it to a file of your own, or pipe it in with: --passkey-fd 0"
	case errors.As(err, &unsafe) && unsafe.Path != "":
		return "mend it with: chmod 600 " + shellQuote(unsafe.Path)
	case is[*keyring.WrongPasskeyError](err):
		return "try again; encfsrun key list shows the vault's slots"
	case is[*guarded.LockError](err):
		return "raise the limit with: ulimit -l unlimited"
	case errors.Is(err, syscall.ENOSPC):
		return "make room on the disk and try again"
	case errors.Is(err, context.Canceled):
		return "nothing was changed"
	}
	return ""
}

// shellQuote gives a path as one word of a shell command to be copied.
func shellQuote(path string) string {
	return "'" + strings.ReplaceAll(path, "'", `'\''`) + "'"
}
