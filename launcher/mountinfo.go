package launcher

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"strconv"
	"strings"
	"syscall"
)

// FilesystemType is the type that our mounts carry in mountinfo.
const FilesystemType = "fuse.encfsrun"

// ErrNotMounted says that a directory is not a mount point of ours.
var ErrNotMounted = errors.New("not mounted by encfsrun")

// MountInfo is one line of /proc/PID/mountinfo (proc_pid_mountinfo(5)), its
// names unescaped.
type MountInfo struct {
	ID, Parent   int
	Device       string // "major:minor"; equal for all bind mounts of one mount
	Root         string // what of the file system is mounted: "/" or the bound directory
	Mountpoint   string
	Options      string // of this mount point, separated by commas
	Type         string
	Source       string // for ours: the vault
	SuperOptions string // of the file system: "rw,user_id=0,group_id=0,…"
}

// Ours reports whether encfsrun made the mount, or it is a bind mount of such a one.
func (m *MountInfo) Ours() bool { return m.Type == FilesystemType }

// Owner is the uid of the user who mounted it, as the kernel knows it.
func (m *MountInfo) Owner() (uid int, ok bool) { return m.superOption("user_id") }

// superOption returns the number in a file system option such as "user_id=1000".
func (m *MountInfo) superOption(name string) (int, bool) {
	for option := range strings.SplitSeq(m.SuperOptions, ",") {
		if key, value, ok := strings.Cut(option, "="); ok && key == name {
			number, err := strconv.Atoi(value)
			return number, err == nil
		}
	}
	return 0, false
}

// maxMountinfoLine bounds one line in bytes: three paths and two option
// strings of at most a page each, every byte escaped as four.
const maxMountinfoLine = 1 << 20

// ParseMountinfo reads the format of /proc/PID/mountinfo.
func ParseMountinfo(r io.Reader) ([]MountInfo, error) {
	var mounts []MountInfo
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, maxMountinfoLine)
	for lines.Scan() {
		mount, err := parseMountinfoLine(lines.Text())
		if err != nil {
			return nil, fmt.Errorf("line %d of mountinfo: %w", len(mounts)+1, err)
		}
		mounts = append(mounts, mount)
	}
	if err := lines.Err(); err != nil {
		return nil, fmt.Errorf("read mountinfo: %w", err)
	}
	return mounts, nil
}

// parseMountinfoLine splits at single spaces, because a source can be empty:
//
//	36 35 98:0 /mnt1 /mnt2 rw,noatime master:1 - ext3 /dev/root rw,errors=continue
//	id parent device root mountpoint options [tags…] - type source superoptions
func parseMountinfoLine(line string) (MountInfo, error) {
	fields := strings.Split(line, " ")
	dash := 6
	for dash < len(fields) && fields[dash] != "-" {
		dash++
	}
	if dash+4 > len(fields) {
		return MountInfo{}, fmt.Errorf("%q is cut short", line)
	}
	id, err := strconv.Atoi(fields[0])
	if err != nil {
		return MountInfo{}, fmt.Errorf("%q is no mount id", fields[0])
	}
	parent, err := strconv.Atoi(fields[1])
	if err != nil {
		return MountInfo{}, fmt.Errorf("%q is no mount id", fields[1])
	}
	return MountInfo{
		ID:           id,
		Parent:       parent,
		Device:       fields[2],
		Root:         unescapeOctal(fields[3]),
		Mountpoint:   unescapeOctal(fields[4]),
		Options:      fields[5],
		Type:         unescapeOctal(fields[dash+1]),
		Source:       unescapeOctal(fields[dash+2]),
		SuperOptions: unescapeOctal(fields[dash+3]),
	}, nil
}

