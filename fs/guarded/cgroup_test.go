package guarded

import (
	"errors"
	"io/fs"
	"math"
	"testing"
	"testing/fstest"
)

// Lines of /proc/self/mountinfo.
const (
	mountedV2 = "30 23 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n"
	mountedV1 = "32 31 0:27 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu,cpuacct\n" +
		"33 31 0:28 / /sys/fs/cgroup/memory rw,nosuid - cgroup cgroup rw,memory\n"
	nestedV1 = "33 31 0:28 /docker/4f /sys/fs/cgroup/memory ro - cgroup cgroup rw,memory\n"
)

// groupFiles makes a file system with what a process sees of its cgroups; files
// are named below sys/fs/cgroup.
func groupFiles(cgroup, mounts string, files map[string]string) fs.FS {
	root := fstest.MapFS{
		"proc/self/cgroup":    {Data: []byte(cgroup)},
		"proc/self/mountinfo": {Data: []byte(mounts)},
	}
	for name, text := range files {
		root["sys/fs/cgroup/"+name] = &fstest.MapFile{Data: []byte(text)}
	}
	return root
}

func TestCgroupMemory(t *testing.T) {
	for _, c := range []struct {
		name   string
		cgroup string
		mounts string
		files  map[string]string // below sys/fs/cgroup
		want   int64
	}{
		{"no cgroups", "", "22 1 254:0 / / rw - ext4 /dev/vda rw\n", nil, math.MaxInt64},
		{"version 2, not mounted", "0::/user.slice\n", "", nil, math.MaxInt64},
		{"version 2, no limit", "0::/user.slice\n", mountedV2, map[string]string{"user.slice/memory.max": "max\n"}, math.MaxInt64},
		{"version 2, own limit", "0::/a/b\n", mountedV2, map[string]string{"a/b/memory.max": "1048576\n", "a/memory.max": "2097152\n"}, 1 << 20},
		{"version 2, limit of an ancestor", "0::/a/b/c\n", mountedV2, map[string]string{"a/b/c/memory.max": "max\n", "a/memory.max": "2097152\n"}, 2 << 20},
		{"version 2 in a namespace", "0::/\n", mountedV2, map[string]string{"memory.max": "3145728\n"}, 3 << 20},
		{"version 2, group outside of the namespace", "0::/../other\n", mountedV2, map[string]string{"memory.max": "3145728\n", "other/memory.max": "1\n"}, 3 << 20},
		{"another group's limit", "0::/a/b\n", mountedV2, map[string]string{"a/c/memory.max": "1\n"}, math.MaxInt64},
		{"version 1", "5:cpu,cpuacct:/x\n4:memory:/y/z\n0::/\n", mountedV1, map[string]string{"memory/y/z/memory.limit_in_bytes": "9223372036854771712\n", "memory/y/memory.limit_in_bytes": "4194304\n"}, 4 << 20},
		{"version 1, the host's path, seen in a container", "4:memory:/docker/4f/sub\n", nestedV1, map[string]string{"memory/sub/memory.limit_in_bytes": "8388608\n", "memory/memory.limit_in_bytes": "5242880\n"}, 5 << 20},
		{"version 1, a path beside what is mounted", "4:memory:/docker/4ff\n", nestedV1, map[string]string{"memory/memory.limit_in_bytes": "5242880\n", "memory/f/memory.limit_in_bytes": "1\n"}, 5 << 20},
		{"both", "4:memory:/y\n0::/a\n", mountedV1 + "34 31 0:29 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n", map[string]string{"memory/y/memory.limit_in_bytes": "6291456\n", "unified/a/memory.max": "7340032\n"}, 6 << 20},
		{"damaged lines", "\n::\nx\n4:memory\n", "1 2\n - \n - cgroup\n" + mountedV1, nil, math.MaxInt64},
	} {
		root := groupFiles(c.cgroup, c.mounts, c.files)
		if got, err := cgroupMemory(root); err != nil || got.limit != c.want || got.left != c.want {
			t.Errorf("%s: %+v, %v; want %d, and all of it left", c.name, got, err, c.want)
		}
	}
	if got, err := cgroupMemory(fstest.MapFS{}); err != nil || got.limit != math.MaxInt64 || got.left != math.MaxInt64 {
		t.Errorf("without /proc: %+v, %v", got, err)
	}
	if _, err := cgroupMemory(brokenFS{}); !errors.Is(err, fs.ErrInvalid) {
		t.Errorf("a disk that fails: %v", err)
	}
}

// TestCgroupMemoryLeft: what groups use counts against their limits.
func TestCgroupMemoryLeft(t *testing.T) {
	const gib = 1 << 30
	for _, c := range []struct {
		name           string
		cgroup, mounts string
		files          map[string]string
		want           int64
	}{
		{"version 2 without a limit", "0::/a\n", mountedV2, map[string]string{"a/memory.max": "max\n", "a/memory.current": "5\n"}, math.MaxInt64},
		{"version 2", "0::/a/b\n", mountedV2, map[string]string{"a/b/memory.max": "2147483648\n", "a/b/memory.current": "1073741824\n"}, gib},
		{"version 2, more is left below", "0::/a/b\n", mountedV2, map[string]string{
			"a/memory.max": "2147483648\n", "a/memory.current": "1073741824\n", "a/b/memory.max": "1610612736\n", "a/b/memory.current": "0\n"}, gib},
		{"version 2, page cache does not count", "0::/\n", mountedV2, map[string]string{
			"memory.max": "1073741824\n", "memory.current": "1073741824\n", "memory.stat": "anon 12\ninactive_file 536870912\nactive_file 7\n"}, gib / 2},
		{"version 2, over its limit", "0::/\n", mountedV2, map[string]string{"memory.max": "100\n", "memory.current": "200\n"}, 0},
		{"version 2, strange usage", "0::/\n", mountedV2, map[string]string{"memory.max": "100\n", "memory.current": "x\n"}, 100},
		{"version 1", "5:cpu,memory:/x\n1:name=systemd:/\n0::/\n", mountedV1, map[string]string{
			"memory/x/memory.limit_in_bytes": "3221225472\n",
			"memory/x/memory.usage_in_bytes": "2147483648\n",
			"memory/x/memory.stat":           "inactive_file 1\ntotal_inactive_file 1073741824\n",
			"memory/memory.limit_in_bytes":   "9223372036854771712\n",
			"memory/memory.usage_in_bytes":   "6442450944\n"}, 2 * gib},
		{"version 1, the host's path, seen in a container", "4:memory:/docker/4f\n", nestedV1, map[string]string{
			"memory/memory.limit_in_bytes": "1073741824\n", "memory/memory.usage_in_bytes": "1\n"}, gib - 1},
		{"a part of the hierarchy, mounted elsewhere", "0::/a/b\n", "30 23 0:26 /a /sys/fs/cgroup/mine rw - cgroup2 none rw\n", map[string]string{
			"mine/b/memory.max": "2147483648\n", "mine/b/memory.current": "1073741824\n", "a/b/memory.max": "1\n"}, gib},
	} {
		if got, err := cgroupMemory(groupFiles(c.cgroup, c.mounts, c.files)); err != nil || got.left != c.want {
			t.Errorf("%s: %+v, %v; want %d left", c.name, got, err, c.want)
		}
	}
	if left, err := CgroupMemoryLeft(); err != nil || left <= 0 {
		t.Errorf("on this machine: %d, %v", left, err)
	}
}

// brokenFS fails in a way that is neither absence nor lack of permission.
type brokenFS struct{}

func (brokenFS) Open(string) (fs.File, error) { return nil, fs.ErrInvalid }
