package launcher

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// fusermountTimeout bounds one call of fusermount3. It makes a few system
// calls; a mount point that lies on somebody else's hung file system can stop it.
const fusermountTimeout = 20 * time.Second

// fusermountError is a failed fusermount3 and what it wrote to standard error.
type fusermountError struct {
	message string
	err     error
}

func (e *fusermountError) Error() string {
	if e.message == "" {
		return e.err.Error()
	}
	return e.message
}

func (e *fusermountError) Unwrap() error { return e.err }

// Is recognises EBUSY in the message: fusermount3 has one exit code for every
// failure, and no other way to ask. Its text is strerror's, in the C locale.
func (e *fusermountError) Is(target error) bool {
	return target == unix.EBUSY && strings.HasSuffix(e.message, "Device or resource busy")
}

// findFusermount returns the path of the setuid helper that mounts for an
// ordinary user: fusermount3, or the fusermount of FUSE 2, which does the same.
func findFusermount() (string, error) {
	for _, name := range []string{"fusermount3", "fusermount"} {
		for _, file := range []string{name, "/usr/bin/" + name, "/bin/" + name} {
			if found, err := exec.LookPath(file); err == nil {
				return found, nil
			}
		}
	}
	return "", &MissingError{
		What: "fusermount3 is not installed, and only root can mount without it",
		Mend: "apt-get install fuse3",
	}
}

// runFusermount calls fusermount3 with args. extra becomes descriptor 3.
func runFusermount(args []string, extra *os.File) error {
	helper, err := findFusermount()
	if err != nil {
		return err
	}
	if err := inheritNothing(); err != nil {
		return fmt.Errorf("close what was inherited: %w", err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), fusermountTimeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, helper, args...)
	cmd.WaitDelay = time.Second
	cmd.Env = []string{"LC_ALL=C", "PATH=/usr/sbin:/usr/bin:/sbin:/bin"}
	if extra != nil {
		cmd.ExtraFiles = []*os.File{extra}
		cmd.Env = append(cmd.Env, "_FUSE_COMMFD=3")
	}
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	if err := cmd.Run(); err != nil {
		if info, statErr := os.Stat(helper); statErr == nil && info.Mode()&os.ModeSetuid == 0 && os.Geteuid() != 0 {
			return &MissingError{What: helper + " is not setuid root", Mend: "chmod u+s " + helper}
		}
		if ctx.Err() != nil {
			err = ctx.Err()
		}
		return &fusermountError{message: firstLine(stderr.String()), err: fmt.Errorf("%s: %w", helper, err)}
	}
	return nil
}

func firstLine(text string) string {
	line, _, _ := strings.Cut(strings.TrimSpace(text), "\n")
	return line
}

// fusermountMount mounts at dir, a resolved path, and returns the descriptor
// of /dev/fuse that fusermount3 opened and passed back.
func fusermountMount(dir string, opts MountOptions) (*os.File, error) {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("make a socket pair: %w", err)
	}
	defer unix.Close(pair[0])
	theirs := os.NewFile(uintptr(pair[1]), "fusermount3")
	defer theirs.Close()
	if err := runFusermount([]string{"-o", opts.fusermountOptions(), "--", dir}, theirs); err != nil {
		return nil, err
	}
	fuse, err := receiveDescriptor(pair[0])
	if err != nil {
		return nil, errors.Join(err, runFusermount([]string{"-u", "-z", "--", dir}, nil))
	}
	return fuse, nil
}

// receiveDescriptor takes the one descriptor that an ended fusermount3 left in socket.
func receiveDescriptor(socket int) (*os.File, error) {
	var text [1]byte
	control := make([]byte, unix.CmsgSpace(4))
	_, n, _, _, err := unix.Recvmsg(socket, text[:], control, unix.MSG_CMSG_CLOEXEC|unix.MSG_DONTWAIT)
	if err != nil {
		return nil, fmt.Errorf("receive /dev/fuse from fusermount3: %w", err)
	}
	messages, err := unix.ParseSocketControlMessage(control[:n])
	if err != nil || len(messages) != 1 {
		return nil, errors.New("fusermount3 passed no descriptor")
	}
	fds, err := unix.ParseUnixRights(&messages[0])
	if err != nil || len(fds) != 1 {
		return nil, errors.New("fusermount3 passed no descriptor")
	}
	return os.NewFile(uintptr(fds[0]), "/dev/fuse"), nil
}
