package vault

import (
	"cmp"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"

	"encfsrun/fs/vault/disk"
	"encfsrun/fs/vault/disk/memdisk"
)

// syncs sees every call that makes something durable, or takes it from the disk itself, and swallows those of one place.
type syncs struct {
	mu    sync.Mutex
	seen  map[string]bool // places; "writer.go:350 sync: Sync by commit"
	lines map[string]bool // "writer.go:350": every line of the package on the way to a call
	muted string          // a place, or none
	open  int             // files
}

func newSyncs(muted string) *syncs {
	return &syncs{seen: map[string]bool{}, lines: map[string]bool{}, muted: muted}
}

// swallow notes the place that calls, and says whether it is the muted one.
func (s *syncs) swallow(method string) bool {
	pcs := make([]uintptr, 32)
	frames := runtime.CallersFrames(pcs[:runtime.Callers(3, pcs)])
	var at []runtime.Frame
	for more := true; more; {
		var f runtime.Frame
		f, more = frames.Next()
		if name := filepath.Base(f.File); strings.Contains(f.Function, "encfsrun/fs/vault.") && !strings.HasSuffix(name, "_test.go") {
			at = append(at, f)
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, f := range at {
		s.lines[line(f.File, f.Line)] = true
	}
	place := fmt.Sprintf("%s %s: %s", line(at[0].File, at[0].Line), function(at[0]), method)
	if len(at) > 1 {
		place += " by " + function(at[1])
	}
	s.seen[place] = true
	return place == s.muted
}

func line(file string, n int) string { return fmt.Sprintf("%s:%d", filepath.Base(file), n) }

func function(f runtime.Frame) string { return f.Function[strings.LastIndexByte(f.Function, '.')+1:] }

// syncsFS is a disk behind a syncs.
type syncsFS struct {
	disk.FS
	*syncs
}

type syncsFile struct {
	disk.File
	*syncs
}

func (f syncsFS) file(file disk.File, err error) (disk.File, error) {
	if err != nil {
		return nil, err
	}
	f.count(1)
	return syncsFile{file, f.syncs}, nil
}

func (s *syncs) count(files int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.open += files
}

func (f syncsFile) Close() error {
	f.count(-1)
	return f.File.Close()
}

func (f syncsFS) Open(name string) (disk.File, error)      { return f.file(f.FS.Open(name)) }
func (f syncsFS) OpenWrite(name string) (disk.File, error) { return f.file(f.FS.OpenWrite(name)) }
func (f syncsFS) Create(name string, perm fs.FileMode) (disk.File, error) {
	return f.file(f.FS.Create(name, perm))
}

func (f syncsFS) SyncDir(dir string) error {
	if f.swallow("SyncDir") {
		return nil
	}
	return f.FS.SyncDir(dir)
}

func (f syncsFile) Sync() error {
	if f.swallow("Sync") {
		return nil
	}
	return f.File.Sync()
}

func (f syncsFile) DropCache() error {
	if f.swallow("DropCache") {
		return nil
	}
	return f.File.DropCache()
}

// TestEverySyncIsNeeded swallows the calls of one place after the other and requires that one of the tales of TestCrash fails; and
// that no call in the package's source is left out. What a reader does to pin only what is durable is among them.
func TestEverySyncIsNeeded(t *testing.T) {
	f, l, memory := newFixture(t), newLuck(t), newMemory(t)
	all := newSyncs("")
	for _, tl := range tales() {
		s := tl.prepare(t, f, memory, "pins beside")
		s.through = all
		told, err := tl.tell(s)
		if err != nil {
			t.Fatal(err)
		}
		reader := machine{vault: told.machine.vault, pins: memdisk.New()} // of a machine that has not seen the vault
		mkdirs(t, reader.pins)
		if _, err := told.check(reader.kill(), told.told); err != nil {
			t.Fatal(err)
		}
	}
	for _, call := range syncCalls(t) {
		if !all.lines[call] {
			t.Errorf("%s makes something durable, and no tale comes by it", call)
		}
	}
	caught, r := map[string]string{}, l.of("places")
	var mu sync.Mutex
	t.Run("mute", func(t *testing.T) {
		for _, place := range slices.Sorted(maps.Keys(all.seen)) {
			if l.skip(r) {
				continue
			}
			t.Run(place, func(t *testing.T) {
				t.Parallel()
				by := catcher(t, f, l, place)
				if by == "" {
					t.Error("no tale fails without it")
				}
				mu.Lock()
				defer mu.Unlock()
				caught[place] = by
			})
		}
	})
	for _, place := range slices.Sorted(maps.Keys(caught)) {
		t.Logf("%-48s %.160s", place, strings.ReplaceAll(caught[place], "\n", " "))
	}
}

// telling gives the tales, those first that try much in little time.
func telling() []tale {
	first := []string{"a key more, then an update", "update that is given up", "pack", "update"}
	rank := func(tl tale) int {
		if i := slices.Index(first, tl.name); i >= 0 {
			return i
		}
		return len(first)
	}
	all := tales()
	slices.SortStableFunc(all, func(a, b tale) int { return cmp.Compare(rank(a), rank(b)) })
	return all
}

// catcher returns the first tale that fails, and how, where the syncs of one place are swallowed.
func catcher(t *testing.T, f *fixture, l luck, place string) string {
	l.short = false // of the few places all is tried
	memory := newMemory(t)
	for _, at := range []string{"pins beside", "pins apart"} {
		for _, tl := range telling() {
			for _, fate := range fates {
				p := &prover{f: f, luck: l, rare: 1}
				start := tl.prepare(t, f, memory, at)
				start.through = newSyncs(place)
				if err := fate.try(p, tl, start); err != nil {
					return fmt.Sprintf("%s, %s, %s: %v", tl.name, at, fate.name, err)
				}
			}
		}
	}
	return ""
}

// syncCalls lists the lines of the package that call, or hand on, a method which makes something durable.
func syncCalls(t *testing.T) (lines []string) {
	names, err := os.ReadDir(".")
	if err != nil {
		t.Fatal(err)
	}
	files := token.NewFileSet()
	for _, e := range names {
		if !strings.HasSuffix(e.Name(), ".go") || strings.HasSuffix(e.Name(), "_test.go") {
			continue
		}
		file, err := parser.ParseFile(files, e.Name(), nil, parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(file, func(n ast.Node) bool {
			method, ok := n.(*ast.SelectorExpr)
			if ok && slices.Contains([]string{"Sync", "SyncDir", "DropCache", "sync"}, method.Sel.Name) {
				lines = append(lines, line(e.Name(), files.Position(method.Sel.Pos()).Line))
			}
			return true
		})
	}
	if len(lines) < 10 {
		t.Fatalf("only %d calls found", len(lines))
	}
	return lines
}
