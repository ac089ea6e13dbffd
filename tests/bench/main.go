// Command bench measures encfsrun against ext4 (a plain copy) and its peers on one machine, and prints ratios.
//
// A figure in seconds says as much about the machine and the minute as about the program. So for each workload the
// subjects take turns, round by round; a ratio is taken within each round, and its median and spread over the rounds
// are what counts. Deriving keys from passphrases is left out: encfsrun unlocks with a machine key, gocryptfs with its
// cheapest scrypt.
//
// Workloads (workload.go, writes.go) and subjects (subject.go) are tables of commands; a store (store.go) is one subject holding
// one tree for one user. What is written is compared with the floor too (package floor): a file system in memory, by go-fuse. Cold means freshly mounted after the kernel dropped its caches, which takes root; warm means
// freshly mounted, then once done untimed. Whatever can't be measured on a machine is named with the reason.
// Mounts and files all lie in one work folder and are removed at the end, also on Ctrl-C; what a killed bench left is
// removed by the next.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
)

// options is the command line.
type options struct {
	rounds    int
	corpus    string
	work      string
	encfsrun  string
	self      string // this binary, which does some of the work as a process of its own
	only      string
	json      bool
	write     bool
	benchmark string // the document whose measured section -write replaces
}

// The jobs of this binary's own processes, with their arguments.
const (
	jobMountFloor = "mount-floor" // MODE DIR
	jobServeFloor = "serve-floor" // MODE
	jobSyncFiles  = "sync-files"  // DIR
	jobOverwrite  = "overwrite"   // FILE
)

// job does one of them; ok is false where the command line is another one.
func job(args []string) (err error, ok bool) {
	switch {
	case len(args) == 3 && args[0] == jobMountFloor:
		return mountFloor(args[1], args[2]), true
	case len(args) == 2 && args[0] == jobServeFloor:
		return serveFloor(args[1]), true
	case len(args) == 2 && args[0] == jobSyncFiles:
		return syncFiles(args[1]), true
	case len(args) == 2 && args[0] == jobOverwrite:
		return overwrite(args[1]), true
	}
	return nil, false
}

func main() {
	if err, ok := job(os.Args[1:]); ok {
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	var o options
	flag.IntVar(&o.rounds, "rounds", 5, "how often each subject takes its turn")
	flag.StringVar(&o.corpus, "corpus", "build/corpus", "the tree to measure with (scripts/corpus makes it)")
	flag.StringVar(&o.work, "work", "build/bench", "work folder, on the file system to measure; other users must be able to reach it")
	flag.StringVar(&o.encfsrun, "encfsrun", "bin/encfsrun", "the binary")
	flag.StringVar(&o.only, "only", "", "only workloads whose name contains this")
	flag.BoolVar(&o.json, "json", false, "print every sample as JSON instead of tables")
	flag.BoolVar(&o.write, "write", false, "put the tables into docs/BENCHMARKS.md too")
	flag.StringVar(&o.benchmark, "document", "docs/BENCHMARKS.md", "where -write puts them")
	flag.Parse()

	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	err := run(ctx, o)
	switch {
	case ctx.Err() != nil:
		fmt.Fprintln(os.Stderr, "bench: stopped")
		os.Exit(130)
	case err != nil:
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// run measures everything and prints it. Nothing is left behind, whatever happens.
func run(ctx context.Context, o options) (err error) {
	if o.rounds < 1 || flag.NArg() != 0 {
		return errors.New("usage: bench [flags], with at least one round (-h lists the flags)")
	}
	for _, path := range []*string{&o.corpus, &o.work, &o.encfsrun} {
		if *path, err = filepath.Abs(*path); err != nil {
			return err
		}
	}
	if o.self, err = os.Executable(); err != nil {
		return err
	}
	for _, needed := range []string{o.corpus, o.encfsrun} {
		if _, err := os.Stat(needed); err != nil {
			return fmt.Errorf("%w: make bench makes it", err)
		}
	}
	yard, err := openYard(o.work)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, yard.close()) }()

	bench := newBench(yard, o)
	if err := bench.measure(ctx); err != nil {
		return err
	}
	report := bench.report(ctx)
	if o.write {
		if err := writeSection(o.benchmark, report.markdown()); err != nil {
			return err
		}
	}
	if o.json {
		return json.NewEncoder(os.Stdout).Encode(report)
	}
	fmt.Print(report.markdown())
	return nil
}
