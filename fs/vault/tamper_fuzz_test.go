package vault

import (
	"bytes"
	"errors"
	"fmt"
	"testing"

	"encfsrun/fs/vault/seal"
	"encfsrun/keyring"
)

// FuzzHeader parses arbitrary text as vault.json: what is taken is its own canonical form, and nothing else is an error but
// that it is not a vault or too new.
func FuzzHeader(f *testing.F) {
	x := newFixture(f)
	h := Header{VaultID: x.ID, Generation: 3, Slots: []keyring.Slot{x.Slot}}
	good, err := h.encode(fmt.Sprintf("%064x", 7))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	for _, old := range []string{`"version": 1`, `"generation": 3`, `"hkdf-sha256"`, `"slots": [`, `machine`, `"mac"`} {
		for _, other := range []string{"", "0", `"version": 2`, `"generation": 18446744073709551616`, `"argon2id"`, `"slots": [[`, `"MAC"`} {
			f.Add(bytes.Replace(good, []byte(old), []byte(other), 1))
		}
	}
	f.Add([]byte(`{"format":"encfsrun vault","version":1}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		h, err := parseHeader(testVault, headerName, b)
		if err != nil {
			var notVault *NotVaultError
			var tooNew *TooNewError
			if !errors.As(err, &notVault) && !errors.As(err, &tooNew) || h != nil {
				t.Fatalf("%v, %v", h, err)
			}
			return
		}
		if again, err := h.encode(fmt.Sprintf("%x", h.mac)); err != nil || !bytes.Equal(again, b) {
			t.Fatalf("taken:\n%s\nits canonical form (%v):\n%s", b, err, again)
		}
	})
}

// FuzzSegmentHeader decodes arbitrary plaintext as a segment's header: what is taken encodes to the same bytes.
func FuzzSegmentHeader(f *testing.F) {
	for _, h := range []segmentHeader{
		{number: 1}, {number: 7, predecessor: 6, predEnd: 2047, first: 99, generation: 3, checkpoint: true, id: seal.ID{1}, predChain: Root{2}},
		{number: 2, predecessor: 2}, {number: 2, predecessor: 1, predEnd: 2048}, {},
	} {
		f.Add(h.encode()[:136])
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		plain := make([]byte, headerPlain)
		copy(plain, b)
		if h, err := decodeSegmentHeader(plain); err == nil && !bytes.Equal(h.encode(), plain) {
			t.Fatalf("%+v encodes to other bytes", h)
		}
	})
}

// FuzzPrefix is the same for a block's prefix.
func FuzzPrefix(f *testing.F) {
	for _, p := range []prefix{{}, {seal.ID{1}, 5, 0}, {seal.ID{1}, 5, noRecord}, {seal.ID{1}, 5, PayloadSize - 1}, {seal.ID{1}, 5, PayloadSize}} {
		b := make([]byte, PayloadStart)
		p.put(b)
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		plain, again := make([]byte, PayloadStart), make([]byte, PayloadStart)
		copy(plain, b)
		p, err := parsePrefix(plain)
		if err != nil {
			return
		}
		if p.put(again); !bytes.Equal(again, plain) || p.first != noRecord && p.first >= PayloadSize {
			t.Fatalf("%+v of %x", p, plain)
		}
	})
}

// FuzzPin decodes arbitrary text as a pin: what is taken is its own canonical form.
func FuzzPin(f *testing.F) {
	f.Add((&Pin{VaultID: seal.ID{1}, Generation: 2, Session: seal.ID{3}, Sequence: 4, Chain: Root{5}}).encode())
	f.Add((&Pin{}).encode())
	f.Add([]byte("{}\n"))
	f.Add((&Pin{Sequence: 9}).encode()[:100])
	f.Fuzz(func(t *testing.T, b []byte) {
		if p, err := decodePin(b); err == nil && !bytes.Equal(p.encode(), b) {
			t.Fatalf("taken: %s", b)
		}
	})
}
