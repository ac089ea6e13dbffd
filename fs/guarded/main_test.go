package guarded

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// childVar names the function of children that this process runs instead of
// tests: limits and hardening can't be taken back.
const childVar = "GUARDED_TEST_CHILD"

var children = map[string]func() error{}

func TestMain(m *testing.M) {
	name := os.Getenv(childVar)
	if name == "" {
		os.Exit(m.Run())
	}
	f := children[name]
	if f == nil {
		fmt.Println("no such child:", name)
		os.Exit(1)
	}
	if err := f(); err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	fmt.Println("child done:", name)
	os.Exit(0)
}

// runChild runs a child in a process of its own and fails unless it ends well.
// If that is asked for, it is one that may not lock more than RLIMIT_MEMLOCK.
func runChild(t *testing.T, name string, unprivileged bool) {
	t.Helper()
	cmd := exec.Command("/proc/self/exe")
	cmd.Dir = "/"
	cmd.Env = append(os.Environ(), childVar+"="+name)
	if unprivileged && os.Geteuid() == 0 && lockUnlimited() {
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	}
	out, err := cmd.CombinedOutput()
	if err != nil || !bytes.HasSuffix(out, []byte("child done: "+name+"\n")) {
		t.Fatalf("child %s: %v\n%s", name, err, out)
	}
}

// limitMemlock sets RLIMIT_MEMLOCK, soft and hard, and checks that it counts.
func limitMemlock(bytes uint64) error {
	if err := unix.Setrlimit(unix.RLIMIT_MEMLOCK, &unix.Rlimit{Cur: bytes, Max: bytes}); err != nil {
		return err
	}
	if lockUnlimited() {
		return errors.New("RLIMIT_MEMLOCK does not bind this process")
	}
	return nil
}

// mapping is one of /proc/self/smaps.
type mapping struct {
	start, end uintptr
	perms      string
	name       string
	resident   bool     // it has pages in memory
	flags      []string // of the kernel: lo locked, dd not dumped, …
}

func (m mapping) has(flag string) bool {
	for _, f := range m.flags {
		if f == flag {
			return true
		}
	}
	return false
}

func mappings() ([]mapping, error) {
	b, err := os.ReadFile("/proc/self/smaps")
	if err != nil {
		return nil, err
	}
	var all []mapping
	for line := range strings.Lines(string(b)) {
		f := strings.Fields(line)
		if from, to, ok := strings.Cut(f[0], "-"); ok && len(f) >= 5 {
			start, err1 := strconv.ParseUint(from, 16, 64)
			end, err2 := strconv.ParseUint(to, 16, 64)
			if err := errors.Join(err1, err2); err != nil {
				return nil, err
			}
			all = append(all, mapping{start: uintptr(start), end: uintptr(end), perms: f[1], name: strings.Join(f[5:], " ")})
		} else if f[0] == "Rss:" {
			all[len(all)-1].resident = f[1] != "0"
		} else if f[0] == "VmFlags:" {
			all[len(all)-1].flags = f[1:]
		}
	}
	return all, nil
}

// mappingOf returns the mapping in which an address lies.
func mappingOf(all []mapping, at uintptr) (mapping, int, error) {
	for i, m := range all {
		if m.start <= at && at < m.end {
			return m, i, nil
		}
	}
	return mapping{}, 0, fmt.Errorf("%#x is not mapped", at)
}

// zero tells whether b holds zeros only.
func zero(b []byte) bool {
	for _, c := range b {
		if c != 0 {
			return false
		}
	}
	return true
}
