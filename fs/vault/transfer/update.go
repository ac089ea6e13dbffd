package transfer

import (
	"bytes"
	"errors"
	"maps"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"encfsrun/fs/vault"
	"encfsrun/fs/vault/tree"
)

// existing is what a vault held before an update.
type existing struct {
	v         *vault.Vault
	contents  *contents
	keepExtra bool
	// claimed are the inodes with more than one name that a file of the source has been given: a second file of the source
	// gets an inode of its own, though the vault had both names on one.
	claimed map[vault.Ino]bool
}

// names lists a directory of the vault, sorted: those that the source turns out to lack are removed.
func (x *existing) names(dir vault.Ino) ([]string, error) {
	if x == nil || x.keepExtra {
		return nil, nil
	}
	return x.list(dir)
}

func (x *existing) list(dir vault.Ino) ([]string, error) {
	var names []string
	err := x.v.ReadDir(dir, 0, func(e tree.Entry) bool {
		names = append(names, e.Name)
		return true
	})
	slices.Sort(names)
	return names, err
}

// removeBefore removes those of the sorted names that come before name, and returns those that come after.
func (m *importer) removeBefore(dir vault.Ino, gone []string, name string) ([]string, error) {
	i, found := slices.BinarySearch(gone, name)
	err := m.removeAll(dir, gone[:i])
	if found {
		i++
	}
	return gone[i:], err
}

func (m *importer) removeAll(dir vault.Ino, names []string) error {
	for _, name := range names {
		if err := m.remove(dir, name); err != nil {
			return err
		}
	}
	return nil
}

// remove takes a name out of the vault, with all below it.
func (m *importer) remove(dir vault.Ino, name string) error {
	if err := m.ctx.Err(); err != nil {
		return err
	}
	ino, err := m.old.v.Lookup(dir, name)
	if err != nil {
		return err
	}
	a, err := m.old.v.Attr(ino)
	if err != nil {
		return err
	}
	if isDir(a.Mode) {
		below, err := m.old.list(ino)
		if err != nil {
			return err
		}
		if err := m.removeAll(ino, below); err != nil {
			return err
		}
	}
	m.report.Removed++
	if err := m.session.Unlink(dir, name); err != nil {
		return err
	}
	if isDir(a.Mode) || a.Nlink == 1 {
		return m.session.Free(ino)
	}
	return nil
}

func isDir(mode uint32) bool { return mode&unix.S_IFMT == unix.S_IFDIR }

// keep finds the inode that the vault has for a name, if it can stay. If there is one that can't, the name is removed.
func (m *importer) keep(fd int, dir vault.Ino, e *entry, in *inode) (vault.Ino, bool, error) {
	x := m.old
	ino, err := x.v.Lookup(dir, e.name)
	if errors.Is(err, tree.ErrNotFound) {
		return 0, false, nil
	}
	if err != nil {
		return 0, false, err
	}
	a, err := x.v.Attr(ino)
	if err != nil {
		return 0, false, err
	}
	ok := a.Mode&unix.S_IFMT == e.kind()
	if ok && !isDir(a.Mode) && a.Nlink > 1 {
		if ok = !x.claimed[ino]; ok && x.keepExtra {
			// A name that the source lacks may share the inode, and what is kept must not change.
			ok, err = m.same(fd, ino, e, in)
		}
		if ok {
			x.claimed[ino] = true
		}
	}
	if err == nil && !ok {
		err = m.remove(dir, e.name)
	}
	return ino, ok, err
}

// same says whether an inode of the vault equals an entry of the source.
func (m *importer) same(dir int, ino vault.Ino, e *entry, in *inode) (bool, error) {
	d, err := m.differences(ino, in)
	if err != nil || d.any() || e.kind() != unix.S_IFREG {
		return !d.any(), err
	}
	fd, err := m.source.open(dir, e.rel, e.name, stampOf(&e.st), 0)
	if err != nil {
		return false, err
	}
	defer unix.Close(fd)
	return m.sameContents(fd, ino, e)
}

// differences are what of an inode of the vault is not as in the source.
type differences struct {
	attr    bool
	target  bool
	xattrs  []xattr  // to be set
	removed []string // names of xattrs to be removed
}

func (d *differences) any() bool {
	return d.attr || d.target || len(d.xattrs) > 0 || len(d.removed) > 0
}

