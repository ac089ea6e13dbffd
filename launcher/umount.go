package launcher

import (
	"errors"
	"fmt"
	"math"
	"os"
	"os/exec"
	"path"
	"slices"
	"strconv"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// BusyError says that a mount is in use and was left alone.
type BusyError struct {
	Dir string
}

func (e *BusyError) Error() string { return e.Dir + " is in use" }

// Unmount unmounts our mount at dir. When it returns, the mount point is free
// and, unless there are copies ([MountInfo.Copies]) elsewhere, the kernel has
// let go of the daemon, which then finishes and ends by itself.
//
// A mount in use is left as it was and reported by [*BusyError]. What a dead
// daemon left behind is cleared, with its bind mounts, whoever still uses it:
// nothing can be lost there any more. A mount whose daemon hangs is not taken
// for dead. [ErrNotMounted] says that dir is no mount of ours.
//
// MNT_FORCE is never used: on a mount in use it fails with EBUSY *and* has
// aborted the connection, so that what was not written yet is gone. MNT_DETACH
// is used on a dead mount only: on a live one the tree would stay readable,
// unseen, for as long as anybody holds a file.
func Unmount(dir string) error {
	m, err := FindMount(dir)
	if err != nil {
		return err
	}
	return m.unmount()
}

// UnmountDevice is [Unmount] for the one who made the mount of this device
// ([MountInfo].Device) at dir: what was mounted there since is left alone, with
// [ErrNotMounted]. A device is not given to another mount while it is served.
func UnmountDevice(dir, device string) error {
	m, err := FindMount(dir)
	if err != nil {
		return err
	}
	if m.Device != device {
		return fmt.Errorf("at %s there is another mount now: what was there is %w any more", dir, ErrNotMounted)
	}
	return m.unmount()
}

func (m *MountInfo) unmount() error {
	mounts, err := Mounts()
	if err != nil {
		return err
	}
	copies := m.Copies(mounts)
	err = unmountPlain(m.Mountpoint)
	switch {
	case err == nil && len(copies) > 0 && probe(&copies[0]) == mountDead:
		return clearDead(m)
	case errors.Is(err, unix.EBUSY) && probe(m) == mountDead:
		return clearDead(m)
	case errors.Is(err, unix.EBUSY):
		return &BusyError{Dir: m.Mountpoint}
	case err != nil:
		return fmt.Errorf("unmount %s: %w", m.Mountpoint, err)
	}
	return nil
}

// unmountPlain unmounts what is at dir, a resolved path, unless it is in use.
func unmountPlain(dir string) error {
	if os.Geteuid() == 0 {
		return unmountAt(dir, 0)
	}
	return runFusermount([]string{"-u", "--", dir}, nil)
}

// detach takes the mount at dir, which must be dead, out of the tree.
func detach(dir string) error {
	if os.Geteuid() == 0 {
		return unmountAt(dir, unix.MNT_DETACH)
	}
	return runFusermount([]string{"-u", "-z", "--", dir}, nil)
}

// unmountAt is umount2(2), following no symlink in dir: somebody who owns a
// part of the path could put one there and have root unmount something else.
func unmountAt(dir string, flags int) error {
	parent, err := openPlain(path.Dir(dir))
	if err != nil {
		return err
	}
	defer parent.Close()
	at := fmt.Sprintf("/proc/self/fd/%d/%s", parent.Fd(), path.Base(dir))
	return unix.Unmount(at, flags|unix.UMOUNT_NOFOLLOW)
}

// clearDead detaches every mount of the file system that m belongs to. Bind
// mounts go too: each would answer ENOTCONN for ever, and they keep the
// kernel's half of the connection alive.
//
// The table is read anew each time, for a detach takes along what is nested.
// Only mounts of the first table go: the kernel gives the number of a device
// that is gone to the next mount, which can be anybody's and alive.
func clearDead(m *MountInfo) error {
	mounts, err := Mounts()
	first := mounts
	for limit := len(mounts); err == nil && limit >= 0; limit-- {
		last := ""
		for i := range mounts {
			if m.sameFilesystem(&mounts[i]) && known(first, &mounts[i]) {
				last = mounts[i].Mountpoint
			}
		}
		if last == "" {
			return nil
		}
		if err := detach(last); err != nil {
			return fmt.Errorf("clear what a dead daemon left at %s: %w", last, err)
		}
		mounts, err = Mounts()
	}
	return errors.Join(err, fmt.Errorf("clear what a dead daemon left at %s: it is still there", m.Mountpoint))
}

// known says whether mount m was in a table, at the same place.
func known(table []MountInfo, m *MountInfo) bool {
	return slices.ContainsFunc(table, func(o MountInfo) bool {
		return o.ID == m.ID && o.Mountpoint == m.Mountpoint && m.sameFilesystem(&o)
	})
}

// mountState is what a probe learned of a mount.
type mountState int

const (
	mountUnknown mountState = iota // it did not answer in time, or could not be asked
	mountAnswers
	mountDead // ENOTCONN: nobody holds its descriptor any more
)

// ProbeCommand is the hidden first argument with which the program starts
// itself to ask a mount for a sign of life; main hands over to [ProbeMain].
const ProbeCommand = "probe-mount"

// Exit codes of the probing process. They are none of the documented ones, so
// that a program which does not know ProbeCommand is never taken for an answer.
const (
	probeAnswers = 70
	probeDead    = 71
)

// probeTimeout is how long a mount may take to answer a statfs before it
// counts as unknown. A live daemon answers in microseconds.
const probeTimeout = 2 * time.Second

// ProbeMain asks the file system at args[0] for a sign of life, as the user and
// group args[1] and args[2] if they are given, and returns the exit code of the
// probing process.
func ProbeMain(args []string) int {
	switch len(args) {
	case 1:
	case 3:
		if err := becomeOwner(args[1], args[2]); err != nil {
			return 1
		}
	default:
		return 1
	}
	var st unix.Statfs_t
	switch err := unix.Statfs(args[0], &st); {
	case err == nil:
		return probeAnswers
	case errors.Is(err, unix.ENOTCONN):
		return probeDead
	}
	return 1
}

// becomeOwner gives root's place up for a mount's owner. That one must get
// nothing by it: a process that is dumpable when it runs as a user can be traced
// by the user, and its descriptors taken (pidfd_getfd). The program is executed
// as root, for an exec would make the user's process dumpable, and is not
// dumpable before and after the change, which sets it anew.
func becomeOwner(uidText, gidText string) error {
	uid, err := strconv.Atoi(uidText)
	if err != nil {
		return err
	}
	gid, err := strconv.Atoi(gidText)
	if err != nil {
		return err
	}
	undumpable := func() error { return unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0) }
	for _, step := range []func() error{
		undumpable,
		func() error { return syscall.Setgroups(nil) },
		func() error { return syscall.Setresgid(gid, gid, gid) },
		func() error { return syscall.Setresuid(uid, uid, uid) },
		undumpable,
	} {
		if err := step(); err != nil {
			return err
		}
	}
	return nil
}

