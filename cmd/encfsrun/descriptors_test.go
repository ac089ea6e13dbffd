package main

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestDaemonInheritsNothing: neither a caller's pipe nor the passkey's descriptor stays open in a daemon.
func TestDaemonInheritsNothing(t *testing.T) {
	p := newPlace(t)
	mnt := filepath.Join(p.dir, "mnt")
	must(t, os.Mkdir(mnt, 0o755))
	passkey, typed, err := os.Pipe()
	must(t, err)
	read, write, err := os.Pipe()
	must(t, err)
	_, err = io.WriteString(typed, "correct horse battery staple\n")
	must(t, err)
	must(t, typed.Close())
	cmd := p.command("mount", "--read-only", "--passkey-fd", "4", p.vault, mnt)
	cmd.ExtraFiles = []*os.File{write, passkey, write} // the daemon has 3 itself
	cmd.Stderr = os.Stderr
	must(t, cmd.Run())
	defer func() { p.ok("umount", mnt) }()
	pipes := map[string]string{pipeOf(t, write): "the caller's pipe", pipeOf(t, passkey): "the passkey's pipe"}
	for fd, target := range daemonDescriptors(t, p, mnt) {
		if what := pipes[target]; what != "" {
			t.Errorf("descriptor %s of the daemon is %s", fd, what)
		}
	}
	must(t, write.Close())
	must(t, read.SetReadDeadline(time.Now().Add(5*time.Second)))
	if n, err := read.Read(make([]byte, 1)); err != io.EOF {
		t.Errorf("whoever waits for the end of the caller's pipe reads %d bytes, %v", n, err)
	}
}

func pipeOf(t *testing.T, f *os.File) string {
	t.Helper()
	target, err := os.Readlink(fmt.Sprintf("/proc/self/fd/%d", f.Fd()))
	must(t, err)
	return target
}

// daemonDescriptors returns what the descriptors of the daemon of a mount are.
func daemonDescriptors(t *testing.T, p *place, mnt string) map[string]string {
	t.Helper()
	fields := strings.Fields(strings.Split(p.ok("status", mnt), "\n")[1])
	dir := "/proc/" + fields[3] + "/fd"
	entries, err := os.ReadDir(dir)
	must(t, err)
	found := map[string]string{}
	for _, e := range entries {
		found[e.Name()], _ = os.Readlink(filepath.Join(dir, e.Name()))
	}
	if len(found) < 4 {
		t.Fatalf("the daemon in %s shows %v", dir, found)
	}
	return found
}
