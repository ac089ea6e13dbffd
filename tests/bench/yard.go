package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// nobody is the ordinary user of a bench that root runs.
const nobody = 65534

// user is whom commands run as.
type user struct {
	name string
	cred *syscall.Credential // nil: the bench's own
}

// yard is the work folder with all stores and mounts, and the one place that starts programs.
type yard struct {
	dir  string
	lock *os.File
}

// openYard takes the work folder for this bench alone (two at once would measure each other) and clears what a killed
// one left there.
func openYard(dir string) (*yard, error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	lock, err := os.OpenFile(dir+".lock", os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		lock.Close()
		return nil, fmt.Errorf("%s is in use by another bench: %w", dir, err)
	}
	y := &yard{dir: dir, lock: lock}
	if err := y.clear(); err != nil {
		lock.Close()
		return nil, err
	}
	return y, os.MkdirAll(dir, 0o755)
}

func (y *yard) close() error {
	return errors.Join(y.clear(), os.Remove(y.lock.Name()), y.lock.Close())
}

// clear unmounts all below the work folder and removes it. It never deletes through a mount.
func (y *yard) clear() error {
	points, err := mountsBelow(y.dir)
	if err != nil {
		return err
	}
	for _, point := range points {
		if out, err := exec.Command("fusermount3", "-u", "-z", point).CombinedOutput(); err != nil {
			return fmt.Errorf("%s can't be unmounted: %w: %s", point, err, bytes.TrimSpace(out))
		}
	}
	return os.RemoveAll(y.dir)
}

// folder makes a new folder for a user.
func (y *yard) folder(name string, u user) (string, error) {
	dir, err := os.MkdirTemp(y.dir, name+"-"+u.name+"-")
	if err != nil || u.cred == nil {
		return dir, err
	}
	return dir, os.Chown(dir, int(u.cred.Uid), int(u.cred.Gid))
}

// command runs a program to its end, its output thrown away; an error says what it complained about.
func (y *yard) command(ctx context.Context, u user, argv command) error {
	_, err := y.timed(ctx, u, argv)
	return err
}

// timed is command with the time from start to end. After Ctrl-C the program is killed with all it started.
func (y *yard) timed(ctx context.Context, u user, argv command) (time.Duration, error) {
	// A file and not a pipe: a daemon that keeps it open would keep a pipe's reader waiting.
	complaints, err := os.CreateTemp("", "bench-")
	if err != nil {
		return 0, err
	}
	defer complaints.Close()
	if err := os.Remove(complaints.Name()); err != nil {
		return 0, err
	}
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	cmd.Dir = "/"
	cmd.Stderr = complaints
	cmd.Env = y.environment(u)
	// A group of its own: Ctrl-C on the terminal must not end the daemons before they are unmounted.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Credential: u.cred}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	began := time.Now()
	err = cmd.Run()
	took := time.Since(began)
	if err != nil {
		said := make([]byte, 4096)
		n, _ := complaints.ReadAt(said, 0)
		return 0, fmt.Errorf("%s as %s: %w: %s", strings.Join(argv, " "), u.name, err, bytes.TrimSpace(said[:n]))
	}
	return took, nil
}

// environment is the same for all subjects, and knows nothing of who types.
func (y *yard) environment(u user) []string {
	return []string{
		"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
		"HOME=" + y.dir,
		"LC_ALL=C",
		"PYTHONDONTWRITEBYTECODE=1",
		"XDG_STATE_HOME=" + filepath.Join(y.dir, "state-"+u.name),
		"XDG_RUNTIME_DIR=" + filepath.Join(y.dir, "run-"+u.name),
	}
}

// welcome makes what environment promises to a user, and checks that they can reach the work folder and the corpus.
func (y *yard) welcome(ctx context.Context, u user, corpus string) error {
	for _, name := range []string{"state-", "run-"} {
		dir := filepath.Join(y.dir, name+u.name)
		if err := os.Mkdir(dir, 0o700); err != nil {
			return err
		}
		if u.cred == nil {
			continue
		}
		if err := os.Chown(dir, int(u.cred.Uid), int(u.cred.Gid)); err != nil {
			return err
		}
	}
	for _, dir := range []string{y.dir, corpus} {
		if y.command(ctx, u, command{"test", "-r", dir, "-a", "-x", dir}) != nil {
			return fmt.Errorf("%s can't reach %s: choose others with -work and -corpus", u.name, dir)
		}
	}
	if y.command(ctx, u, command{"test", "-r", "/dev/fuse", "-a", "-w", "/dev/fuse"}) != nil {
		return fmt.Errorf("/dev/fuse is closed to %s: chmod 0666 /dev/fuse", u.name)
	}
	return nil
}

// dropCaches makes the kernel forget every clean page, name and inode.
func dropCaches() error {
	syscall.Sync()
	return os.WriteFile("/proc/sys/vm/drop_caches", []byte("3"), 0)
}

// mountsBelow lists the mount points below a folder, the newest first.
func mountsBelow(dir string) ([]string, error) {
	table, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return nil, err
	}
	return mountPoints(string(table), dir), nil
}

// mountPoints reads them out of a mountinfo table.
func mountPoints(table, dir string) []string {
	unescape := strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`)
	var points []string
	for line := range strings.Lines(table) {
		fields := strings.Fields(line)
		if len(fields) < 5 {
			continue
		}
		if point := unescape.Replace(fields[4]); strings.HasPrefix(point, dir+"/") {
			points = append([]string{point}, points...)
		}
	}
	return points
}
