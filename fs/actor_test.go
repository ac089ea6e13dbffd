package fs

import (
	"runtime"
	"testing"

	"golang.org/x/sys/unix"
)

// actor is somebody who makes system calls. The zero actor is who runs the tests.
type actor struct {
	uid, gid int
	groups   []int
}

// do calls f as the actor, on a thread that ends with it: ids belong to threads, and a thread that gave up being root can't go back.
func (a actor) do(t testing.TB, f func()) {
	t.Helper()
	if a.uid == 0 {
		f()
		return
	}
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // and never unlocked
		err := a.become()
		if err == nil {
			f()
		}
		done <- err
	}()
	if err := <-done; err != nil {
		t.Fatalf("becoming user %d: %v", a.uid, err)
	}
}

// become gives the thread, and no other, the ids of the actor.
func (a actor) become() error {
	groups := make([]uint32, 0, 1+len(a.groups))
	for _, g := range append([]int{a.gid}, a.groups...) {
		groups = append(groups, uint32(g))
	}
	if _, _, errno := unix.RawSyscall(unix.SYS_SETGROUPS, uintptr(len(groups)), pointer(&groups[0]), 0); errno != 0 {
		return errno
	}
	gid, uid := uintptr(a.gid), uintptr(a.uid)
	if _, _, errno := unix.RawSyscall(unix.SYS_SETRESGID, gid, gid, gid); errno != 0 {
		return errno
	}
	if _, _, errno := unix.RawSyscall(unix.SYS_SETRESUID, uid, uid, uid); errno != 0 {
		return errno
	}
	return nil
}