// inheritNothing keeps descriptors that this process inherited from going on to
// what it starts: its caller's log, a socket of the service manager. Go's own
// are close-on-exec from the beginning.
func inheritNothing() error {
	return unix.CloseRange(3, math.MaxInt32, unix.CLOSE_RANGE_CLOEXEC)
}

// probe tells a dead mount from a live or hung one. Nothing but a request
// does, and a request to a hung daemon can block for ever, beyond the reach of
// SIGKILL: so another process makes it, and is left behind when it is late.
//
// The kernel answers only the mount's owner truthfully, so root asks as the owner.
func probe(m *MountInfo) mountState {
	if inheritNothing() != nil {
		return mountUnknown
	}
	cmd := exec.Command("/proc/self/exe", ProbeCommand, m.Mountpoint)
	cmd.Dir = "/"
	cmd.Env = []string{}
	if os.Geteuid() == 0 {
		uid, _ := m.superOption("user_id")
		gid, _ := m.superOption("group_id")
		if uid != 0 || gid != 0 {
			cmd.Args = append(cmd.Args, strconv.Itoa(uid), strconv.Itoa(gid))
		}
	}
	if err := cmd.Start(); err != nil {
		return mountUnknown
	}
	ended := make(chan struct{})
	go func() {
		cmd.Wait()
		close(ended)
	}()
	select {
	case <-ended:
	case <-time.After(probeTimeout):
		cmd.Process.Kill()
		return mountUnknown
	}
	switch cmd.ProcessState.ExitCode() {
	case probeAnswers:
		return mountAnswers
	case probeDead:
		return mountDead
	}
	return mountUnknown
}
