package transfer

import (
	"errors"
	"io"

	"golang.org/x/sys/unix"
)

// contents carries over the contents of a regular file.
func (m *importer) contents(dir int, f *file) error {
	was := stampOf(&f.st)
	fd, err := m.source.open(dir, f.rel, f.name, was, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	before := m.meter.Bytes
	if err := m.head(fd, f); err != nil {
		return err
	}
	same := false
	if f.kept {
		if same, err = m.sameContents(fd, f.ino, &f.entry); err != nil {
			return err
		}
		if !same {
			f.changed = true
			m.meter.Bytes = before
			err = m.cut(f)
		}
	}
	if err == nil && !same {
		err = m.write(fd, f)
	}
	if err != nil {
		return err
	}
	if f.changed {
		m.report.Changed++
	}
	m.meter.add(0, before+uint64(f.st.Size)-m.meter.Bytes) // the holes
	return m.source.unchanged(fd, f.rel, was)
}

// head looks at the beginning of a file for what the user should know.
func (m *importer) head(fd int, f *file) error {
	b := m.buf.Bytes()[:min(f.st.Size, headSize)]
	if err := m.readFull(&descriptor{fd: fd}, &f.entry, b); err != nil {
		return err
	}
	m.report.noteHead(f.rel, b, uint64(f.st.Size), m.source.tops)
	return nil
}

// readFull reads bytes that must be there.
func (m *importer) readFull(d *descriptor, e *entry, b []byte) error {
	if m.beforeRead != nil {
		m.beforeRead(e.rel)
	}
	_, err := io.ReadFull(d, b)
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return &ChangedError{m.source.host(e.rel)}
	}
	if err != nil {
		return &SourceError{m.source.host(e.rel), err}
	}
	return nil
}

// write writes what of a file is data; the vault's file is one hole until then.
func (m *importer) write(fd int, f *file) error {
	for off := int64(0); ; {
		data, err := nextData(fd, off, f.st.Size)
		if err != nil {
			return &SourceError{m.source.host(f.rel), err}
		}
		if data.start >= data.end {
			return nil
		}
		d := &descriptor{fd: fd, pos: data.start}
		err = m.session.Write(f.ino, uint64(data.start), uint64(data.end-data.start), func(b []byte) error {
			if err := m.ctx.Err(); err != nil {
				return err
			}
			if err := m.readFull(d, &f.entry, b); err != nil {
				return err
			}
			m.meter.add(0, uint64(len(b)))
			return nil
		})
		if err != nil {
			return onEntry(m.source.host(f.rel), err)
		}
		off = data.end
	}
}
