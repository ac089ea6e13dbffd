package launcher

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// MountOptions says how a directory is mounted. All mounts are nosuid and
// nodev, check permissions in the kernel and are private: without allow_other
// the kernel refuses everybody but the user who mounted, root included when
// the mount is an ordinary user's.
type MountOptions struct {
	ReadOnly bool   // MS_RDONLY: the kernel refuses writes and keeps no access times
	FSName   string // the source that the mount table shows: the vault's absolute path
	MaxRead  int    // bytes of the largest READ; must equal what the server is told
}

// MountpointProblem is why a directory can't be mounted on.
type MountpointProblem int

const (
	MountpointAbsent MountpointProblem = iota + 1
	MountpointNotDirectory
	MountpointNotEmpty
	MountpointMounted  // a vault is mounted there already
	MountpointNotYours // an ordinary user must own the directory, or may write to it and it is not sticky
)

// MountpointError says that a directory can't be mounted on. Mend, when not
// empty, is the command that would change that.
type MountpointError struct {
	Dir     string
	Problem MountpointProblem
	Mend    string
}

func (e *MountpointError) Error() string {
	switch e.Problem {
	case MountpointAbsent:
		return fmt.Sprintf("mount point %s does not exist", e.Dir)
	case MountpointNotDirectory:
		return fmt.Sprintf("mount point %s is not a directory", e.Dir)
	case MountpointNotEmpty:
		return fmt.Sprintf("mount point %s is not empty", e.Dir)
	case MountpointMounted:
		return fmt.Sprintf("a vault is already mounted at %s", e.Dir)
	default:
		return fmt.Sprintf("mount point %s belongs to another user", e.Dir)
	}
}

// PrepareMountpoint checks that dir can be mounted on, before the user is asked
// for anything, and returns it as the absolute path without symlinks that
// [Mount] wants. What a dead daemon left mounted there is cleared first.
// Its errors are [*MountpointError], or those of the operating system.
func PrepareMountpoint(dir string) (string, error) {
	mounts, err := Mounts()
	if err != nil {
		return "", err
	}
	resolved, err := resolve(mounts, dir)
	if errors.Is(err, fs.ErrNotExist) {
		return "", &MountpointError{Dir: dir, Problem: MountpointAbsent, Mend: "mkdir -p " + shellQuote(dir)}
	}
	if errors.Is(err, unix.ENOTDIR) {
		return "", &MountpointError{Dir: dir, Problem: MountpointNotDirectory}
	}
	if err != nil {
		return "", err
	}
	for range len(mounts) { // dead mounts can lie over each other
		m := mountAt(mounts, resolved)
		if m == nil || !m.Ours() || m.Mountpoint != resolved {
			break
		}
		if probe(m) != mountDead {
			return "", &MountpointError{Dir: resolved, Problem: MountpointMounted, Mend: "encfsrun umount " + shellQuote(resolved)}
		}
		if err := clearDead(m); err != nil {
			return "", err
		}
		if mounts, err = Mounts(); err != nil {
			return "", err
		}
	}
	return resolved, checkDirectory(resolved)
}

// checkDirectory checks an ordinary directory, as fusermount3 will.
func checkDirectory(dir string) error {
	info, err := os.Lstat(dir)
	if err != nil {
		return err
	}
	if !info.IsDir() {
		return &MountpointError{Dir: dir, Problem: MountpointNotDirectory}
	}
	if uid := os.Geteuid(); uid != 0 {
		var st unix.Stat_t
		if err := unix.Lstat(dir, &st); err != nil {
			return &os.PathError{Op: "stat", Path: dir, Err: err}
		}
		sticky := info.Mode()&os.ModeSticky != 0 && int(st.Uid) != uid
		if sticky || unix.Access(dir, unix.W_OK) != nil {
			return &MountpointError{Dir: dir, Problem: MountpointNotYours}
		}
	}
	file, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer file.Close()
	names, err := file.Readdirnames(1)
	if len(names) > 0 {
		return &MountpointError{Dir: dir, Problem: MountpointNotEmpty}
	}
	if err != nil && err != io.EOF {
		return err
	}
	return nil
}

