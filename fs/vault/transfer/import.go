package transfer

import (
	"context"
	"errors"
	"slices"

	"golang.org/x/sys/unix"

	"encfsrun/fs/guarded"
	"encfsrun/fs/vault"
	"encfsrun/fs/vault/tree"
)

// Import writes the tree at path into the empty vault that s is filling. It commits nothing. After an error the session has to be
// aborted; *SourceError and *ChangedError name what of the source is to blame, and ctx's error says that it was stopped.
func Import(ctx context.Context, s *vault.Session, path string, o ImportOptions) (Report, error) {
	m := &importer{ctx: ctx, session: s}
	return m.run(path, &o)
}

// Update makes the vault that s writes and v reads a mirror of the tree at path, and writes only what differs: where nothing does,
// nothing is written and a commit does nothing. Contents are compared byte by byte, whatever sizes and times say. A time of
// last access alone is no difference, because our own reading may have changed it. It commits nothing; see Import for errors.
func Update(ctx context.Context, s *vault.Session, v *vault.Vault, path string, o ImportOptions) (Report, error) {
	old, err := openContents(ctx, v)
	if err != nil {
		return Report{}, err
	}
	defer old.close()
	m := &importer{ctx: ctx, session: s, old: &existing{v: v, contents: old, keepExtra: o.KeepExtra, claimed: map[vault.Ino]bool{}}}
	return m.run(path, &o)
}

// importer carries one tree into a vault.
type importer struct {
	ctx     context.Context
	session *vault.Session
	old     *existing // what the vault holds; nil for one that is being made
	source  *source
	links   map[hostID]*link
	files   []file          // of the batch at hand
	buf     *guarded.Buffer // a piece of a file that is looked at or compared
	report  Report
	meter   *meter

	// For tests: called before a part of a file is read, so that they can change it at that moment.
	beforeRead func(rel string)
}

// link is a file of the source with more than one name.
type link struct {
	ino  vault.Ino
	left uint64 // names that are still to come
}

// file is a regular file whose contents are to be carried over.
type file struct {
	entry
	ino     vault.Ino
	kept    bool // the vault had it: its contents are compared
	changed bool
}

// batchSize is how many entries of a directory are carried over at once, metadata first, then contents: it bounds the memory
// for a directory of any size to its names.
const batchSize = 4096

func (m *importer) run(path string, o *ImportOptions) (Report, error) {
	src, fd, err := openSource(path, o)
	if err != nil {
		return Report{}, err
	}
	m.source = src
	src.skipped = func(kind NoteKind, rel string) { m.report.note(kind, rel, "") }
	m.links = map[hostID]*link{}
	m.meter = newMeter(o.Progress, o.Total)
	if m.buf, err = guarded.NewBuffer(vault.PlainSize); err != nil {
		unix.Close(fd)
		return Report{}, err
	}
	defer m.buf.Destroy()
	if err := m.top(fd); err != nil {
		return m.report, err
	}
	m.meter.end()
	return m.report, nil
}

// top carries over the source's top, which becomes the root.
func (m *importer) top(fd int) error {
	var e entry
	err := unix.Fstat(fd, &e.st)
	if err != nil {
		unix.Close(fd)
		return &SourceError{m.source.path, err}
	}
	in, err := m.inode(fd, &e)
	if err == nil && m.old != nil {
		var changed bool
		if changed, err = m.change(tree.Root, in); changed {
			m.report.Changed++
		}
	} else if err == nil {
		var ino vault.Ino
		if ino, err = m.create(in); err == nil && ino != tree.Root {
			err = errors.New("the vault is not empty")
		}
		m.report.Added++
	}
	if err != nil {
		unix.Close(fd)
		return onEntry(m.source.path, err)
	}
	return m.dir(fd, "", tree.Root, stampOf(&e.st))
}

// subdir is a directory that is still to be walked.
type subdir struct {
	name string
	ino  vault.Ino
	was  stamp
}

// dir carries over what is in a directory, and closes it.
func (m *importer) dir(fd int, rel string, ino vault.Ino, was stamp) error {
	defer unix.Close(fd)
	names, err := m.source.names(fd, rel)
	if err != nil {
		return err
	}
	gone, err := m.old.names(ino)
	if err != nil {
		return err
	}
	var subdirs []subdir
	for batch := range slices.Chunk(names, batchSize) {
		m.files = m.files[:0]
		for _, name := range batch {
			e, take, err := m.source.stat(fd, rel, name)
			if err == nil && take {
				if gone, err = m.removeBefore(ino, gone, name); err == nil {
					subdirs, err = m.entry(fd, ino, &e, subdirs)
				}
			}
			if err == nil {
				err = m.ctx.Err()
			}
			if err != nil {
				return err
			}
		}
		for i := range m.files {
			m.readAhead(fd, i)
			if err := m.contents(fd, &m.files[i]); err != nil {
				return err
			}
		}
	}
	if err := m.removeAll(ino, gone); err != nil {
		return err
	}
	if err := m.source.unchanged(fd, rel, was); err != nil {
		return err
	}
	names = nil // those of the directories on the way down are all that is kept
	for _, d := range subdirs {
		sub := join(rel, d.name)
		child, err := m.source.open(fd, sub, d.name, d.was, unix.O_DIRECTORY)
		if err != nil {
			return err
		}
		if err := m.dir(child, sub, d.ino, d.was); err != nil {
			return err
		}
	}
	return nil
}

