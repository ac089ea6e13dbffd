package launcher

import (
	"errors"
	"os"
	"os/signal"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"encfsrun/launcher/wire"
)

// DefaultStopTimeout is how long a program has to end after a SIGTERM or SIGINT.
const DefaultStopTimeout = 8 * time.Second

// DefaultEndTimeout is how long the end of a run may take once the program has
// ended or was killed: the mount goes, the file system syncs and wipes.
const DefaultEndTimeout = 30 * time.Second

// RunOptions is how a plan is run, as far as it is not the sandbox's business.
type RunOptions struct {
	Stdin, Stdout, Stderr *os.File      // nil is /dev/null
	StopTimeout           time.Duration // 0 is DefaultStopTimeout
	EndTimeout            time.Duration // 0 is DefaultEndTimeout
	// Started is called when the program has been executed, with the pid of the
	// sandbox's PID 1 on this machine. May be nil.
	Started func(pid int)
}

// Run carries out plan and returns how the program ended. While it runs,
// signals sent to this process go to the program; SIGTERM and SIGINT also start
// the clock of StopTimeout, after which everything in the sandbox is killed.
// When Run returns, no process and no mount of the sandbox is left, and
// filesystem.Finish has been called once, whatever happened.
//
// A file system that hangs can't hang the run: after EndTimeout, or when
// somebody asks a second time by SIGTERM or SIGINT and the program is gone or
// was killed, it is killed, which is a *FilesystemError of StageHang.
//
// Errors are of the types *PlanError, *MissingError, *SetupError, *ExecError
// and *FilesystemError. Where the last is of StageFinish, the status is the
// program's nevertheless. A signal that ends the run before the program was
// started is the status, without an error.
func Run(plan Plan, filesystem Filesystem, o RunOptions) (Status, error) {
	r := &run{plan: &plan, filesystem: filesystem, o: o}
	r.signals = make(chan os.Signal, 16)
	signal.Notify(r.signals, forwarded()...)
	defer signal.Stop(r.signals)
	r.terminal = openTerminal()
	defer r.terminal.close()
	err := plan.Validate()
	if err == nil {
		err = r.inSandbox()
	}
	finish := r.finish()
	if r.gaveUp {
		return r.status, errors.Join(&FilesystemError{Stage: StageHang}, r.failure)
	}
	if finish != nil {
		finish = &FilesystemError{Stage: StageFinish, Err: finish}
		if err == nil {
			err = finish
		} else {
			err = errors.Join(err, finish)
		}
	}
	return r.status, err
}

// run is one run, owned by the goroutine of Run.
type run struct {
	plan       *Plan
	filesystem Filesystem
	o          RunOptions
	signals    chan os.Signal
	terminal   *terminal // nil without one
	conn       *wire.Conn
	process    *os.Process // PID 1

	attaching chan error       // the outcome of Attach; nil until it was called
	going     bool             // PID 1 was told to go on
	started   bool             // the program was executed
	stopping  bool             // somebody asked for the end
	stop      <-chan time.Time // when to stop being patient; nil while nobody asked for the end
	status    Status
	settled   bool  // the status is known: PID 1 reported it, or the run was cut short
	vaultGone bool  // the mount no longer answered when the program ended
	fsGone    bool  // the file system ended
	failure   error // the first

	asked  int              // how often SIGTERM or SIGINT came
	late   <-chan time.Time // when the end has taken too long; nil while the program may run
	gaveUp bool             // the file system was killed
}

// inSandbox starts PID 1 and stays with it to its end.
func (r *run) inSandbox() error {
	release, err := r.startInit()
	if err != nil {
		return err
	}
	defer release()
	defer r.conn.Close()
	r.loop()
	r.terminal.reclaim()
	if r.attaching != nil {
		r.await(r.attaching)
	}
	return r.verdict()
}

// finish has the file system finish.
func (r *run) finish() error {
	r.ending()
	finished := make(chan error, 1)
	go func() { finished <- r.filesystem.Finish() }()
	return r.await(finished)
}

// await waits for the file system to do its part of the end.
func (r *run) await(done <-chan error) error {
	for {
		select {
		case err := <-done:
			return err
		case s := <-r.signals:
			r.count(s.(syscall.Signal))
		case <-r.late:
			r.giveUp()
		}
	}
}

// ending starts the clock of EndTimeout: the program has ended, or is killed.
func (r *run) ending() {
	if r.late != nil || r.gaveUp {
		return
	}
	patience := r.o.EndTimeout
	if patience == 0 {
		patience = DefaultEndTimeout
	}
	r.late = time.After(patience)
}

