package testkit

import (
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
)

// children are what this binary is when its first argument names one.
var children = map[string]func(){
	"signals": func() {
		DefaultSignals()
		for _, s := range []syscall.Signal{syscall.SIGHUP, syscall.SIGINT, syscall.SIGTSTP} {
			syscall.Kill(os.Getpid(), s) // goes on ignoring them
		}
		printIgnored()
	},
	"no signals": printIgnored,
	"mounts": func() {
		OwnMounts()
		table, _ := os.ReadFile("/proc/self/mountinfo")
		own, _ := os.Readlink("/proc/self/ns/mnt")
		if strings.Contains(string(table), "shared:") || os.Getenv(ownMounts) != "" {
			own = "not private"
		}
		fmt.Print(own)
	},
	"options": func() { fmt.Print(os.Getenv("GORACE")) },
}

// printIgnored starts a process that says which signals it ignores.
func printIgnored() {
	out, err := exec.Command("/bin/grep", "SigIgn", "/proc/self/status").Output()
	fmt.Print(string(out), err)
}

func TestMain(m *testing.M) {
	QuickExits()
	if len(os.Args) > 1 {
		if child, ok := children[os.Args[1]]; ok {
			child()
			os.Exit(0)
		}
	}
	os.Exit(m.Run())
}

func TestDefaultSignals(t *testing.T) {
	const hupIntTstp = 1<<0 | 1<<1 | 1<<19
	for child, want := range map[string]uint64{"no signals": hupIntTstp, "signals": 0} {
		out, err := exec.Command("/bin/sh", "-c", `trap "" HUP INT TSTP; exec /proc/`+fmt.Sprint(os.Getpid())+`/exe "$0"`, child).CombinedOutput()
		var mask uint64
		fmt.Sscanf(strings.TrimPrefix(string(out), "SigIgn:\t"), "%x", &mask)
		if err != nil || mask&hupIntTstp != want {
			t.Errorf("%s: %v, a child of it says %q", child, err, out)
		}
	}
}

// TestQuickExits: also a process that was given no environment has the option.
func TestQuickExits(t *testing.T) {
	cmd := exec.Command("/proc/self/exe", "options")
	cmd.Env = []string{}
	out, err := cmd.CombinedOutput()
	if err != nil || strings.Contains(string(out), "atexit_sleep_ms=0") != race {
		t.Errorf("under the race detector %v: %v, %q", race, err, out)
	}
}

// TestOwnMounts: the namespace is another than the caller's, and nothing goes from one to the other.
func TestOwnMounts(t *testing.T) {
	if os.Geteuid() != 0 {
		return
	}
	out, err := exec.Command("/proc/self/exe", "mounts").CombinedOutput()
	own, _ := os.Readlink("/proc/self/ns/mnt")
	if err != nil || !strings.HasPrefix(string(out), "mnt:[") || string(out) == own {
		t.Errorf("%v, the child's is %q, this one's %q", err, out, own)
	}
}

// TestOnlyTestsImportIt: nothing of this is in the product.
func TestOnlyTestsImportIt(t *testing.T) {
	for _, main := range []string{"encfsrun/cmd/encfsrun", "encfsrun/tests/bench"} {
		out, err := exec.Command("go", "list", "-deps", main).CombinedOutput()
		if err != nil || !strings.Contains(string(out), main+"\n") || strings.Contains(string(out), "encfsrun/internal/testkit") {
			t.Errorf("%s: %v\n%s", main, err, out)
		}
	}
}
