package keyring

import (
	"strings"
	"testing"

	"pgregory.net/rapid"
)

func TestParamsRange(t *testing.T) {
	for _, c := range []struct {
		p    Params
		want string
	}{
		{Params{8, 1, 1}, "ok"},
		{Params{4 << 20, 16, 16}, "ok"},
		{Params{1 << 20, 64, 16}, "ok"},
		{Params{4 << 20, 17, 16}, "parameter"},
		{Params{1<<20 + 1, 64, 16}, "parameter"},
		{Params{4 << 20, 64, 16}, "parameter"},
		{Params{128, 1, 16}, "ok"},
		{Params{127, 1, 16}, "parameter"},
		{Params{7, 1, 1}, "parameter"},
		{Params{4<<20 + 1, 1, 1}, "parameter"},
		{Params{8, 0, 1}, "parameter"},
		{Params{8, 65, 1}, "parameter"},
		{Params{8, 1, 0}, "parameter"},
		{Params{1024, 1, 17}, "parameter"},
		{DefaultParams(), "ok"},
	} {
		if err := c.p.Validate(); classOf(err) != c.want {
			t.Errorf("%+v: %v, want %s", c.p, err, c.want)
		}
		if c.want == "ok" {
			continue
		}
		if ikm, err := InProcessKDF(secret(t, []byte("x")), make([]byte, SaltSize), c.p); classOf(err) != c.want {
			ikm.Destroy()
			t.Errorf("the KDF took %+v: %v", c.p, err)
		}
	}
}

// TestCalibrate: always valid, never above a quarter except at the very
// bottom, and told when reduced.
func TestCalibrate(t *testing.T) {
	const mib = 1 << 20
	for _, c := range []struct {
		available int64
		want      Params
		reduced   bool
	}{
		{1 << 40, DefaultParams(), false},
		{1024 * mib, DefaultParams(), false},
		{512 * mib, Params{128 << 10, 2 * defaultTime, 4}, true},
		{128 * mib, Params{32 << 10, min(8*defaultTime, MaxTime), 4}, true},
		{1 * mib, Params{256, MaxTime, 4}, true},
		{0, Params{32, MaxTime, 4}, true},
		{-5, Params{32, MaxTime, 4}, true},
	} {
		p, reduced := Calibrate(c.available)
		if p != c.want || reduced != c.reduced {
			t.Errorf("%d MiB: %+v, %v; want %+v, %v", c.available/mib, p, reduced, c.want, c.reduced)
		}
	}
	rapid.Check(t, func(t *rapid.T) {
		available := rapid.Int64().Draw(t, "available")
		p, reduced := Calibrate(available)
		if err := p.Validate(); err != nil {
			t.Fatal(err)
		}
		if available > 4*32*1024 && int64(p.MemoryKiB)*1024 > available/4 {
			t.Fatalf("%d KiB of %d bytes", p.MemoryKiB, available)
		}
		if reduced != (p.MemoryKiB < DefaultParams().MemoryKiB) {
			t.Fatalf("%+v, reduced %v", p, reduced)
		}
	})
}

func TestAvailableMemory(t *testing.T) {
	meminfo := "MemTotal:       9000000 kB\nMemFree:  1 kB\nMemAvailable:   8388608 kB\n"
	if n, err := memAvailable(meminfo); err != nil || n != 8<<30 {
		t.Errorf("%d, %v; want 8 GiB", n, err)
	}
	for _, strange := range []string{"", "MemTotal: 5 kB\n", "MemAvailable:\n", "MemAvailable: x kB\n", "MemAvailable: 9223372036854775807 kB\n"} {
		if n, err := memAvailable(strange); err == nil {
			t.Errorf("%q says %d", strange, n)
		}
	}
	if n, err := AvailableMemory(); err != nil || n <= 0 {
		t.Errorf("on this machine: %d, %v", n, err)
	}
}

// quoteWord is any text as one word for splitWords, and for a shell.
func quoteWord(word string) string { return "'" + strings.ReplaceAll(word, "'", `'\''`) + "'" }

func TestSplitWords(t *testing.T) {
	for _, c := range []struct{ line, want string }{
		{`pass show vault`, `pass|show|vault`},
		{"  a\t b\n", `a|b`},
		{`a 'b c' "d e"`, `a|b c|d e`},
		{`a''b "" ''`, `ab||`},
		{`a '\"$x` + "`" + `'`, `a|\"$x` + "`"},
		{`a "\"\\\n$x"`, `a|"\\n$x`},
		{`a\ b \' \\`, `a b|'|\`},
		{`a ~ * $HOME > b | c ; d`, `a|~|*|$HOME|>|b|||c|;|d`},
		{`/opt/b"i"n/'x y'`, `/opt/bin/x y`},
	} {
		words, err := splitWords(c.line)
		if err != nil || strings.Join(words, "|") != c.want {
			t.Errorf("%s: %q, %v; want %s", c.line, words, err, c.want)
		}
	}
	for _, line := range []string{"", " \t", `a 'b`, `a "b`, `a "b\"`, `a \`, `""`, `'' a`} {
		if words, err := splitWords(line); err == nil {
			t.Errorf("%s gives %q", line, words)
		}
	}
	// Any words can be expressed.
	rapid.Check(t, func(t *rapid.T) {
		want := rapid.SliceOfN(rapid.String(), 1, 5).Draw(t, "words")
		if want[0] == "" {
			want[0] = "x"
		}
		quoted := make([]string, len(want))
		for i, w := range want {
			quoted[i] = quoteWord(w)
		}
		got, err := splitWords(strings.Join(quoted, " "))
		if err != nil || len(got) != len(want) {
			t.Fatalf("%q, %v; want %q", got, err, want)
		}
		for i := range want {
			if got[i] != want[i] {
				t.Fatalf("%q, want %q", got, want)
			}
		}
	})
}
