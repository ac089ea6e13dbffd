package keyring

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

const testLimit = 20 * time.Second // for what is expected to end by itself

func TestCommand(t *testing.T) {
	dir := t.TempDir()
	for _, c := range []struct{ name, line, want, errorText string }{
		{"output", `printf 'secret\n'`, "secret", ""},
		{"quoted words", `printf '%s' "a b"`, "a b", ""},
		{"no shell", `echo $HOME; ls`, "$HOME; ls", ""},
		{"slow", `sh -c 'printf sec; sleep 0.1; printf ret'`, "secret", ""},
		{"lingers after its output", `sh -c 'echo secret; exec >&-; sleep 0.2'`, "secret", ""},
		{"standard input is empty", `sh -c 'cat; echo secret'`, "secret", ""},
		{"fails after its output", `sh -c 'echo secret; exit 7'`, "", `passkey command "sh" failed: exit status 7`},
		{"fails", `false`, "", `passkey command "false" failed: exit status 1`},
		{"dies of a signal", `sh -c 'kill -9 $$'`, "", `passkey command "sh" failed: signal: killed`},
		{"missing", dir + "/none", "", "no such file"},
		{"no output", "true", "", `the output of passkey command "true" is empty`},
		{"two lines", `printf 'a\nb\n'`, "", `holds more than one line`},
		{"endless output", `yes`, "", `longer than a passphrase may be`},
	} {
		t.Run(c.name, func(t *testing.T) {
			passkey, err := readCommand(t.Context(), c.line, testLimit)
			if c.errorText != "" {
				if err == nil || !strings.Contains(err.Error(), c.errorText) {
					t.Errorf("%v, want %q", err, c.errorText)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			defer passkey.Destroy()
			if got := string(passkey.Passphrase().Bytes()); got != c.want {
				t.Errorf("got %q, want %q", got, c.want)
			}
		})
	}
}

// TestCommandMachineKey: a token may answer with the 32 bytes themselves.
func TestCommandMachineKey(t *testing.T) {
	passkey, err := readCommand(t.Context(), `head -c 32 /dev/zero`, testLimit)
	if err != nil {
		t.Fatal(err)
	}
	defer passkey.Destroy()
	if !bytes.Equal(passkey.MachineKey().Bytes(), make([]byte, 32)) || passkey.Passphrase() != nil {
		t.Errorf("%+v", passkey)
	}
}

// TestCommandLimit: a command that takes too long dies, and with it the
// children that hold its output.
func TestCommandLimit(t *testing.T) {
	const limit = 300 * time.Millisecond
	pidFile := filepath.Join(t.TempDir(), "pid")
	t.Setenv(childMode, "grandparent")
	t.Setenv(childArgs, strconv.Quote(pidFile))
	began := time.Now()
	_, err := readCommand(t.Context(), "/proc/self/exe", limit)
	var failed *CommandError
	if !errors.As(err, &failed) || failed.Limit != limit || !strings.Contains(err.Error(), "took longer than 300ms") {
		t.Errorf("got %v", err)
	}
	if took := time.Since(began); took < limit || took > 10*time.Second {
		t.Errorf("took %v", took)
	}
	expectGone(t, pidFile)
}

// TestCommandLimitAfterOutput: also one that has closed its output.
func TestCommandLimitAfterOutput(t *testing.T) {
	_, err := readCommand(t.Context(), `sh -c 'echo secret; exec >&-; exec sleep 1000'`, 200*time.Millisecond)
	var failed *CommandError
	if !errors.As(err, &failed) || failed.Limit == 0 {
		t.Errorf("got %v", err)
	}
}

func TestCommandContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	time.AfterFunc(100*time.Millisecond, cancel)
	_, err := readCommand(ctx, "sleep 1000", testLimit)
	var failed *CommandError
	if !errors.As(err, &failed) || !errors.Is(err, context.Canceled) || failed.Limit != 0 {
		t.Errorf("got %v", err)
	}
}

func expectGone(t *testing.T, pidFile string) {
	t.Helper()
	text, err := os.ReadFile(pidFile)
	if err != nil {
		t.Fatal(err)
	}
	pid, err := strconv.Atoi(string(text))
	if err != nil {
		t.Fatal(err)
	}
	for range 200 {
		stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		if err != nil || strings.Contains(string(stat), ") Z ") {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Errorf("process %d outlived the limit", pid)
	_ = unix.Kill(pid, unix.SIGKILL)
}

// TestCommandStandardError: what the command says reaches the user.
func TestCommandStandardError(t *testing.T) {
	cmd := withoutTerminal(childCommand(t, "read", Source{FD: -1, Command: `sh -c 'echo touch the token >&2; echo secret'`}))
	var said bytes.Buffer
	cmd.Stderr = &said
	if got := runChild(t, cmd).passphrase(t); got != "secret" {
		t.Errorf("got %q", got)
	}
	if said.String() != "touch the token\n" {
		t.Errorf("said %q", said.String())
	}
}

// TestCommandOnTerminal: a command may ask its own question there, and we have
// the terminal back afterwards.
func TestCommandOnTerminal(t *testing.T) {
	for _, c := range []struct{ script, want string }{
		{`printf PIN: >/dev/tty; read pin </dev/tty; echo "$pin"`, "1234"},
		{`printf PIN: >/dev/tty; read pin </dev/tty; exit 1`, ""},
	} {
		p := startOnPTY(t, childCommand(t, "read", Source{FD: -1, Command: "sh -c " + quoteWord(c.script)}))
		p.expect("PIN:")
		p.enter("1234\n")
		o := p.outcome()
		if c.want == "" {
			if o.ErrorType != "*keyring.CommandError" {
				t.Errorf("%+v", o)
			}
		} else if got := o.passphrase(t); got != c.want {
			t.Errorf("got %q", got)
		}
		if !o.Foreground {
			t.Error("the terminal was not taken back")
		}
	}
}
