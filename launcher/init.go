package launcher

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"encfsrun/launcher/wire"
)

// initName is the argv[0] that turns this binary into a sandbox's PID 1.
// Started by hand it fails, because its descriptors are not there.
const initName = "encfsrun-sandbox"

const (
	initSocket = 3 // descriptor of the socket to the launcher
	initPlan   = 4 // descriptor of the plan's memory file
)

// vaultAnswerTimeout is how long PID 1 waits to learn whether the vault's mount
// still answers when the program has ended.
const vaultAnswerTimeout = 2 * time.Second

// Init must be the first call of main: in a process that the launcher started
// to be PID 1 of a sandbox it does that work and does not return, in any other
// it does nothing.
func Init() {
	if len(os.Args) == 0 {
		return
	}
	switch os.Args[0] {
	case initName:
		os.Exit(initMain())
	case probeName:
		os.Exit(probeMain())
	}
}

// sandboxInit is PID 1 of a sandbox.
type sandboxInit struct {
	plan    *Plan
	conn    *wire.Conn
	program int  // pid of the program, 0 before it was started
	front   bool // the program is to have the terminal
}

// initMain is the life of PID 1. Its exit status says nothing: all that the
// launcher needs goes over the socket.
func initMain() int {
	// The thread that asked for the parent-death signal must not end.
	runtime.LockOSThread()
	// Nobody of the same uid may trace this process or enter the sandbox
	// through /proc/1 (root, fd, environ) from inside.
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
		return 1
	}
	if err := unix.Prctl(unix.PR_SET_PDEATHSIG, uintptr(unix.SIGKILL), 0, 0, 0); err != nil {
		return 1
	}
	swallowSignals()
	conn, err := wire.FromFD(initSocket)
	if err != nil {
		fmt.Fprintln(os.Stderr, "this is a part of encfsrun that is not started by hand")
		return 1
	}
	one := &sandboxInit{conn: conn}
	status, err := one.run()
	if err != nil {
		one.conn.Send(message{Kind: sayFailed, Failure: packFailure(err)}) // if the launcher is gone, so is who would read it
		return 1
	}
	one.conn.Send(message{Kind: sayExited, Status: &status, VaultGone: one.vaultGone()})
	return 0
}

// swallowSignals makes PID 1 outlive what the program or a terminal sends it.
// The kernel shields it only from signals without a handler, and Go's runtime
// has handlers. What the launcher was told to ignore (nohup) stays ignored, so
// that the program inherits it.
func swallowSignals() {
	sink := make(chan os.Signal, 1)
	for number := syscall.Signal(1); number < 65; number++ {
		if number != unix.SIGCHLD && number != unix.SIGURG && !signal.Ignored(number) {
			signal.Notify(sink, number)
		}
	}
	// Never read: signal delivery to a full channel drops, which is the purpose.
}

// run makes the sandbox, runs the program and returns how it ended.
func (one *sandboxInit) run() (Status, error) {
	if err := one.readPlan(); err != nil {
		return Status{}, err
	}
	umask := unix.Umask(0) // the modes in the plan are meant as they stand
	if err := one.setup(); err != nil {
		return Status{}, err
	}
	unix.Umask(umask)
	if err := one.start(); err != nil {
		return Status{}, err
	}
	if err := one.retire(); err != nil {
		return Status{}, err
	}
	if err := one.conn.Send(message{Kind: sayStarted}); err != nil {
		return Status{}, err
	}
	go one.obey()
	return one.reap()
}

func (one *sandboxInit) readPlan() error {
	file := os.NewFile(initPlan, "plan")
	defer file.Close()
	text, err := io.ReadAll(file)
	if err != nil {
		return setupError("read the plan", err)
	}
	one.plan = new(Plan)
	if err := json.Unmarshal(text, one.plan); err != nil {
		return setupError("read the plan", err)
	}
	return one.plan.Validate()
}

// setup turns this process's namespaces into the sandbox. The order matters:
// what needs the caller's identity comes before become, what the new root
// would hide is opened before it is made.
func (one *sandboxInit) setup() error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return missingNamespaces(err)
	}
	sources, err := openSources(one.plan.Steps)
	if err != nil {
		return err
	}
	// In this user namespace: the kernel refuses to mount what was opened in another.
	device, err := openPresentDevice()
	if err != nil {
		return setupError("open "+fuseDevice, err)
	}
	if err := become(one.plan.Identity); err != nil {
		return err
	}
	core := unix.Rlimit{Cur: one.plan.Confine.CoreLimit, Max: one.plan.Confine.CoreLimit}
	if err := unix.Setrlimit(unix.RLIMIT_CORE, &core); err != nil {
		return setupError("limit core dumps", err)
	}
	if one.plan.Net == NetNone {
		if err := raiseLoopback(); err != nil {
			return setupError("raise the loopback interface", err)
		}
	}
	if one.plan.Hostname != "" {
		if err := unix.Sethostname([]byte(one.plan.Hostname)); err != nil {
			return setupError("set the hostname", err)
		}
	}
	view, err := newView(sources)
	if err != nil {
		return err
	}
	for index, step := range one.plan.Steps {
		if step.Kind == StepVault {
			err = one.mountVault(view, step, device)
		} else {
			err = view.apply(index, step)
		}
		if err != nil {
			return setupError(step.String(), err)
		}
	}
	if err := view.enter(); err != nil {
		return err
	}
	if one.plan.Confine.NoUserNamespaces {
		return forbidUserNamespaces()
	}
	return nil
}

