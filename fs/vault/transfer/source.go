package transfer

import (
	"errors"
	"io/fs"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// source is the tree of the host that is read.
type source struct {
	path     string   // as the user gave it
	tops     []string // its absolute paths: as given, and with links resolved
	patterns []Pattern
	vaults   []hostID // the folders of the vault being written
	skipped  func(NoteKind, string)
}

// hostID names an inode of the host.
type hostID struct{ dev, ino uint64 }

func idOf(st *unix.Stat_t) hostID { return hostID{uint64(st.Dev), st.Ino} }

// openSource opens the top of a source, the one name in it that may be a symbolic link.
func openSource(path string, o *ImportOptions) (*source, int, error) {
	fd, err := openat(unix.AT_FDCWD, path, unix.O_DIRECTORY)
	if err != nil {
		return nil, -1, &SourceError{path, err}
	}
	src := &source{path: path, skipped: func(NoteKind, string) {}}
	if err := src.prepare(fd, o); err != nil {
		unix.Close(fd)
		return nil, -1, err
	}
	return src, fd, nil
}

func (s *source) prepare(fd int, o *ImportOptions) error {
	top, err := filepath.Abs(s.path)
	if err != nil {
		return &SourceError{s.path, err}
	}
	s.tops = []string{top}
	if resolved, err := filepath.EvalSymlinks(top); err == nil && resolved != top {
		s.tops = append(s.tops, resolved)
	}
	if o.Vault != "" {
		vault := filepath.Clean(o.Vault)
		for _, p := range []string{vault, filepath.Join(filepath.Dir(vault), "."+filepath.Base(vault)+".partial")} {
			var st unix.Stat_t
			if unix.Stat(p, &st) == nil {
				s.vaults = append(s.vaults, idOf(&st))
			}
		}
	}
	s.patterns, err = s.ignoreFile(fd)
	s.patterns = append(s.patterns, o.Exclude...)
	return err
}

// ignoreFile reads the patterns at the source's top.
func (s *source) ignoreFile(dir int) ([]Pattern, error) {
	itself := Pattern{parts: []string{IgnoreFile}}
	fd, err := openRegular(dir, IgnoreFile)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	var patterns []Pattern
	if err == nil {
		defer unix.Close(fd)
		patterns, err = ReadPatterns(&descriptor{fd: fd})
	}
	if err != nil {
		return nil, &SourceError{s.host(IgnoreFile), err}
	}
	return append([]Pattern{itself}, patterns...), nil
}

// host is where something of the source is on the host, for messages.
func (s *source) host(rel string) string { return filepath.Join(s.path, rel) }

// join appends a name to a path relative to the top, which is "".
func join(rel, name string) string {
	if rel == "" {
		return name
	}
	return rel + "/" + name
}

// entry is a name of the source.
type entry struct {
	name string
	rel  string
	st   unix.Stat_t
}

func (e *entry) kind() uint32 { return e.st.Mode & unix.S_IFMT }

// names lists a directory, sorted.
func (s *source) names(fd int, rel string) ([]string, error) {
	var names []string
	buf := make([]byte, 64<<10)
	for {
		n, err := unix.ReadDirent(fd, buf)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return nil, &SourceError{s.host(rel), err}
		}
		if n == 0 {
			break
		}
		_, _, names = unix.ParseDirent(buf[:n], -1, names)
	}
	slices.Sort(names)
	return names, nil
}

// stat looks at a name and says whether it is to be taken along.
func (s *source) stat(dir int, rel, name string) (entry, bool, error) {
	e := entry{name: name, rel: join(rel, name)}
	if err := unix.Fstatat(dir, name, &e.st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return e, false, &SourceError{s.host(e.rel), err}
	}
	isDir := e.kind() == unix.S_IFDIR
	if excluded(s.patterns, e.rel, isDir) {
		return e, false, nil
	}
	switch e.kind() {
	case unix.S_IFDIR:
		if slices.Contains(s.vaults, idOf(&e.st)) {
			s.skipped(NoteVault, e.rel)
			return e, false, nil
		}
	case unix.S_IFSOCK:
		s.skipped(NoteSocket, e.rel)
		return e, false, nil
	case unix.S_IFBLK, unix.S_IFCHR:
		s.skipped(NoteDevice, e.rel)
		return e, false, nil
	}
	return e, true, nil
}

// openat opens a name for reading without following it, waiting for the other end of a FIFO, or leaving a trace in its atime,
// where the kernel lets us.
func openat(dir int, name string, flags int) (int, error) {
	flags |= unix.O_RDONLY | unix.O_NONBLOCK | unix.O_NOCTTY | unix.O_CLOEXEC
	if dir != unix.AT_FDCWD {
		flags |= unix.O_NOFOLLOW
	}
	fd, err := retry(func() (int, error) { return unix.Openat(dir, name, flags|unix.O_NOATIME, 0) })
	if errors.Is(err, unix.EPERM) { // the owner's and root's alone
		fd, err = retry(func() (int, error) { return unix.Openat(dir, name, flags, 0) })
	}
	return fd, err
}

