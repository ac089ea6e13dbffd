package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"unicode"

	"encfsrun/launcher"
)

// evil is what somebody else can call a vault: controls of ASCII, C1 (CSI in one rune), marks of direction, quotes, and no UTF-8.
const evil = "a\x1b[2Jb\u009b31m\u202ec\x7f\"\\d\xff\U000e0001ä\n"

func TestStrangersStrings(t *testing.T) {
	for _, s := range []string{evil, "\u009b2J", "\"\u009b2J", "plain"} {
		var out bytes.Buffer
		a := &app{stdout: &out}
		must(t, a.printJSON([]string{s}))
		var back []string
		if err := json.Unmarshal(out.Bytes(), &back); err != nil || back[0] != strings.ToValidUTF8(s, "\ufffd") {
			t.Errorf("%q comes back as %q, %v", s, back, err)
		}
		for _, text := range []string{inTable(s), strings.Trim(strings.ReplaceAll(out.String(), "\n", ""), "\n")} {
			if strings.ContainsFunc(text, func(r rune) bool { return !unicode.IsPrint(r) }) {
				t.Errorf("%q is printed as %q", s, text)
			}
		}
	}
}

// TestFailedEndIsSaid: beside a program that could not be executed, too.
func TestFailedEndIsSaid(t *testing.T) {
	var said bytes.Buffer
	a := &app{messages: newMessages(&said)}
	failed := errors.Join(&launcher.ExecError{Program: "x", NotFound: true}, &launcher.FilesystemError{Stage: launcher.StageFinish, Err: errors.New("not wiped")})
	err := runResult(a, launcher.Status{}, failed)
	if exitCode(err) != 127 || !strings.Contains(said.String(), "not wiped") {
		t.Errorf("exit %d, said %q", exitCode(err), said.String())
	}
}
