package keyring

import (
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

var askingSource = Source{FD: -1}

func TestPrompt(t *testing.T) {
	p := startOnPTY(t, childCommand(t, "read", askingSource))
	p.expect(`passkey for "v": `)
	if p.echoes() {
		t.Error("echo is on at the prompt")
	}
	p.enter("wrox\x7fng secret\n") // with a correction
	if got := p.outcome().passphrase(t); got != "wrong secret" {
		t.Errorf("got %q", got)
	}
	if p.modes() != p.before {
		t.Errorf("modes %+v, before %+v", p.modes(), p.before)
	}
	p.expect("\r\n") // the terminal may deliver it after the child's end
	if shown := p.shown(); shown != "passkey for \"v\": \r\n" {
		t.Errorf("the terminal shows %q", shown)
	}
}

// TestPromptLines: what can be typed and is refused.
func TestPromptLines(t *testing.T) {
	for _, c := range []struct{ name, keys, errorText string }{
		{"nothing", "\n", "the passphrase is empty"},
		{"Ctrl-D", "\x04", "Ctrl-D"},
		{"beyond what the kernel keeps", strings.Repeat("x", 5000) + "\n", "longer than a terminal can take"},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := startOnPTY(t, childCommand(t, "read", askingSource))
			p.expect(`: `)
			p.enter(c.keys)
			if o := p.outcome(); o.ErrorType != "*keyring.PasskeyError" || !strings.Contains(o.Error, c.errorText) {
				t.Errorf("%+v", o)
			}
			if !p.echoes() {
				t.Error("echo is off")
			}
		})
	}
	t.Run("Ctrl-D after characters", func(t *testing.T) {
		p := startOnPTY(t, childCommand(t, "read", askingSource))
		p.expect(`: `)
		p.enter("secret\x04")
		time.Sleep(20 * time.Millisecond)
		p.enter("\x04")
		if got := p.outcome().passphrase(t); got != "secret" {
			t.Errorf("got %q", got)
		}
	})
	t.Run("the longest", func(t *testing.T) {
		p := startOnPTY(t, childCommand(t, "read", askingSource))
		p.expect(`: `)
		long := strings.Repeat("x", maxTyped-2)
		p.enter(long + "\n")
		if got := p.outcome().passphrase(t); got != long {
			t.Errorf("got %d bytes", len(got))
		}
	})
}

// TestPromptSignals: whatever ends a prompt, the terminal is as before, and
// half a secret does not go to the shell.
func TestPromptSignals(t *testing.T) {
	for _, c := range []struct {
		name string
		end  func(p *pty)
		want string
	}{
		{"Ctrl-C", func(p *pty) { p.enter("\x03") }, "interrupt"},
		{"Ctrl-\\", func(p *pty) { p.enter("\x1c") }, "quit"},
		{"SIGTERM", func(p *pty) { _ = p.cmd.Process.Signal(syscall.SIGTERM) }, "terminated"},
		{"SIGHUP", func(p *pty) { _ = p.cmd.Process.Signal(syscall.SIGHUP) }, "hangup"},
		{"SIGINT", func(p *pty) { _ = p.cmd.Process.Signal(syscall.SIGINT) }, "interrupt"},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := startOnPTY(t, childCommand(t, "read", askingSource))
			p.expect(`: `)
			if p.echoes() {
				t.Fatal("echo is on at the prompt")
			}
			p.enter("half a sec")
			time.Sleep(10 * time.Millisecond)
			c.end(p)
			o := p.outcome()
			if o.ErrorType != "*keyring.InterruptedError" || !strings.Contains(o.Error, c.want) {
				t.Errorf("%+v", o)
			}
			if p.modes() != p.before {
				t.Errorf("modes %+v, before %+v", p.modes(), p.before)
			}
			if rest := p.unread(); rest != "\n" {
				t.Errorf("%q is left for the shell", rest)
			}
		})
	}
}

// TestPromptNohup: a signal that the caller ignores does not end a prompt.
func TestPromptNohup(t *testing.T) {
	cmd := childCommand(t, "read", askingSource)
	cmd.Path, cmd.Args = "/usr/bin/nohup", []string{"nohup", fmt.Sprintf("/proc/%d/exe", os.Getpid())}
	p := startOnPTY(t, cmd)
	p.expect(`: `)
	for _, s := range []syscall.Signal{syscall.SIGHUP, syscall.SIGCONT} {
		if err := p.cmd.Process.Signal(s); err != nil {
			t.Fatal(err)
		}
	}
	p.expect(`: `) // the second was handled, and so would the first have been
	p.enter("secret\n")
	if got := p.outcome().passphrase(t); got != "secret" {
		t.Errorf("got %q", got)
	}
}

func TestPromptPanic(t *testing.T) {
	cmd := childCommand(t, "read-panic", askingSource)
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	p := startOnPTY(t, cmd)
	p.expect("about to panic: ")
	if p.echoes() {
		t.Fatal("echo is on at the prompt")
	}
	p.enter("half a sec")
	time.Sleep(10 * time.Millisecond)
	in.Close()
	if o := p.outcome(); o.Error != "as announced" {
		t.Errorf("%+v", o)
	}
	if !p.echoes() {
		t.Error("echo is off")
	}
	if rest := p.unread(); rest != "\n" {
		t.Errorf("%q is left for the shell", rest)
	}
}

