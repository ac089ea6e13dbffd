package transfer

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strconv"

	"encfsrun/fs/vault/tree"
)

// SourceError says that something of the source can't be read, or that a vault can't hold it.
type SourceError struct {
	Path string // on the host
	Err  error
}

func (e *SourceError) Error() string { return fmt.Sprintf("read %s: %v", printable(e.Path), e.Err) }
func (e *SourceError) Unwrap() error { return e.Err }

// ChangedError says that a file or directory of the source changed while it was read, so that what was read of it may be
// neither its old state nor its new one.
type ChangedError struct {
	Path string // on the host
}

func (e *ChangedError) Error() string {
	return printable(e.Path) + " changed while it was read; pack again when nothing writes to it"
}

// TargetError says that an export can't be written.
type TargetError struct {
	Path string // on the host
	Err  error
}

func (e *TargetError) Error() string { return fmt.Sprintf("write %s: %v", printable(e.Path), e.Err) }
func (e *TargetError) Unwrap() error { return e.Err }

// ErrNotEmpty is wrapped by the TargetError of an export into a directory that has entries.
var ErrNotEmpty = errors.New("the directory is not empty")

// PathError says that a path inside a vault does not lead to what was asked for. Err is one of the errors below.
type PathError struct {
	Path string // inside the vault
	Err  error
}

func (e *PathError) Error() string { return printable(e.Path) + " " + e.Err.Error() }
func (e *PathError) Unwrap() error { return e.Err }

// The reasons of a PathError.
var (
	ErrNotFound = errors.New("is not in the vault")
	ErrNotDir   = errors.New("is not a directory of the vault")
	ErrNotFile  = errors.New("is not a regular file of the vault")
	ErrOutside  = errors.New("leads out of the vault")
	ErrLoop     = errors.New("goes through too many symbolic links")
)

// printable quotes a path that would not show on a terminal as it is: a name may hold escape sequences.
func printable(path string) string {
	if q := strconv.Quote(path); q != `"`+path+`"` {
		return q
	}
	return path
}

// refused are the tree's errors that say that an entry of the source does not fit a vault.
var refused = []error{tree.ErrNameTooLong, tree.ErrTooBig, tree.ErrInvalid, tree.ErrFull}

// onEntry names the entry in an error of the session that is about it; those of the disk name the log already.
func onEntry(path string, err error) error {
	for _, r := range refused {
		if errors.Is(err, r) {
			return &SourceError{path, err}
		}
	}
	return err
}

// bare takes the path and the name of the call off an error of package os: the caller says it better.
func bare(err error) error {
	var p *fs.PathError
	if errors.As(err, &p) {
		return p.Err
	}
	var s *os.SyscallError
	if errors.As(err, &s) {
		return s.Err
	}
	return err
}

// inFile names the file in an error of a block. A request that was given up is no error of a file.
func inFile(path string, err error) error {
	if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	return fmt.Errorf("%s can't be read: %w", printable(path), err)
}
