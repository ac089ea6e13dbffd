package guarded

import (
	"errors"
	"io/fs"
	"math"
	"path"
	"slices"
	"strconv"
	"strings"
)

// cgroupMemoryLimit returns the smallest memory limit in bytes that the cgroups
// of this process and their ancestors set, of either version, and math.MaxInt64
// if they set none. root is the file system's root. A machine without cgroups,
// or where they are not mounted, sets none.
func cgroupMemoryLimit(root fs.FS) (int64, error) {
	groups, err := readOptional(root, "proc/self/cgroup")
	if err != nil {
		return 0, err
	}
	mounts, err := readOptional(root, "proc/self/mountinfo")
	if err != nil {
		return 0, err
	}
	limit := int64(math.MaxInt64)
	for line := range strings.Lines(groups) {
		// hierarchy:controllers:path, where version 2 has no controllers
		field := strings.SplitN(strings.TrimSuffix(line, "\n"), ":", 3)
		if len(field) != 3 {
			continue
		}
		kind, file := "cgroup2", "memory.max"
		if field[1] != "" {
			if !slices.Contains(strings.Split(field[1], ","), "memory") {
				continue
			}
			kind, file = "cgroup", "memory.limit_in_bytes"
		}
		for _, m := range cgroupMounts(mounts, kind) {
			l, err := smallestLimit(root, m, field[2], file)
			if err != nil {
				return 0, err
			}
			limit = min(limit, l)
		}
	}
	return limit, nil
}

// cgroupMount is a line of mountinfo: the directory root of a hierarchy is
// mounted at point.
type cgroupMount struct{ root, point string }

// cgroupMounts returns the mounts of the version 2 hierarchy ("cgroup2") or of
// version 1's memory controller ("cgroup").
func cgroupMounts(mountinfo, kind string) []cgroupMount {
	var found []cgroupMount
	for line := range strings.Lines(mountinfo) {
		// 36 35 98:0 ROOT POINT OPTIONS… - TYPE SOURCE SUPER_OPTIONS
		before, after, ok := strings.Cut(line, " - ")
		left, right := strings.Fields(before), strings.Fields(after)
		if !ok || len(left) < 5 || len(right) < 3 || right[0] != kind {
			continue
		}
		if kind == "cgroup" && !slices.Contains(strings.Split(right[2], ","), "memory") {
			continue
		}
		found = append(found, cgroupMount{root: left[3], point: left[4]})
	}
	return found
}

// smallestLimit reads file in the process's group and in all groups above it
// that the mount shows.
func smallestLimit(root fs.FS, m cgroupMount, group, file string) (int64, error) {
	// In a container without a cgroup namespace the path is the host's, and the
	// mount begins somewhere in it.
	below, ok := strings.CutPrefix(group, strings.TrimSuffix(m.root, "/"))
	if !ok || below != "" && below[0] != '/' || strings.HasPrefix(below, "/..") {
		below = "" // the group lies outside of what the mount shows: only its top is known
	}
	limit := int64(math.MaxInt64)
	top := strings.TrimPrefix(path.Clean(m.point), "/")
	for dir := path.Join(top, below); ; dir = path.Dir(dir) {
		text, err := readOptional(root, path.Join(dir, file))
		if err != nil {
			return 0, err
		}
		// "max", and what does not fit, are no limit; the root group has no file.
		if n, err := strconv.ParseInt(strings.TrimSpace(text), 10, 64); err == nil {
			limit = min(limit, n)
		}
		if dir == top || len(dir) <= len(top) {
			return limit, nil
		}
	}
}

// readOptional reads a file, as nothing if it is not there or not for us.
func readOptional(root fs.FS, name string) (string, error) {
	b, err := fs.ReadFile(root, name)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrPermission) {
		return "", nil
	}
	return string(b), err
}
