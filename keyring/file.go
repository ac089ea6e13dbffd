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

// exemptions says which files may be readable by others: those under the
// credentials directory of a systemd service and under /run/secrets, and those
// on a read-only or tmpfs mount, where a user can't change the mode or a
// service manager has put them for this process alone.
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
	passkey, err := x.readChecked(ctx, fd, fmt.Sprintf("/dev/fd/%d", fd), origin)
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
	const readableByOthers = unix.S_IRGRP | unix.S_IROTH // with an ACL, the group's bit is its mask
	if st.Mode&readableByOthers == 0 || x.exempt(fd) {
		return nil
	}
	return &UnsafeFileError{Origin: origin, Path: path, Mode: fs.FileMode(st.Mode & 0o777)}
}

func (x exemptions) exempt(fd int) bool {
	var mount unix.Statfs_t
	if err := unix.Fstatfs(fd, &mount); err == nil {
		if mount.Flags&unix.ST_RDONLY != 0 || mount.Type == unix.TMPFS_MAGIC {
			return true
		}
	}
	// Where the open file really is, whatever name it was opened by.
	path, err := os.Readlink(fmt.Sprintf("/proc/self/fd/%d", fd))
	if err != nil {
		return false
	}
	for _, dir := range []string{x.credentialsDir, dockerSecrets} {
		if under(path, dir) {
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