// entry carries over the metadata of a name, and notes what is to be done for it later.
func (m *importer) entry(fd int, dir vault.Ino, e *entry, subdirs []subdir) ([]subdir, error) {
	m.count(e)
	kind := e.kind()
	m.report.noteName(e.rel, kind == unix.S_IFDIR)
	if kind != unix.S_IFDIR && e.st.Nlink > 1 {
		if l := m.links[idOf(&e.st)]; l != nil {
			return subdirs, m.linkAgain(dir, e, l)
		}
	}
	in, err := m.inode(fd, e)
	if err != nil {
		return subdirs, err
	}
	if kind == unix.S_IFLNK {
		m.report.noteLink(e.rel, in.target)
	}
	ino, kept, changed, err := m.place(fd, dir, e, in)
	if err != nil {
		return subdirs, onEntry(m.source.host(e.rel), err)
	}
	if kind != unix.S_IFDIR && e.st.Nlink > 1 {
		m.links[idOf(&e.st)] = &link{ino, uint64(e.st.Nlink) - 1}
	}
	switch kind {
	case unix.S_IFREG: // counted as changed when its contents are known
		m.report.Bytes += uint64(e.st.Size)
		m.files = append(m.files, file{*e, ino, kept, changed})
		changed = false
	case unix.S_IFDIR:
		subdirs = append(subdirs, subdir{e.name, ino, stampOf(&e.st)})
	}
	if changed {
		m.report.Changed++
	}
	return subdirs, nil
}

func (m *importer) count(e *entry) {
	m.meter.add(1, 0)
	switch e.kind() {
	case unix.S_IFREG:
		m.report.Files++
	case unix.S_IFDIR:
		m.report.Dirs++
	case unix.S_IFLNK:
		m.report.Symlinks++
	default:
		m.report.Other++
	}
}

// place finds or makes the inode for a name. kept says that the vault had it, changed that some of its metadata was changed.
func (m *importer) place(fd int, dir vault.Ino, e *entry, in *inode) (ino vault.Ino, kept, changed bool, err error) {
	if m.old != nil {
		if ino, kept, err = m.keep(fd, dir, e, in); err != nil {
			return 0, false, false, err
		}
		if kept {
			changed, err = m.change(ino, in)
			return ino, true, changed, err
		}
	}
	if ino, err = m.create(in); err != nil {
		return 0, false, false, err
	}
	m.report.Added++
	return ino, false, false, m.session.Link(dir, e.name, ino)
}

// linkAgain gives another name to an inode that is in the vault already.
func (m *importer) linkAgain(dir vault.Ino, e *entry, l *link) error {
	if l.left--; l.left == 0 {
		delete(m.links, idOf(&e.st))
	}
	if m.old != nil {
		ino, err := m.old.v.Lookup(dir, e.name)
		if err == nil && ino == l.ino {
			return nil
		}
		if err == nil {
			err = m.remove(dir, e.name)
		}
		if err != nil && !errors.Is(err, tree.ErrNotFound) {
			return err
		}
	}
	m.report.Added++
	return onEntry(m.source.host(e.rel), m.session.Link(dir, e.name, l.ino))
}

// inode is the metadata of an entry of the source.
type inode struct {
	attr   tree.Attr
	target string
	xattrs []xattr
}

// inode reads the metadata of an entry of a directory; that of the directory itself has no name.
func (m *importer) inode(dir int, e *entry) (*inode, error) {
	in := &inode{attr: tree.Attr{
		Mode: e.st.Mode, UID: e.st.Uid, GID: e.st.Gid,
		Atime: timeOf(e.st.Atim), Mtime: timeOf(e.st.Mtim), Ctime: timeOf(e.st.Ctim),
	}}
	var err error
	switch e.kind() {
	case unix.S_IFREG:
		in.attr.Size = uint64(e.st.Size)
	case unix.S_IFLNK:
		if in.target, err = m.source.readlink(dir, e); err != nil {
			return nil, err
		}
	}
	in.xattrs, err = m.source.xattrs(dir, e.rel, e.name)
	return in, err
}

func timeOf(t unix.Timespec) tree.Time { return tree.Time{Sec: t.Sec, Nsec: uint32(t.Nsec)} }

// create makes an inode without a name.
func (m *importer) create(in *inode) (vault.Ino, error) {
	in.attr.Ino = m.session.NewIno()
	err := m.session.Put(in.attr)
	if err == nil && in.attr.Mode&unix.S_IFMT == unix.S_IFLNK {
		err = m.session.SetTarget(in.attr.Ino, in.target)
	}
	for _, x := range in.xattrs {
		if err == nil {
			err = m.session.SetXattr(in.attr.Ino, x.name, x.value)
		}
	}
	return in.attr.Ino, err
}
