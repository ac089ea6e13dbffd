package disk

import (
	"io/fs"
	"os"

	"golang.org/x/sys/unix"
)

// RenameNoReplace asks the kernel (renameat2 with RENAME_NOREPLACE); where the
// file system or the kernel doesn't know how (NFS and some FUSE file systems
// answer EINVAL), renameExclusively does what can be done without.
func (osFS) RenameNoReplace(oldname, newname string) error {
	err := retryInterrupted(func() error {
		return unix.Renameat2(unix.AT_FDCWD, oldname, unix.AT_FDCWD, newname, unix.RENAME_NOREPLACE)
	})
	if err == unix.EINVAL || err == unix.ENOSYS || err == unix.EOPNOTSUPP {
		err = renameExclusively(oldname, newname)
	}
	return linkError("rename", oldname, newname, err)
}

// renameExclusively renames without replacing and without the kernel's help.
//
// All but directories: link, then unlink. link itself refuses a name that exists,
// so nothing is ever replaced; a crash between the two leaves both names.
//
// A directory: rename, after a look that the name is free. In between somebody
// else may take it, but rename(2) puts a directory only over an empty directory:
// that is all the race can replace, and two that build a vault under the
// same name get it once. (Claiming the name with mkdir first would leave an empty
// directory in the way after a crash.)
func renameExclusively(oldname, newname string) error {
	info, err := os.Lstat(oldname)
	if err != nil {
		return errnoOf(err)
	}
	if !info.IsDir() {
		err := retryInterrupted(func() error { return unix.Link(oldname, newname) })
		if err != nil {
			return err
		}
		return retryInterrupted(func() error { return unix.Unlink(oldname) })
	}
	if _, err := os.Lstat(newname); err == nil {
		return unix.EEXIST
	}
	return retryInterrupted(func() error { return unix.Rename(oldname, newname) })
}

// errnoOf strips what package os wrapped around the error of a system call.
func errnoOf(err error) error {
	if wrapped, ok := err.(*fs.PathError); ok {
		return wrapped.Err
	}
	return err
}
