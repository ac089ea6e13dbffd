package transfer

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"

	"encfsrun/fs/vault"
	"encfsrun/fs/vault/tree"
)

// file writes a regular file; if it can't be written whole, it is removed.
func (x *exporter) file(dir int, rel, name string, a tree.Attr) error {
	flags := unix.O_WRONLY | unix.O_CREAT | unix.O_EXCL | unix.O_NOFOLLOW | unix.O_CLOEXEC
	fd, err := retry(func() (int, error) { return unix.Openat(dir, name, flags, 0o600) })
	if err != nil {
		return x.failed(rel, err)
	}
	defer unix.Close(fd)
	err = x.fill(fd, rel, a)
	if err == nil {
		err = x.attributes(fd, rel, a)
	}
	if err != nil {
		if gone := unix.Unlinkat(dir, name, 0); gone != nil {
			err = errors.Join(err, x.failed(rel, gone))
		}
	}
	return err
}

// fill writes a file's contents; holes stay holes.
func (x *exporter) fill(fd int, rel string, a tree.Attr) error {
	if err := unix.Ftruncate(fd, int64(a.Size)); err != nil {
		return x.failed(rel, err)
	}
	var writing error
	err := x.contents.each(a.Ino, 0, a.Size, func(off uint64, b []byte, n int) error {
		for len(b) > 0 {
			done, err := retry(func() (int, error) { return unix.Pwrite(fd, b, int64(off)) })
			if err != nil {
				writing = x.failed(rel, err)
				return writing
			}
			b, off = b[done:], off+uint64(done)
		}
		x.meter.add(0, uint64(n))
		return nil
	})
	if err != nil && writing == nil {
		return inFile(rel, err)
	}
	return err
}

func (x *exporter) symlink(dir int, rel, name string, a tree.Attr) error {
	target, err := x.v.Readlink(a.Ino)
	if err != nil {
		return err
	}
	if err := unix.Symlinkat(target, dir, name); err != nil {
		return x.failed(rel, err)
	}
	if x.root {
		if err := unix.Fchownat(dir, name, int(a.UID), int(a.GID), unix.AT_SYMLINK_NOFOLLOW); err != nil {
			return x.failed(rel, err)
		}
	}
	// There is no call for it that takes a directory and a name before Linux 6.13.
	set := func(attr string, value []byte) error { return unix.Lsetxattr(procPath(dir, name), attr, value, 0) }
	if err := x.xattrs(set, rel, a.Ino); err != nil {
		return err
	}
	if err := unix.UtimesNanoAt(dir, name, times(a), unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return x.failed(rel, err)
	}
	return nil
}

func (x *exporter) fifo(dir int, rel, name string, a tree.Attr) error {
	if err := unix.Mknodat(dir, name, unix.S_IFIFO|0o600, 0); err != nil {
		return x.failed(rel, err)
	}
	// For reading and writing, or open would wait for the other end, or fail without one.
	fd, err := retry(func() (int, error) {
		return unix.Openat(dir, name, unix.O_RDWR|unix.O_NONBLOCK|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	})
	if err != nil {
		return x.failed(rel, err)
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	if err = unix.Fstat(fd, &st); err == nil && st.Mode&unix.S_IFMT != unix.S_IFIFO {
		err = errors.New("something else was put in its place")
	}
	if err != nil {
		return x.failed(rel, err)
	}
	return x.attributes(fd, rel, a)
}

// attributes gives an open file its owner, extended attributes, mode and times, in the order in which none undoes another: chown
// clears setuid and capabilities, an ACL changes the mode's group bits and chmod sets them right again, and all of it is
// done before the times.
func (x *exporter) attributes(fd int, rel string, a tree.Attr) error {
	mode := a.Mode & 0o7777
	if x.root {
		if err := unix.Fchown(fd, int(a.UID), int(a.GID)); err != nil {
			return x.failed(rel, err)
		}
	} else if mode = x.withoutSetID(a, mode); mode != a.Mode&0o7777 {
		x.report.note(NoteSetID, rel, "")
	}
	set := func(attr string, value []byte) error { return unix.Fsetxattr(fd, attr, value, 0) }
	if err := x.xattrs(set, rel, a.Ino); err != nil {
		return err
	}
	if err := unix.Fchmod(fd, mode); err != nil {
		return x.failed(rel, err)
	}
	if err := unix.UtimesNanoAt(unix.AT_FDCWD, procPath(fd, ""), times(a), 0); err != nil {
		return x.failed(rel, err)
	}
	return nil
}

// withoutSetID takes setuid and setgid off what we could not give to its owner: it would run with the wrong rights.
func (x *exporter) withoutSetID(a tree.Attr, mode uint32) uint32 {
	if isDir(a.Mode) {
		return mode
	}
	if int(a.UID) != os.Geteuid() {
		mode &^= unix.S_ISUID
	}
	if int(a.GID) != os.Getegid() {
		mode &^= unix.S_ISGID
	}
	return mode
}

// xattrs sets extended attributes. Those that the host or its file system has no place for are noted.
func (x *exporter) xattrs(set func(name string, value []byte) error, rel string, ino vault.Ino) error {
	names, err := x.v.ListXattr(ino)
	if err != nil {
		return err
	}
	for _, name := range names {
		value, err := x.v.GetXattr(ino, name)
		if err != nil {
			return err
		}
		err = set(name, value)
		switch {
		case errors.Is(err, unix.EPERM), errors.Is(err, unix.EACCES), errors.Is(err, unix.ENOTSUP):
			x.report.note(NoteXattr, rel, name)
		case err != nil:
			return x.failed(rel, err)
		}
	}
	return nil
}

func times(a tree.Attr) []unix.Timespec {
	return []unix.Timespec{
		{Sec: a.Atime.Sec, Nsec: int64(a.Atime.Nsec)},
		{Sec: a.Mtime.Sec, Nsec: int64(a.Mtime.Nsec)},
	}
}
