package main

import (
	"encoding/json"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"encfsrun/launcher"
	"encfsrun/launcher/control"
)

// hold has a program of this person keep the file of the mount open.
func (p *person) hold() (release func()) {
	p.t.Helper()
	cmd := p.command()
	cmd.Path, cmd.Args = "/bin/sh", []string{"sh", "-c", "exec < mnt/file; echo; exec sleep 60"}
	ready, err := cmd.StdoutPipe()
	must(p.t, err)
	must(p.t, cmd.Start())
	if _, err := ready.Read(make([]byte, 1)); err != nil {
		p.t.Fatalf("the file was not opened: %v", err)
	}
	return func() { cmd.Process.Kill(); cmd.Wait() }
}

// lazily unmounts as umount -l does: who holds a file keeps it, and the daemon.
func (p *person) lazily() {
	p.t.Helper()
	must(p.t, unix.Unmount(p.path("mnt"), unix.MNT_DETACH))
}

// TestOnlyItsOwnMountIsUnmounted: a daemon, or the command that holds a mount in the foreground, is asked to end while its mount
// is gone but held, and another lies at the same place.
func TestOnlyItsOwnMountIsUnmounted(t *testing.T) {
	eachPerson(t, func(t *testing.T, p *person) {
		for _, foreground := range []bool{false, true} {
			args := []string{"mount", "--read-only", "v", "mnt"}
			var stop int
			var front *exec.Cmd
			if foreground {
				front = p.command(append(args, "--foreground")...)
				must(t, front.Start())
				stop = front.Process.Pid
				eventually(t, "mounted", func() bool { _, err := launcher.FindMount(p.path("mnt")); return err == nil })
			} else {
				p.ok(args...)
				stop = p.daemons()[0]
			}
			eventually(t, "status shows it", func() bool { return p.command("status", "mnt").Run() == nil })
			release := p.hold()
			p.lazily()
			p.ok(args...)
			second, err := launcher.FindMount(p.path("mnt"))
			must(t, err)
			must(t, unix.Kill(stop, unix.SIGTERM))
			time.Sleep(500 * time.Millisecond)
			if m, err := launcher.FindMount(p.path("mnt")); err != nil || m.ID != second.ID {
				t.Errorf("foreground %v: the second mount was unmounted: %v", foreground, err)
			}
			release()
			p.ok("umount", "mnt")
			if front != nil {
				must(t, front.Wait())
			}
			eventually(t, "the daemons end", func() bool { return len(p.daemons()) == 0 })
		}
	})
}

// TestUmountFindsItsDaemon: umount waits for the end of the mount's own daemon, whatever others claim.
func TestUmountFindsItsDaemon(t *testing.T) {
	eachPerson(t, func(t *testing.T, p *person) {
		p.ok("mount", "--read-only", "v", "mnt")
		daemon := p.daemons()
		// A run of the same person that has the mount point's path and calls itself by it.
		run := p.command("run", "--at", p.path("mnt"), "--name", p.path("mnt"), "v", "sleep", "60")
		must(t, run.Start())
		eventually(t, "two are listed", func() bool { return len(p.status()) == 2 })
		for _, s := range p.status() {
			if s.Sandboxed != (s.Name != "") || s.Sandboxed != (s.Device == "") {
				t.Errorf("listed as %+v", s)
			}
		}
		if list := p.status("mnt"); len(list) != 1 || list[0].PID != daemon[0] {
			t.Errorf("status mnt: %+v", list)
		}
		p.ok("umount", "mnt")
		if slices.Contains(p.daemons(), daemon[0]) {
			t.Error("umount did not wait for the mount's daemon")
		}
		must(t, run.Process.Signal(unix.SIGTERM))
		run.Wait()
	})
}

// TestStrangersClaims: root unmounts and asks while another user lists a daemon with the path of root's mount.
func TestStrangersClaims(t *testing.T) {
	root, other := newPerson(t, 0), newPerson(t, 65533) // whose folder in /tmp no other test uses
	must(t, os.Chmod(root.dir, 0o755))
	root.ok("mount", "--read-only", "v", "mnt")
	daemon := root.daemons()
	m, err := launcher.FindMount(root.path("mnt"))
	must(t, err)
	// The stranger's registry is one that root looks into.
	folder := "/tmp/encfsrun-65533"
	if _, err := os.Lstat(folder); err == nil {
		t.Fatalf("%s is in use", folder)
	}
	run := other.command("run", "--at", root.path("mnt"), "--name", root.path("mnt"), "v", "sleep", "60")
	run.Env = append(run.Env, "XDG_RUNTIME_DIR=")
	must(t, run.Start())
	defer os.RemoveAll(folder)
	defer func() { run.Process.Signal(unix.SIGTERM); run.Wait() }()
	eventually(t, "root sees it", func() bool { return strings.Contains(root.ok("status"), other.path("v")) })
	if list := root.status("mnt"); len(list) != 1 || list[0].PID != daemon[0] || list[0].Device != m.Device {
		t.Errorf("status mnt: %+v", list)
	}
	if out, err := root.command("status", root.path("none")).CombinedOutput(); err == nil {
		t.Errorf("status of nothing: %s", out)
	}
	root.ok("umount", "mnt")
	if slices.Contains(root.daemons(), daemon[0]) {
		t.Error("umount did not wait for the mount's daemon")
	}
	if out, err := root.command("status", root.path("mnt")).CombinedOutput(); err == nil {
		t.Errorf("root takes a stranger's run by its name: %s", out)
	}
}

// status is what status --json says of this person's vaults.
func (p *person) status(args ...string) []control.Status {
	p.t.Helper()
	var list []control.Status
	must(p.t, json.Unmarshal([]byte(p.ok(append([]string{"status", "--json"}, args...)...)), &list))
	return slices.DeleteFunc(list, func(s control.Status) bool { return !strings.HasPrefix(s.Vault, p.dir+"/") })
}
