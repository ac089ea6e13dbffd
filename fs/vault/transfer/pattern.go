package transfer

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"path"
	"strings"
)

// IgnoreFile is the name of a file at the source's top whose patterns are used without being asked for. It is itself left out,
// being of no use in a vault, unless a pattern says !/.encfsrunignore.
const IgnoreFile = ".encfsrunignore"

// Pattern is a glob after gitignore(5): * and ? match within a name, [..] a set of characters, ** any number of directories. With
// a slash at its beginning or inside it is anchored at the source's top, else it matches a name at any depth. With a slash at
// its end it matches directories only. With ! before it, it takes along again what patterns before it left out, except below a
// directory that is left out: that is not even opened. Named classes like [:alpha:] are refused.
type Pattern struct {
	parts   []string // "**" stands for any number of directories
	negate  bool
	dirOnly bool
}

// ParsePattern parses one pattern.
func ParsePattern(glob string) (Pattern, error) {
	var p Pattern
	rest := glob
	if s, ok := strings.CutPrefix(rest, "!"); ok {
		p.negate, rest = true, s
	}
	if s, ok := strings.CutSuffix(rest, "/"); ok {
		p.dirOnly, rest = true, s
	}
	anchored := strings.Contains(rest, "/")
	rest = strings.TrimPrefix(rest, "/")
	if rest == "" {
		return p, fmt.Errorf("the pattern %q matches nothing", glob)
	}
	if strings.Contains(rest, "[:") {
		return p, fmt.Errorf("the pattern %q has a named class of characters, which is not supported", glob)
	}
	if !anchored {
		p.parts = append(p.parts, "**")
	}
	for _, part := range strings.Split(rest, "/") {
		part = caretSets(part)
		if _, err := path.Match(part, ""); err != nil || part == "" || part == "." || part == ".." {
			return p, fmt.Errorf("the pattern %q can't be used: %w", glob, path.ErrBadPattern)
		}
		p.parts = append(p.parts, part)
	}
	if p.parts[len(p.parts)-1] == "**" { // all that is inside, but not the directory itself
		p.parts = append(p.parts, "*")
	}
	return p, nil
}

// caretSets writes [^..] for [!..], which package path does not know.
func caretSets(part string) string {
	b := []byte(part)
	for i := 0; i+1 < len(b); i++ {
		switch {
		case b[i] == '\\':
			i++
		case b[i] == '[' && b[i+1] == '!':
			b[i+1] = '^'
		}
	}
	return string(b)
}

// ReadPatterns parses a file of patterns, one in a line. Empty lines and lines that begin with # say nothing; spaces at the end
// of a line count only after a backslash.
func ReadPatterns(r io.Reader) ([]Pattern, error) {
	var patterns []Pattern
	scanner := bufio.NewScanner(r)
	for n := 1; scanner.Scan(); n++ {
		line := trimSpaces(strings.TrimSuffix(scanner.Text(), "\r"))
		if line == "" || line[0] == '#' {
			continue
		}
		p, err := ParsePattern(line)
		if err != nil {
			return nil, fmt.Errorf("line %d: %w", n, err)
		}
		patterns = append(patterns, p)
	}
	if errors.Is(scanner.Err(), bufio.ErrTooLong) {
		return nil, errors.New("a line is longer than 64 KiB")
	}
	return patterns, scanner.Err()
}

func trimSpaces(line string) string {
	trimmed := strings.TrimRight(line, " \t")
	if strings.HasSuffix(trimmed, `\`) && len(trimmed) < len(line) {
		return trimmed + line[len(trimmed):len(trimmed)+1]
	}
	return trimmed
}

// match says whether the pattern matches a path given as its parts.
func (p Pattern) match(parts []string, isDir bool) bool {
	if p.dirOnly && !isDir {
		return false
	}
	// The usual matching with one point to come back to: after a "**" that took n directories, try n+1.
	i, j, backI, backJ := 0, 0, -1, 0
	for j < len(parts) {
		if i < len(p.parts) && p.parts[i] == "**" {
			i++
			backI, backJ = i, j
			continue
		}
		if i < len(p.parts) {
			if ok, _ := path.Match(p.parts[i], parts[j]); ok {
				i, j = i+1, j+1
				continue
			}
		}
		if backI < 0 {
			return false
		}
		backJ++
		i, j = backI, backJ
	}
	for i < len(p.parts) && p.parts[i] == "**" {
		i++
	}
	return i == len(p.parts)
}

// excluded says whether rel is left out: the last pattern that matches decides.
func excluded(patterns []Pattern, rel string, isDir bool) bool {
	parts := strings.Split(rel, "/")
	for i := len(patterns) - 1; i >= 0; i-- {
		if patterns[i].match(parts, isDir) {
			return !patterns[i].negate
		}
	}
	return false
}
