package fs

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"encfsrun/internal/testkit"
)

// mountSource marks the mounts of these tests in /proc/self/mountinfo.
const mountSource = "encfsrun-fs-test"

// volumeSource marks those of a volume that is served by hand: the guard of a test run beside must not abort them.
const volumeSource = "encfsrun-fs-volume"

// The variables through which a test binary that was started again learns what it is to be.
const (
	childVariable     = "ENCFSRUN_FS_TEST_CHILD"     // one of children
	namespaceVariable = "ENCFSRUN_FS_TEST_NAMESPACE" // the tests, in a mount namespace of their own
)

// TestMain runs the tests in a mount namespace that is gone with them, so that no mount outlives even a killed run.
func TestMain(m *testing.M) {
	testkit.QuickExits()
	if name := os.Getenv(childVariable); name != "" {
		be, found := children[name]
		if !found {
			be = func([]string) error { return fmt.Errorf("no child is called %q", name) }
		}
		if err := be(os.Args[1:]); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	if os.Getenv(namespaceVariable) == "" {
		os.Exit(runInNamespace())
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		fmt.Fprintln(os.Stderr, "making mounts private:", err)
		os.Exit(1)
	}
	if err := startGuard(); err != nil {
		fmt.Fprintln(os.Stderr, "starting the guard:", err)
		os.Exit(1)
	}
	os.Exit(m.Run())
}

// startGuard starts a process that aborts the mounts when this one dies. Without it, a test that panics or is killed while one of
// its threads waits for an answer of the mount that it serves itself never ends: the thread waits, unkillable, for a reader of
// the very descriptor that it keeps open, and ps(1) on the whole machine waits for the thread.
func startGuard() error {
	guard := child("guard")
	guard.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	heart, err := guard.StdinPipe()
	if err != nil {
		return err
	}
	if err := guard.Start(); err != nil {
		return err
	}
	go func() {
		for {
			heart.Write([]byte{0})
			time.Sleep(beat)
		}
	}()
	return nil
}

// beat is how often this process tells its guard that it lives.
const beat = 100 * time.Millisecond

// childGuard waits until the process that writes to its standard input is gone, or silent for 100 beats, and then aborts every
// mount of its mount namespace that was made by these tests.
func childGuard([]string) error {
	alive := make(chan struct{})
	go func() {
		defer close(alive)
		buf := make([]byte, 100)
		for {
			if n, _ := os.Stdin.Read(buf); n == 0 {
				return
			}
			alive <- struct{}{}
		}
	}()
	for living := true; living; {
		select {
		case _, living = <-alive:
		case <-time.After(100 * beat):
			living = false
		}
	}
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return err
	}
	for line := range strings.Lines(string(mounts)) {
		if fields := strings.Fields(line); strings.Contains(line, " - fuse."+fsName+" "+mountSource+" ") {
			unix.Unmount(fields[4], unix.MNT_FORCE) // aborts the connection even if it says EBUSY
		}
	}
	return nil
}

func runInNamespace() int {
	runtime.LockOSThread() // Pdeathsig is sent when the thread ends
	cmd := exec.Command("/proc/self/exe", os.Args[1:]...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.Env = append(os.Environ(), namespaceVariable+"=1")
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNS, Pdeathsig: syscall.SIGKILL}
	if uid := os.Geteuid(); uid != 0 {
		cmd.SysProcAttr.Cloneflags |= syscall.CLONE_NEWUSER
		cmd.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{HostID: uid, Size: 1}}
		cmd.SysProcAttr.GidMappings = []syscall.SysProcIDMap{{HostID: os.Getegid(), Size: 1}}
	}
	err := cmd.Run()
	if exit, ok := errors.AsType[*exec.ExitError](err); ok && exit.Exited() {
		return exit.ExitCode()
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "running the tests in a mount namespace:", err)
		return 1
	}
	return 0
}

// children are what a started-again test binary can be. They touch the mount in ways that the process which serves it must not.
var children = map[string]func(args []string) error{
	"guard":    childGuard,
	"hello":    func(args []string) error { _, err := fmt.Println("hello", strings.Join(args, " ")); return err },
	"mmap":     childMmap,
	"serve":    childServe,
	"volume":   childVolume,
	"mapwrite": childMapWrite,
	"exec":     childExec,
	"wait":     childWait,
	"records":  childRecords,
	"sandbox":  childSandbox,
	"client":   childClient,
	"hog":      childHog,
}

// child prepares a test binary to be started again as name.
func child(name string, args ...string) *exec.Cmd {
	cmd := exec.Command("/proc/self/exe", args...)
	cmd.Env = append(os.Environ(), childVariable+"="+name)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	cmd.WaitDelay = 20 * time.Second
	return cmd
}

// run runs a child and returns its standard output.
func run(t testing.TB, name string, args ...string) string {
	t.Helper()
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	out, err := child(name, args...).Output()
	if err != nil {
		detail := ""
		if exit, ok := errors.AsType[*exec.ExitError](err); ok {
			detail = string(exit.Stderr)
		}
		t.Fatalf("%s %q: %v %s", name, args, err, detail)
	}
	return string(out)
}
