package vault

import (
	"errors"
	"runtime"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"encfsrun/fs/guarded"
	"encfsrun/fs/vault/disk/memdisk"
)

// TestRescueWithoutMemory lets a sync fail when no more memory can be locked, as where caches have taken all that RLIMIT_MEMLOCK allows.
func TestRescueWithoutMemory(t *testing.T) {
	f := newFixture(t)
	d := newVault(t, f)
	w := startWriting(t, f, d)
	if _, err := w.put("a", []byte("not durable yet")); err != nil {
		t.Fatal(err)
	}
	point, err := w.s.Prepare()
	if err != nil {
		t.Fatal(err)
	}
	failing := true
	d.Hook = func(op memdisk.Op) error {
		if failing && op.Kind == memdisk.OpSync {
			failing = false
			return syscall.EIO
		}
		return nil
	}
	done := make(chan error)
	go func() {
		defer close(done)
		runtime.LockOSThread() // and never unlocked: the thread, which has lost a capability, ends with the goroutine
		restore, err := lockNothing()
		if err == nil {
			defer restore()
			_, err = guarded.NewBuffer(PlainSize)
			if refused := (*guarded.LockError)(nil); errors.As(err, &refused) {
				err = w.s.Sync(point)
			} else {
				err = errors.Join(errors.New("memory can still be locked"), err)
			}
		}
		done <- err
	}()
	if err := <-done; err != nil {
		t.Errorf("what was accepted is lost for want of 32 KiB: %v", err)
	}
	<-done
	if err := w.close(); err != nil {
		t.Error(err)
	}
}

// lockNothing lets this thread lock no memory.
func lockNothing() (restore func(), err error) {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capget(&header, &data[0]); err != nil {
		return nil, err
	}
	data[0].Effective &^= 1 << unix.CAP_IPC_LOCK
	if err := unix.Capset(&header, &data[0]); err != nil {
		return nil, err
	}
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_MEMLOCK, &limit); err != nil {
		return nil, err
	}
	return func() { unix.Setrlimit(unix.RLIMIT_MEMLOCK, &limit) }, unix.Setrlimit(unix.RLIMIT_MEMLOCK, &unix.Rlimit{Cur: 0, Max: limit.Max})
}
