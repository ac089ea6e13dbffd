package main

import (
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// The test binary does the jobs of the bench's own processes, too.
func TestMain(m *testing.M) {
	if err, ok := job(os.Args[1:]); ok {
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

func TestSpread(t *testing.T) {
	for _, c := range []struct {
		readings []float64
		want     spread
	}{
		{[]float64{7}, spread{7, 7, 7}},
		{[]float64{9, 1, 5}, spread{5, 1, 9}},
		{[]float64{4, 1, 2, 100}, spread{3, 1, 100}},
	} {
		if got := spreadOf(c.readings); got != c.want {
			t.Errorf("spreadOf(%v) = %v, want %v", c.readings, got, c.want)
		}
	}
	if !math.IsNaN(spreadOf(nil).Median) {
		t.Error("no readings have a median")
	}
	readings := []float64{3, 1, 2}
	spreadOf(readings)
	if diff := cmp.Diff([]float64{3, 1, 2}, readings); diff != "" {
		t.Errorf("the rounds were reordered: %s", diff)
	}
}

// A minute in which everything took ten times as long changes no ratio.
func TestRatiosAreTakenWithinARound(t *testing.T) {
	r := result{Seconds: map[string][]float64{ours: {2, 20, 2}, plain: {1, 10, 1}, gocryptfs: {4, 40, 5}}}
	if got, ok := r.ratio(ours, plain); !ok || got != (spread{2, 2, 2}) {
		t.Errorf("ratio against %s = %v, %v", plain, got, ok)
	}
	if got, ok := r.ratio(ours, gocryptfs); !ok || got != (spread{0.5, 0.4, 0.5}) {
		t.Errorf("ratio against %s = %v, %v", gocryptfs, got, ok)
	}
	if _, ok := r.ratio(ours, "nobody"); ok {
		t.Error("a ratio against what was not measured")
	}
}

func TestVerdict(t *testing.T) {
	r := result{
		Goals:   []goal{{plain, 2}, {gocryptfs, 0.4}, {"nobody", 1}},
		Seconds: map[string][]float64{ours: {2}, plain: {1}, gocryptfs: {4}},
	}
	const want = "≤ 2 × ext4: reached; ≤ 0.4 × gocryptfs: **missed**; ≤ 1 × nobody: not measured"
	if got := r.verdict(ours); got != want {
		t.Errorf("verdict %q, want %q", got, want)
	}
}

func TestMarkdownNamesWhatIsMissing(t *testing.T) {
	text := report{
		Rounds:  3,
		Results: []result{{Workload: "ls", User: "root", Seconds: map[string][]float64{ours: {0.5}, plain: {0.25}, oursCached: {1}, floorCached: {2}}}},
		Missing: []string{"gocryptfs: not installed"},
	}.markdown()
	for _, want := range []string{
		"| encfsrun: ls | root | **2.00** (2.00–2.00) | – | – |",
		"| encfsrun, page cache: ls | root | **4.00** (4.00–4.00) | – | **0.50** (0.50–0.50) |",
		"| ls | root | 0.250 (0.250–0.250) | – | – | 2.000 (2.000–2.000) | 0.500 (0.500–0.500) | 1.000 (1.000–1.000) |",
		"* gocryptfs: not installed",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("%q is missing in:\n%s", want, text)
		}
	}
}

func TestReplaceSection(t *testing.T) {
	document := "mine\n" + sectionBegin + "\nold\n" + sectionEnd + "\nmine too\n"
	got, err := replaceSection(document, "new\n")
	if err != nil {
		t.Fatal(err)
	}
	if want := "mine\n" + sectionBegin + "\n\nnew\n\n" + sectionEnd + "\nmine too\n"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	for _, bad := range []string{"", sectionBegin, sectionEnd, sectionEnd + sectionBegin} {
		if _, err := replaceSection(bad, "new"); err == nil {
			t.Errorf("%q was taken for a document with a section", bad)
		}
	}
}

func TestWriteSection(t *testing.T) {
	path := filepath.Join(t.TempDir(), "BENCHMARKS.md")
	for _, section := range []string{"first", "second"} {
		if err := writeSection(path, section); err != nil {
			t.Fatal(err)
		}
	}
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(text), "first") || !strings.Contains(string(text), "second") {
		t.Errorf("the section was not replaced: %s", text)
	}
}

func TestMountPoints(t *testing.T) {
	const table = `22 1 8:1 / / rw - ext4 /dev/vda rw
30 22 0:40 / /b/bench/a\040b/mnt rw,nosuid shared:7 - fuse.x x rw
31 22 0:41 / /b/benches/mnt rw - fuse.x x rw
32 30 0:42 / /b/bench/a\040b/mnt/below rw - tmpfs x rw
`
	want := []string{"/b/bench/a b/mnt/below", "/b/bench/a b/mnt"} // what lies on top first
	if diff := cmp.Diff(want, mountPoints(table, "/b/bench")); diff != "" {
		t.Error(diff)
	}
}

func TestQuote(t *testing.T) {
	y := openTestYard(t)
	const awkward = "it's a $HOME `path`"
	dir := filepath.Join(y.dir, awkward)
	if err := y.command(t.Context(), user{name: "me"}, command{"sh", "-c", "mkdir " + quote(dir)}); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(dir); err != nil {
		t.Error(err)
	}
}

func TestACommandThatFailsSaysWhy(t *testing.T) {
	y := openTestYard(t)
	err := y.command(t.Context(), user{name: "me"}, command{"sh", "-c", "echo no luck >&2; exit 3"})
	if err == nil || !strings.Contains(err.Error(), "no luck") {
		t.Errorf("error %v", err)
	}
}

// Ctrl-C ends a command together with what it started, at once.
func TestCancelKillsTheWholeGroup(t *testing.T) {
	y := openTestYard(t)
	alive := filepath.Join(y.dir, "alive")
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	began := time.Now()
	err := y.command(ctx, user{name: "me"}, command{"sh", "-c", "(sleep 1; touch " + quote(alive) + ") & sleep 60"})
	if err == nil || time.Since(began) > 10*time.Second {
		t.Fatalf("error %v after %v", err, time.Since(began))
	}
	time.Sleep(1500 * time.Millisecond)
	if _, err := os.Stat(alive); !errors.Is(err, os.ErrNotExist) {
		t.Error("a grandchild outlived the command")
	}
}

func TestOneBenchAtATime(t *testing.T) {
	y := openTestYard(t)
	if _, err := openYard(y.dir); err == nil {
		t.Error("two benches share a work folder")
	}
}

func TestTheYardIsRemoved(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "yard")
	y, err := openYard(dir)
	if err != nil {
		t.Fatal(err)
	}
	if err := makeTree(filepath.Join(dir, "tree"), 3); err != nil {
		t.Fatal(err)
	}
	if err := y.close(); err != nil {
		t.Fatal(err)
	}
	left, err := os.ReadDir(filepath.Dir(dir))
	if err != nil || len(left) != 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

func TestMakeTree(t *testing.T) {
	dir := t.TempDir()
	if err := makeTree(dir, 2*manyPerFolder+1); err != nil {
		t.Fatal(err)
	}
	files, err := filepath.Glob(filepath.Join(dir, "*", "*"))
	if err != nil || len(files) != 2*manyPerFolder+1 {
		t.Errorf("%d files, %v", len(files), err)
	}
}

// Every subject takes a turn in every round, and a round never begins where the last one did.
func TestRoundsRotate(t *testing.T) {
	y := openTestYard(t)
	var turns []string
	b := &bench{
		yard: y, options: options{rounds: 2}, progress: t.Output(), stores: map[string]*store{},
		trees: map[string]string{tinyTree: t.TempDir()},
		subjects: []subject{
			{name: "a", create: noCommands, fill: noFill},
			{name: "b", create: noCommands, fill: noFill},
		},
	}
	w := workload{name: "w", tree: tinyTree, can: func(subject) bool { return true }, measure: func(_ context.Context, s *store) (time.Duration, error) {
		turns = append(turns, s.subject.name)
		return time.Second, nil
	}}
	r, err := b.rounds(t.Context(), w, user{name: "me"})
	if err != nil {
		t.Fatal(err)
	}
	if got := strings.Join(turns, ""); got != "abba" {
		t.Errorf("turns %s", got)
	}
	if diff := cmp.Diff(map[string][]float64{"a": {1, 1}, "b": {1, 1}}, r.Seconds); diff != "" {
		t.Error(diff)
	}
}

// Each begins with an empty store, and is done in one that is mounted.
func TestWriteWorkloads(t *testing.T) {
	y := openTestYard(t)
	corpus := filepath.Join(y.dir, "small")
	if err := makeTree(corpus, 10); err != nil {
		t.Fatal(err)
	}
	for _, s := range []subject{plainSubject(), floorSubject(os.Args[0], floorDirect, "off"), floorSubject(os.Args[0], floorCached, "on")} {
		for _, w := range writeWorkloads(os.Args[0], 4) {
			store, err := newStore(y, s, user{name: "me"}, corpus)
			if err != nil {
				t.Fatal(err)
			}
			if took, err := w.measure(t.Context(), store); err != nil || took <= 0 {
				t.Errorf("%s on %s: %v, %v", w.name, s.name, took, err)
			}
		}
	}
	if left, err := mountsBelow(y.dir); err != nil || len(left) > 0 {
		t.Errorf("still mounted: %v, %v", left, err)
	}
}

func noCommands(*store) []command             { return nil }
func noFill(*store, string, string) []command { return nil }

func openTestYard(t *testing.T) *yard {
	t.Helper()
	y, err := openYard(filepath.Join(t.TempDir(), "yard"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := y.close(); err != nil {
			t.Error(err)
		}
	})
	return y
}
