package transfer

import (
	"context"

	"golang.org/x/sys/unix"
)

// Scan counts what Import would take along, without reading any contents: the total of a progress bar.
func Scan(ctx context.Context, path string, o ImportOptions) (Totals, error) {
	src, fd, err := openSource(path, &o)
	if err != nil {
		return Totals{}, err
	}
	s := &scanner{ctx: ctx, source: src, seen: map[hostID]uint64{}}
	err = s.dir(fd, "")
	return s.totals, err
}

type scanner struct {
	ctx    context.Context
	source *source
	totals Totals
	seen   map[hostID]uint64 // files with more than one name, and how many of them are still to come
}

// dir counts a directory and closes it.
func (s *scanner) dir(fd int, rel string) error {
	defer unix.Close(fd)
	names, err := s.source.names(fd, rel)
	if err != nil {
		return err
	}
	for _, name := range names {
		if err := s.ctx.Err(); err != nil {
			return err
		}
		e, take, err := s.source.stat(fd, rel, name)
		if err != nil {
			return err
		}
		if take {
			if err := s.entry(fd, &e); err != nil {
				return err
			}
		}
	}
	return nil
}

func (s *scanner) entry(dir int, e *entry) error {
	s.totals.Files++
	switch e.kind() {
	case unix.S_IFREG:
		if !s.again(e) {
			s.totals.Bytes += uint64(e.st.Size)
		}
	case unix.S_IFDIR:
		fd, err := openat(dir, e.name, unix.O_DIRECTORY)
		if err != nil {
			return &SourceError{s.source.host(e.rel), err}
		}
		return s.dir(fd, e.rel)
	}
	return nil
}

// again says whether a file was counted by another name.
func (s *scanner) again(e *entry) bool {
	if e.st.Nlink < 2 {
		return false
	}
	id := idOf(&e.st)
	left, ok := s.seen[id]
	if !ok {
		s.seen[id] = uint64(e.st.Nlink) - 1
	} else if left == 1 {
		delete(s.seen, id)
	} else {
		s.seen[id] = left - 1
	}
	return ok
}
