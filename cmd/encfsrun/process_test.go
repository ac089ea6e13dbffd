package main

import (
	"bytes"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// place is a folder with a vault in it, and the command line as somebody uses it there.
type place struct {
	t          *testing.T
	dir        string
	key, vault string
}

func newPlace(t *testing.T) *place {
	dir := t.TempDir()
	p := &place{t: t, dir: dir, key: filepath.Join(dir, "key"), vault: filepath.Join(dir, "app.vault")}
	must(t, os.Mkdir(filepath.Join(dir, "run"), 0o700))
	must(t, os.Mkdir(filepath.Join(dir, "app"), 0o755))
	must(t, os.WriteFile(filepath.Join(dir, "app/main.py"), []byte("print('hi')\n"), 0o644))
	must(t, os.WriteFile(p.key, []byte("correct horse battery staple\n"), 0o600))
	p.ok("pack", "--kdf-memory=8M", "--kdf-time=1", "--new-passkey-file", p.key, filepath.Join(dir, "app"), p.vault)
	return p
}

// command is an encfsrun that knows nothing of the machine's own state.
func (p *place) command(args ...string) *exec.Cmd {
	cmd := exec.Command(binary, args...)
	cmd.Dir = p.dir
	cmd.Env = []string{
		"PATH=" + os.Getenv("PATH"), "HOME=" + p.dir,
		"XDG_STATE_HOME=" + filepath.Join(p.dir, "state"), "XDG_RUNTIME_DIR=" + filepath.Join(p.dir, "run"),
	}
	return cmd
}

// ok runs a command that has to succeed and returns what it printed.
func (p *place) ok(args ...string) string {
	p.t.Helper()
	var errs bytes.Buffer
	cmd := p.command(args...)
	cmd.Stderr = &errs
	out, err := cmd.Output()
	if err != nil {
		p.t.Fatalf("encfsrun %s: %v\n%s", strings.Join(args, " "), err, &errs)
	}
	return string(out)
}

// status is the exit code of a command that has ended, 128+n where a signal ended it.
func status(err error) int {
	var exit *exec.ExitError
	switch {
	case err == nil:
		return 0
	case !errors.As(err, &exit):
		return -1
	}
	if w := exit.Sys().(syscall.WaitStatus); w.Signaled() {
		return 128 + int(w.Signal())
	}
	return exit.ExitCode()
}

// await reads up to the line that says that a program is ready.
func await(t *testing.T, r io.Reader) {
	t.Helper()
	line := make([]byte, len("ready\n"))
	if _, err := io.ReadFull(r, line); err != nil || string(line) != "ready\n" {
		t.Fatalf("read %q, %v", line, err)
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
