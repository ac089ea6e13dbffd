package guarded

import (
	"errors"
	"io/fs"
	"math"
	"testing"
	"testing/fstest"

	"golang.org/x/sys/unix"
)

func TestBudget(t *testing.T) {
	const mib, gib, none = 1 << 20, 1 << 30, math.MaxInt64
	for _, c := range []struct {
		name         string
		writable     bool
		ram, memlock int64
		want         int64
	}{
		{"a large machine", false, 64 * gib, none, 64 * mib},
		{"a large machine, writable", true, 64 * gib, none, 256 * mib},
		{"512 MiB of RAM, writable", true, 512 * mib, none, 128 * mib},
		{"128 MiB of RAM", false, 128 * mib, none, 32 * mib},
		{"an ordinary user with 8 MiB", false, 64 * gib, 8 * mib, 4 * mib},
		{"an ordinary user with 8 MiB, writable", true, 64 * gib, 8 * mib, 4 * mib},
		{"an ordinary user with 1 GiB", false, 64 * gib, gib, 64 * mib},
		{"little of both", true, 100 * mib, 48 * mib, 24 * mib},
		{"nothing may be locked", false, 64 * gib, 0, 0},
	} {
		if got := budget(c.writable, c.ram, c.memlock); got != c.want {
			t.Errorf("%s: %d, want %d", c.name, got, c.want)
		}
	}
}

// TestDefaultBudgetHere checks the rule's bounds on the machine of the test.
func TestDefaultBudgetHere(t *testing.T) {
	var info unix.Sysinfo_t
	if err := unix.Sysinfo(&info); err != nil {
		t.Fatal(err)
	}
	for writable, most := range map[bool]int64{false: 64 << 20, true: 256 << 20} {
		b, err := DefaultBudget(writable)
		if err != nil || b <= 0 || b > most || b > int64(info.Totalram)*int64(info.Unit)/4 {
			t.Errorf("writable %v: %d, %v", writable, b, err)
		}
		if !lockUnlimited() && b > memlockLimit()/2 {
			t.Errorf("writable %v: %d is more than half of what may be locked", writable, b)
		}
	}
}

func TestCgroupMemoryLimit(t *testing.T) {
	const (
		v2 = "30 23 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n"
		v1 = "32 31 0:27 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu,cpuacct\n" +
			"33 31 0:28 / /sys/fs/cgroup/memory rw,nosuid - cgroup cgroup rw,memory\n"
		nested = "33 31 0:28 /docker/4f /sys/fs/cgroup/memory ro - cgroup cgroup rw,memory\n"
	)
	for _, c := range []struct {
		name   string
		cgroup string
		mounts string
		files  map[string]string // below sys/fs/cgroup
		want   int64
	}{
		{"no cgroups", "", "22 1 254:0 / / rw - ext4 /dev/vda rw\n", nil, math.MaxInt64},
		{"version 2, not mounted", "0::/user.slice\n", "", nil, math.MaxInt64},
		{"version 2, no limit", "0::/user.slice\n", v2, map[string]string{"user.slice/memory.max": "max\n"}, math.MaxInt64},
		{"version 2, own limit", "0::/a/b\n", v2, map[string]string{"a/b/memory.max": "1048576\n", "a/memory.max": "2097152\n"}, 1 << 20},
		{"version 2, limit of an ancestor", "0::/a/b/c\n", v2, map[string]string{"a/b/c/memory.max": "max\n", "a/memory.max": "2097152\n"}, 2 << 20},
		{"version 2 in a namespace", "0::/\n", v2, map[string]string{"memory.max": "3145728\n"}, 3 << 20},
		{"version 2, group outside of the namespace", "0::/../other\n", v2, map[string]string{"memory.max": "3145728\n", "other/memory.max": "1\n"}, 3 << 20},
		{"another group's limit", "0::/a/b\n", v2, map[string]string{"a/c/memory.max": "1\n"}, math.MaxInt64},
		{"version 1", "5:cpu,cpuacct:/x\n4:memory:/y/z\n0::/\n", v1, map[string]string{"memory/y/z/memory.limit_in_bytes": "9223372036854771712\n", "memory/y/memory.limit_in_bytes": "4194304\n"}, 4 << 20},
		{"version 1, the host's path, seen in a container", "4:memory:/docker/4f/sub\n", nested, map[string]string{"memory/sub/memory.limit_in_bytes": "8388608\n", "memory/memory.limit_in_bytes": "5242880\n"}, 5 << 20},
		{"version 1, a path beside what is mounted", "4:memory:/docker/4ff\n", nested, map[string]string{"memory/memory.limit_in_bytes": "5242880\n", "memory/f/memory.limit_in_bytes": "1\n"}, 5 << 20},
		{"both", "4:memory:/y\n0::/a\n", v1 + "34 31 0:29 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n", map[string]string{"memory/y/memory.limit_in_bytes": "6291456\n", "unified/a/memory.max": "7340032\n"}, 6 << 20},
		{"damaged lines", "\n::\nx\n4:memory\n", "1 2\n - \n - cgroup\n" + v1, nil, math.MaxInt64},
	} {
		root := fstest.MapFS{
			"proc/self/cgroup":    {Data: []byte(c.cgroup)},
			"proc/self/mountinfo": {Data: []byte(c.mounts)},
		}
		for name, text := range c.files {
			root["sys/fs/cgroup/"+name] = &fstest.MapFile{Data: []byte(text)}
		}
		if got, err := cgroupMemoryLimit(root); err != nil || got != c.want {
			t.Errorf("%s: %d, %v; want %d", c.name, got, err, c.want)
		}
	}
	if got, err := cgroupMemoryLimit(fstest.MapFS{}); err != nil || got != math.MaxInt64 {
		t.Errorf("without /proc: %d, %v", got, err)
	}
	if _, err := cgroupMemoryLimit(brokenFS{}); !errors.Is(err, fs.ErrInvalid) {
		t.Errorf("a disk that fails: %v", err)
	}
}

// brokenFS fails in a way that is neither absence nor lack of permission.
type brokenFS struct{}

func (brokenFS) Open(string) (fs.File, error) { return nil, fs.ErrInvalid }
