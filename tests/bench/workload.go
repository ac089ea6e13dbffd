package main

import (
	"context"
	"time"
)

// The trees that stores are filled with.
const (
	corpusTree = "corpus" // sympy and django, with their bytecode
	manyTree   = "many"   // manyFiles small files
	tinyTree   = "tiny"   // a single file: what is left is fixed cost
	noTree     = ""       // what is measured begins with an empty store
)

// goal is a ratio that the project wants to keep below.
type goal struct {
	Against string  `json:"against"`
	AtMost  float64 `json:"at_most"`
}

// workload is something that users wait for.
type workload struct {
	name  string
	tree  string
	cold  bool // needs root: only root can make the kernel drop its caches
	users bool // measured as an ordinary user too
	goals []goal
	// can says whether a subject knows this workload at all.
	can func(s subject) bool
	// measure times it once.
	measure func(ctx context.Context, s *store) (time.Duration, error)
}

func workloads(self string) []workload {
	const imports = "import sympy, django.db.models, django.forms, django.template, django.http, django.urls"
	list := func(tree string) command { return command{"ls", "-lR", tree} }
	read := func(tree string) command {
		return command{"sh", "-c", "find " + quote(tree) + " -type f -print0 | xargs -0 cat"}
	}
	python := func(tree string) command {
		return command{"env", "PYTHONPATH=" + tree, "/usr/bin/python3", "-c", imports}
	}
	return append([]workload{
		{name: "import the corpus (pack; else cp -r && sync)", tree: corpusTree, measure: fillOnce,
			can:   func(s subject) bool { return s.fills() && s.name != oursCached }, // nothing is mounted
			goals: []goal{{plain, 3}}},
		{name: "ls -lR, cold", tree: corpusTree, cold: true, can: subject.fills, measure: inTree(list, true),
			goals: []goal{{gocryptfs, 0.4}}},
		{name: "ls -lR, warm", tree: corpusTree, can: subject.fills, measure: inTree(list, false),
			goals: []goal{{gocryptfs, 0.4}}},
		{name: "read all files, cold", tree: corpusTree, cold: true, can: subject.fills, measure: inTree(read, true)},
		{name: "read all files, warm", tree: corpusTree, can: subject.fills, measure: inTree(read, false)},
		{name: "python: import sympy and django, cold", tree: corpusTree, cold: true, users: true, can: subject.fills,
			measure: inTree(python, true)},
		{name: "python: import sympy and django, warm", tree: corpusTree, users: true, can: subject.fills,
			measure: inTree(python, false), goals: []goal{{plain, 1.2}}},
		{name: "mount 100,000 files", tree: manyTree, can: func(s subject) bool { return s.mount != nil && s.name != oursCached }, measure: mountOnce},
		{name: "run /bin/true (plain: without encfsrun)", tree: tinyTree, users: true,
			can: func(s subject) bool { return s.run != nil }, measure: runOnce},
	}, writeWorkloads(self, bigFile)...)
}

// fillOnce imports the corpus into a new, empty store. What earlier ones left to write is written before.
func fillOnce(ctx context.Context, s *store) (took time.Duration, err error) {
	fresh, err := s.sibling()
	if err != nil {
		return 0, err
	}
	defer fresh.remove(&err)
	if err := fresh.create(ctx); err != nil {
		return 0, err
	}
	if err := s.yard.command(ctx, s.user, command{"sync"}); err != nil {
		return 0, err
	}
	return fresh.fill(ctx, "-r")
}

// inTree mounts, runs a command on the tree, and unmounts; only the command is timed.
func inTree(on func(tree string) command, cold bool) func(context.Context, *store) (time.Duration, error) {
	return func(ctx context.Context, s *store) (took time.Duration, err error) {
		tree, err := s.mount(ctx)
		if err != nil {
			return 0, err
		}
		defer s.unmount(&err)
		if cold {
			err = dropCaches()
		} else {
			err = s.yard.command(ctx, s.user, on(tree))
		}
		if err != nil {
			return 0, err
		}
		return s.yard.timed(ctx, s.user, on(tree))
	}
}

// mountOnce times a mount until the command says that it is ready.
func mountOnce(ctx context.Context, s *store) (took time.Duration, err error) {
	began := time.Now()
	if _, err := s.mount(ctx); err != nil {
		return 0, err
	}
	took = time.Since(began)
	defer s.unmount(&err)
	return took, nil
}

// runOnce times a program that does nothing.
func runOnce(ctx context.Context, s *store) (time.Duration, error) {
	return s.yard.timed(ctx, s.user, s.subject.run(s, command{"/bin/true"}))
}
