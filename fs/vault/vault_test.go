package vault

import (
	"errors"
	"strings"
	"testing"

	"encfsrun/fs/vault/disk/memdisk"
	"encfsrun/fs/vault/tree"
)

func TestCreateAndOpen(t *testing.T) {
	f, d := newFixture(t), memdisk.New()
	mkdirs(t, d)
	pins := NewPins(d, testPins)
	root, err := f.create(d, Options{Pins: pins}, smallTree)
	if err != nil {
		t.Fatal(err)
	}
	v, err := f.open(d, Options{Pins: pins, ExpectRoot: &root})
	if err != nil {
		t.Fatal(err)
	}
	defer v.Close()
	if v.Root() != root || !v.Closed() || v.Sequence() != 3 {
		t.Errorf("root %x closed %v sequence %d, want %x true 3", v.Root(), v.Closed(), v.Sequence(), root)
	}
	ino, err := v.Lookup(tree.Root, "main.py")
	if err != nil {
		t.Fatal(err)
	}
	content, err := readFile(v, ino, 33)
	if err != nil || string(content) != "import lib.secret\nprint('hello')\n" {
		t.Errorf("main.py is %q, %v", content, err)
	}
	for _, name := range d.Files() {
		b, err := d.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		for _, plain := range []string{"secret", "import", "KEY = 42", "main.py"} {
			if strings.Contains(string(b), plain) {
				t.Errorf("%s holds the plaintext %q", name, plain)
			}
		}
	}
}

func TestUpdateThenOpen(t *testing.T) {
	f, d := newFixture(t), memdisk.New()
	mkdirs(t, d)
	pins := NewPins(d, testPins)
	if _, err := f.create(d, Options{Pins: pins}, smallTree); err != nil {
		t.Fatal(err)
	}
	before, err := f.state(d, Options{Pins: pins})
	if err != nil {
		t.Fatal(err)
	}
	big := strings.Repeat("0123456789abcdef", 300_000) // several blocks and chunks
	err = f.update(d, Options{Pins: pins}, func(s *Session) error {
		b := newBuilder(s)
		b.file("big", big)
		ino, err := s.v.Lookup(tree.Root, "main.py")
		b.do(err)
		b.do(s.Unlink(tree.Root, "main.py"))
		b.do(s.Link(tree.Root, "renamed.py", ino))
		return b.err
	})
	if err != nil {
		t.Fatal(err)
	}
	after, err := f.state(d, Options{Pins: pins})
	if err != nil {
		t.Fatal(err)
	}
	if after == before || !strings.Contains(after, "renamed.py") || strings.Contains(after, "main.py") {
		t.Errorf("after the update:\n%s", after)
	}
	v, err := f.open(d, Options{Pins: pins})
	if err != nil {
		t.Fatal(err)
	}
	defer v.Close()
	ino, _ := v.Lookup(tree.Root, "big")
	if content, err := readFile(v, ino, len(big)); err != nil || string(content) != big {
		t.Errorf("big differs: %v", err)
	}
}

func TestAbortLeavesTheVaultAsItWas(t *testing.T) {
	f, d := newFixture(t), memdisk.New()
	mkdirs(t, d)
	if _, err := f.create(d, Options{}, smallTree); err != nil {
		t.Fatal(err)
	}
	before, files := d.Clone(), len(d.Files())
	failed := errors.New("the source vanished")
	err := f.update(d, Options{}, func(s *Session) error {
		b := newBuilder(s)
		b.file("big", strings.Repeat("x", 3_000_000))
		return failed
	})
	if !errors.Is(err, failed) {
		t.Fatalf("update: %v", err)
	}
	for _, name := range before.Files() {
		if strings.HasSuffix(name, "/lock") {
			continue
		}
		a, _ := before.ReadFile(name)
		if b, err := d.ReadFile(name); err != nil || string(a) != string(b) {
			t.Errorf("%s differs after an aborted session: %v", name, err)
		}
	}
	if len(d.Files()) != files {
		t.Errorf("files after an aborted session: %v", d.Files())
	}
}