// giveUp kills the file system. While it is stopped or stuck, a program with a
// request under way can't die, not even by SIGKILL, and PID 1 not before it.
func (r *run) giveUp() {
	r.late, r.gaveUp = nil, true
	r.filesystem.Kill()
}

// verdict is what the run comes to, apart from the status.
func (r *run) verdict() error {
	var err error
	switch {
	case r.failure != nil:
		err = r.failure
	case r.settled && !r.vaultGone:
		return nil
	case (r.vaultGone || r.fsGone) && r.started:
		err = &FilesystemError{Stage: StageServe}
	case r.fsGone:
		err = &FilesystemError{Stage: StageAttach, Err: errors.New("its process has ended")}
	default:
		err = &SetupError{Step: "run the sandbox", Detail: "its PID 1 ended without saying why"}
	}
	r.status = Status{}
	return err
}

// loop handles what happens until PID 1 has ended and all it said was heard.
func (r *run) loop() {
	messages := make(chan received)
	go receiveAll(r.conn, messages)
	exited := make(chan struct{})
	go func() {
		r.process.Wait()
		close(exited)
	}()
	gone := r.filesystem.Done()
	for messages != nil || exited != nil {
		select {
		case m, ok := <-messages:
			if !ok {
				messages = nil
				r.kill() // PID 1 never closes its end but by ending
				continue
			}
			r.hear(m)
		case err := <-r.attaching:
			r.attaching = nil
			r.attached(err)
		case s := <-r.signals:
			r.signal(s.(syscall.Signal))
		case <-gone:
			gone, r.fsGone = nil, true
			r.kill() // what PID 1 said before still counts
		case <-r.stop:
			r.stop = nil
			r.cut(unix.SIGKILL)
		case <-r.late:
			r.giveUp()
		case <-exited:
			exited = nil
		}
	}
}

// received is a message with its descriptors.
type received struct {
	message
	files []*os.File
}

// receiveAll passes on what PID 1 says until it ends.
func receiveAll(conn *wire.Conn, to chan<- received) {
	defer close(to)
	for {
		var m received
		var err error
		if m.files, err = conn.Receive(&m.message); err != nil {
			return
		}
		to <- m
	}
}

// hear acts on a message of PID 1.
func (r *run) hear(m received) {
	switch m.Kind {
	case sayMounted:
		if len(m.files) != 1 {
			r.fail(&SetupError{Step: "mount the vault", Detail: "no descriptor came with it"})
			return
		}
		r.attaching = make(chan error, 1)
		go func(device *os.File, result chan<- error) {
			defer device.Close()
			result <- r.filesystem.Attach(device, r.plan.Mounted())
		}(m.files[0], r.attaching)
	case sayStarted:
		r.started = true
		if r.o.Started != nil {
			r.o.Started(r.process.Pid)
		}
	case sayStopped:
		r.stopped(m.Signal)
	case sayExited:
		if m.Status == nil {
			r.fail(&SetupError{Step: "run the sandbox", Detail: "PID 1 reported an end without a status"})
			return
		}
		r.status, r.settled, r.vaultGone = *m.Status, true, m.VaultGone
		r.ending()
	case sayFailed:
		r.fail(m.Failure.unpack())
	}
}

// attached lets PID 1 go on, or ends the run.
func (r *run) attached(err error) {
	if err != nil {
		r.fail(&FilesystemError{Stage: StageAttach, Err: err})
		return
	}
	front := r.terminal.inFront() && interactive(r.o.Stdin, r.o.Stdout, r.o.Stderr)
	if r.terminal != nil {
		r.terminal.given, r.terminal.wanted = front, front
	}
	r.going = true
	r.say(message{Kind: sayGo, Foreground: front})
}

// say sends a message; when PID 1 has gone the loop learns it otherwise.
func (r *run) say(m message) { r.conn.Send(m) }

// fail ends the run because of err. What follows from it is not reported.
func (r *run) fail(err error) {
	if r.failure == nil {
		r.failure = err
	}
	r.kill()
}

// kill ends the sandbox: the kernel kills everything in it with its PID 1.
func (r *run) kill() {
	r.process.Kill() // that it has ended already is as good
	r.ending()
}

// cut ends the sandbox as if the program had died of a signal, unless PID 1
// reports how it really ended.
func (r *run) cut(s syscall.Signal) {
	if !r.settled {
		r.status, r.settled = Status{Signal: s}, true
	}
	r.kill()
}
