package launcher

import (
	"errors"
	"io/fs"
	"os"
	"runtime"
	"syscall"

	"golang.org/x/sys/unix"

	"encfsrun/launcher/wire"
)

// startInit starts PID 1 in its namespaces and connects to it. The returned
// function frees the thread that started it, whose end would be taken for this
// process's by the kernel (prctl(2), PR_SET_PDEATHSIG).
func (r *run) startInit() (release func(), err error) {
	if err := inheritNothing(); err != nil {
		return nil, setupError("close what was inherited", err)
	}
	if r.plan.Confine.CoreLimit == 0 {
		// The limit alone does not count where core_pattern is a pipe: the
		// program's memory would go there. What is inherited here it can't reach.
		err := os.WriteFile("/proc/self/coredump_filter", []byte("0"), 0)
		if err != nil && !errors.Is(err, fs.ErrNotExist) { // a kernel without core dumps
			return nil, setupError("forbid core dumps", err)
		}
	}
	conn, theirs, err := wire.Pair()
	if err != nil {
		return nil, &SetupError{Step: "start the sandbox", Detail: err.Error()}
	}
	defer theirs.Close()
	plan, err := r.plan.encode()
	if err != nil {
		conn.Close()
		return nil, &SetupError{Step: "start the sandbox", Detail: err.Error()}
	}
	defer plan.Close()
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		conn.Close()
		return nil, setupError("open "+os.DevNull, err)
	}
	defer null.Close()
	files := []*os.File{r.o.Stdin, r.o.Stdout, r.o.Stderr, theirs, plan}
	for i := range files {
		if files[i] == nil {
			files[i] = null
		}
	}
	type outcome struct {
		process *os.Process
		err     error
	}
	done, released := make(chan outcome), make(chan struct{})
	go func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		process, err := os.StartProcess("/proc/self/exe", []string{initName}, &os.ProcAttr{
			Env: []string{}, Files: files, Sys: namespaces(r.plan),
		})
		done <- outcome{process, err}
		<-released
	}()
	result := <-done
	if result.err != nil {
		close(released)
		conn.Close()
		return nil, missingNamespaces(result.err)
	}
	r.conn, r.process = conn, result.process
	return func() { close(released) }, nil
}

// namespaces is how PID 1 is cloned: into new namespaces, with one id mapped,
// and with the few capabilities over them that making the sandbox takes.
// (Ambient ones, because its uid is not 0 inside and an exec would drop others.)
func namespaces(plan *Plan) *syscall.SysProcAttr {
	id := plan.Identity
	attributes := &syscall.SysProcAttr{
		Cloneflags: unix.CLONE_NEWUSER | unix.CLONE_NEWNS | unix.CLONE_NEWPID | unix.CLONE_NEWIPC |
			unix.CLONE_NEWUTS | unix.CLONE_NEWCGROUP,
		UidMappings:                []syscall.SysProcIDMap{{ContainerID: id.UID, HostID: id.HostUID, Size: 1}},
		GidMappings:                []syscall.SysProcIDMap{{ContainerID: id.GID, HostID: id.HostGID, Size: 1}},
		GidMappingsEnableSetgroups: id.Dedicated,
		AmbientCaps:                []uintptr{unix.CAP_SYS_ADMIN, unix.CAP_SETPCAP, unix.CAP_SYS_RESOURCE},
		Pdeathsig:                  syscall.SIGKILL,
	}
	if plan.Net == NetNone {
		attributes.Cloneflags |= unix.CLONE_NEWNET
		attributes.AmbientCaps = append(attributes.AmbientCaps, unix.CAP_NET_ADMIN)
	}
	if id.Dedicated {
		attributes.AmbientCaps = append(attributes.AmbientCaps, unix.CAP_SETUID, unix.CAP_SETGID)
	}
	return attributes
}