// forbidUserNamespaces sets this user namespace's own limit. In a new one the
// program would have every capability over it, and with them reach parts of the
// kernel (mounts, packet filters) that are full of surprises. It can't raise the
// limit again: that takes a capability here.
func forbidUserNamespaces() error {
	file, err := os.OpenFile("/proc/sys/user/max_user_namespaces", os.O_WRONLY, 0)
	if err == nil {
		_, err = file.WriteString("0")
		file.Close()
	}
	if err != nil {
		return setupError("forbid user namespaces", err)
	}
	return nil
}

// mountVault mounts the FUSE file system, gives its descriptor away and waits
// until the other side serves it.
func (one *sandboxInit) mountVault(v *view, step Step, device *os.File) error {
	if err := v.mountVault(step.Target, one.plan, device); err != nil {
		device.Close()
		return err
	}
	err := one.conn.Send(message{Kind: sayMounted}, device)
	// While this process held a copy, the end of the file system's process
	// would not end the mount, and whoever waits for it would wait for ever.
	device.Close()
	if err != nil {
		return err
	}
	var answer message
	if _, err := one.conn.Receive(&answer); err != nil || answer.Kind != sayGo {
		return errors.New("the launcher has gone")
	}
	one.front = answer.Foreground
	return v.answers(step.Target)
}

// become takes on the identity of a sandbox that root started. It happens
// after what only root may open was opened, and before anything is made.
func become(id Identity) error {
	if !id.Dedicated {
		return nil
	}
	if err := syscall.Setgroups(nil); err != nil {
		return setupError("give up the supplementary groups", err)
	}
	if err := syscall.Setresgid(id.GID, id.GID, id.GID); err != nil {
		return setupError(fmt.Sprintf("become group %d", id.GID), err)
	}
	if err := syscall.Setresuid(id.UID, id.UID, id.UID); err != nil {
		return setupError(fmt.Sprintf("become user %d", id.UID), err)
	}
	// Both were reset by the change of identity.
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
		return setupError("become undumpable", err)
	}
	if err := unix.Prctl(unix.PR_SET_PDEATHSIG, uintptr(unix.SIGKILL), 0, 0, 0); err != nil {
		return setupError("ask to die with the launcher", err)
	}
	return nil
}

// obey does what the launcher says. When the launcher has gone, the sandbox
// goes too: the kernel kills all of it with its PID 1.
func (one *sandboxInit) obey() {
	for {
		var order message
		if _, err := one.conn.Receive(&order); err != nil {
			os.Exit(1)
		}
		switch order.Kind {
		case saySignal:
			target := one.program
			if order.Group {
				target = -target
			}
			unix.Kill(target, order.Signal) // that it just ended is no failure
		case sayResume:
			if order.Foreground {
				giveTerminal(one.program)
			}
			unix.Kill(-one.program, unix.SIGCONT)
		}
	}
}

// reap waits for every child and returns when the program itself has ended.
// Orphans of the program become children of PID 1.
func (one *sandboxInit) reap() (Status, error) {
	for {
		var status unix.WaitStatus
		pid, err := unix.Wait4(-1, &status, unix.WUNTRACED, nil)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return Status{}, setupError("wait for the program", err)
		}
		if pid != one.program {
			continue
		}
		switch {
		case status.Stopped():
			if err := one.conn.Send(message{Kind: sayStopped, Signal: status.StopSignal()}); err != nil {
				return Status{}, err
			}
		case status.Signaled():
			return Status{Signal: status.Signal()}, nil
		case status.Exited():
			return Status{Code: status.ExitStatus()}, nil
		}
	}
}

// vaultGone says whether the vault's file system has ended: the program's own
// status then means nothing, because it may have been cut off from its code.
// Only the mount itself knows for sure at this moment.
func (one *sandboxInit) vaultGone() bool {
	answer := make(chan error, 1)
	go func() {
		var stat unix.Statfs_t
		answer <- unix.Statfs(one.plan.At(), &stat)
	}()
	select {
	case err := <-answer:
		return errors.Is(err, unix.ENOTCONN) || errors.Is(err, unix.ECONNABORTED)
	case <-time.After(vaultAnswerTimeout):
		return false
	}
}
