package main

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"time"
)

// store is one subject that keeps one tree for one user, in a folder of its own.
type store struct {
	yard    *yard
	subject subject
	user    user
	src     string // what it is filled with
	dir     string
}

func (s *store) path(name string) string { return filepath.Join(s.dir, name) }
func (s *store) mountpoint() string      { return s.path("mnt") }
func (s *store) tree() string            { return s.path("tree") }

// newStore makes the folder of a store; create and fill make the rest.
func newStore(y *yard, sub subject, u user, src string) (*store, error) {
	dir, err := y.folder(sub.name, u)
	if err != nil {
		return nil, err
	}
	return &store{yard: y, subject: sub, user: u, src: src, dir: dir}, nil
}

// sibling is another store of the same kind, still empty.
func (s *store) sibling() (*store, error) { return newStore(s.yard, s.subject, s.user, s.src) }

func (s *store) create(ctx context.Context) error {
	for _, c := range append([]command{{"mkdir", s.mountpoint()}}, s.subject.create(s)...) {
		if err := s.yard.command(ctx, s.user, c); err != nil {
			return err
		}
	}
	return nil
}

// fill imports the store's source and says how long that took, without a mount that it may need.
func (s *store) fill(ctx context.Context, copyFlag string) (took time.Duration, err error) {
	if s.subject.mountedFill {
		if _, err := s.mount(ctx); err != nil {
			return 0, err
		}
		defer s.unmount(&err)
	}
	for _, c := range s.subject.fill(s, s.src, copyFlag) {
		one, err := s.yard.timed(ctx, s.user, c)
		if err != nil {
			return 0, err
		}
		took += one
	}
	return took, nil
}

// mount returns where the tree is, once it answers.
func (s *store) mount(ctx context.Context) (string, error) {
	if s.subject.mount == nil {
		return s.tree(), nil
	}
	return s.mountpoint(), s.yard.command(ctx, s.user, s.subject.mount(s))
}

// mountWritable returns where the tree of an empty store is, once it answers.
func (s *store) mountWritable(ctx context.Context) (string, error) {
	if s.subject.writable == nil {
		return s.tree(), nil
	}
	return s.mountpoint(), s.yard.command(ctx, s.user, s.subject.writable(s))
}

// unmount also works after Ctrl-C; its error is added to the caller's.
func (s *store) unmount(err *error) {
	if s.subject.mount == nil {
		return
	}
	// umount by whom it belongs to: as good as a program's own command, and the same for all.
	*err = errors.Join(*err, s.yard.command(context.Background(), s.user, command{"fusermount3", "-u", s.mountpoint()}))
}

// unmountWritable is unmount after mountWritable.
func (s *store) unmountWritable(err *error) {
	if s.subject.writable == nil {
		return
	}
	end := command{"fusermount3", "-u", s.mountpoint()}
	if s.subject.umount != nil {
		end = s.subject.umount(s)
	}
	*err = errors.Join(*err, s.yard.command(context.Background(), s.user, end))
}

func (s *store) remove(err *error) { *err = errors.Join(*err, os.RemoveAll(s.dir)) }
