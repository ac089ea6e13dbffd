package vault

import (
	"crypto/hkdf"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"encfsrun/fs/vault/disk"
)

// TestWorkedExample computes the worked example of docs/FORMAT.md from the vector ok-one-session, and wants the document to hold
// it. On failure it prints what the section should say.
func TestWorkedExample(t *testing.T) {
	f := vectorFixture(t)
	dir := filepath.Join(vectorsDir, "ok-one-session.vault")
	h, err := ReadHeader(disk.OS(), dir)
	if err != nil {
		t.Fatal(err)
	}
	var out strings.Builder
	line := func(what string, b []byte) { fmt.Fprintf(&out, "    %-28s %s\n", what, hex.EncodeToString(b)) }
	line("vault id", h.VaultID[:])
	slot := h.Slots[0]
	line("slot id", slot.ID[:])
	line("salt", slot.Salt[:])
	prk, err := hkdf.Extract(sha256.New, f.Machine.Bytes(), slot.Salt[:])
	if err != nil {
		t.Fatal(err)
	}
	line("prk", prk)
	line("commitment", slot.Commitment[:])
	line("wrapped key", slot.WrappedKey[:])
	line("master key", f.Master.Bytes())
	for _, label := range []string{"header mac", "segment header", "block data"} {
		key, err := hkdf.Key(sha256.New, f.Master.Bytes(), h.VaultID[:], "encfsrun v1 "+label, 32)
		if err != nil {
			t.Fatal(err)
		}
		line(label+" key", key)
	}
	line("mac", h.mac[:])

	s, err := openSegment(disk.OS(), dir, 1, f.Keys, false)
	if err != nil {
		t.Fatal(err)
	}
	defer s.file.Close()
	line("segment header, first 128", s.header.encode()[:128])
	value := chain(Root{}, chainHeader, s.hash)
	line("chain after the header", value[:])
	sealed, plain := make([]byte, BlockSize), make([]byte, PlainSize)
	for i := range uint64(2) {
		if err := readBlock(dir, s, i, sealed); err != nil {
			t.Fatal(err)
		}
		if _, err := openBlock(dir, f.Keys, s, i, sealed, plain); err != nil {
			t.Fatal(err)
		}
		end := len(strings.TrimRight(string(plain), "\x00"))
		line(fmt.Sprintf("block %d, nonce", i), sealed[:24])
		line(fmt.Sprintf("block %d, tag", i), sealed[BlockSize-16:])
		line(fmt.Sprintf("block %d, first %d", i, end), plain[:end])
		value = chain(value, chainBlock, hashOf(sealed))
		line(fmt.Sprintf("chain after block %d", i), value[:])
	}
	document, err := os.ReadFile("../../docs/FORMAT.md")
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(document), out.String()) {
		t.Errorf("docs/FORMAT.md, A worked example, should say:\n%s", out.String())
	}
}
