package transfer

import (
	"strings"
	"testing"
)

func TestPatterns(t *testing.T) {
	for _, c := range []struct {
		patterns string // lines
		path     string // a directory's ends in a slash
		want     bool
	}{
		{"*.pyc", "a.pyc", true},
		{"*.pyc", "lib/deep/a.pyc", true},
		{"*.pyc", "a.py", false},
		{"*.pyc", "a.pyc/", true},
		{"node_modules/", "node_modules/", true},
		{"node_modules/", "web/node_modules/", true},
		{"node_modules/", "node_modules", false}, // a file
		{"/build", "build/", true},
		{"/build", "lib/build/", false},
		{"doc/*.txt", "doc/a.txt", true},
		{"doc/*.txt", "doc/sub/a.txt", false},
		{"doc/*.txt", "old/doc/a.txt", false},
		{"**/doc/*.txt", "old/doc/a.txt", true},
		{"**/doc/*.txt", "doc/a.txt", true},
		{"doc/**", "doc/", false},
		{"doc/**", "doc/a", true},
		{"doc/**", "doc/sub/a", true},
		{"a/**/b", "a/b", true},
		{"a/**/b", "a/x/b", true},
		{"a/**/b", "a/x/y/b", true},
		{"a/**/b", "a/x/y/c", false},
		{"a/**/b/**/c", "a/b/x/b/c", true},
		{"a/**/b/**/c", "a/x/c", false},
		{"**", "anything", true},
		{"file?", "file1", true},
		{"file?", "file12", false},
		{"[a-c]x", "bx", true},
		{"[!a-c]x", "bx", false},
		{"[!a-c]x", "dx", true},
		{"[^a-c]x", "dx", true},
		{`\[!a`, "[!a", true},
		{`\*`, "*", true},
		{`\*`, "a", false},
		{"*\n!keep", "keep", false},
		{"*\n!keep", "drop", true},
		{"!keep\n*", "keep", true}, // the last one decides
		{`\!important`, "!important", true},
		{"# a comment", "# a comment", false},
		{`\#1`, "#1", true},
		{"\n\n  \n", "a", false},
		{"trailing  ", "trailing", true},
		{`space\ `, "space ", true},
		{"windows\r\n", "windows", true},
		{"*.\xff", "a.\xff", true},
		{"caf\u00e9", "caf\u00e9", true},
	} {
		patterns, err := ReadPatterns(strings.NewReader(c.patterns))
		if err != nil {
			t.Errorf("%q: %v", c.patterns, err)
			continue
		}
		path, isDir := strings.CutSuffix(c.path, "/")
		if got := excluded(patterns, path, isDir); got != c.want {
			t.Errorf("%q on %q: excluded %v, want %v", c.patterns, c.path, got, c.want)
		}
	}
}

func TestBadPatterns(t *testing.T) {
	for _, glob := range []string{"", "/", "!", "!/", "[", "[]a]", "a[", `a\`, "a//b", "a/../b", "./a", "[[:alpha:]]"} {
		if p, err := ParsePattern(glob); err == nil {
			t.Errorf("%q is taken as %v", glob, p)
		}
	}
	if _, err := ReadPatterns(strings.NewReader("good\n[\n")); err == nil || !strings.Contains(err.Error(), "line 2") {
		t.Errorf("the error does not name the line: %v", err)
	}
	if _, err := ReadPatterns(strings.NewReader(strings.Repeat("x", 1<<17))); err == nil {
		t.Error("a line of 128 KiB is taken")
	}
}

// FuzzPattern looks for patterns that panic or take for ever.
func FuzzPattern(f *testing.F) {
	for _, glob := range []string{"a/**/b/**/c", "!*.py", "[a-z]*/", "**", "/x/", "\\*", "[^]]"} {
		f.Add(glob, "a/b/c")
	}
	f.Fuzz(func(t *testing.T, glob, path string) {
		if len(glob) > 1000 || len(path) > 1000 {
			return
		}
		if p, err := ParsePattern(glob); err == nil {
			excluded([]Pattern{p}, path, false)
		}
	})
}

func TestExclude(t *testing.T) {
	w := newWorkshop(t)
	w.file("a.py", "")
	w.file("a.pyc", "")
	w.file("lib/b.pyc", "")
	w.file("lib/keep.pyc", "")
	w.file("build/c.py", "")
	w.file("lib/build/d.py", "")
	w.file(IgnoreFile, "*.pyc\n!keep.pyc\n/build/\n")
	exclude := func(globs ...string) (o ImportOptions) {
		for _, glob := range globs {
			p, err := ParsePattern(glob)
			if err != nil {
				t.Fatal(err)
			}
			o.Exclude = append(o.Exclude, p)
		}
		return o
	}
	for _, c := range []struct {
		options ImportOptions
		want    string
	}{
		{exclude(), " a.py lib lib/build lib/build/d.py lib/keep.pyc"},
		{exclude("keep.pyc", "lib/build"), " a.py lib"},
		{exclude("!*.pyc"), " a.py a.pyc lib lib/b.pyc lib/build lib/build/d.py lib/keep.pyc"},
		{exclude("!/" + IgnoreFile), " .encfsrunignore a.py lib lib/build lib/build/d.py lib/keep.pyc"},
		// What is in a directory that is left out can't be had back.
		{exclude("!build/c.py"), " a.py lib lib/build lib/build/d.py lib/keep.pyc"},
	} {
		s := newSafe(t)
		s.mustPack(w.top, c.options)
		if got := strings.Join(s.paths(), " "); got != c.want {
			t.Errorf("packed %q, want %q", got, c.want)
		}
	}
	w.file(IgnoreFile, "[")
	if _, err := newSafe(t).pack(w.top, ImportOptions{}); err == nil || !strings.Contains(err.Error(), IgnoreFile+": line 1") {
		t.Errorf("a bad pattern in the file: %v", err)
	}
	w.remove(IgnoreFile)
	w.symlink(IgnoreFile, "a.py")
	if _, err := newSafe(t).pack(w.top, ImportOptions{}); err == nil {
		t.Error("patterns were read through a link")
	}
}
