package launcher

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// Check is one thing that a machine may offer.
type Check struct {
	Name  string `json:"name"`
	OK    bool   `json:"ok"`
	Means string `json:"means"`          // what was found and what encfsrun can or can't do with it
	Mend  string `json:"mend,omitempty"` // the command that mends it, when not OK
}

// probeName is the argv[0] that makes this binary try out its namespaces.
const probeName = "encfsrun-probe"

// smallestMemlock is the RLIMIT_MEMLOCK in bytes with which the guarded memory,
// half of it, is enough to run any program (4 MiB).
const smallestMemlock = 8 << 20

// Doctor tries out what encfsrun needs of the machine, as the user who asks.
func Doctor() []Check {
	return []Check{CheckNamespaces(), CheckFuse(), CheckFusermount(), CheckMemlock()}
}

// CheckNamespaces makes the namespaces of a sandbox and mounts in them: on some
// systems the first is allowed and the second is not.
func CheckNamespaces() Check {
	check := Check{Name: "user namespaces"}
	err := probeNamespaces()
	var missing *MissingError
	switch {
	case err == nil:
		check.OK = true
		check.Means = "programs run in a sandbox of their own"
	case errors.As(err, &missing):
		check.Means, check.Mend = missing.What+": run can't make its sandbox", missing.Mend
	default:
		check.Means, check.Mend = err.Error()+": run can't make its sandbox", "see the message"
	}
	return check
}

func probeNamespaces() error {
	identity, err := resolveIdentity("", ThisHost())
	if err != nil {
		return err
	}
	runtime.LockOSThread() // its end would be taken for this process's
	defer runtime.UnlockOSThread()
	process, err := os.StartProcess("/proc/self/exe", []string{probeName}, &os.ProcAttr{
		Env: []string{}, Sys: namespaces(&Plan{Identity: identity, Net: NetNone}),
	})
	if err != nil {
		return missingNamespaces(err)
	}
	state, err := process.Wait()
	if err != nil {
		return setupError("wait for the probe", err)
	}
	if code := state.ExitCode(); code != 0 {
		return missingNamespaces(syscall.Errno(code))
	}
	return nil
}

// probeMain runs in the namespaces and reports an errno as its exit status.
func probeMain() int {
	err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, "")
	if err == nil {
		err = unix.Mount("tmpfs", stagingDir, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, "")
	}
	if errno, ok := err.(syscall.Errno); ok {
		return int(errno)
	}
	return 0
}

// CheckFuse opens the FUSE device.
func CheckFuse() Check {
	check := Check{Name: "fuse"}
	device, err := openPresentDevice()
	if err == nil {
		device.Close()
		check.OK, check.Means = true, "vaults can be mounted"
		return check
	}
	check.Means, check.Mend = err.Error()+": nothing can be mounted", "modprobe fuse"
	var missing *MissingError
	if errors.As(err, &missing) {
		check.Mend = missing.Mend
	}
	return check
}

// CheckFusermount looks for the setuid helper that mounts for ordinary users.
func CheckFusermount() Check {
	check := Check{Name: "fusermount3", Mend: "apt-get install fuse3"}
	name, err := exec.LookPath("fusermount3")
	if err != nil {
		check.Means = "fusermount3 is not installed: mount works for root alone (run does not need it)"
		return check
	}
	info, err := os.Stat(name)
	if err != nil || info.Mode()&os.ModeSetuid == 0 {
		check.Means = name + " is not setuid root: mount works for root alone (run does not need it)"
		check.Mend = "chmod u+s " + name
		return check
	}
	return Check{Name: check.Name, OK: true, Means: "ordinary users can mount"}
}

// CheckMemlock compares the limit of locked memory with what guarded memory needs.
func CheckMemlock() Check {
	check := Check{Name: "locked memory"}
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_MEMLOCK, &limit); err != nil {
		check.Means, check.Mend = "its limit can't be read: "+err.Error(), "mount /proc"
		return check
	}
	switch {
	case limit.Cur == unix.RLIM_INFINITY || hasCapability(unix.CAP_IPC_LOCK):
		check.OK, check.Means = true, "as much memory can be locked as is asked for"
	case limit.Cur >= smallestMemlock:
		check.OK = true
		check.Means = fmt.Sprintf("%d MiB can be locked, half of that for contents", limit.Cur>>20)
	default:
		check.Means = fmt.Sprintf("only %d KiB can be locked: too little to hold contents in guarded memory", limit.Cur>>10)
		check.Mend = "prlimit --memlock=67108864 --pid $$ as root, or a line in /etc/security/limits.conf: * - memlock 65536"
	}
	return check
}

// hasCapability says whether this process has a capability in effect.
func hasCapability(number uint) bool {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var sets [2]unix.CapUserData
	return unix.Capget(&header, &sets[0]) == nil && sets[number/32].Effective&(1<<(number%32)) != 0
}

// missingNamespaces explains why the kernel refused to make the namespaces of
// a sandbox or to mount in them.
func missingNamespaces(err error) error {
	var errno syscall.Errno
	errors.As(err, &errno)
	return explainNamespaces(errno, "/proc/sys")
}

// explainNamespaces reads the settings that forbid user namespaces below sysctls.
func explainNamespaces(errno syscall.Errno, sysctls string) error {
	setting := func(name string) string {
		text, err := os.ReadFile(filepath.Join(sysctls, name))
		if err != nil {
			return ""
		}
		return strings.TrimSpace(string(text))
	}
	switch errno {
	case unix.ENOSPC:
		return &MissingError{
			What: "no more user namespaces can be made (user.max_user_namespaces is " + setting("user/max_user_namespaces") + ")",
			Mend: "sysctl -w user.max_user_namespaces=15000",
		}
	case unix.EPERM, unix.EACCES:
		if setting("kernel/unprivileged_userns_clone") == "0" {
			return &MissingError{
				What: "ordinary users may not make user namespaces",
				Mend: "sysctl -w kernel.unprivileged_userns_clone=1",
			}
		}
		if setting("kernel/apparmor_restrict_unprivileged_userns") == "1" {
			return &MissingError{
				What: "AppArmor keeps programs from using user namespaces",
				Mend: "sysctl -w kernel.apparmor_restrict_unprivileged_userns=0",
			}
		}
		return &MissingError{
			What: "user namespaces are forbidden here",
			Mend: "in a container, start it with a seccomp profile that allows clone, unshare and mount (docker run --security-opt seccomp=unconfined)",
		}
	case unix.EINVAL, unix.ENOSYS:
		return &MissingError{
			What: "this kernel has no user namespaces",
			Mend: "boot a kernel built with CONFIG_USER_NS and CONFIG_CGROUPS",
		}
	default:
		return &SetupError{Step: "start the sandbox", Errno: errno}
	}
}

// openPresentDevice opens /dev/fuse or says what is missing.
func openPresentDevice() (*os.File, error) {
	if err := checkDevice(); err != nil {
		return nil, err
	}
	return openDevice()
}

// missingProc explains why a new /proc was refused.
func missingProc() error {
	return &MissingError{
		What: "a /proc of its own can't be given to the sandbox, because parts of this machine's are covered, as in a container",
		Mend: "start the container with --security-opt systempaths=unconfined",
	}
}
