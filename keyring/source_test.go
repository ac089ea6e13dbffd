package keyring

import (
	"errors"
	"path/filepath"
	"strings"
	"testing"
)

func expectPassphrase(t *testing.T, s Source, want string) {
	t.Helper()
	passkey, err := s.Read(t.Context(), "v")
	if err != nil {
		t.Error(err)
		return
	}
	defer passkey.Destroy()
	if got := string(passkey.Passphrase().Bytes()); got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

// TestSourceOrder: each source counts only when none before it is set.
func TestSourceOrder(t *testing.T) {
	dir := diskDir(t)
	file := writeFile(t, filepath.Join(dir, "file"), "from the file", 0o600)
	env := writeFile(t, filepath.Join(dir, "env"), "from the environment", 0o600)
	writeFile(t, filepath.Join(dir, CredentialName), "from the credential", 0o600)
	empty := t.TempDir()
	for _, c := range []struct {
		name string
		s    Source
		want string
	}{
		{"file first", Source{FD: -1, File: file, EnvFile: env, CredentialsDir: dir}, "from the file"},
		{"command first", Source{FD: -1, Command: "echo from a command", EnvFile: env, CredentialsDir: dir}, "from a command"},
		{"environment", Source{FD: -1, EnvFile: env, CredentialsDir: dir}, "from the environment"},
		{"credential", Source{FD: -1, CredentialsDir: dir}, "from the credential"},
	} {
		t.Run(c.name, func(t *testing.T) { expectPassphrase(t, c.s, c.want) })
	}
	for _, c := range []struct {
		name, errorType string
		s               Source
	}{
		{"nothing", "*keyring.NoTerminalError", Source{FD: -1}},
		{"credentials without ours", "*keyring.NoTerminalError", Source{FD: -1, CredentialsDir: empty}},
		{"environment names a missing file", "*keyring.PasskeyError", Source{FD: -1, EnvFile: empty + "/x", CredentialsDir: dir}},
		{"file and command", "*keyring.UsageError", Source{FD: -1, File: file, Command: "echo x"}},
		{"descriptor and file", "*keyring.UsageError", Source{FD: 0, File: file}},
		{"descriptor and command", "*keyring.UsageError", Source{FD: 5, Command: "echo x"}},
		{"standard output", "*keyring.UsageError", Source{FD: 1}},
		{"quote not closed", "*keyring.UsageError", Source{FD: -1, Command: "echo 'x"}},
	} {
		// With a passphrase on standard input, which nobody asked for.
		cmd := withoutTerminal(childCommand(t, "read", c.s))
		cmd.Stdin = strings.NewReader("from standard input\n")
		o := runChild(t, cmd)
		if o.ErrorType != c.errorType {
			t.Errorf("%s: %+v", c.name, o)
		}
		if c.errorType == "*keyring.NoTerminalError" {
			for _, other := range []string{"--passkey-file", "--passkey-fd", "--passkey-command", "$ENCFSRUN_PASSKEY_FILE", "$CREDENTIALS_DIRECTORY/encfsrun.passkey"} {
				if !strings.Contains(o.Error, other) {
					t.Errorf("%s: %q lacks %s", c.name, o.Error, other)
				}
			}
		}
	}
}

// TestNewSourceFromFile: a new passphrase may be 32 bytes of text, not a
// machine key.
func TestNewSourceFromFile(t *testing.T) {
	dir := diskDir(t)
	for _, c := range []struct{ name, content, want string }{
		{"line", "secret\n", "secret"},
		{"32 bytes of text", strings.Repeat("é", 16), strings.Repeat("é", 16)},
		{"32 bytes with NUL", strings.Repeat("a\x00", 16), ""},
		{"32 random bytes without NUL", strings.Repeat("\xfe\x80", 16), ""},
		{"32 bytes with a control character", strings.Repeat("a\x1b", 16), ""},
		{"empty", "", ""},
	} {
		path := writeFile(t, filepath.Join(dir, "key"), c.content, 0o600)
		passkey, generated, err := NewSource{FD: -1, File: path}.Read(t.Context(), "v")
		if c.want == "" {
			var refused *PasskeyError
			if !errors.As(err, &refused) {
				t.Errorf("%s: %v", c.name, err)
			}
			continue
		}
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
			continue
		}
		if string(passkey.Passphrase().Bytes()) != c.want || passkey.MachineKey() != nil || generated {
			t.Errorf("%s: %q", c.name, passkey.Passphrase().Bytes())
		}
		passkey.Destroy()
	}
	if err := (NewSource{FD: 3, File: "x"}).Validate(); err == nil || !strings.Contains(err.Error(), "--new-passkey-fd and --new-passkey-file") {
		t.Errorf("got %v", err)
	}
}
