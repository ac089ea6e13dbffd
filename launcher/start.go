package launcher

import (
	"errors"
	"math"
	"os"
	"runtime"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// start executes the program. It does so from a thread of its own that has
// first given up everything, which the program then inherits: privileges,
// capabilities and filters belong to threads. That saves a third start of this
// binary, and the thread ends with its goroutine.
func (one *sandboxInit) start() error {
	if err := unix.Chdir(one.plan.Dir); err != nil {
		return setupError("enter the working directory "+one.plan.Dir, err)
	}
	type outcome struct {
		pid int
		err error
	}
	done := make(chan outcome)
	go func() {
		runtime.LockOSThread() // and never unlocked: the thread is of no other use
		pid, err := one.confineAndExecute()
		done <- outcome{pid, err}
	}()
	result := <-done
	if result.err != nil {
		return result.err
	}
	one.program = result.pid
	if one.front {
		// The program may have touched the terminal already and been stopped
		// for it; then the launcher hears of that and resumes it.
		giveTerminal(one.program)
	}
	return nil
}

func (one *sandboxInit) confineAndExecute() (int, error) {
	// Descriptors that the launcher's own caller left open: they could be
	// anything, a root shell's log or a socket of the service manager.
	if err := unix.CloseRange(3, math.MaxInt32, unix.CLOSE_RANGE_CLOEXEC); err != nil {
		return 0, setupError("close what was inherited", err)
	}
	if err := leaveKeyring(); err != nil {
		return 0, err
	}
	if err := confine(one.plan.Confine); err != nil {
		return 0, err
	}
	program, err := lookUp(one.plan.Command[0], one.plan.Env)
	if err != nil {
		return 0, err
	}
	pid, err := syscall.ForkExec(program, one.plan.Command, &syscall.ProcAttr{
		Env:   one.plan.Env,
		Files: []uintptr{0, 1, 2},
		// A process group of its own: a signal that the program sends to its
		// group must not reach the launcher and its neighbours outside, and
		// Ctrl-C must not reach the program twice.
		Sys: &syscall.SysProcAttr{Setpgid: true},
	})
	if err != nil {
		var errno syscall.Errno
		errors.As(err, &errno)
		return 0, explainExec(one.plan.Command[0], program, errno)
	}
	return pid, nil
}

// leaveKeyring gives the calling thread a session keyring of its own, empty.
// Whoever possesses the caller's may read the keys in it (Kerberos tickets, the
// keys of encrypted folders), whatever the uid: possession is inherited.
func leaveKeyring() error {
	_, err := unix.KeyctlInt(unix.KEYCTL_JOIN_SESSION_KEYRING, 0, 0, 0, 0)
	if err == nil {
		return nil
	}
	if err != unix.ENOSYS && err != unix.EPERM {
		return setupError("leave the session keyring", err)
	}
	// No keys in this kernel, or a filter that forbids keyctl, as containers
	// have it; then it is forbidden to the program too.
	if _, again := unix.KeyctlGetKeyringID(unix.KEY_SPEC_SESSION_KEYRING, false); again != err {
		return setupError("leave the session keyring", err)
	}
	return nil
}

// confine takes everything from the calling thread that the program is not to
// have. Filters (seccomp, landlock) will be installed here, last.
func confine(c Confine) error {
	if c.NoNewPrivileges {
		if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
			return setupError("set no-new-privileges", err)
		}
	}
	if !c.DropCapabilities {
		return nil
	}
	for capability := uintptr(0); ; capability++ {
		if err := unix.Prctl(unix.PR_CAPBSET_DROP, capability, 0, 0, 0); err == unix.EINVAL {
			break // one more than the kernel has
		} else if err != nil {
			return setupError("empty the bounding set", err)
		}
	}
	// No uid, not even 0 in a namespace of the program's own making, brings
	// capabilities back; and nobody can unlock that.
	const secureBits = 1<<0 | 1<<1 | // SECBIT_NOROOT, locked
		1<<2 | 1<<3 | // SECBIT_NO_SETUID_FIXUP, locked
		1<<5 | // SECBIT_KEEP_CAPS off, locked
		1<<6 | 1<<7 // SECBIT_NO_CAP_AMBIENT_RAISE, locked
	if err := unix.Prctl(unix.PR_SET_SECUREBITS, secureBits, 0, 0, 0); err != nil {
		return setupError("lock the securebits", err)
	}
	if err := unix.Prctl(unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0); err != nil {
		return setupError("clear the ambient capabilities", err)
	}
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var none [2]unix.CapUserData
	if err := unix.Capset(&header, &none[0]); err != nil {
		return setupError("drop all capabilities", err)
	}
	return nil
}

// retire makes PID 1 harmless once the program runs: no capabilities, no hold
// on the program's pipes (their other ends must see them close) or its folder.
func (one *sandboxInit) retire() error {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var none [2]unix.CapUserData
	_, _, errno := syscall.AllThreadsSyscall(unix.SYS_CAPSET,
		uintptr(unsafe.Pointer(&header)), uintptr(unsafe.Pointer(&none[0])), 0)
	// A binary with cgo, as the race detector needs it, can't reach all
	// threads; the released one is always without.
	if errno != 0 && errno != unix.ENOTSUP {
		return setupError("drop the capabilities of PID 1", errno)
	}
	null, err := os.OpenFile("/dev/null", os.O_RDWR, 0)
	if err != nil {
		return setupError("open /dev/null", err)
	}
	defer null.Close()
	for fd := range 3 {
		if err := unix.Dup3(int(null.Fd()), fd, unix.O_CLOEXEC); err != nil {
			return setupError("let go of the program's files", err)
		}
	}
	if err := unix.Chdir("/"); err != nil {
		return setupError("leave the working directory", err)
	}
	return nil
}
