package main

import (
	"bytes"
	"os"
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