func (m *importer) differences(ino vault.Ino, in *inode) (d differences, err error) {
	v := m.old.v
	a, err := v.Attr(ino)
	if err != nil {
		return d, err
	}
	b := in.attr
	regular := a.Mode&unix.S_IFMT == unix.S_IFREG
	d.attr = a.Mode != b.Mode || a.UID != b.UID || a.GID != b.GID || a.Mtime != b.Mtime || a.Ctime != b.Ctime || regular && a.Size != b.Size
	if a.Mode&unix.S_IFMT == unix.S_IFLNK {
		target, err := v.Readlink(ino)
		if err != nil {
			return d, err
		}
		d.target = target != in.target
	}
	names, err := v.ListXattr(ino)
	if err != nil {
		return d, err
	}
	had := map[string][]byte{}
	for _, name := range names {
		if had[name], err = v.GetXattr(ino, name); err != nil {
			return d, err
		}
	}
	for _, x := range in.xattrs {
		if value, ok := had[x.name]; !ok || !bytes.Equal(value, x.value) {
			d.xattrs = append(d.xattrs, x)
		}
		delete(had, x.name)
	}
	d.removed = slices.SortedFunc(maps.Keys(had), strings.Compare)
	return d, nil
}

// change makes the metadata of an inode of the vault that of the source, and says whether anything was to be done.
func (m *importer) change(ino vault.Ino, in *inode) (bool, error) {
	d, err := m.differences(ino, in)
	if err != nil || !d.any() {
		return false, err
	}
	if d.attr {
		in.attr.Ino = ino
		err = m.session.Put(in.attr)
	}
	if d.target && err == nil {
		err = m.session.SetTarget(ino, in.target)
	}
	for _, name := range d.removed {
		if err == nil {
			err = m.session.RemoveXattr(ino, name)
		}
	}
	for _, x := range d.xattrs {
		if err == nil {
			err = m.session.SetXattr(ino, x.name, x.value)
		}
	}
	return true, err
}

// sameContents compares the contents of an open file with those of one in the vault: where data and holes are, and each byte.
func (m *importer) sameContents(fd int, ino vault.Ino, e *entry) (bool, error) {
	for off := int64(0); ; {
		data, err := nextData(fd, off, e.st.Size)
		if err != nil {
			return false, &SourceError{m.source.host(e.rel), err}
		}
		had, err := m.old.nextData(ino, off, e.st.Size)
		if err != nil || had != data {
			return false, err
		}
		if data.start >= data.end {
			return true, nil
		}
		same, err := m.sameBytes(fd, ino, e, data)
		if err != nil || !same {
			return false, err
		}
		off = data.end
	}
}

// errDiffers ends a comparison.
var errDiffers = errors.New("the contents differ")

func (m *importer) sameBytes(fd int, ino vault.Ino, e *entry, part span) (bool, error) {
	d := &descriptor{fd: fd, pos: part.start}
	var foreign error // an error of the source's, and not of the vault's
	err := m.old.contents.each(ino, uint64(part.start), uint64(part.end), func(_ uint64, b []byte, n int) error {
		now := m.buf.Bytes()[:n]
		if foreign = m.readFull(d, e, now); foreign != nil {
			return foreign
		}
		m.meter.add(0, uint64(n))
		if !bytes.Equal(b, now) {
			return errDiffers
		}
		return nil
	})
	switch {
	case errors.Is(err, errDiffers):
		return false, nil
	case err != nil && foreign == nil:
		return false, inFile(e.rel, err)
	}
	return err == nil, err
}

// nextData is the vault's counterpart to the function of that name.
func (x *existing) nextData(ino vault.Ino, off, size int64) (span, error) {
	if off >= size {
		return span{size, size}, nil
	}
	start, err := x.v.SeekData(ino, uint64(off))
	if errors.Is(err, tree.ErrNoData) {
		return span{size, size}, nil
	}
	if err != nil {
		return span{}, err
	}
	end, err := x.v.SeekHole(ino, start)
	return span{int64(start), int64(end)}, err
}

// cut makes a file of the vault one hole of its size, so that new contents can be written.
func (m *importer) cut(f *file) error {
	had, err := m.old.nextData(f.ino, 0, f.st.Size)
	if err != nil || had.start >= had.end {
		return err
	}
	return m.session.Clear(f.ino, 0, uint64(f.st.Size))
}
