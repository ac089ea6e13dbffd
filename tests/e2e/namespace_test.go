package e2e

import (
	"fmt"
	"os"
	"os/exec"
)

// namespace is a mount namespace of the world's own, in which disks can be small or read-only.
type namespace struct {
	pid int
	uid int // who works in it
}

// unshare puts all later commands of the world into a mount namespace of its own. script makes its mounts, as root; where the
// tests do not run as root, as root of a user namespace, which commands then see as their own user too.
func (w *world) unshare(script string) {
	w.t.Helper()
	ready := w.path("unshared")
	command := []string{"-m", "--", "/bin/sh", "-ec", script + "\n: >" + ready + "\nexec sleep 600"}
	if os.Getuid() != 0 {
		command = append([]string{"-U", "-r"}, command...)
	}
	p := start(w.t, exec.Command("unshare", command...))
	eventually(w.t, "the mount namespace is made", func() bool { return exists(ready) || !p.running() })
	if !p.running() {
		w.t.Fatalf("the mount namespace could not be made: %s", p.errors.String())
	}
	must(w.t, os.Remove(ready))
	w.within = &namespace{pid: p.pid(), uid: w.who.uid}
}

// enter is the command that runs what follows inside, as the person.
func (n *namespace) enter() []string {
	command := []string{"nsenter", "-t", fmt.Sprint(n.pid), "-m"}
	if os.Getuid() != 0 {
		return append(command, "-U", "--preserve-credentials", "--")
	}
	id := fmt.Sprint(n.uid)
	return append(command, "--", "setpriv", "--reuid", id, "--regid", id, "--clear-groups", "--")
}

// mountsInside says whether the person can mount vaults in such a namespace: in a user namespace no setuid helper works, and its
// root has nobody to run a sandbox as.
func mountsInside() bool { return os.Getuid() == 0 }

// sh runs a shell script as the person, which has to succeed, and returns what it prints.
func (w *world) sh(script string) string {
	w.t.Helper()
	o := finish(w.t, w.exec("/bin/sh", "-ec", script))
	if o.code != 0 {
		w.t.Fatalf("%s: exit %d\n%s%s", script, o.code, o.stdout, o.stderr)
	}
	return o.stdout
}
