package vault

import (
	"fmt"
)

// IntegrityError says that a part of a vault was altered, is missing, or belongs to another state of it.
type IntegrityError struct {
	Object string // what is wrong: "segment 3 of /srv/app.vault", "lib/secret.py"
	Detail string // in which way
}

func (e *IntegrityError) Error() string { return fmt.Sprintf("%s %s", e.Object, e.Detail) }

// RollbackError says that a vault is whole, but not the one, or older than the one, that this machine has seen.
type RollbackError struct {
	Path   string
	Detail string
}

func (e *RollbackError) Error() string {
	return fmt.Sprintf("%s was rolled back: %s", e.Path, e.Detail)
}

// RootError says that a vault is whole, and not the one whose root was expected.
type RootError struct {
	Path       string
	Have, Want Root
}

func (e *RootError) Error() string {
	return fmt.Sprintf("%s has root %x, not the expected one, %x", e.Path, e.Have, e.Want)
}

// NotVaultError says that a path is no vault, or that its header can't be read.
type NotVaultError struct {
	Path string
	Err  error
}

func (e *NotVaultError) Error() string { return fmt.Sprintf("%s is not a vault: %v", e.Path, e.Err) }
func (e *NotVaultError) Unwrap() error { return e.Err }

// TooNewError says that a vault's format version is above ours.
type TooNewError struct {
	Path    string
	Version int
}

func (e *TooNewError) Error() string {
	return fmt.Sprintf("%s was made by a newer encfsrun (format version %d)", e.Path, e.Version)
}

// BusyError says that another process writes the vault, or its header.
type BusyError struct {
	Path   string
	Holder string // "pid 812 on edge-3", or empty where it can't be told
}

func (e *BusyError) Error() string {
	if e.Holder == "" {
		return fmt.Sprintf("%s is being written by another process", e.Path)
	}
	return fmt.Sprintf("%s is being written by %s", e.Path, e.Holder)
}

// PinError says that a change was made, durably, and that this machine could not remember it.
type PinError struct{ Err error }

func (e *PinError) Error() string { return e.Err.Error() }
func (e *PinError) Unwrap() error { return e.Err }

// RescueError says that the disk failed and that nothing was lost by it: what was not durable was written anew.
type RescueError struct {
	Err     error
	Segment uint64 // where it was written to
}

func (e *RescueError) Error() string {
	return fmt.Sprintf("%v; what was not durable was written anew, to segment %d", e.Err, e.Segment)
}
func (e *RescueError) Unwrap() error { return e.Err }
