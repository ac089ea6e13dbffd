package keyring

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

func TestMachineKeyFile(t *testing.T) {
	dir := diskDir(t)
	path := filepath.Join(dir, "machine.key")
	old := syscall.Umask(0)
	made, err := GenerateMachineKey(path)
	syscall.Umask(old)
	if err != nil {
		t.Fatal(err)
	}
	defer made.Destroy()
	st, err := os.Stat(path)
	if err != nil || st.Mode() != 0o600 || st.Size() != MachineKeySize {
		t.Fatalf("%v, %v", st, err)
	}
	read, err := ReadMachineKey(t.Context(), path, "")
	if err != nil {
		t.Fatal(err)
	}
	defer read.Destroy()
	if string(read.MachineKey().Bytes()) != string(made.MachineKey().Bytes()) || read.Passphrase() != nil {
		t.Error("another key came back")
	}
	before, _ := os.ReadFile(path)
	if _, err := GenerateMachineKey(path); !errors.Is(err, os.ErrExist) {
		t.Errorf("overwriting: %v", err)
	}
	if after, _ := os.ReadFile(path); string(after) != string(before) {
		t.Error("the key was overwritten")
	}
	dangling := filepath.Join(dir, "link")
	if err := os.Symlink(filepath.Join(dir, "target"), dangling); err != nil {
		t.Fatal(err)
	}
	if _, err := GenerateMachineKey(dangling); !errors.Is(err, os.ErrExist) {
		t.Errorf("through a link: %v", err)
	}
	if _, err := GenerateMachineKey(filepath.Join(dir, "none", "key")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("in a missing directory: %v", err)
	}
	for _, c := range []struct{ content, errorType string }{
		{"a passphrase\n", "*keyring.PasskeyError"},
		{"", "*keyring.PasskeyError"},
		{strings.Repeat("x", 33), "*keyring.PasskeyError"},
	} {
		bad := writeFile(t, filepath.Join(dir, "bad"), c.content, 0o600)
		if _, err := ReadMachineKey(t.Context(), bad, ""); fmt.Sprintf("%T", err) != c.errorType {
			t.Errorf("%q: %v", c.content, err)
		}
	}
	if err := os.Chmod(path, 0o640); err != nil {
		t.Fatal(err)
	}
	if _, err := ReadMachineKey(t.Context(), path, ""); fmt.Sprintf("%T", err) != "*keyring.UnsafeFileError" {
		t.Errorf("readable by the group: %v", err)
	}
}
