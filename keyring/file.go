package keyring

import (
	"context"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// dockerSecrets is where container runtimes put secrets; who may enter the
// container may read them.
const dockerSecrets = "/run/secrets"

// exemptions says which files may be readable by others: those on a read-only
// mount, where a user can't change the mode; those under the credentials
// directory of a systemd service and under /run/secrets; and those on a tmpfs,
// where a service manager has put them for this process alone. That can't be
// said of /tmp, so a tmpfs counts only if no folder above the file, up to the
// tmpfs's root, may be written to by everybody.
type exemptions struct{ credentialsDir string }

// readFile reads a passkey from a file or a pipe by name. Pipes of a process
// substitution work.
func (x exemptions) readFile(ctx context.Context, path, origin string) (*Passkey, error) {
	// O_NONBLOCK: a FIFO that nobody writes to yet is waited for in poll, where
	// the context can end it, and not here.
	fd, err := openRetry(path, unix.O_RDONLY|unix.O_CLOEXEC|unix.O_NOCTTY|unix.O_NONBLOCK)
	if err != nil {
		return nil, &PasskeyError{Origin: origin, Reason: "can't be opened", Err: err}
	}
	defer unix.Close(fd)
	return x.readChecked(ctx, fd, path, origin)
}

// readDescriptor reads a passkey from a descriptor that this process was
// given, and takes it away, so that no child can read the passkey again:
// descriptor 0 becomes /dev/null, another one is closed.
func (x exemptions) readDescriptor(ctx context.Context, fd int, origin string) (*Passkey, error) {
	path, err := os.Readlink(fmt.Sprintf("/proc/self/fd/%d", fd)) // only to be told
	if err != nil {
		path = ""
	}
	passkey, err := x.readChecked(ctx, fd, path, origin)
	if err != nil {
		return nil, err
	}
	if err := discard(fd); err != nil {
		passkey.Destroy()
		return nil, &PasskeyError{Origin: origin, Reason: "can't be closed", Err: err}
	}
	return passkey, nil
}

func discard(fd int) error {
	if fd > 0 {
		return unix.Close(fd)
	}
	null, err := openRetry(os.DevNull, unix.O_RDONLY|unix.O_CLOEXEC)
	if err != nil {
		return err
	}
	defer unix.Close(null)
	return unix.Dup3(null, fd, 0)
}

func (x exemptions) readChecked(ctx context.Context, fd int, path, origin string) (*Passkey, error) {
	if err := x.check(fd, path, origin); err != nil {
		return nil, err
	}
	return readPasskey(ctx, fd, origin)
}

// check judges the open descriptor, never the name: what a name means can be
// changed between a look at it and its opening (TOCTOU).
func (x exemptions) check(fd int, path, origin string) error {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return &PasskeyError{Origin: origin, Reason: "can't be read", Err: err}
	}
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFREG, unix.S_IFIFO:
	case unix.S_IFSOCK:
		return nil // has no mode that others could open it by
	default:
		return &PasskeyError{Origin: origin, Reason: "is neither a file nor a pipe"}
	}
	var mount unix.Statfs_t
	if err := unix.Fstatfs(fd, &mount); err != nil {
		return &PasskeyError{Origin: origin, Reason: "can't be read", Err: err}
	}
	unsafe := &UnsafeFileError{Origin: origin, Path: path, Mode: fs.FileMode(st.Mode & 0o777), Owner: st.Uid}
	// Its owner can read it and choose what it says: who can write to a folder
	// from which root takes a passkey would decide what a vault opens with. A
	// pipe without a name is no such place; under sudo(8) it is the user's.
	if caller := uint32(os.Geteuid()); st.Uid != caller && st.Uid != 0 && mount.Type != unix.PIPEFS_MAGIC {
		unsafe.Foreign = true
		return unsafe
	}
	const readableByOthers = unix.S_IRGRP | unix.S_IROTH // with an ACL, the group's bit is its mask
	if st.Mode&readableByOthers == 0 || x.exempt(fd, &mount, st.Dev) {
		return nil
	}
	return unsafe
}

// exempt judges an open file by its mount and its place; dev is its device.
func (x exemptions) exempt(fd int, mount *unix.Statfs_t, dev uint64) bool {
	if mount.Flags&unix.ST_RDONLY != 0 {
		return true
	}
	// Where the open file really is, whatever name it was opened by.
	path, err := os.Readlink(fmt.Sprintf("/proc/self/fd/%d", fd))
	if err != nil || !filepath.IsAbs(path) {
		return false
	}
	for _, dir := range []string{x.credentialsDir, dockerSecrets} {
		if under(path, dir) {
			return true
		}
	}
	return mount.Type == unix.TMPFS_MAGIC && !belowPublic(path, dev)
}

// belowPublic says whether one of the folders above a real path, as far as they
// are on the file's device, may be written to by everybody, or can't be seen.
func belowPublic(path string, dev uint64) bool {
	for path != "/" {
		path = filepath.Dir(path)
		var st unix.Stat_t
		if err := unix.Lstat(path, &st); err != nil {
			return true
		}
		if st.Dev != dev {
			return false
		}
		if st.Mode&unix.S_IWOTH != 0 {
			return true
		}
	}
	return false
}

// under says whether a real path lies below a directory, whose links are
// followed.
func under(path, dir string) bool {
	if dir == "" {
		return false
	}
	real, err := filepath.EvalSymlinks(dir)
	if err != nil || !filepath.IsAbs(real) {
		return false
	}
	return strings.HasPrefix(path, strings.TrimSuffix(real, "/")+"/")
}

// openRetry is open(2), begun again when a signal of the Go runtime breaks it.
func openRetry(path string, flags int) (int, error) {
	for {
		fd, err := unix.Open(path, flags, 0)
		if err != unix.EINTR {
			return fd, err
		}
	}
}