// TestPromptStop: after Ctrl-Z the shell has the terminal, with echo; when the
// process continues, echo is off and the prompt is there again.
func TestPromptStop(t *testing.T) {
	p := startOnPTY(t, childCommand(t, "shell", askingSource))
	p.expect(`passkey for "v": `)
	for range 2 {
		p.enter("\x1a")
		p.expect("stopped")
		if !p.echoes() {
			t.Error("the shell has no echo")
		}
		p.enter("\n") // the shell goes on at a line
		p.expect(`passkey for "v": `)
		if p.echoes() {
			t.Error("echo is on after the stop")
		}
	}
	p.enter("secret\n")
	if got := p.outcome().passphrase(t); got != "secret" {
		t.Errorf("got %q", got)
	}
	if !p.echoes() || strings.Contains(p.shown(), "secret") {
		t.Errorf("echo %v, the terminal shows %q", p.echoes(), p.shown())
	}
}

// childShell is a shell with one job in the foreground of its terminal: when
// the job stops, it sets the terminal to its own modes, reads a line and
// continues the job.
func childShell() {
	tty, err := os.OpenFile(terminalPath, os.O_RDWR, 0)
	if err != nil {
		panic(err)
	}
	fd := int(tty.Fd())
	own, err := unix.IoctlGetTermios(fd, unix.TCGETS)
	if err != nil {
		panic(err)
	}
	job := exec.Command("/proc/self/exe")
	job.Env = append(os.Environ(), childMode+"=read")
	job.Stdout, job.Stderr = os.Stdout, os.Stderr
	job.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Foreground: true, Ctty: fd}
	if err := job.Start(); err != nil {
		panic(err)
	}
	for {
		var status unix.WaitStatus
		if _, err := unix.Wait4(job.Process.Pid, &status, unix.WUNTRACED, nil); err == unix.EINTR {
			continue
		} else if err != nil {
			panic(err)
		}
		if !status.Stopped() {
			return
		}
		takeForeground(fd, unix.Getpgrp())
		if err := unix.IoctlSetTermios(fd, unix.TCSETSW, own); err != nil {
			panic(err)
		}
		fmt.Fprintln(tty, "stopped")
		_, _ = tty.Read(make([]byte, 100))
		takeForeground(fd, job.Process.Pid)
		_ = unix.Kill(-job.Process.Pid, unix.SIGCONT)
	}
}

func TestNewPrompt(t *testing.T) {
	type step struct{ expect, enter string }
	first, again := `new passkey for "v" (empty: generate one): `, "the same again: "
	for _, c := range []struct {
		name      string
		steps     []step
		want      string
		errorType string
	}{
		{"twice the same", []step{{first, "secret\n"}, {again, "secret\n"}}, "secret", ""},
		{"typed ahead", []step{{first, "secret\nsecret\n"}}, "secret", ""},
		{"at the third try", []step{{first, "a\n"}, {again, "b\n"}, {first, "a\n"}, {again, "\n"}, {first, "c\n"}, {again, "c\n"}}, "c", ""},
		{"never", []step{{first, "a\n"}, {again, "b\n"}, {first, "a\n"}, {again, "b\n"}, {first, "a\n"}, {again, "aa\n"}}, "", "*keyring.MismatchError"},
		{"Ctrl-C at the second", []step{{first, "a\n"}, {again, "a\x03"}}, "", "*keyring.InterruptedError"},
		{"Ctrl-D", []step{{first, "\x04"}}, "", "*keyring.PasskeyError"},
		{"generated", []step{{first, "\n"}}, "", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := startOnPTY(t, childCommand(t, "read-new", NewSource{FD: -1}))
			for _, s := range c.steps {
				p.expect(s.expect)
				if p.echoes() {
					t.Error("echo is on at the prompt")
				}
				p.enter(s.enter)
			}
			o := p.outcome()
			switch {
			case c.errorType != "":
				if o.ErrorType != c.errorType {
					t.Errorf("%+v", o)
				}
			case c.want != "":
				if got := o.passphrase(t); got != c.want || o.Generated {
					t.Errorf("%+v", o)
				}
			default:
				if got := o.passphrase(t); len(got) != 35 || !o.Generated || strings.Contains(p.shown(), got) {
					t.Errorf("%+v", o)
				}
			}
			if p.modes() != p.before {
				t.Errorf("modes %+v, before %+v", p.modes(), p.before)
			}
		})
	}
}

func TestNewPromptWithoutTerminal(t *testing.T) {
	cmd := withoutTerminal(childCommand(t, "read-new", NewSource{FD: -1}))
	cmd.Stdin = strings.NewReader("secret\nsecret\n")
	o := runChild(t, cmd)
	if o.ErrorType != "*keyring.NoTerminalError" || !strings.Contains(o.Error, "--new-passkey-file") || strings.Contains(o.Error, "ENCFSRUN") {
		t.Errorf("%+v", o)
	}
}
