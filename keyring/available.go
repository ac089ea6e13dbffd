package keyring

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"strconv"
	"strings"
)

// AvailableMemory returns how many bytes can be taken without swapping or
// being killed: the least of what the kernel deems available and of what the
// memory limits of this process's cgroup and its ancestors leave, v1 or v2.
func AvailableMemory() (int64, error) {
	return availableMemory(os.DirFS("/"))
}

func availableMemory(root fs.FS) (int64, error) {
	meminfo, err := fs.ReadFile(root, "proc/meminfo")
	if err != nil {
		return 0, err
	}
	kib, found := field(meminfo, "MemAvailable:")
	if !found {
		return 0, errors.New("/proc/meminfo does not say how much memory is available")
	}
	available := kib * 1024
	groups, err := fs.ReadFile(root, "proc/self/cgroup")
	if errors.Is(err, fs.ErrNotExist) {
		return available, nil // a kernel without cgroups
	}
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(groups)) {
		parts := strings.SplitN(strings.TrimSuffix(line, "\n"), ":", 3)
		if len(parts) != 3 {
			return 0, fmt.Errorf("/proc/self/cgroup has the strange line %q", line)
		}
		for _, h := range hierarchies {
			if h.has(parts[0], parts[1]) {
				available = min(available, h.left(root, parts[2]))
			}
		}
	}
	return available, nil
}

// hierarchy tells where a version of cgroups keeps what is needed here.
type hierarchy struct {
	has                    func(id, controllers string) bool
	mount                  string
	limit, usage, inactive string // inactive is a key of memory.stat
}

// hierarchies lists the mount points that systemd and container runtimes use.
var hierarchies = []hierarchy{
	{isV2, "sys/fs/cgroup", "memory.max", "memory.current", "inactive_file"},
	{isV1, "sys/fs/cgroup/memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"},
}

func isV2(id, controllers string) bool { return id == "0" && controllers == "" }

func isV1(_, controllers string) bool {
	for name := range strings.SplitSeq(controllers, ",") {
		if name == "memory" {
			return true
		}
	}
	return false
}

// left returns what the limits of a group and all above it leave. Groups that
// can't be seen (a container sees its own as the root) or have no limit
// don't count.
func (h *hierarchy) left(root fs.FS, group string) int64 {
	const unlimited = int64(1) << 62
	left := unlimited
	for dir := path.Join("/", group); ; dir = path.Dir(dir) {
		at := func(name string) string { return path.Join(h.mount, dir, name) }
		limit, hasLimit := number(root, at(h.limit))
		usage, hasUsage := number(root, at(h.usage))
		if hasLimit && hasUsage {
			// Page cache that the kernel would drop first is not in the way.
			stat, _ := fs.ReadFile(root, at("memory.stat"))
			inactive, _ := field(stat, h.inactive)
			left = min(left, max(0, limit-max(0, usage-inactive)))
		}
		if dir == "/" {
			return left
		}
	}
}

// number reads a file that holds one number; "max" is none.
func number(root fs.FS, name string) (int64, bool) {
	b, err := fs.ReadFile(root, name)
	if err != nil {
		return 0, false
	}
	n, err := strconv.ParseInt(string(bytes.TrimSpace(b)), 10, 64)
	return n, err == nil
}

// field finds the number after a name at the beginning of a line.
func field(text []byte, name string) (int64, bool) {
	for line := range strings.Lines(string(text)) {
		words := strings.Fields(line)
		if len(words) >= 2 && words[0] == name {
			n, err := strconv.ParseInt(words[1], 10, 64)
			return n, err == nil
		}
	}
	return 0, false
}
