package memory

import (
	"errors"
	"runtime"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// atExit seizes a process, lets end make it end, and calls look at the moment when all its code has run and its memory is
// still there (PTRACE_EVENT_EXIT). So what a process leaves in its pages for the kernel to free can be searched.
func atExit(t *testing.T, pid int, end func(), look func()) {
	t.Helper()
	runtime.LockOSThread() // a tracee belongs to a thread
	defer runtime.UnlockOSThread()
	if _, _, errno := unix.Syscall6(unix.SYS_PTRACE, unix.PTRACE_SEIZE, uintptr(pid), 0, unix.PTRACE_O_TRACEEXIT, 0, 0); errno != 0 {
		t.Fatalf("seize %d: %v", pid, errno)
	}
	done := make(chan struct{})
	go func() { end(); close(done) }()
	looked := false
	for {
		var status unix.WaitStatus
		_, err := unix.Wait4(pid, &status, unix.WALL, nil)
		if errors.Is(err, syscall.EINTR) {
			continue
		}
		if err != nil {
			t.Fatalf("wait for %d: %v", pid, err)
		}
		if status.Exited() || status.Signaled() {
			break
		}
		sig := 0
		if int(status)>>16 == unix.PTRACE_EVENT_EXIT {
			look()
			looked = true
		} else if s := status.StopSignal(); s != syscall.SIGTRAP && int(status)>>16 == 0 {
			sig = int(s)
		}
		if err := unix.PtraceCont(pid, sig); err != nil && !errors.Is(err, syscall.ESRCH) {
			t.Fatalf("continue %d: %v", pid, err)
		}
	}
	<-done
	if !looked {
		t.Fatal("the process ended unseen")
	}
}