// shellQuote quotes a path so that a shown command can be pasted into a shell.
func shellQuote(s string) string {
	plain := func(r rune) bool {
		return r == '/' || r == '.' || r == '-' || r == '_' ||
			'0' <= r && r <= '9' || 'a' <= r && r <= 'z' || 'A' <= r && r <= 'Z'
	}
	if s != "" && s[0] != '-' && strings.TrimFunc(s, plain) == "" {
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}

// Mount mounts at dir, a path that [PrepareMountpoint] returned, and returns
// the descriptor of /dev/fuse: from now on the mount answers when somebody
// serves that descriptor, and is dead when the last copy of it is closed.
// Root mounts directly; everybody else through fusermount3.
// A [*MissingError] names what the machine lacks.
func Mount(dir string, opts MountOptions) (*os.File, error) {
	if opts.MaxRead <= 0 || strings.ContainsRune(opts.FSName, 0) || !filepath.IsAbs(dir) {
		return nil, fmt.Errorf("mount %s: bad options %+v", dir, opts)
	}
	if opts.FSName == "" {
		opts.FSName = "encfsrun"
	}
	if err := checkDevice(); err != nil {
		return nil, err
	}
	mount := fusermountMount
	if os.Geteuid() == 0 {
		mount = directMount
	}
	fuse, err := mount(dir, opts)
	if missing := (*MissingError)(nil); err != nil && !errors.As(err, &missing) {
		err = fmt.Errorf("mount %s: %w", dir, err)
	}
	return fuse, err
}

// fuseDevice is opened anew for every mount: a descriptor serves one.
const fuseDevice = "/dev/fuse"

func checkDevice() error {
	if _, err := os.Stat(fuseDevice); errors.Is(err, fs.ErrNotExist) {
		return &MissingError{
			What: "this machine has no /dev/fuse",
			Mend: "modprobe fuse (in a container: start it with --device /dev/fuse --cap-add SYS_ADMIN)",
		}
	}
	return nil
}

// openDevice opens /dev/fuse, and explains a refusal.
func openDevice() (*os.File, error) {
	fd, err := unix.Open(fuseDevice, unix.O_RDWR|unix.O_CLOEXEC, 0)
	switch err {
	case nil:
		return os.NewFile(uintptr(fd), fuseDevice), nil
	case unix.EACCES:
		return nil, &MissingError{What: "/dev/fuse is closed to this user", Mend: "chmod 0666 /dev/fuse"}
	case unix.EPERM: // the device controller of a container's cgroup
		return nil, &MissingError{What: "this container may not open /dev/fuse", Mend: "start it with --device /dev/fuse --cap-add SYS_ADMIN"}
	case unix.ENODEV, unix.ENXIO:
		return nil, &MissingError{What: "the kernel's fuse module is not loaded", Mend: "modprobe fuse"}
	}
	return nil, &os.PathError{Op: "open", Path: fuseDevice, Err: err}
}

// directMount is Mount for root, by mount(2).
func directMount(dir string, opts MountOptions) (*os.File, error) {
	fuse, err := openDevice()
	if err != nil {
		return nil, err
	}
	target, err := openPlain(dir)
	if err != nil {
		fuse.Close()
		return nil, err
	}
	defer target.Close()
	flags := uintptr(unix.MS_NOSUID | unix.MS_NODEV)
	if opts.ReadOnly {
		flags |= unix.MS_RDONLY
	}
	data := fuseOptions(int(fuse.Fd()), os.Geteuid(), os.Getegid(), opts.MaxRead)
	err = unix.Mount(opts.FSName, fmt.Sprintf("/proc/self/fd/%d", target.Fd()), FilesystemType, flags, data)
	if err != nil {
		fuse.Close()
	}
	switch err {
	case nil:
		return fuse, nil
	case unix.EPERM:
		return nil, &MissingError{What: "this container may not mount", Mend: "start it with --device /dev/fuse --cap-add SYS_ADMIN"}
	case unix.ENODEV:
		return nil, &MissingError{What: "the kernel has no fuse file system", Mend: "modprobe fuse"}
	}
	return nil, err
}

// openPlain opens directory dir for its path alone and refuses symlinks in all
// of it: between the checks and the mount somebody who owns a part of the path
// could put a link there and have root mount over /etc.
func openPlain(dir string) (*os.File, error) {
	fd, err := unix.Openat2(unix.AT_FDCWD, dir, &unix.OpenHow{
		Flags:   unix.O_PATH | unix.O_DIRECTORY | unix.O_CLOEXEC,
		Resolve: unix.RESOLVE_NO_SYMLINKS,
	})
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: dir, Err: err}
	}
	return os.NewFile(uintptr(fd), dir), nil
}

// fuseOptions are the options of a FUSE mount in mount(2)'s own form. ids are
// those that may use it, in the user namespace that mounts.
func fuseOptions(fd, uid, gid, maxRead int) string {
	return fmt.Sprintf("fd=%d,rootmode=40000,user_id=%d,group_id=%d,default_permissions,max_read=%d", fd, uid, gid, maxRead)
}

// fusermountOptions are the same for fusermount3, which adds the descriptor,
// the root's mode and the ids. In a value, a comma or a backslash is escaped
// by a backslash: a vault named "x,suid" must not become an option.
func (o MountOptions) fusermountOptions() string {
	access := "rw"
	if o.ReadOnly {
		access = "ro"
	}
	name := strings.NewReplacer(`\`, `\\`, ",", `\,`).Replace(o.FSName)
	return fmt.Sprintf("%s,nosuid,nodev,default_permissions,max_read=%d,subtype=%s,fsname=%s",
		access, o.MaxRead, strings.TrimPrefix(FilesystemType, "fuse."), name)
}
