package guarded

import (
	"errors"
	"io/fs"
	"math"
	"os"
	"path"
	"slices"
	"strconv"
	"strings"
)

// groupMemory is what the memory limits of a process's cgroups and all above
// them say, in bytes; math.MaxInt64 where there is no limit.
type groupMemory struct {
	limit int64 // the smallest limit
	left  int64 // the least that a limit leaves: page cache that the kernel would drop first is not in the way
}

// controller says in which files a version of cgroups keeps that.
type controller struct {
	fstype                 string // of its mounts
	limit, usage, inactive string // inactive is a key of memory.stat
}

var (
	cgroup1 = controller{"cgroup", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"}
	cgroup2 = controller{"cgroup2", "memory.max", "memory.current", "inactive_file"}
)

// CgroupMemoryLeft returns how many bytes the memory limits of this process's
// cgroups, of either version, leave to it now: math.MaxInt64 where none is set.
func CgroupMemoryLeft() (int64, error) {
	m, err := cgroupMemory(os.DirFS("/"))
	return m.left, err
}

// cgroupMemory reads the limits of the cgroups of this process and of their
// ancestors. root is the file system's root. A machine without cgroups, or
// where they are not mounted, sets none.
func cgroupMemory(root fs.FS) (groupMemory, error) {
	least := groupMemory{limit: math.MaxInt64, left: math.MaxInt64}
	groups, err := readOptional(root, "proc/self/cgroup")
	if err != nil {
		return groupMemory{}, err
	}
	mounts, err := readOptional(root, "proc/self/mountinfo")
	if err != nil {
		return groupMemory{}, err
	}
	for line := range strings.Lines(groups) {
		// hierarchy:controllers:path, where version 2 has no controllers
		field := strings.SplitN(strings.TrimSuffix(line, "\n"), ":", 3)
		if len(field) != 3 {
			continue
		}
		c := cgroup2
		if field[1] != "" {
			if !slices.Contains(strings.Split(field[1], ","), "memory") {
				continue
			}
			c = cgroup1
		}
		for _, m := range cgroupMounts(mounts, c.fstype) {
			if err := c.lower(&least, root, m, field[2]); err != nil {
				return groupMemory{}, err
			}
		}
	}
	return least, nil
}

// cgroupMount is a line of mountinfo: the directory root of a hierarchy is
// mounted at point.
type cgroupMount struct{ root, point string }

// cgroupMounts returns the mounts of the version 2 hierarchy (of type cgroup2)
// or of version 1's memory controller (of type cgroup).
func cgroupMounts(mountinfo, fstype string) []cgroupMount {
	var found []cgroupMount
	for line := range strings.Lines(mountinfo) {
		// 36 35 98:0 ROOT POINT OPTIONS… - TYPE SOURCE SUPER_OPTIONS
		before, after, ok := strings.Cut(line, " - ")
		left, right := strings.Fields(before), strings.Fields(after)
		if !ok || len(left) < 5 || len(right) < 3 || right[0] != fstype {
			continue
		}
		if fstype == cgroup1.fstype && !slices.Contains(strings.Split(right[2], ","), "memory") {
			continue
		}
		found = append(found, cgroupMount{root: left[3], point: left[4]})
	}
	return found
}

// lower lowers least to what is set in the process's group and in all groups
// above it that the mount shows.
func (c controller) lower(least *groupMemory, root fs.FS, m cgroupMount, group string) error {
	// In a container without a cgroup namespace the path is the host's, and the
	// mount begins somewhere in it.
	below, ok := strings.CutPrefix(group, strings.TrimSuffix(m.root, "/"))
	if !ok || below != "" && below[0] != '/' || strings.HasPrefix(below, "/..") {
		below = "" // the group lies outside of what the mount shows: only its top is known
	}
	top := strings.TrimPrefix(path.Clean(m.point), "/")
	for dir := path.Join(top, below); ; dir = path.Dir(dir) {
		text, err := readOptional(root, path.Join(dir, c.limit))
		if err != nil {
			return err
		}
		// "max", and what does not fit, are no limit; the root group has no file.
		if limit, err := strconv.ParseInt(strings.TrimSpace(text), 10, 64); err == nil {
			used, err := c.used(root, dir)
			if err != nil {
				return err
			}
			least.limit = min(least.limit, limit)
			least.left = min(least.left, max(0, limit-used))
		}
		if dir == top || len(dir) <= len(top) {
			return nil
		}
	}
}

// used returns the bytes that a group uses and the kernel would not drop first;
// 0 where that can't be seen.
func (c controller) used(root fs.FS, dir string) (int64, error) {
	text, err := readOptional(root, path.Join(dir, c.usage))
	if err != nil {
		return 0, err
	}
	usage, err := strconv.ParseInt(strings.TrimSpace(text), 10, 64)
	if err != nil {
		return 0, nil
	}
	stat, err := readOptional(root, path.Join(dir, "memory.stat"))
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(stat) {
		if name, value, _ := strings.Cut(strings.TrimSpace(line), " "); name == c.inactive {
			if inactive, err := strconv.ParseInt(value, 10, 64); err == nil {
				return max(0, usage-inactive), nil
			}
		}
	}
	return usage, nil
}

// readOptional reads a file, as nothing if it is not there or not for us.
func readOptional(root fs.FS, name string) (string, error) {
	b, err := fs.ReadFile(root, name)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrPermission) {
		return "", nil
	}
	return string(b), err
}
