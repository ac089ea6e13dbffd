package main

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestSignalsOfARun: the status is the program's, also of one that survives a signal.
func TestSignalsOfARun(t *testing.T) {
	p := newPlace(t)
	for _, c := range []struct {
		signal syscall.Signal
		script string
		code   int
	}{
		{syscall.SIGTERM, "trap 'exit 3' TERM; echo ready; while :; do sleep 0.05; done", 3},
		{syscall.SIGHUP, "trap 'got=7' HUP; echo ready; while [ -z $got ]; do sleep 0.05; done; exit $got", 7},
		{syscall.SIGTERM, "echo ready; exec sleep 60", 143},
	} {
		cmd := p.command("run", "--passkey-file", p.key, p.vault, "sh", "-c", c.script)
		var errs bytes.Buffer
		cmd.Stderr = &errs
		out, err := cmd.StdoutPipe()
		must(t, err)
		must(t, cmd.Start())
		await(t, out)
		must(t, cmd.Process.Signal(c.signal))
		if got := status(cmd.Wait()); got != c.code || errs.Len() > 0 {
			t.Errorf("%v to %q: exit %d, want %d\n%s", c.signal, c.script, got, c.code, &errs)
		}
	}
}

// TestSignalsBeforeARun: while nobody has given the passkey, a signal ends every command with 128+n.
func TestSignalsBeforeARun(t *testing.T) {
	p := newPlace(t)
	must(t, os.Mkdir(p.dir+"/mnt", 0o755))
	for _, args := range [][]string{
		{"ls", p.vault}, {"run", p.vault, "true"}, {"mount", "--read-only", "--foreground", p.vault, p.dir + "/mnt"},
	} {
		read, write, err := os.Pipe()
		must(t, err)
		cmd := p.command(append([]string{args[0], "--passkey-fd", "3"}, args[1:]...)...)
		cmd.ExtraFiles = []*os.File{read}
		var errs bytes.Buffer
		cmd.Stderr = &errs
		must(t, cmd.Start())
		read.Close()
		time.Sleep(300 * time.Millisecond)
		must(t, cmd.Process.Signal(syscall.SIGTERM))
		if got := status(cmd.Wait()); got != 143 || !strings.Contains(errs.String(), "stopped by SIGTERM") {
			t.Errorf("SIGTERM to %v: exit %d\n%s", args, got, &errs)
		}
		write.Close()
	}
}

// TestNohup: what the caller ignores is ignored, by encfsrun and by the program of a run.
func TestNohup(t *testing.T) {
	p := newPlace(t)
	nohup := func(args ...string) (*exec.Cmd, *bytes.Buffer) {
		cmd := p.command(args...)
		cmd.Path, cmd.Args = "/usr/bin/nohup", append([]string{"nohup"}, cmd.Args...)
		errs := new(bytes.Buffer)
		cmd.Stderr = errs
		return cmd, errs
	}
	cmd, errs := nohup("run", "--passkey-file", p.key, p.vault, "sh", "-c", "echo ready; read go; grep SigIgn /proc/self/status")
	in, err := cmd.StdinPipe()
	must(t, err)
	out, err := cmd.StdoutPipe()
	must(t, err)
	must(t, cmd.Start())
	await(t, out)
	must(t, cmd.Process.Signal(syscall.SIGHUP))
	_, err = io.WriteString(in, "go\n")
	must(t, err)
	line, err := io.ReadAll(out)
	must(t, err)
	var ignored uint64
	fmt.Sscanf(string(line), "SigIgn: %x", &ignored)
	if got := status(cmd.Wait()); got != 0 || ignored&1 == 0 {
		t.Errorf("a run after SIGHUP: exit %d, the program says %q\n%s", got, line, errs)
	}

	read, write, err := os.Pipe()
	must(t, err)
	defer write.Close()
	cmd, errs = nohup("ls", "--passkey-fd", "3", p.vault)
	cmd.ExtraFiles = []*os.File{read}
	must(t, cmd.Start())
	read.Close()
	time.Sleep(300 * time.Millisecond)
	must(t, cmd.Process.Signal(syscall.SIGHUP))
	must(t, cmd.Process.Signal(syscall.SIGTERM))
	if got := status(cmd.Wait()); got != 143 {
		t.Errorf("ls after SIGHUP and SIGTERM: exit %d\n%s", got, errs)
	}
}
