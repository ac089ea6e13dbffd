// Package durability crashes file systems under programs that were told "this is on the disk now", and counts what they lost.
//
// A disk (disk_test.go) is an ext4 on a loop device, whose power can be cut, or a small tmpfs, which runs full. On it a subject
// (subject_test.go) keeps a tree: ext4 itself, gocryptfs, encfsrun. Four writers (kinds_test.go, writer_test.go), each a process
// of its own, put records with checksums and sequence numbers into it, in old directories and new ones, under short names and
// long ones, and report a record over a pipe only after fsync of file and directory. Then the disk is shut down without a flush,
// or the daemon is killed, or the disk runs full. After the remount a further process (verify_test.go) looks for every record
// that was reported. Writers that do not fsync show what sync, an unmount, and an accepted write on a full disk are worth.
//
//	lost    reported, and gone, or back at an older state
//	torn    reported, and other bytes than were written
//	ragged  the one record in work at the crash: there, but neither as before nor whole
//
// ext4 must lose nothing and tear nothing, encfsrun must not even leave a ragged record: it promises the tree of one moment.
// gocryptfs runs beside them for comparison and is not judged. TestTheHarnessSeesLosses is the control: writers that do not
// fsync must lose something, or all else here proves nothing.
//
// This process never touches a mount under test. What hangs there hangs in a child, which can be killed.
package durability

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// built is the product, built once.
var built string

func TestMain(m *testing.M) {
	switch job := os.Getenv(jobVariable); job {
	case "":
		os.Exit(inNamespaces())
	case testJob:
		os.Exit(buildAndTest(m))
	default:
		os.Exit(work(job))
	}
}

// inNamespaces runs the tests as the first process of namespaces of their own, with their files on a tmpfs: the kernel throws
// away what had not reached the loop device, whatever that lies on. When the process goes, however it does, all daemons, mounts,
// loop devices and files go. And no other process's new mount namespace can hold a copy of a disk, which would keep the disk that
// was cut where a new mount of it is wanted.
func inNamespaces() int {
	dir, err := os.MkdirTemp("", "encfsrun-durability-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	runtime.LockOSThread() // Pdeathsig is about this thread
	cmd := exec.Command(os.Args[0], os.Args[1:]...)
	cmd.Env = append(os.Environ(), jobVariable+"="+testJob, "TMPDIR="+dir)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNS | unix.CLONE_NEWPID, Pdeathsig: unix.SIGKILL}
	err = cmd.Run()
	if e := (*exec.ExitError)(nil); errors.As(err, &e) && e.Exited() {
		return e.ExitCode()
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

func buildAndTest(m *testing.M) int {
	if err := errors.Join(
		unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""),
		unix.Mount("none", os.TempDir(), "tmpfs", unix.MS_NODEV, "mode=0755"),
		unix.Mount("proc", "/proc", "proc", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, ""),
	); err != nil {
		fmt.Fprintln(os.Stderr, "mount namespace:", err)
		return 1
	}
	built = filepath.Join(os.TempDir(), "encfsrun")
	cmd := exec.Command("go", "build", "-o", built, "../../cmd/encfsrun")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOEXPERIMENT=runtimesecret")
	if out, err := cmd.CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "build encfsrun: %v\n%s", err, out)
		return 1
	}
	return m.Run()
}

// rounds is how often something is crashed: n times, more where a soak asks for it (ENCFSRUN_ROUNDS).
func rounds(n int) int {
	if more, err := strconv.Atoi(os.Getenv("ENCFSRUN_ROUNDS")); err == nil && more > 0 {
		n *= more
	}
	return n
}

// jobVariable makes this binary the process that tests, or one of those that touch the mounts; it holds the job's name.
const (
	jobVariable = "ENCFSRUN_DURABILITY_JOB"
	testJob     = "test"
)

// work does the job of a child, told to it on standard input.
func work(job string) int {
	jobs := map[string]func() error{"prepare": prepareJob, "write": writeJob, "verify": verifyJob, "remove": removeJob}
	do := jobs[job]
	if do == nil {
		do = func() error { return errors.New("there is no such job") }
	}
	if err := do(); err != nil {
		fmt.Fprintf(os.Stderr, "%s: %v\n", job, err)
		return 1
	}
	return 0
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
