package testkit

import (
	"fmt"
	"os"
	"runtime"
	"syscall"
)

// ownMounts in the environment says that this process has its own mount namespace.
const ownMounts = "ENCFSRUN_TEST_OWN_MOUNTS"

// OwnMounts gives the tests of root a mount namespace that ends with them, by executing the process anew; it is for a TestMain.
// A mount in the machine's own namespace is copied into each that is made while it stands, by the tests of another package or by
// another program: then its file system lives as long as the copy, and a test that waits for the daemon's end waits in vain. An
// ordinary user's tests do without: in a user namespace, which it would take, fusermount3 is of no use.
func OwnMounts() {
	if os.Geteuid() != 0 {
		return
	}
	if os.Getenv(ownMounts) != "" {
		os.Unsetenv(ownMounts)
		return
	}
	os.Setenv(ownMounts, "1")
	runtime.LockOSThread() // execve(2) goes on with the namespaces of the thread that calls it
	err := syscall.Unshare(syscall.CLONE_NEWNS)
	if err == nil {
		err = syscall.Mount("", "/", "", syscall.MS_REC|syscall.MS_PRIVATE, "")
	}
	if err == nil {
		err = syscall.Exec("/proc/self/exe", os.Args, os.Environ())
	}
	panic(fmt.Sprintf("a mount namespace for the tests: %v", err))
}
