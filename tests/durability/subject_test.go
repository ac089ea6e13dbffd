package durability

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// filesystem keeps a tree on a disk. An error is the file system's fault.
type filesystem interface {
	// create makes an empty one.
	create() error
	// mount makes the tree appear at path, also after a crash.
	mount() error
	// sync returns when everything that was accepted is durable.
	sync() error
	// unmount ends it in the way that loses nothing: when it returns, everything is durable.
	unmount() error
	// kill ends the daemon as a crash does, and returns when it is gone. Without a daemon it does nothing.
	kill() error
	path() string
	// check verifies the unmounted file system as its own command does.
	check() error
}

// subject is a kind of file system.
type subject struct {
	name   string
	make   func(t *testing.T, d *disk) filesystem
	daemon bool
	// What it is held to. Nobody is judged for a record that it promised nothing about.
	losesNothing bool // nothing that was reported
	leavesWhole  bool // nor is the record in work ragged: a crash leaves the tree of one moment
}

var ext4 = subject{name: "ext4", make: newPlain, losesNothing: true}

// peers are the subjects with a daemon.
func peers() []subject {
	return []subject{
		{name: "gocryptfs", make: newGocryptfs, daemon: true},
		{name: "encfsrun", make: newEncfsrun, daemon: true, losesNothing: true, leavesWhole: true},
		// The kernel passes a write(2) through its page cache on in pieces, and a commit may come between two.
		{name: "encfsrun with the page cache", make: newCachedEncfsrun, daemon: true, losesNothing: true},
	}
}

// plain is the disk's own file system.
type plain struct{ disk *disk }

func newPlain(_ *testing.T, d *disk) filesystem { return plain{d} }

func (p plain) create() error  { return os.Mkdir(p.path(), 0o755) }
func (p plain) mount() error   { return nil }
func (p plain) sync() error    { return syncfs(p.path()) }
func (p plain) unmount() error { return p.sync() }
func (p plain) kill() error    { return nil }
func (p plain) check() error   { return nil }
func (p plain) path() string   { return p.disk.path("tree") }

// syncfs is syncfs(2), out of this process.
func syncfs(dir string) error {
	_, err := command(nil, "sync", "-f", dir)
	return err
}

// patience bounds everything that has to come to an end.
const patience = 5 * time.Minute

// command runs a program to its end and returns what it said, which is in its error too.
//
// Its output is a file and not a pipe: a daemon that it leaves behind would keep a pipe's reader waiting, and die of SIGPIPE when
// it complains after that.
func command(env []string, argv ...string) (string, error) {
	out, err := os.CreateTemp("", "output-")
	if err != nil {
		return "", err
	}
	defer out.Close()
	defer os.Remove(out.Name())
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.Env = append(os.Environ(), env...)
	cmd.Dir = "/"
	cmd.Stdout, cmd.Stderr = out, out
	if err := cmd.Start(); err != nil {
		return "", err
	}
	timer := time.AfterFunc(patience, func() { cmd.Process.Kill() })
	defer timer.Stop()
	err = cmd.Wait()
	said, readErr := os.ReadFile(out.Name())
	if err != nil {
		return "", fmt.Errorf("%s: %w: %s", strings.Join(argv, " "), err, bytes.TrimSpace(said))
	}
	return string(said), readErr
}

// ends does something that has to end a process, and waits until it is gone, whoever its parent is.
func ends(pid int, act func(pidfd int) error) error {
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return fmt.Errorf("process %d: %w", pid, err)
	}
	defer unix.Close(fd)
	if err := act(fd); err != nil {
		return err
	}
	wait := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
	for {
		n, err := unix.Poll(wait, int(patience.Milliseconds()))
		if err == unix.EINTR {
			continue
		}
		if n == 0 {
			return fmt.Errorf("process %d does not end", pid)
		}
		return err
	}
}

// killProcess kills a process; one that is gone already is no error.
func killProcess(pid int) error {
	err := ends(pid, func(pidfd int) error { return unix.PidfdSendSignal(pidfd, unix.SIGKILL, nil, 0) })
	if errors.Is(err, unix.ESRCH) {
		return nil
	}
	return err
}

// mountPoint makes a folder to mount on, which is free again at the end of the test.
func mountPoint(t *testing.T) string {
	dir := filepath.Join(t.TempDir(), "mnt")
	must(t, os.Mkdir(dir, 0o755))
	t.Cleanup(func() {
		for unix.Unmount(dir, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW) == nil {
			continue
		}
	})
	return dir
}

// isMounted says so without asking the mount itself.
func isMounted(dir string) bool {
	table, _ := os.ReadFile("/proc/self/mountinfo")
	return strings.Contains(string(table), " "+dir+" ")
}
