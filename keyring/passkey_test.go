package keyring

import (
	"bytes"
	"errors"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

func TestContent(t *testing.T) {
	long := strings.Repeat("x", MaxPassphrase)
	for _, c := range []struct {
		name, content string
		passphrase    string // what it is as one; empty when it is none
		machine       bool
		reason        string // of the refusal
	}{
		{"a line", "secret\n", "secret", false, ""},
		{"no newline", "secret", "secret", false, ""},
		{"Windows line", "secret\r\n", "secret", false, ""},
		{"spaces are kept", " a b \n", " a b ", false, ""},
		{"any bytes", "\xff\x01\x7f", "\xff\x01\x7f", false, ""},
		{"longest", long, long, false, ""},
		{"longest with a Windows newline", long + "\r\n", long, false, ""},
		{"empty", "", "", false, "empty"},
		{"newline alone", "\n", "", false, "empty"},
		{"Windows newline alone", "\r\n", "", false, "empty"},
		{"second line", "a\nb\n", "", false, "more than one line"},
		{"blank second line", "a\n\n", "", false, "more than one line"},
		{"old Mac lines", "a\rb", "", false, "more than one line"},
		{"carriage return without newline", "a\r", "", false, "more than one line"},
		{"NUL", "a\x00b", "", false, "NUL"},
		{"too long", long + "x", "", false, "longer"},
		{"too long with newline", long + "x\n", "", false, "longer"},
		{"32 bytes of text", strings.Repeat("k", 32), strings.Repeat("k", 32), true, ""},
		{"32 bytes with the newline", strings.Repeat("k", 31) + "\n", strings.Repeat("k", 31), true, ""},
		{"32 bytes and a newline", strings.Repeat("k", 32) + "\n", strings.Repeat("k", 32), false, ""},
		{"32 bytes of noise", strings.Repeat("\x00\n", 16), "", true, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			p, err := contentPasskey([]byte(c.content), "it")
			defer p.Destroy()
			if c.reason != "" {
				var refused *PasskeyError
				if !errors.As(err, &refused) || !strings.Contains(refused.Reason, c.reason) {
					t.Fatalf("%v, want %q", err, c.reason)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if got := string(p.Passphrase().Bytes()); got != c.passphrase || p.Passphrase() != nil && got == "" {
				t.Errorf("passphrase %q, want %q", got, c.passphrase)
			}
			if got := string(p.MachineKey().Bytes()); (p.MachineKey() != nil) != c.machine || c.machine && got != c.content {
				t.Errorf("machine key %q", got)
			}
		})
	}
}

// TestTypedIsNoMachineKey: 32 characters typed are a passphrase alone.
func TestTypedIsNoMachineKey(t *testing.T) {
	p := typed(t, strings.Repeat("k", 32))
	if p.MachineKey() != nil {
		t.Error("a typed passphrase became a machine key")
	}
}

// TestContentNewline: a newline at the end never changes a passphrase.
func TestContentNewline(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		line := []byte(rapid.StringMatching(`[^\x00\r\n]{1,80}`).Draw(rt, "line"))
		for _, end := range []string{"", "\n", "\r\n"} {
			p, err := contentPasskey(append(bytes.Clone(line), end...), "it")
			if err != nil {
				rt.Fatal(err)
			}
			if !bytes.Equal(p.Passphrase().Bytes(), line) {
				rt.Fatalf("%q became %q", line, p.Passphrase().Bytes())
			}
			p.Destroy()
		}
	})
}

func TestDestroy(t *testing.T) {
	p, err := contentPasskey([]byte(strings.Repeat("k", 32)), "it")
	if err != nil {
		t.Fatal(err)
	}
	p.Destroy()
	p.Destroy()
	if p.Passphrase().Bytes() != nil || p.MachineKey().Bytes() != nil {
		t.Error("something is left")
	}
	(*Passkey)(nil).Destroy()
}

func TestGeneratePassphrase(t *testing.T) {
	seen := map[string]bool{}
	counts := map[byte]int{}
	for range 300 {
		p, err := GeneratePassphrase()
		if err != nil {
			t.Fatal(err)
		}
		text := string(p.Passphrase().Bytes())
		p.Destroy()
		groups := strings.Split(text, "-")
		if len(groups) != 6 || seen[text] {
			t.Fatalf("%q", text)
		}
		seen[text] = true
		for _, g := range groups {
			if len(g) != 5 || strings.Trim(g, generatedAlphabet) != "" {
				t.Fatalf("%q", text)
			}
			for i := range len(g) {
				counts[g[i]]++
			}
		}
	}
	// 9,000 characters, 281 of each expected, with a deviation of 17.
	for i := range len(generatedAlphabet) {
		if n := counts[generatedAlphabet[i]]; n < 150 || n > 450 {
			t.Errorf("%q came %d times", generatedAlphabet[i], n)
		}
	}
	if len(generatedAlphabet) != 32 {
		t.Errorf("alphabet of %d characters", len(generatedAlphabet))
	}
}
