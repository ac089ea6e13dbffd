// Package reader runs the independent reader (reader.mjs, written from docs/FORMAT.md alone) against the test vectors and against
// vaults that the product has just made: two implementations that share no code have to agree.
package reader

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"encfsrun/internal/testkit"
)

func TestVectors(t *testing.T) {
	var cases []struct{ Name string }
	b, err := os.ReadFile("../vectors/vectors.json")
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(b, &cases); err != nil || len(cases) < 50 {
		t.Fatalf("%d vectors: %v", len(cases), err)
	}
	out, err := exec.Command("node", "reader.mjs", "--vectors", "../vectors").CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if want := fmt.Sprintf("%d passed, 0 failed", len(cases)); !regexp.MustCompile(`(?m)^` + want + `$`).Match(out) {
		t.Errorf("the reader did not say %q:\n%s", want, out)
	}
}

// reading is what the reader prints.
type reading struct {
	Expect string
	Detail string
	Root   string
	Closed bool
	Tree   []struct {
		Path   string
		Size   uint64
		SHA256 string
		Target string
	}
}

func TestFreshVault(t *testing.T) {
	w := newWorld(t)
	w.encfsrun("pack", "--new-passkey-file", w.path("pass"), "--kdf-memory", "8M", "--kdf-time", "1", w.path("src"), w.path("v"))
	w.encfsrun("key", "add", "--passkey-file", w.path("pass"), "--machine", w.path("key"), w.path("v"))
	w.agree()
	w.write("src/added", "more\n")
	w.write("src/dir/file3", "changed\n")
	if err := os.Remove(w.path("src/dir/file7")); err != nil {
		t.Fatal(err)
	}
	w.encfsrun("pack", "--update", "--passkey-file", w.path("key"), w.path("src"), w.path("v"))
	w.agree()
	// A bit of a file's block: both refuse.
	segment := w.path("v/log/0000000001.seg")
	b, err := os.ReadFile(segment)
	if err != nil {
		t.Fatal(err)
	}
	b[10_000] ^= 4
	w.write("v/log/0000000001.seg", string(b))
	if r := w.read(); r.Expect != "integrity" {
		t.Errorf("the reader takes a flipped bit for %q", r.Expect)
	}
}

type world struct {
	*testing.T
	dir, binary string
}

func newWorld(t *testing.T) *world {
	binary, err := testkit.Build(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	w := &world{t, t.TempDir(), binary}
	w.write("pass", "correct horse\n")
	w.write("src/main.py", "print('hello')\n")
	w.write("src/big", strings.Repeat("0123456789abcdef", 200_000))
	w.write("src/empty", "")
	for i := range 100 {
		w.write(fmt.Sprintf("src/dir/file%d", i), strings.Repeat("x", i*777))
	}
	if err := os.Symlink("main.py", w.path("src/link")); err != nil {
		t.Fatal(err)
	}
	return w
}

func (w *world) path(name string) string { return filepath.Join(w.dir, name) }

func (w *world) write(name, content string) {
	w.Helper()
	if err := os.MkdirAll(filepath.Dir(w.path(name)), 0o700); err != nil {
		w.Fatal(err)
	}
	if err := os.WriteFile(w.path(name), []byte(content), 0o600); err != nil {
		w.Fatal(err)
	}
}

func (w *world) encfsrun(args ...string) []byte {
	w.Helper()
	cmd := exec.Command(w.binary, append(args, "-q", "--state-dir", w.path("state"))...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		w.Fatalf("encfsrun %s: %v\n%s", args[0], err, stderr.Bytes())
	}
	return out
}

func (w *world) read() (r reading) {
	w.Helper()
	out, err := exec.Command("node", "reader.mjs", w.path("v"), w.path("key")).Output()
	if err != nil {
		w.Fatal(err)
	}
	if err := json.Unmarshal(out, &r); err != nil {
		w.Fatalf("%v\n%s", err, out)
	}
	return r
}

// agree compares the reader's root with check's, and its tree with the source.
func (w *world) agree() {
	w.Helper()
	r := w.read()
	if r.Expect != "ok" || !r.Closed {
		w.Fatalf("the reader says %s (%s), closed %v", r.Expect, r.Detail, r.Closed)
	}
	if out := string(w.encfsrun("check", "--passkey-file", w.path("key"), w.path("v"))); out != "root "+r.Root+"\n" {
		w.Errorf("check says %q, the reader's root is %s", out, r.Root)
	}
	found := map[string]string{}
	for _, e := range r.Tree {
		found[e.Path] = e.SHA256 + e.Target
	}
	source := map[string]string{}
	err := filepath.WalkDir(w.path("src"), func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		inside := "/" + strings.TrimPrefix(strings.TrimPrefix(name, w.path("src")), "/")
		switch {
		case d.Type().IsRegular():
			b, err := os.ReadFile(name)
			sum := sha256.Sum256(b)
			source[inside] = hex.EncodeToString(sum[:])
			return err
		case d.Type()&fs.ModeSymlink != 0:
			source[inside], err = os.Readlink(name)
			return err
		}
		source[inside] = ""
		return nil
	})
	if err != nil {
		w.Fatal(err)
	}
	for name, want := range source {
		if have, ok := found[name]; !ok || have != want {
			w.Errorf("%s: the reader says %q (there %v), the source %q", name, have, ok, want)
		}
	}
	if len(found) != len(source) {
		w.Errorf("the reader found %d names, the source has %d", len(found), len(source))
	}
}
