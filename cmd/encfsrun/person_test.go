package main

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"encfsrun/launcher"
)

// person is a user of the product, with a vault and a folder of their own.
type person struct {
	t   *testing.T
	uid int
	dir string // holds what is below
}

// eachPerson runs a test with real processes as root and as an ordinary user.
func eachPerson(t *testing.T, test func(t *testing.T, p *person)) {
	if os.Getuid() != 0 {
		t.Fatal("this test needs root, to be root and another")
	}
	for _, uid := range []int{0, 65534} {
		t.Run(fmt.Sprintf("uid %d", uid), func(t *testing.T) { test(t, newPerson(t, uid)) })
	}
}

func newPerson(t *testing.T, uid int) *person {
	t.Helper()
	dir, err := os.MkdirTemp("", "encfsrun-person-")
	must(t, err)
	p := &person{t, uid, dir}
	t.Cleanup(p.leave)
	for _, name := range []string{"src", "mnt", "runtime", "state"} {
		must(t, os.Mkdir(p.path(name), 0o700))
	}
	must(t, os.WriteFile(p.path("src/file"), []byte("from the vault\n"), 0o644))
	must(t, os.WriteFile(p.path("pass"), []byte("open sesame\n"), 0o600))
	must(t, filepath.WalkDir(dir, func(name string, _ os.DirEntry, _ error) error { return os.Chown(name, uid, uid) }))
	p.ok("pack", "--new-passkey-file", p.path("pass"), "--kdf-memory=8M", p.path("src"), p.path("v"))
	return p
}

func (p *person) path(name string) string { return filepath.Join(p.dir, name) }

// command is encfsrun as this person starts it.
func (p *person) command(args ...string) *exec.Cmd {
	cmd := exec.Command(binary, args...)
	cmd.Dir = p.dir
	cmd.Env = []string{"PATH=/usr/bin:/bin", "HOME=" + p.dir, "XDG_RUNTIME_DIR=" + p.path("runtime"), "ENCFSRUN_PASSKEY_FILE=" + p.path("pass")}
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(p.uid), Gid: uint32(p.uid)}, Setsid: true}
	return cmd
}

// ok runs encfsrun and wants it to succeed.
func (p *person) ok(args ...string) string {
	p.t.Helper()
	out, err := p.command(args...).CombinedOutput()
	if err != nil {
		p.t.Fatalf("encfsrun %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return string(out)
}

// processes lists the running ones that belong to this person's world.
func (p *person) processes(kind string) []int {
	var pids []int
	names, _ := filepath.Glob("/proc/[0-9]*")
	for _, name := range names {
		environ, _ := os.ReadFile(name + "/environ")
		command, _ := os.ReadFile(name + "/cmdline")
		var pid int
		fmt.Sscan(filepath.Base(name), &pid)
		if bytes.Contains(environ, []byte("HOME="+p.dir+"\x00")) && strings.Contains(string(command), kind) {
			pids = append(pids, pid)
		}
	}
	return pids
}

// daemons lists the pids of the daemons.
func (p *person) daemons() []int { return p.processes("\x00daemon\x00") }

// leave ends and unmounts whatever a failed test left.
func (p *person) leave() {
	for _, pid := range p.processes("") {
		unix.Kill(pid, unix.SIGKILL)
	}
	mounts, err := launcher.Mounts()
	must(p.t, err)
	for _, m := range mounts {
		if strings.HasPrefix(m.Mountpoint, p.dir+"/") {
			unix.Unmount(m.Mountpoint, unix.MNT_DETACH)
		}
	}
	os.RemoveAll(p.dir)
}

// eventually waits for something that takes moments.
func eventually(t *testing.T, what string, is func() bool) {
	t.Helper()
	for late := time.Now().Add(10 * time.Second); !is(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(late) {
			t.Fatalf("not within ten seconds: %s", what)
		}
	}
}
