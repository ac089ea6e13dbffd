package main

import (
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"unicode"
	"unicode/utf16"
)

// messages prints what is said to the user beside results: one sentence a line, to standard error.
type messages struct {
	mu    sync.Mutex
	out   io.Writer
	quiet bool // only errors and alerts
	json  bool
}

func newMessages(out io.Writer) *messages { return &messages{out: out} }

func (m *messages) error(err error) { m.fail(sentence(err), hint(err), exitCode(err)) }

// sentence is what an error says, in one line: of several that were joined, each thing once. A daemon's failure can reach us by
// two ways.
func sentence(err error) string {
	var parts []string
	for part := range strings.SplitSeq(err.Error(), "\n") {
		if part != "" && !slices.Contains(parts, part) {
			parts = append(parts, part)
		}
	}
	return strings.Join(parts, "; ")
}

func (m *messages) fail(sentence, next string, code int) {
	if next != "" {
		sentence += "; " + next
	}
	m.print("error", sentence, code)
}

// alert says that something protects less than its user may think: it is never quiet.
func (m *messages) alert(format string, args ...any) {
	m.print("warning", fmt.Sprintf(format, args...), 0)
}

// warn says what is good to know.
func (m *messages) warn(format string, args ...any) {
	if !m.quiet {
		m.print("warning", fmt.Sprintf(format, args...), 0)
	}
}

func (m *messages) info(format string, args ...any) {
	if !m.quiet {
		m.print("info", fmt.Sprintf(format, args...), 0)
	}
}

func (m *messages) print(level, text string, code int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.json {
		line := struct {
			Level   string `json:"level"`
			Message string `json:"message"`
			Code    int    `json:"code,omitempty"`
		}{level, text, code}
		json.NewEncoder(m.out).Encode(line)
		return
	}
	prefix := "encfsrun: "
	if level == "warning" {
		prefix += "warning: "
	}
	fmt.Fprintln(m.out, prefix+printable(text))
}

// printable makes a text safe to show: names come out of vaults and folders that others fill, and a terminal obeys control
// characters (titles, key bindings, and in some terminals commands).
func printable(s string) string {
	clean := func(r rune) bool { return r == '\n' || unicode.IsPrint(r) }
	if strings.IndexFunc(s, func(r rune) bool { return !clean(r) }) < 0 {
		return s
	}
	var b strings.Builder
	for _, r := range s {
		if clean(r) {
			b.WriteRune(r)
			continue
		}
		q := fmt.Sprintf("%q", string(r))
		b.WriteString(q[1 : len(q)-1])
	}
	return b.String()
}

// escapeJSON escapes what JSON leaves raw in its strings and a terminal obeys or hides: DEL, C1 controls, marks of direction. Beyond
// ASCII there is nothing but strings in JSON.
func escapeJSON(s string) string {
	var b strings.Builder
	for _, r := range s {
		switch {
		case r < 0x7f || unicode.IsPrint(r):
			b.WriteRune(r)
		case r > 0xffff:
			high, low := utf16.EncodeRune(r)
			fmt.Fprintf(&b, `\u%04x\u%04x`, high, low)
		default:
			fmt.Fprintf(&b, `\u%04x`, r)
		}
	}
	return b.String()
}
