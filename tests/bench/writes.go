package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"time"
)

// writeWorkloads are what users wait for where they write, as root only. Each begins with an empty store, so that nothing is
// measured but the one thing: the mount itself, and its end, are not. The big file has a size in MiB.
func writeWorkloads(self string, size int) []workload {
	big := func(tree string) string { return filepath.Join(tree, "big") }
	dd := func(in, out string, more ...string) command {
		return append(command{"dd", "if=" + in, "of=" + out, "bs=1M", "status=none"}, more...)
	}
	write := func(tree string, more ...string) command {
		return dd("/dev/zero", big(tree), append([]string{fmt.Sprintf("count=%d", size)}, more...)...)
	}
	untar := func(s *store, tree string) command {
		return command{"tar", "--no-same-owner", "-xf", s.yard.archive(), "-C", tree}
	}
	list := []workload{
		{name: "untar the corpus", measure: inFresh(writing{measured: untar}), goals: []goal{{gocryptfs, 0.65}}},
		{name: "rm -r the corpus", measure: inFresh(writing{
			before: func(s *store, tree string) []command {
				return []command{{"mkdir", tree + "/corpus"}, untar(s, tree+"/corpus")}
			},
			measured: func(_ *store, tree string) command { return command{"rm", "-r", tree + "/corpus"} },
		}), goals: []goal{{gocryptfs, 0.35}}},
		{name: fmt.Sprintf("write %d MB", size), measure: inFresh(writing{
			measured: func(_ *store, tree string) command { return write(tree) },
		}), goals: []goal{{gocryptfs, 1}}},
		{name: fmt.Sprintf("write %d MB and fsync", size), measure: inFresh(writing{
			measured: func(_ *store, tree string) command { return write(tree, "conv=fsync") },
		})},
		// Of the kernel's caches; what a daemon keeps it keeps.
		{name: fmt.Sprintf("read %d MB, cold", size), cold: true, measure: inFresh(writing{
			before:   func(_ *store, tree string) []command { return []command{write(tree, "conv=fsync")} },
			cold:     true,
			measured: func(_ *store, tree string) command { return dd(big(tree), "/dev/null") },
		})},
		{name: "1,000 files of 4 KiB with fsync, 8 threads", measure: inFresh(writing{
			measured: func(_ *store, tree string) command { return command{self, jobSyncFiles, tree} },
		}), goals: []goal{{gocryptfs, 0.5}}},
		{name: fmt.Sprintf("overwrite %d of %d MB, 4 KiB at random, and fsync", size/overwriteShare, size), measure: inFresh(writing{
			before:   func(_ *store, tree string) []command { return []command{write(tree, "conv=fsync")} },
			measured: func(_ *store, tree string) command { return command{self, jobOverwrite, big(tree)} },
		}), goals: []goal{{gocryptfs, 1}}},
	}
	for i := range list {
		list[i].tree, list[i].can = noTree, subject.writes
	}
	return list
}

// writing is something that is done to an empty, mounted store.
type writing struct {
	before   func(s *store, tree string) []command // not timed
	cold     bool                                  // the kernel's caches are dropped then
	measured func(s *store, tree string) command
}

// inFresh makes a store, mounts it for writing, times one command, and removes all. What was written before is on the disk by then.
func inFresh(w writing) func(context.Context, *store) (time.Duration, error) {
	return func(ctx context.Context, s *store) (took time.Duration, err error) {
		fresh, err := s.sibling()
		if err != nil {
			return 0, err
		}
		defer fresh.remove(&err)
		if err := fresh.create(ctx); err != nil {
			return 0, err
		}
		tree, err := fresh.mountWritable(ctx)
		if err != nil {
			return 0, err
		}
		defer fresh.unmountWritable(&err)
		before := []command{{"cat", s.yard.archive()}, {"sync"}} // the archive comes out of the page cache, for all alike
		if w.before != nil {
			before = append(w.before(fresh, tree), before...)
		}
		if err := s.yard.pack(ctx, s.user, s.src); err != nil {
			return 0, err
		}
		for _, c := range before {
			if err := s.yard.command(ctx, s.user, c); err != nil {
				return 0, err
			}
		}
		if w.cold {
			if err := dropCaches(); err != nil {
				return 0, err
			}
		}
		return s.yard.timed(ctx, s.user, w.measured(fresh, tree))
	}
}

// archive is the corpus as a tar archive.
func (y *yard) archive() string { return filepath.Join(y.dir, "corpus.tar") }

// pack makes it, once.
func (y *yard) pack(ctx context.Context, u user, corpus string) error {
	if _, err := os.Stat(y.archive()); err == nil {
		return nil
	}
	partial := y.archive() + ".new"
	if err := y.command(ctx, u, command{"tar", "-cf", partial, "-C", corpus, "."}); err != nil {
		return err
	}
	return os.Rename(partial, y.archive())
}
