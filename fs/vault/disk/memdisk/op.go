package memdisk

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
)

// ErrPowerCut is what a hook returns to cut the power.
var ErrPowerCut = errors.New("the power was cut")

func isPowerCut(err error) bool { return errors.Is(err, ErrPowerCut) }

// ShortWrite is what a hook returns for a write to let the first N bytes be written
// before it fails with Err.
type ShortWrite struct {
	N   int
	Err error
}

func (s *ShortWrite) Error() string { return fmt.Sprintf("%v after %d bytes", s.Err, s.N) }

func (s *ShortWrite) Unwrap() error { return s.Err }

// PartialSync is what a hook returns for a Sync to make it fail with Err after the
// versions of pages that Reached chooses have arrived on the medium. (After any
// other error of a Sync none has.)
type PartialSync struct {
	Reached Choose
	Err     error
}

func (p *PartialSync) Error() string { return p.Err.Error() }

func (p *PartialSync) Unwrap() error { return p.Err }

// Op is one operation, as a hook sees it.
type Op struct {
	Index   int // counts from 0 in each Disk
	Kind    Kind
	Name    string // as given; of a File, what it was opened as
	NewName string // of the renames
	Offset  int64  // of OpRead, OpWrite and OpLock, in bytes
	Len     int    // of OpRead, OpWrite and OpReserve, in bytes
}

func (op Op) String() string {
	s := fmt.Sprintf("#%d %v %s", op.Index, op.Kind, op.Name)
	switch op.Kind {
	case OpRename, OpRenameNoReplace:
		s += " " + op.NewName
	case OpRead, OpWrite:
		s += fmt.Sprintf(" %d+%d", op.Offset, op.Len)
	case OpLock:
		s += fmt.Sprintf(" %d", op.Offset)
	}
	return s
}

// fail dresses an error as package os would.
func (op Op) fail(err error) error {
	if op.NewName != "" {
		return &os.LinkError{Op: op.Kind.String(), Old: op.Name, New: op.NewName, Err: err}
	}
	return &fs.PathError{Op: op.Kind.String(), Path: op.Name, Err: err}
}

// Kind is what an operation does: one for each method of disk.FS and disk.File.
type Kind uint8

// The kinds of operations.
const (
	OpOpen Kind = iota + 1
	OpOpenWrite
	OpCreate
	OpMkdir
	OpRename
	OpRenameNoReplace
	OpRemove
	OpList
	OpLstat
	OpSyncDir
	OpRead
	OpWrite
	OpSize
	OpSync
	OpDropCache
	OpLock
	OpClose
	OpReserve
	OpTrim
	OpSpace
)

var kindNames = [...]string{
	OpOpen: "open", OpOpenWrite: "openwrite", OpCreate: "create", OpMkdir: "mkdir",
	OpRename: "rename", OpRenameNoReplace: "renamenoreplace", OpRemove: "remove",
	OpList: "list", OpLstat: "lstat", OpSyncDir: "syncdir", OpRead: "read",
	OpWrite: "write", OpSize: "size", OpSync: "sync", OpDropCache: "dropcache",
	OpLock: "lock", OpClose: "close", OpReserve: "reserve", OpTrim: "trim", OpSpace: "space",
}

func (k Kind) String() string { return kindNames[k] }

// Changes says whether a crash after such an operation can leave anything else
// than a crash before it: a power cut at any other tests nothing new.
func (k Kind) Changes() bool {
	switch k {
	case OpCreate, OpMkdir, OpRename, OpRenameNoReplace, OpRemove, OpSyncDir, OpWrite, OpSync:
		return true
	}
	return false
}
