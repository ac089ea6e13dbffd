package transfer

import (
	"context"
	"errors"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"encfsrun/fs/vault"
	"encfsrun/fs/vault/tree"
)

// Export writes what a directory of a vault holds to dst on the host, which must not exist or be an empty directory: modes, times,
// extended attributes, hard links, holes and FIFOs; owners only as root. As an ordinary user, setuid and setgid are left off
// what would be another's, and what the host refuses of extended attributes is left off with a Note.
//
// At an error, what was written stays, but never a file that is not whole. A damaged file is an error that wraps a
// *vault.IntegrityError and names it. See Resolve for path; it must lead to a directory (ErrNotDir).
func Export(ctx context.Context, v *vault.Vault, path, dst string, o ExportOptions) (Report, error) {
	ino, err := Resolve(v, path)
	if err != nil {
		return Report{}, err
	}
	a, err := v.Attr(ino)
	if err != nil {
		return Report{}, err
	}
	if !isDir(a.Mode) {
		return Report{}, &PathError{path, ErrNotDir}
	}
	c, err := openContents(ctx, v)
	if err != nil {
		return Report{}, err
	}
	defer c.close()
	top, err := makeTop(dst)
	if err != nil {
		return Report{}, err
	}
	defer unix.Close(top)
	x := &exporter{ctx: ctx, v: v, contents: c, dst: dst, top: top, links: map[vault.Ino]string{}, root: os.Geteuid() == 0}
	x.meter = newMeter(o.Progress, Totals{})
	if err := x.dir(top, "", ino); err != nil {
		return x.report, err
	}
	// Directories get their own attributes when nothing is written to them any more: a mode could shut us out, and each new
	// name changes the times.
	if err := x.finish(top, "", ino); err != nil {
		return x.report, err
	}
	x.meter.end()
	return x.report, nil
}

// exporter writes one tree out.
type exporter struct {
	ctx      context.Context
	v        *vault.Vault
	contents *contents
	dst      string
	top      int
	links    map[vault.Ino]string // where the first name of an inode with several was written
	root     bool
	report   Report
	meter    *meter
}

func (x *exporter) failed(rel string, err error) error {
	path := x.dst
	if rel != "" {
		path += "/" + rel
	}
	return &TargetError{path, bare(err)}
}

// makeTop makes or takes the directory to export to, and opens it.
func makeTop(dst string) (int, error) {
	err := unix.Mkdir(dst, 0o700)
	existed := errors.Is(err, unix.EEXIST)
	if err != nil && !existed {
		return -1, &TargetError{dst, err}
	}
	fd, err := retry(func() (int, error) { return unix.Open(dst, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0) })
	if err != nil {
		return -1, &TargetError{dst, err}
	}
	if existed {
		err = mustBeEmpty(fd)
	}
	// What the directory above wants new entries to have is not what the vault says.
	for _, name := range []string{"system.posix_acl_default", "system.posix_acl_access"} {
		if err == nil && !existed {
			if err = unix.Fremovexattr(fd, name); errors.Is(err, unix.ENODATA) || errors.Is(err, unix.ENOTSUP) {
				err = nil
			}
		}
	}
	if err != nil {
		unix.Close(fd)
		return -1, &TargetError{dst, err}
	}
	return fd, nil
}

func mustBeEmpty(fd int) error {
	buf := make([]byte, 4096)
	for {
		n, err := retry(func() (int, error) { return unix.ReadDirent(fd, buf) })
		if err != nil || n == 0 {
			return err
		}
		if _, count, _ := unix.ParseDirent(buf[:n], -1, nil); count > 0 {
			return ErrNotEmpty
		}
	}
}

// dir writes what is in a directory.
func (x *exporter) dir(fd int, rel string, ino vault.Ino) error {
	entries, err := entriesOf(x.v, ino)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if err := x.ctx.Err(); err != nil {
			return err
		}
		if err := x.entry(fd, join(rel, e.Name), e); err != nil {
			return err
		}
		x.meter.add(1, 0)
	}
	for _, e := range entries {
		if !isDir(e.Mode) {
			continue
		}
		err := x.inDir(fd, join(rel, e.Name), e.Name, func(child int, rel string) error { return x.dir(child, rel, e.Ino) })
		if err != nil {
			return err
		}
	}
	return nil
}

// inDir opens a directory that was written and calls f with it. Nobody can lead us elsewhere with a link in its place.
func (x *exporter) inDir(dir int, rel, name string, f func(fd int, rel string) error) error {
	fd, err := openat(dir, name, unix.O_DIRECTORY)
	if err != nil {
		return x.failed(rel, err)
	}
	defer unix.Close(fd)
	return f(fd, rel)
}

// entry writes one name, a directory empty.
func (x *exporter) entry(dir int, rel string, e tree.Entry) error {
	a, err := x.v.Attr(e.Ino)
	if err != nil {
		return err
	}
	kind := a.Mode & unix.S_IFMT
	if kind != unix.S_IFDIR && a.Nlink > 1 {
		if first, ok := x.links[e.Ino]; ok {
			x.count(kind, 0)
			return x.link(dir, rel, e.Name, first)
		}
		x.links[e.Ino] = rel
	}
	switch kind {
	case unix.S_IFDIR:
		if err := unix.Mkdirat(dir, e.Name, 0o700); err != nil {
			return x.failed(rel, err)
		}
	case unix.S_IFREG:
		err = x.file(dir, rel, e.Name, a)
	case unix.S_IFLNK:
		err = x.symlink(dir, rel, e.Name, a)
	case unix.S_IFIFO:
		err = x.fifo(dir, rel, e.Name, a)
	case unix.S_IFSOCK:
		x.report.note(NoteSocket, rel, "")
		return nil
	default:
		x.report.note(NoteDevice, rel, "")
		return nil
	}
	if err == nil {
		x.report.Added++
		x.count(kind, a.Size)
	}
	return err
}

func (x *exporter) count(kind uint32, size uint64) {
	switch kind {
	case unix.S_IFREG:
		x.report.Files++
		x.report.Bytes += size
	case unix.S_IFDIR:
		x.report.Dirs++
	case unix.S_IFLNK:
		x.report.Symlinks++
	default:
		x.report.Other++
	}
}

// link gives a file that was written another name. The way to its first name is walked again from the top, step by step, so
// that no link on it is followed.
func (x *exporter) link(dir int, rel, name, first string) error {
	from, err := unix.FcntlInt(uintptr(x.top), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return x.failed(rel, err)
	}
	parts := strings.Split(first, "/")
	for _, part := range parts[:len(parts)-1] {
		next, err := openat(from, part, unix.O_DIRECTORY)
		unix.Close(from)
		if err != nil {
			return x.failed(rel, err)
		}
		from = next
	}
	defer unix.Close(from)
	if err := unix.Linkat(from, parts[len(parts)-1], dir, name, 0); err != nil {
		return x.failed(rel, err)
	}
	x.report.Added++
	return nil
}

// finish gives the directories below and then this one their own attributes.
func (x *exporter) finish(fd int, rel string, ino vault.Ino) error {
	entries, err := entriesOf(x.v, ino)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if err := x.ctx.Err(); err != nil {
			return err
		}
		if !isDir(e.Mode) {
			continue
		}
		err := x.inDir(fd, join(rel, e.Name), e.Name, func(child int, rel string) error { return x.finish(child, rel, e.Ino) })
		if err != nil {
			return err
		}
	}
	a, err := x.v.Attr(ino)
	if err != nil {
		return err
	}
	return x.attributes(fd, rel, a)
}
