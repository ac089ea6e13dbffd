package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
)

// result is one workload as one user: a reading per subject and round.
type result struct {
	Workload string               `json:"workload"`
	User     string               `json:"user"`
	Goals    []goal               `json:"goals,omitempty"`
	Seconds  map[string][]float64 `json:"seconds"`
}

// report is everything that a bench found out.
type report struct {
	Date    string   `json:"date"`
	Rounds  int      `json:"rounds"`
	Machine []string `json:"machine"`
	Results []result `json:"results"`
	Missing []string `json:"missing,omitempty"`
}

// ratio is one subject's against another's, over the rounds; ok is false when one of them was not measured.
func (r result) ratio(mine, against string) (spread, bool) {
	readings, base := r.Seconds[mine], r.Seconds[against]
	if len(readings) == 0 || len(readings) != len(base) {
		return spread{}, false
	}
	return spreadOf(ratios(readings, base)), true
}

// verdict says of each goal whether one of ours reached it.
func (r result) verdict(mine string) string {
	var said []string
	for _, g := range r.Goals {
		ratio, ok := r.ratio(mine, g.Against)
		word := "not measured"
		switch {
		case ok && ratio.Median <= g.AtMost:
			word = "reached"
		case ok:
			word = "**missed**"
		}
		said = append(said, fmt.Sprintf("≤ %g × %s: %s", g.AtMost, g.Against, word))
	}
	return strings.Join(said, "; ")
}

// markdown is the report as two tables: the ratios, which count, and the seconds that they come from.
func (r report) markdown() string {
	var text strings.Builder
	fmt.Fprintf(&text, "Measured on %s: %s. Medians of %d rounds in which the subjects take turns, with (least–most);\n",
		r.Date, strings.Join(r.Machine, ", "), r.Rounds)
	fmt.Fprint(&text, "a ratio is taken within each round. Key derivation is left out.\n\n")

	fmt.Fprintf(&text, "| as a multiple of | user | %s | %s | floor | wanted |\n|---|---|---|---|---|---|\n", plain, gocryptfs)
	for _, row := range r.Results {
		for _, mode := range modes {
			if mode.ours != ours && len(row.Seconds[mode.ours]) == 0 {
				continue
			}
			fmt.Fprintf(&text, "| %s: %s | %s | %s | %s | %s | %s |\n", mode.ours, row.Workload, row.User, ratioCell(row, mode.ours, plain),
				ratioCell(row, mode.ours, gocryptfs), ratioCell(row, mode.ours, mode.floor), row.verdict(mode.ours))
		}
	}
	columns := []string{plain, gocryptfs, floorDirect, floorCached, ours, oursCached}
	fmt.Fprintf(&text, "\n| seconds | user | %s |\n|---|---|%s\n", strings.Join(columns, " | "), strings.Repeat("---|", len(columns)))
	for _, row := range r.Results {
		fmt.Fprintf(&text, "| %s | %s |", row.Workload, row.User)
		for _, name := range columns {
			fmt.Fprintf(&text, " %s |", secondsCell(row, name))
		}
		text.WriteString("\n")
	}
	if len(r.Missing) > 0 {
		text.WriteString("\nNot measured:\n\n")
		for _, why := range r.Missing {
			fmt.Fprintf(&text, "* %s\n", why)
		}
	}
	return text.String()
}

func ratioCell(r result, mine, against string) string {
	ratio, ok := r.ratio(mine, against)
	if !ok {
		return "–"
	}
	return fmt.Sprintf("**%.2f** (%.2f–%.2f)", ratio.Median, ratio.Min, ratio.Max)
}

func secondsCell(r result, name string) string {
	if len(r.Seconds[name]) == 0 {
		return "–"
	}
	s := spreadOf(r.Seconds[name])
	return fmt.Sprintf("%.3f (%.3f–%.3f)", s.Median, s.Min, s.Max)
}

// Between these lines of the document stands what was measured; all else is written by people.
const (
	sectionBegin = "<!-- measured by make bench: begin -->"
	sectionEnd   = "<!-- measured by make bench: end -->"
)

// replaceSection returns the document with its measured section replaced.
func replaceSection(document, section string) (string, error) {
	before, rest, begun := strings.Cut(document, sectionBegin)
	_, after, ended := strings.Cut(rest, sectionEnd)
	if !begun || !ended {
		return "", fmt.Errorf("the lines %q and %q are not there", sectionBegin, sectionEnd)
	}
	return before + sectionBegin + "\n\n" + section + "\n" + sectionEnd + after, nil
}

// writeSection puts the section into the document, which is made when there is none.
func writeSection(path, section string) error {
	old, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		old, err = []byte("# Benchmarks\n\n"+sectionBegin+"\n"+sectionEnd+"\n"), nil
	}
	if err != nil {
		return err
	}
	document, err := replaceSection(string(old), section)
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	return os.WriteFile(path, []byte(document), 0o644)
}
