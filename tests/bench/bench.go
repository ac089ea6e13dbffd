package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// manyFiles is how many files the tree called many has, in folders of manyPerFolder.
const (
	manyFiles     = 100_000
	manyPerFolder = 100
)

// bench is one run of the workloads.
type bench struct {
	yard     *yard
	options  options
	subjects []subject
	users    []user
	trees    map[string]string // where each tree is, once made
	stores   map[string]*store // filled, by subject, tree and user
	results  []result
	missing  []string // what was not measured, and why
	progress io.Writer
}

func newBench(y *yard, o options) *bench {
	b := &bench{
		yard: y, options: o, progress: os.Stderr,
		trees:  map[string]string{corpusTree: o.corpus},
		stores: map[string]*store{},
	}
	if os.Geteuid() == 0 {
		b.users = []user{{name: "root"}, {name: "user", cred: &syscall.Credential{Uid: nobody, Gid: nobody}}}
	} else {
		b.users = []user{{name: "user"}}
		b.missing = append(b.missing, "as root, and cold: only root can measure that")
	}
	for _, s := range subjects(b.options) {
		if lacking := lacks(s); lacking != "" {
			b.missing = append(b.missing, fmt.Sprintf("%s: %s is not installed", s.name, lacking))
			continue
		}
		b.subjects = append(b.subjects, s)
	}
	return b
}

func lacks(s subject) string {
	for _, program := range s.needs {
		if _, err := exec.LookPath(program); err != nil {
			return program
		}
	}
	return ""
}

// measure goes through all workloads. An error of one subject is an error of the bench: a table with a hole would be
// read as a table.
func (b *bench) measure(ctx context.Context) error {
	var welcome []user
	for _, u := range b.users {
		if err := b.yard.welcome(ctx, u, b.options.corpus); err != nil {
			b.missing = append(b.missing, fmt.Sprintf("as %s: %v", u.name, err))
			continue
		}
		welcome = append(welcome, u)
	}
	for _, w := range workloads(b.options.self) {
		if !strings.Contains(w.name, b.options.only) {
			continue
		}
		for i, u := range welcome {
			if w.cold && os.Geteuid() != 0 || i > 0 && !w.users {
				continue
			}
			r, err := b.rounds(ctx, w, u)
			if err != nil {
				return fmt.Errorf("%s, as %s: %w", w.name, u.name, err)
			}
			b.results = append(b.results, r)
		}
	}
	return nil
}

// rounds lets the subjects take turns at one workload. Each round begins with another one, so that none always
// follows the same neighbour.
func (b *bench) rounds(ctx context.Context, w workload, u user) (result, error) {
	r := result{Workload: w.name, User: u.name, Goals: w.goals, Seconds: map[string][]float64{}}
	var able []*store
	for _, sub := range b.subjects {
		if !w.can(sub) {
			continue
		}
		s, err := b.store(ctx, sub, u, w.tree)
		if err != nil {
			return r, err
		}
		able = append(able, s)
	}
	for round := range b.options.rounds {
		fmt.Fprintf(b.progress, "bench: %s, as %s: round %d of %d\n", w.name, u.name, round+1, b.options.rounds)
		for turn := range able {
			s := able[(round+turn)%len(able)]
			took, err := w.measure(ctx, s)
			if err != nil {
				return r, err
			}
			r.Seconds[s.subject.name] = append(r.Seconds[s.subject.name], took.Seconds())
		}
	}
	return r, nil
}

// store returns the store of a subject with a tree in it, which is made at first use.
func (b *bench) store(ctx context.Context, sub subject, u user, tree string) (*store, error) {
	key := sub.name + "/" + u.name + "/" + tree
	if s := b.stores[key]; s != nil {
		return s, nil
	}
	src, err := b.tree(tree)
	if err != nil {
		return nil, err
	}
	s, err := newStore(b.yard, sub, u, src)
	if err != nil {
		return nil, err
	}
	if tree == noTree { // each measurement makes its own
		b.stores[key] = s
		return s, nil
	}
	fmt.Fprintf(b.progress, "bench: filling %s for %s with %s\n", sub.name, u.name, tree)
	if err := s.create(ctx); err != nil {
		return nil, err
	}
	// -a: with other times than its source's, bytecode would not be valid.
	if _, err := s.fill(ctx, "-a"); err != nil {
		return nil, err
	}
	b.stores[key] = s
	return s, nil
}

// tree returns the folder of a tree, which is made at first use.
func (b *bench) tree(name string) (string, error) {
	if name == noTree {
		name = corpusTree // what is unpacked into it
	}
	if dir := b.trees[name]; dir != "" {
		return dir, nil
	}
	dir := filepath.Join(b.yard.dir, name)
	files := 1
	if name == manyTree {
		files = manyFiles
	}
	if err := makeTree(dir, files); err != nil {
		return "", err
	}
	b.trees[name] = dir
	return dir, nil
}

// makeTree makes small files, of up to 2,000 bytes.
func makeTree(dir string, files int) error {
	for i := range files {
		folder := filepath.Join(dir, fmt.Sprintf("folder%04d", i/manyPerFolder))
		if i%manyPerFolder == 0 {
			if err := os.MkdirAll(folder, 0o755); err != nil {
				return err
			}
		}
		text := strings.Repeat(fmt.Sprintf("file %d\n", i), i%150)
		if err := os.WriteFile(filepath.Join(folder, fmt.Sprintf("file%02d.txt", i%manyPerFolder)), []byte(text), 0o644); err != nil {
			return err
		}
	}
	return nil
}

// report is what was measured, and on what.
func (b *bench) report(ctx context.Context) report {
	return report{
		Date:    time.Now().UTC().Format(time.DateOnly),
		Rounds:  b.options.rounds,
		Machine: describeMachine(ctx, b),
		Results: b.results,
		Missing: b.missing,
	}
}

// describeMachine says what the figures depend on.
func describeMachine(ctx context.Context, b *bench) []string {
	said := func(argv ...string) string {
		out, err := exec.CommandContext(ctx, argv[0], argv[1:]...).Output()
		if err != nil {
			return "unknown"
		}
		first, _, _ := strings.Cut(string(out), "\n")
		return first
	}
	machine := []string{
		"Linux " + said("uname", "-r"),
		said("nproc") + " processors",
		said("findmnt", "-n", "-o", "FSTYPE", "-T", b.yard.dir) + " below",
		said(b.options.encfsrun, "--version"),
	}
	if lacks(subject{needs: []string{"gocryptfs"}}) == "" {
		version, _, _ := strings.Cut(said("gocryptfs", "-version"), ";")
		machine = append(machine, version)
	}
	return machine
}