// unescapeOctal turns the kernel's \040, \011, \012, \043 and \134 back into
// bytes. What is not a backslash and three octal digits stays as it is.
func unescapeOctal(s string) string {
	if !strings.Contains(s, `\`) {
		return s
	}
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+4 <= len(s) {
			if code, err := strconv.ParseUint(s[i+1:i+4], 8, 8); err == nil {
				b.WriteByte(byte(code))
				i += 3
				continue
			}
		}
		b.WriteByte(s[i])
	}
	return b.String()
}

// Mounts returns the mounts of this process's mount namespace.
func Mounts() ([]MountInfo, error) {
	file, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return nil, fmt.Errorf("read the mount table: %w", err)
	}
	defer file.Close()
	return ParseMountinfo(file)
}

// FindMount returns our mount whose mount point dir is (or leads to by
// symlinks), or [ErrNotMounted].
//
// It never sends our file system a request, so that it can neither hang on a
// hung daemon nor fail on a dead one: see [resolve].
func FindMount(dir string) (MountInfo, error) {
	mounts, err := Mounts()
	if err != nil {
		return MountInfo{}, err
	}
	resolved, err := resolve(mounts, dir)
	if err != nil {
		return MountInfo{}, err
	}
	if m := mountAt(mounts, resolved); m != nil && m.Ours() && m.Mountpoint == resolved {
		return *m, nil
	}
	return MountInfo{}, fmt.Errorf("%s is %w", dir, ErrNotMounted)
}

// Copies returns the other mounts of the same file system in mounts: bind
// mounts, which keep its daemon serving after m itself is unmounted.
func (m *MountInfo) Copies(mounts []MountInfo) []MountInfo {
	var copies []MountInfo
	for _, other := range mounts {
		if m.sameFilesystem(&other) && other.ID != m.ID {
			copies = append(copies, other)
		}
	}
	return copies
}

func (m *MountInfo) sameFilesystem(other *MountInfo) bool {
	return m.Device == other.Device && m.Type == other.Type
}

// mountAt returns the mount that a lookup of the clean absolute path p ends in,
// by walking the table as the kernel walks its mounts: from the root, at each
// directory into the mount that covers it there, and into what covers that.
// Symlinks are not followed. It returns nil when the table has no mount on the way.
func mountAt(mounts []MountInfo, p string) *MountInfo {
	var current *MountInfo
	for end := 1; ; {
		for range mounts { // no stack is higher, also in a table that goes in circles
			over := covering(mounts, current, p[:end])
			if over == nil {
				break
			}
			current = over
		}
		if end == len(p) {
			return current
		}
		if next := strings.IndexByte(p[end+1:], '/'); next >= 0 {
			end += 1 + next
		} else {
			end = len(p)
		}
	}
}

// covering returns the mount that covers directory dir of mount current. With
// current nil it is the lowest at dir: in a chroot the table names parents
// that it does not list.
func covering(mounts []MountInfo, current *MountInfo, dir string) *MountInfo {
	for i := range mounts {
		m := &mounts[i]
		if m.Mountpoint != dir {
			continue
		}
		if current != nil && m.Parent == current.ID && m.ID != current.ID {
			return m
		}
		if current == nil && !listed(mounts, m.Parent, m.ID) {
			return m
		}
	}
	return nil
}

func listed(mounts []MountInfo, id, except int) bool {
	for i := range mounts {
		if mounts[i].ID == id && id != except {
			return true
		}
	}
	return false
}

// maxSymlinks is the kernel's own limit on symlinks in one path (path_resolution(7)).
const maxSymlinks = 40

// resolve returns dir as an absolute path without symlinks, "." and "..".
//
// Every directory on the way is looked at (lstat), except those of our own
// mounts, which the table recognises: a daemon that hangs would hang that look
// for ever, and a dead one fail it. What lies behind one is taken as written.
// For the same reason the working directory is asked of the kernel alone:
// os.Getwd would stat it.
func resolve(mounts []MountInfo, dir string) (string, error) {
	if dir == "" {
		return "", &os.PathError{Op: "resolve", Path: dir, Err: syscall.ENOENT}
	}
	if !path.IsAbs(dir) {
		cwd, err := syscall.Getwd()
		if err != nil {
			return "", fmt.Errorf("resolve %s: %w", dir, err)
		}
		dir = cwd + "/" + dir
	}
	current, rest := "/", dir
	inside := "" // our mount that current is in: from there on nothing is looked at
	for links := 0; rest != ""; {
		var name string
		name, rest, _ = strings.Cut(rest, "/")
		if name == "" || name == "." {
			continue
		}
		if name == ".." {
			if current = path.Dir(current); len(current) < len(inside) {
				inside = ""
			}
			continue
		}
		next := path.Join(current, name)
		if m := mountAt(mounts, next); inside == "" && m != nil && m.Ours() {
			inside = next
		}
		if inside != "" {
			current = next
			continue
		}
		info, err := os.Lstat(next)
		if err != nil {
			return "", err
		}
		if info.Mode()&os.ModeSymlink == 0 {
			current = next
			continue
		}
		if links++; links > maxSymlinks {
			return "", &os.PathError{Op: "resolve", Path: dir, Err: syscall.ELOOP}
		}
		target, err := os.Readlink(next)
		if err != nil {
			return "", err
		}
		if path.IsAbs(target) {
			current = "/"
		}
		rest = target + "/" + rest
	}
	return current, nil
}