// openRegular opens a regular file of a directory.
func openRegular(dir int, name string) (int, error) {
	fd, err := openat(dir, name, 0)
	if err != nil {
		return -1, err
	}
	var st unix.Stat_t
	if err = unix.Fstat(fd, &st); err == nil && st.Mode&unix.S_IFMT != unix.S_IFREG {
		err = errors.New("not a regular file")
	}
	if err != nil {
		unix.Close(fd)
		return -1, err
	}
	return fd, nil
}

// stamp is what must stay as it is while something is read.
type stamp struct {
	id         hostID
	mode       uint32
	size       int64
	mtim, ctim unix.Timespec
}

func stampOf(st *unix.Stat_t) stamp {
	return stamp{idOf(st), st.Mode, st.Size, st.Mtim, st.Ctim}
}

// open opens what stat saw; if something else has the name now, or it was written to since, the error is a *ChangedError.
func (s *source) open(dir int, rel, name string, was stamp, flags int) (int, error) {
	fd, err := openat(dir, name, flags)
	if errors.Is(err, unix.ELOOP) || errors.Is(err, unix.ENOTDIR) {
		return -1, &ChangedError{s.host(rel)}
	}
	if err != nil {
		return -1, &SourceError{s.host(rel), err}
	}
	if err := s.unchanged(fd, rel, was); err != nil {
		unix.Close(fd)
		return -1, err
	}
	return fd, nil
}

// unchanged compares an open file or directory with what stat saw. The times are compared in nanoseconds; the kernel's own
// grain (4 ms before Linux 6.13) is what a change can hide in.
func (s *source) unchanged(fd int, rel string, was stamp) error {
	var now unix.Stat_t
	if err := unix.Fstat(fd, &now); err != nil {
		return &SourceError{s.host(rel), err}
	}
	if stampOf(&now) != was {
		return &ChangedError{s.host(rel)}
	}
	return nil
}

// readlink returns the target of a symbolic link.
func (s *source) readlink(dir int, e *entry) (string, error) {
	buf := make([]byte, unix.PathMax)
	n, err := unix.Readlinkat(dir, e.name, buf)
	if errors.Is(err, unix.EINVAL) {
		return "", &ChangedError{s.host(e.rel)}
	}
	if err != nil {
		return "", &SourceError{s.host(e.rel), err}
	}
	return string(buf[:n]), nil
}

// xattr is an extended attribute.
type xattr struct {
	name  string
	value []byte
}

// xattrs returns the extended attributes of a name, sorted; of "" those of dir itself. There is no call for it that takes a
// directory and a name before Linux 6.13, hence the way through /proc, which leads to the directory itself wherever it is now.
func (s *source) xattrs(dir int, rel, name string) ([]xattr, error) {
	if name == "" {
		name = "."
	}
	path := procPath(dir, name)
	list, err := sized(func(b []byte) (int, error) { return unix.Llistxattr(path, b) })
	if errors.Is(err, unix.ENOTSUP) {
		return nil, nil
	}
	if err != nil {
		return nil, &SourceError{s.host(rel), err}
	}
	var out []xattr
	for _, n := range strings.Split(strings.TrimSuffix(string(list), "\x00"), "\x00") {
		if !wanted(n) {
			continue
		}
		value, err := sized(func(b []byte) (int, error) { return unix.Lgetxattr(path, n, b) })
		if errors.Is(err, unix.ENODATA) {
			return nil, &ChangedError{s.host(rel)}
		}
		if err != nil {
			return nil, &SourceError{s.host(rel), err}
		}
		out = append(out, xattr{n, value})
	}
	slices.SortFunc(out, func(a, b xattr) int { return strings.Compare(a.name, b.name) })
	return out, nil
}

// wanted says which extended attributes are taken along; the package comment says why.
func wanted(name string) bool {
	space, rest, _ := strings.Cut(name, ".")
	switch space {
	case "user", "trusted":
		return true
	case "security":
		return rest != "selinux"
	case "system":
		return rest == "posix_acl_access" || rest == "posix_acl_default"
	}
	return false
}

// sized calls get with a buffer that is large enough for its answer.
func sized(get func([]byte) (int, error)) ([]byte, error) {
	var small [256]byte
	n, err := get(small[:])
	if err == nil {
		return append([]byte(nil), small[:n]...), nil
	}
	for errors.Is(err, unix.ERANGE) {
		if n, err = get(nil); err != nil {
			break
		}
		buf := make([]byte, n+1) // one more, so that an empty answer is no question for the size
		if n, err = get(buf); err == nil {
			return buf[:n], nil
		}
	}
	return nil, err
}

// procPath is a path to a name in an open directory, or with "" to what is open itself.
func procPath(fd int, name string) string {
	path := "/proc/self/fd/" + strconv.Itoa(fd)
	if name != "" {
		path += "/" + name
	}
	return path
}

// retry calls f until no signal interrupts it.
func retry(f func() (int, error)) (int, error) {
	for {
		n, err := f()
		if !errors.Is(err, unix.EINTR) {
			return n, err
		}
	}
}
