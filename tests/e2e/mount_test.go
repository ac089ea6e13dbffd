package e2e

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// entry is an object of status --json.
type entry struct {
	Mountpoint   string `json:"mountpoint"`
	Vault        string `json:"vault"`
	Name         string `json:"name"`
	PID          int    `json:"pid"`
	State        string `json:"state"`
	ReadOnly     bool   `json:"read_only"`
	OpenFiles    *int64 `json:"open_files"`
	GuardedBytes *int64 `json:"guarded_bytes"`
	DirtyBytes   *int64 `json:"dirty_bytes"`
}

// status returns what status --json says of this world.
func (w *world) status(args ...string) (list []entry) {
	w.t.Helper()
	var all []entry
	must(w.t, json.Unmarshal([]byte(w.ok(append([]string{"status", "--json"}, args...)...)), &all))
	for _, e := range all {
		if strings.HasPrefix(e.Vault, w.dir) {
			list = append(list, e)
		}
	}
	return list
}

func (w *world) daemonOf(dir string) int {
	w.t.Helper()
	for _, e := range w.status() {
		if e.Mountpoint == dir {
			return e.PID
		}
	}
	w.t.Fatalf("status does not show %s", dir)
	return 0
}

// mount mounts a vault and returns its daemon.
func (w *world) mount(vault, dir string) int {
	w.t.Helper()
	w.ok(w.unlock("mount", "--read-only", vault, dir)...)
	return w.daemonOf(dir)
}

// unmounted wants that a daemon and its mount are gone, and nothing else.
func (w *world) unmounted(daemon int) {
	w.t.Helper()
	gone(w.t, []int{daemon})
	eventually(w.t, "nothing of the mount is left", func() bool { return len(w.left()) == 0 })
}

func TestMount(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		vault, dir := w.vault(), w.path("mnt")
		daemon := w.mount(vault, dir)
		for name, file := range sources { // ready when mount returned
			if got := w.sh("cat " + filepath.Join(dir, name)); got != file.content {
				t.Errorf("%s is wrong in the mount", name)
			}
		}
		w.sh("! touch " + dir + "/new 2>/dev/null; ! rm -f " + dir + "/secret 2>/dev/null; cmp " + dir + "/secret " + w.path("app/secret"))
		for _, uid := range []int{stranger, nobody} {
			if os.Getuid() == 0 && uid != w.who.uid {
				if o := finish(t, as(w.exec("ls", dir), uid)); o.code == 0 {
					t.Errorf("user %d sees the mount: %s", uid, o.stdout)
				}
			}
		}
		list := w.status(dir)
		if len(list) != 1 || list[0].Mountpoint != dir || list[0].Vault != vault || list[0].State != "serving" || !list[0].ReadOnly ||
			list[0].OpenFiles == nil || list[0].GuardedBytes == nil || *list[0].GuardedBytes == 0 || list[0].DirtyBytes == nil {
			t.Errorf("status --json: %+v", list)
		}
		table := w.ok("status")
		if !strings.Contains(table, dir) || !strings.Contains(table, vault) || !strings.HasPrefix(table, "MOUNTPOINT") {
			t.Errorf("status prints\n%s", table)
		}
		w.fails(1, []string{"absent"}, "status", "absent")

		// A busy mount stays as it was.
		holder := w.exec("sleep", "60")
		holder.Dir = dir
		p := start(t, holder)
		w.fails(5, []string{dir, "in use"}, "umount", dir)
		must(t, syscall.Kill(daemon, syscall.SIGTERM)) // refused by the same, when it comes to it
		time.Sleep(2 * time.Second)
		if got := w.sh("cat " + dir + "/secret"); got != sources["secret"].content {
			t.Error("a busy mount does not serve after umount was refused")
		}
		p.signal(syscall.SIGKILL)
		p.wait()
		if zombies := children(daemon); len(zombies) > 0 {
			t.Errorf("the daemon has children: %v", zombies)
		}
		w.ok("umount", dir)
		if alive(daemon) {
			t.Error("umount returned before the daemon had ended")
		}
		w.unmounted(daemon)
		w.fails(1, []string{dir}, "status", dir)

		// Twice at once, in a folder that has to be quoted, and by a relative name and a link.
		w.folder("a b,c\\d/ä")
		other := w.path("a b,c\\d/ä")
		must(t, os.Symlink(other, w.path("way")))
		one, two := w.mount(vault, dir), w.mount(vault, other)
		if got := w.sh("cat '" + other + "/secret' " + dir + "/secret"); got != sources["secret"].content+sources["secret"].content {
			t.Errorf("two mounts of a vault give %q", got)
		}
		w.ok("umount", "way")
		w.unmountedOnly(two)
		w.ok("umount", "mnt")
		w.unmounted(one)
	})
}

