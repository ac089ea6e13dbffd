package launcher

import (
	"errors"
	"fmt"
	"os"
	"path"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// stagingDir is where the new root is mounted while it is being filled. Every
// machine has it, and all that is needed of it was opened before.
const stagingDir = "/dev"

// view is the new root while PID 1 fills it. All targets are resolved inside
// the new root (RESOLVE_IN_ROOT): a link in a bound directory must not lead a
// later mount out to the machine's files (CVE-2019-19921 and its relatives).
type view struct {
	root    int         // descriptor of the new root's mount
	sources map[int]int // step index to a detached copy of the machine's tree
	made    map[string]bool
}

// openSources takes a detached copy of everything that will be bound, while
// the machine's paths still mean what the plan says, with the attributes it is
// to have, so that it is never visible without them.
func openSources(steps []Step) (map[int]int, error) {
	sources := map[int]int{}
	for index, step := range steps {
		if step.Kind != StepBind && step.Kind != StepDevice {
			continue
		}
		tree, err := unix.OpenTree(unix.AT_FDCWD, step.Source,
			unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC|unix.AT_RECURSIVE)
		if err != nil {
			return nil, setupError(step.String(), err)
		}
		attributes := unix.MountAttr{Attr_set: unix.MOUNT_ATTR_NOSUID}
		if step.Kind == StepDevice {
			attributes.Attr_set |= unix.MOUNT_ATTR_NOEXEC
		} else {
			attributes.Attr_set |= unix.MOUNT_ATTR_NODEV
		}
		if step.ReadOnly {
			attributes.Attr_set |= unix.MOUNT_ATTR_RDONLY
		}
		if err := unix.MountSetattr(tree, "", unix.AT_EMPTY_PATH|unix.AT_RECURSIVE, &attributes); err != nil {
			return nil, setupError(step.String(), err)
		}
		sources[index] = tree
	}
	return sources, nil
}

// newView makes an empty root and stages it.
func newView(sources map[int]int) (*view, error) {
	root, err := newMount("tmpfs", unix.MOUNT_ATTR_NOSUID|unix.MOUNT_ATTR_NODEV, option{"mode", "755"})
	if err != nil {
		return nil, setupError("make a new root", err)
	}
	if err := unix.MoveMount(root, "", unix.AT_FDCWD, stagingDir, unix.MOVE_MOUNT_F_EMPTY_PATH); err != nil {
		return nil, setupError("stage the new root", err)
	}
	return &view{root: root, sources: sources, made: map[string]bool{"/": true}}, nil
}

// option is a mount option; without a value it is a flag.
type option struct{ key, value string }

// newMount makes a file system of its own and returns its detached mount.
func newMount(kind string, attributes int, options ...option) (int, error) {
	context, err := unix.Fsopen(kind, unix.FSOPEN_CLOEXEC)
	if err != nil {
		return 0, err
	}
	defer unix.Close(context)
	for _, o := range append(options, option{"source", "encfsrun"}) {
		if o.value == "" {
			err = unix.FsconfigSetFlag(context, o.key)
		} else {
			err = unix.FsconfigSetString(context, o.key, o.value)
		}
		if err != nil {
			return 0, fmt.Errorf("mount option %s=%s: %w", o.key, o.value, err)
		}
	}
	if err := unix.FsconfigCreate(context); err != nil {
		return 0, err
	}
	return unix.Fsmount(context, unix.FSMOUNT_CLOEXEC, attributes)
}

// apply carries out one step other than the vault's.
func (v *view) apply(index int, step Step) error {
	const quiet = unix.MOUNT_ATTR_NOSUID | unix.MOUNT_ATTR_NODEV
	switch step.Kind {
	case StepTmpfs:
		mode := option{"mode", strconv.FormatUint(uint64(unixMode(step.Mode)), 8)}
		return v.mountNew(step.Target, "tmpfs", quiet, mode)
	case StepProc:
		err := v.mountNew(step.Target, "proc", quiet|unix.MOUNT_ATTR_NOEXEC)
		if errors.Is(err, unix.EPERM) {
			return missingProc()
		}
		return err
	case StepPts:
		return v.mountNew(step.Target, "devpts", unix.MOUNT_ATTR_NOSUID|unix.MOUNT_ATTR_NOEXEC,
			option{"newinstance", ""}, option{"ptmxmode", "0666"}, option{"mode", "620"})
	case StepBind, StepDevice:
		return v.bind(v.sources[index], step.Target)
	case StepDir:
		return v.makeDir(step.Target, unixMode(step.Mode))
	case StepSymlink:
		return v.inParent(step.Target, func(dir int, base string) error {
			return unix.Symlinkat(step.Source, dir, base)
		})
	case StepFile:
		return v.inParent(step.Target, func(dir int, base string) error {
			return writeFile(dir, base, unixMode(step.Mode), step.Content)
		})
	case StepReadOnly:
		return v.makeReadOnly(step.Target)
	default:
		return fmt.Errorf("there is no such step as %s", step.Kind)
	}
}

// open returns an O_PATH descriptor of target, links resolved inside the root.
func (v *view) open(target string, flags uint64) (int, error) {
	how := unix.OpenHow{Flags: unix.O_PATH | unix.O_CLOEXEC | flags, Resolve: unix.RESOLVE_IN_ROOT}
	for {
		fd, err := unix.Openat2(v.root, target, &how)
		// EAGAIN: something was renamed on the machine during the look-up.
		if err != unix.EINTR && err != unix.EAGAIN {
			return fd, err
		}
	}
}

// makeDir makes target unless it exists, with mode, and its parents with 0755.
func (v *view) makeDir(target string, mode uint32) error {
	if v.made[target] {
		return nil
	}
	if fd, err := v.open(target, unix.O_DIRECTORY); err == nil {
		unix.Close(fd)
		v.made[target] = true
		return nil
	} else if err != unix.ENOENT {
		return err
	}
	err := v.inParent(target, func(dir int, base string) error {
		return unix.Mkdirat(dir, base, mode)
	})
	if errors.Is(err, unix.EROFS) {
		return fmt.Errorf("%s does not exist and %s is read-only: %w", target, path.Dir(target), err)
	}
	v.made[target] = err == nil
	return err
}

// inParent calls do with a descriptor of target's directory, made if need be.
func (v *view) inParent(target string, do func(dir int, base string) error) error {
	parent := path.Dir(target)
	if err := v.makeDir(parent, 0o755); err != nil {
		return err
	}
	dir, err := v.open(parent, unix.O_DIRECTORY)
	if err != nil {
		return err
	}
	defer unix.Close(dir)
	return do(dir, path.Base(target))
}

// writeFile makes a file that does not exist yet.
func writeFile(dir int, base string, mode uint32, content string) error {
	fd, err := unix.Openat(dir, base, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC, mode)
	if err != nil {
		return err
	}
	file := os.NewFile(uintptr(fd), base)
	defer file.Close()
	_, err = file.WriteString(content)
	return err
}

func (v *view) mountNew(target, kind string, attributes int, options ...option) error {
	if err := v.makeDir(target, 0o755); err != nil {
		return err
	}
	tree, err := newMount(kind, attributes, options...)
	if err != nil {
		return err
	}
	return v.attach(tree, target)
}

// bind attaches a detached tree, after making what it is to be attached to.
func (v *view) bind(tree int, target string) error {
	var stat unix.Stat_t
	if err := unix.Fstat(tree, &stat); err != nil {
		return err
	}
	if stat.Mode&unix.S_IFMT == unix.S_IFDIR {
		if err := v.makeDir(target, 0o755); err != nil {
			return err
		}
	} else if fd, err := v.open(target, 0); err == nil {
		unix.Close(fd)
	} else if err := v.inParent(target, func(dir int, base string) error {
		return writeFile(dir, base, 0o444, "")
	}); err != nil {
		return err
	}
	return v.attach(tree, target)
}

// attach puts a detached mount on target and closes its descriptor.
func (v *view) attach(tree int, target string) error {
	defer unix.Close(tree)
	place, err := v.open(target, 0)
	if err != nil {
		return err
	}
	defer unix.Close(place)
	return unix.MoveMount(tree, "", place, "", unix.MOVE_MOUNT_F_EMPTY_PATH|unix.MOVE_MOUNT_T_EMPTY_PATH)
}

// makeReadOnly makes the mount at target read-only, not those below it.
func (v *view) makeReadOnly(target string) error {
	place := v.root
	if target != "/" {
		fd, err := v.open(target, 0)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		place = fd
	}
	return unix.MountSetattr(place, "", unix.AT_EMPTY_PATH, &unix.MountAttr{Attr_set: unix.MOUNT_ATTR_RDONLY})
}

// mountVault mounts the file system behind device, which must have been opened
// in this user namespace. Nothing answers on it yet.
func (v *view) mountVault(target string, plan *Plan, device *os.File) error {
	if err := v.makeDir(target, 0o755); err != nil {
		return err
	}
	kind, subtype, _ := strings.Cut(FilesystemType, ".")
	uid, gid := plan.FileOwner()
	options := []option{
		{"subtype", subtype},
		{"fd", strconv.Itoa(int(device.Fd()))},
		{"rootmode", "40000"},
		{"user_id", strconv.Itoa(uid)},
		{"group_id", strconv.Itoa(gid)},
		{"max_read", strconv.Itoa(plan.Vault.MaxRead)},
		{"default_permissions", ""},
	}
	attributes := unix.MOUNT_ATTR_NOSUID | unix.MOUNT_ATTR_NODEV
	if plan.Vault.ReadOnly {
		// In the file system as well as in the mount: else every read asks for
		// the attributes anew, because of its access time.
		options = append(options, option{"ro", ""})
		attributes |= unix.MOUNT_ATTR_RDONLY
	}
	tree, err := newMount(kind, attributes, options...)
	if err == unix.ENODEV {
		return &MissingError{What: "the kernel has no fuse file system", Mend: "modprobe fuse"}
	}
	if err != nil {
		return err
	}
	return v.attach(tree, target)
}

// answers makes sure that the mount at target is served.
func (v *view) answers(target string) error {
	root, err := v.open(target, unix.O_DIRECTORY)
	if err != nil {
		return fmt.Errorf("it does not answer: %w", err)
	}
	defer unix.Close(root)
	var stat unix.Statx_t
	if err := unix.Statx(root, "", unix.AT_EMPTY_PATH|unix.AT_STATX_FORCE_SYNC, unix.STATX_BASIC_STATS, &stat); err != nil {
		return fmt.Errorf("it does not answer: %w", err)
	}
	return nil
}

// enter makes the view the root of this process and lets go of the machine's.
func (v *view) enter() error {
	if err := unix.Fchdir(v.root); err != nil {
		return setupError("enter the new root", err)
	}
	if err := unix.PivotRoot(".", "."); err != nil {
		return setupError("pivot into the new root", err)
	}
	if err := unix.Unmount(".", unix.MNT_DETACH); err != nil {
		return setupError("detach the machine's root", err)
	}
	if err := unix.Chdir("/"); err != nil {
		return setupError("enter the new root", err)
	}
	return unix.Close(v.root)
}
