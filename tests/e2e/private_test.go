package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
)

// TestNobodyElseSees looks at a running sandbox from outside, with whatever a user, another user and root are handed for free.
func TestNobodyElseSees(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		vault := w.vault()
		r := w.background(vault, "exec 3</app/secret; echo ready; sleep 600; :")
		if len(descendants(r.pid())) < 4 {
			t.Errorf("the run has only the processes %v", descendants(r.pid()))
		}
		w.lookAt(t, r)
		r.signal(syscall.SIGTERM)
		if o := r.wait(); o.code != 143 {
			t.Errorf("exit %d after the visits\n%s", o.code, o.stderr)
		}
	})
}

func (w *world) lookAt(t *testing.T, r *running) {
	secret := strings.TrimSpace(sources["secret"].content)
	table, err := os.ReadFile("/proc/self/mountinfo")
	must(t, err)
	if strings.Contains(string(table), w.dir) {
		t.Errorf("the machine's mount table shows the sandbox:\n%s", table)
	}
	spies := []int{w.who.uid}
	if os.Getuid() == 0 {
		spies = []int{0, w.who.uid, stranger}
	}
	for _, uid := range spies {
		for _, pid := range append(descendants(r.pid()), r.pid()) {
			for _, script := range []string{
				"ls /proc/%d/root/app/", "ls /proc/%d/cwd/", "cat /proc/%d/root/app/secret", "cat /proc/%d/cwd/secret", "cat /proc/%d/root/app/lib/a.txt",
				"cat /proc/%d/fd/3", "nsenter -t %d -m cat /app/secret", "nsenter -t %d -m ls /app/", "nsenter -t %d -m -w cat secret",
			} {
				if strings.Contains(script, "/fd/") && (pid == r.pid() || pid == r.daemon) {
					continue // theirs are connections, from which a read would take something
				}
				cmd := as(exec.Command("timeout", "10", "/bin/sh", "-c", fmt.Sprintf(script, pid)), uid)
				cmd.Dir = "/"
				out := finish(t, cmd)
				for _, name := range []string{secret, "0123456789abcdef0123456789abcdef", "main.py", "noexec"} {
					if strings.Contains(out.stdout, name) {
						t.Errorf("user %d sees with %q of %q:\n%.300s", uid, script, stateOf(pid).command, out.stdout)
						break
					}
				}
			}
		}
	}
}

// spy tries to look into a process: its memory by two ways, and what else says whether the kernel protects it.
const spy = `
import ctypes, os, sys
libc = ctypes.CDLL(None, use_errno=True)
pid = int(sys.argv[1])
def attempt(name, f):
    try:
        f()
        print(name, "succeeds")
    except OSError as e:
        print(name, "fails")
def attach():
    if libc.ptrace(16, pid, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "ptrace")
    os.waitpid(pid, 0x40000000)
    libc.ptrace(17, pid, 0, 0)
def vm_read():
    buf = ctypes.create_string_buffer(8)
    class iovec(ctypes.Structure):
        _fields_ = [("base", ctypes.c_void_p), ("len", ctypes.c_size_t)]
    local = iovec(ctypes.addressof(buf), 8)
    start = int(open("/proc/%d/maps" % pid).readline().split("-")[0], 16)
    remote = iovec(start, 8)
    if libc.process_vm_readv(pid, ctypes.byref(local), 1, ctypes.byref(remote), 1, 0) < 0:
        raise OSError(ctypes.get_errno(), "process_vm_readv")
attempt("environ", lambda: open("/proc/%d/environ" % pid).read())
attempt("maps", lambda: open("/proc/%d/maps" % pid).readline().index("-"))
attempt("mem", lambda: open("/proc/%d/mem" % pid, "rb"))
attempt("fd", lambda: os.listdir("/proc/%d/fd" % pid))
attempt("exe", lambda: os.readlink("/proc/%d/exe" % pid))
attempt("process_vm_readv", vm_read)
attempt("ptrace", attach)
`

// TestDaemonIsClosed tries to look into a user's own daemon, as that user. That the same works on an ordinary process of the user
// shows that it is the daemon's doing.
func TestDaemonIsClosed(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		if w.who.uid == 0 {
			return // root may trace anything
		}
		vault := w.vault()
		w.write("spy.py", spy, 0o644)
		look := func(pid int) string {
			o := finish(t, w.exec("/usr/bin/python3", w.path("spy.py"), fmt.Sprint(pid)))
			if strings.Count(o.stdout, "\n") != 7 {
				t.Fatalf("the spy did not try everything: %s%s", o.stdout, o.stderr)
			}
			return o.stdout
		}
		sleep := start(t, w.exec("sleep", "60"))
		if got := look(sleep.pid()); !strings.Contains(got, "environ succeeds") || !strings.Contains(got, "maps succeeds") {
			t.Fatalf("nothing can be seen of an ordinary process: this proves nothing\n%s", got)
		}
		check := func(what string, pid int) {
			t.Helper()
			if got := look(pid); strings.Contains(got, "succeeds") {
				t.Errorf("%s can be looked into:\n%s", what, got)
			}
		}
		r := w.background(vault, "echo ready; sleep 60; :")
		check("a run's daemon", r.daemon)
		r.signal(syscall.SIGKILL)
		w.ok(w.unlock("mount", "--read-only", vault, w.path("mnt"))...)
		check("a mount's daemon", w.daemonOf(w.path("mnt")))
		w.ok("umount", w.path("mnt"))
	})
}