func (w *world) unmountedOnly(daemon int) {
	w.t.Helper()
	gone(w.t, []int{daemon})
	if n := len(w.status()); n != 1 {
		w.t.Errorf("%d mounts are left, want the other one", n)
	}
}

func TestMountEnds(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		vault, dir := w.vault(), w.path("mnt")
		// By the system's own command.
		daemon := w.mount(vault, dir)
		if w.who.uid == 0 {
			w.sh("umount " + dir)
		} else {
			w.sh("fusermount3 -u " + dir)
		}
		w.unmounted(daemon)
		// By signals.
		for _, s := range []syscall.Signal{syscall.SIGTERM, syscall.SIGINT} {
			daemon = w.mount(vault, dir)
			must(t, syscall.Kill(daemon, s))
			w.unmounted(daemon)
		}
		// Killed: what is left is recognised, shown by nobody, and cleared by umount and by mount.
		for _, clear := range []func(){
			func() { w.ok("umount", dir) },
			func() { w.mount(vault, dir); w.ok("umount", dir) },
		} {
			daemon = w.mount(vault, dir)
			must(t, syscall.Kill(daemon, syscall.SIGKILL))
			gone(t, []int{daemon})
			if len(w.mounts()) != 1 {
				t.Errorf("a killed daemon leaves %v", w.mounts())
			}
			if list := w.status(); len(list) != 0 {
				t.Errorf("status shows a dead daemon: %+v", list)
			}
			if s := w.sockets(); len(s) != 0 {
				t.Errorf("status left the socket of a dead daemon: %v", s)
			}
			w.fails(1, []string{dir}, "status", dir)
			clear()
			w.unmounted(daemon)
		}
	})
}

func TestMountForeground(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		vault, dir := w.vault(), w.path("mnt")
		for _, end := range []func(p *process){
			func(p *process) { p.signal(syscall.SIGINT) },
			func(p *process) { p.signal(syscall.SIGTERM) },
			func(p *process) { w.ok("umount", dir) },
		} {
			p := start(t, w.encfsrun(w.unlock("mount", "--foreground", "--read-only", vault, dir)...))
			eventually(t, "it is mounted", func() bool { return len(w.status()) == 1 || !p.running() })
			if got := w.sh("cat " + dir + "/secret"); got != sources["secret"].content {
				t.Errorf("the mount gives %q", got)
			}
			end(p)
			if o := p.wait(); o.code != 0 || o.stderr != "" {
				t.Errorf("a foreground mount ended with %d\n%s", o.code, o.stderr)
			}
			if left := w.left(); len(left) > 0 {
				t.Errorf("left behind: %v", left)
			}
		}
		// The launcher is killed: the daemon goes on and can be unmounted.
		p := start(t, w.encfsrun(w.unlock("mount", "--foreground", "--read-only", vault, dir)...))
		eventually(t, "it is mounted", func() bool { return len(w.status()) == 1 || !p.running() })
		daemon := w.daemonOf(dir)
		p.signal(syscall.SIGKILL)
		p.wait()
		w.ok("umount", dir)
		w.unmounted(daemon)
		// The daemon is killed.
		p = start(t, w.encfsrun(w.unlock("mount", "--foreground", "--read-only", vault, dir)...))
		eventually(t, "it is mounted", func() bool { return len(w.status()) == 1 || !p.running() })
		daemon = w.daemonOf(dir)
		must(t, syscall.Kill(daemon, syscall.SIGKILL))
		p.wait().wants(t, "a foreground mount whose daemon was killed", 1, "killed")
		w.run("umount", dir)
		w.unmounted(daemon)
	})
}

func TestRunInStatus(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		vault := w.vault()
		cmd := w.encfsrun(w.in(vault, "--name", "worker-7", "--", "sleep", "60")...)
		p := start(t, cmd)
		eventually(t, "status shows the run", func() bool { return len(w.status()) == 1 || !p.running() })
		list := w.status("worker-7")
		if len(list) != 1 || list[0].Name != "worker-7" || list[0].State != "serving" {
			t.Errorf("status worker-7: %+v", list)
		}
		p.signal(syscall.SIGTERM)
		if o := p.wait(); o.code != 143 {
			t.Errorf("exit %d\n%s", o.code, o.stderr)
		}
		if s := w.sockets(); len(s) > 0 {
			t.Errorf("a run leaves %v", s)
		}
		w.fails(1, []string{"worker-7"}, "status", "worker-7")
	})
}
