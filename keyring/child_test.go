package keyring

import (
	"bytes"
	"context"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"encfsrun/fs/guarded"
	"encfsrun/internal/testkit"
)

// Tests that need another process (a terminal, another user, a helper that
// dies) run this test binary again; the variable says what it is to be.
const (
	childMode = "KEYRING_TEST_CHILD"
	childArgs = "KEYRING_TEST_ARGS"
)

func TestMain(m *testing.M) {
	testkit.QuickExits()
	if mode := os.Getenv(childMode); mode != "" {
		children[mode]()
		os.Exit(0)
	}
	testkit.DefaultSignals()
	os.Exit(m.Run())
}

var children map[string]func()

func init() {
	children = map[string]func(){
		"read":        func() { childRead(false) },
		"read-panic":  func() { childRead(true) },
		"hardened":    func() { guarded.Harden(); childRead(false) },
		"read-new":    childReadNew,
		"shell":       childShell,
		"read-only":   childReadOnlyMount,
		"tmpfs":       childTmpfs,
		"helper":      childHelper,
		"killed":      func() { _ = unix.Kill(os.Getpid(), unix.SIGKILL) },
		"hangs":       func() { time.Sleep(time.Hour) },
		"short":       func() { fmt.Print("short") },
		"talkative":   func() { fmt.Fprint(os.Stderr, "first line\nsecond line\n"); os.Exit(3) },
		"closes":      func() { os.Stdin.Close(); os.Stdout.Write(make([]byte, ikmSize)); os.Exit(4) },
		"grandparent": childGrandparent,
	}
}

// childCommand runs this binary again. Its path works for any user, because it
// is not looked up.
func childCommand(t testing.TB, mode string, args any) *exec.Cmd {
	t.Helper()
	text, err := json.Marshal(args)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), childMode+"="+mode, childArgs+"="+string(text))
	cmd.Stderr = os.Stderr
	return cmd
}

// outcome is what a child reports on its standard output.
type outcome struct {
	Passphrase string // hex
	MachineKey string // hex
	Generated  bool
	ErrorType  string
	Error      string
	Foreground bool // it is its terminal's foreground
	OpenFDs    []string
}

func (o outcome) passphrase(t *testing.T) string {
	t.Helper()
	if o.ErrorType != "" {
		t.Fatalf("%s: %s", o.ErrorType, o.Error)
	}
	return string(unhex(t, o.Passphrase))
}

func report(passkey *Passkey, generated bool, err error) {
	o := outcome{Generated: generated}
	if err != nil {
		o.ErrorType, o.Error = fmt.Sprintf("%T", err), err.Error()
	} else {
		o.Passphrase = hex.EncodeToString(passkey.Passphrase().Bytes())
		o.MachineKey = hex.EncodeToString(passkey.MachineKey().Bytes())
	}
	if tty, err := os.Open(terminalPath); err == nil {
		group, err := unix.IoctlGetInt(int(tty.Fd()), unix.TIOCGPGRP)
		o.Foreground = err == nil && group == unix.Getpgrp()
		tty.Close()
	}
	for fd := range 10 {
		if target, err := os.Readlink(fmt.Sprintf("/proc/self/fd/%d", fd)); err == nil {
			o.OpenFDs = append(o.OpenFDs, fmt.Sprintf("%d=%s", fd, target))
		}
	}
	_ = json.NewEncoder(os.Stdout).Encode(o)
}

func childArg(v any) {
	if err := json.Unmarshal([]byte(os.Getenv(childArgs)), v); err != nil {
		panic(err)
	}
}

func childRead(panics bool) {
	var s Source
	childArg(&s)
	if panics {
		defer func() { report(nil, false, fmt.Errorf("%v", recover())) }()
		t, err := openTerminal(context.Background(), nil)
		if err != nil {
			panic(err)
		}
		defer t.close()
		t.write("about to panic: ")
		_, _ = os.Stdin.Read(make([]byte, 1))
		panic("as announced")
	}
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second) // a FIFO that should have been refused has no writer
	defer cancel()
	passkey, err := s.Read(ctx, "v")
	report(passkey, false, err)
}

func childReadNew() {
	var s NewSource
	childArg(&s)
	passkey, generated, err := s.Read(context.Background(), "v")
	report(passkey, generated, err)
}

func childHelper() {
	if err := HelperMain(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// childGrandparent is a passkey command with a child of its own that keeps its
// output open: the pid goes to the file named in the arguments.
func childGrandparent() {
	var pidFile string
	childArg(&pidFile)
	grandchild := exec.Command("sleep", "1000")
	grandchild.Stdout = os.Stdout
	if err := grandchild.Start(); err != nil {
		panic(err)
	}
	_ = os.WriteFile(pidFile, fmt.Append(nil, grandchild.Process.Pid), 0o600)
	time.Sleep(time.Hour)
}

// runChild runs a child to its end and decodes what it reports.
func runChild(t *testing.T, cmd *exec.Cmd) outcome {
	t.Helper()
	var out bytes.Buffer
	cmd.Stdout = &out
	if err := cmd.Run(); err != nil {
		t.Fatalf("child: %v", err)
	}
	return decodeOutcome(t, out.Bytes())
}

func decodeOutcome(t *testing.T, text []byte) outcome {
	t.Helper()
	var o outcome
	if err := json.Unmarshal(text, &o); err != nil {
		t.Fatalf("child said %q: %v", text, err)
	}
	return o
}

// withoutTerminal gives a child a session of its own, which has no terminal.
func withoutTerminal(cmd *exec.Cmd) *exec.Cmd {
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	return cmd
}

// diskDir makes a directory that every user may enter, on a mount that is
// neither tmpfs nor read-only.
func diskDir(t *testing.T) string {
	t.Helper()
	here, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	for _, base := range []string{os.TempDir(), "/var/tmp", here} {
		var mount unix.Statfs_t
		if unix.Statfs(base, &mount) != nil || mount.Type == unix.TMPFS_MAGIC || mount.Flags&unix.ST_RDONLY != 0 {
			continue
		}
		dir, err := os.MkdirTemp(base, "keyring-test-")
		if err != nil {
			continue
		}
		t.Cleanup(func() { os.RemoveAll(dir) })
		if err := os.Chmod(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		return dir
	}
	t.Fatal("no directory on a disk was found")
	return ""
}

// writeFile makes a file of exactly that mode.
func writeFile(t *testing.T, path, text string, mode os.FileMode) string {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), mode); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(path, mode); err != nil {
		t.Fatal(err)
	}
	return path
}
