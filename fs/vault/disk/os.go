package disk

import (
	"errors"
	"io/fs"
	"os"
	"slices"
	"syscall"

	"golang.org/x/sys/unix"
)

// openFlags go with every open of a file. The attack: whoever owns the folder
// swaps a file for a symbolic link (O_NOFOLLOW: we would read, or as root write,
// a file of the attacker's choosing), a FIFO without a writer (O_NONBLOCK: open
// would never return) or a terminal (O_NOCTTY: it would become ours). O_CLOEXEC,
// which package os adds, keeps descriptors and their locks from the programs that
// are started.
const openFlags = unix.O_NOFOLLOW | unix.O_NONBLOCK | unix.O_NOCTTY

type osFS struct{}

// OS gives the file system of the machine.
func OS() FS { return osFS{} }

func (osFS) Open(name string) (File, error) {
	return openRegular(name, os.O_RDONLY, 0)
}

func (osFS) OpenWrite(name string) (File, error) {
	return openRegular(name, os.O_RDWR, 0)
}

func (osFS) Create(name string, perm fs.FileMode) (File, error) {
	return openRegular(name, os.O_RDWR|os.O_CREATE|os.O_EXCL, perm)
}

// openRegular opens a file and gives it up again when it is not a regular one.
// The check is made on the descriptor: a name looked at first could be swapped
// before it is opened.
func openRegular(name string, flag int, perm fs.FileMode) (File, error) {
	f, err := os.OpenFile(name, flag|openFlags, perm)
	if err != nil {
		if refusedKind(err) && !isRegular(name) {
			return nil, &fs.PathError{Op: "open", Path: name, Err: ErrNotRegular}
		}
		return nil, err
	}
	info, err := f.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = &fs.PathError{Op: "open", Path: name, Err: ErrNotRegular}
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return &osFile{f: f}, nil
}

// refusedKind says whether the kernel may have refused an open for what the name
// is: a symbolic link, a directory opened for writing, a socket or a device
// without a driver.
func refusedKind(err error) bool {
	return errors.Is(err, syscall.ELOOP) || errors.Is(err, syscall.EISDIR) ||
		errors.Is(err, syscall.ENXIO) || errors.Is(err, syscall.ENODEV)
}

func isRegular(name string) bool {
	info, err := os.Lstat(name)
	return err != nil || info.Mode().IsRegular()
}

func (osFS) Mkdir(name string, perm fs.FileMode) error {
	return os.Mkdir(name, perm)
}

func (osFS) Rename(oldname, newname string) error {
	err := retryInterrupted(func() error { return unix.Rename(oldname, newname) })
	return linkError("rename", oldname, newname, err)
}

func (osFS) Remove(name string) error {
	return os.Remove(name)
}

// openDir opens a directory, and only that: O_DIRECTORY makes the kernel refuse
// a FIFO instead of waiting on it. A symbolic link is followed, so that a vault
// can be named through one.
func openDir(dir string) (*os.File, error) {
	return os.OpenFile(dir, os.O_RDONLY|unix.O_DIRECTORY, 0)
}

func (osFS) List(dir string) ([]string, error) {
	d, err := openDir(dir)
	if err != nil {
		return nil, err
	}
	defer d.Close()
	names, err := d.Readdirnames(-1)
	if err != nil {
		return nil, err
	}
	slices.Sort(names)
	return names, nil
}

func (osFS) Lstat(name string) (Info, error) {
	st, err := os.Lstat(name)
	if err != nil {
		return Info{}, err
	}
	owner := st.Sys().(*syscall.Stat_t).Uid
	info := Info{Kind: KindOther, Mode: st.Mode().Perm(), Own: owner == uint32(os.Geteuid())}
	switch st.Mode().Type() {
	case 0:
		info.Kind, info.Size = KindFile, st.Size()
	case fs.ModeDir:
		info.Kind = KindDir
	case fs.ModeSymlink:
		info.Kind = KindSymlink
	}
	return info, nil
}

func (osFS) SyncDir(dir string) error {
	d, err := openDir(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}

func (osFS) Space(dir string) (Space, error) {
	var st unix.Statfs_t
	if err := retryInterrupted(func() error { return unix.Statfs(dir, &st) }); err != nil {
		return Space{}, &fs.PathError{Op: "statfs", Path: dir, Err: err}
	}
	unit := uint64(st.Frsize)
	return Space{Total: st.Blocks * unit, Free: st.Bavail * unit}, nil
}

// retryInterrupted calls f until a signal does not interrupt it. Go's runtime
// asks for restarted calls, but network file systems answer EINTR regardless.
func retryInterrupted(f func() error) error {
	for {
		if err := f(); err != unix.EINTR {
			return err
		}
	}
}

func linkError(op, oldname, newname string, err error) error {
	if err == nil {
		return nil
	}
	return &os.LinkError{Op: op, Old: oldname, New: newname, Err: err}
}
