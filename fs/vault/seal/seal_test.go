package seal

import (
	"bytes"
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/sha256"
	"errors"
	"testing"

	"pgregory.net/rapid"
)

func newKeys(t testing.TB, vault ID, master byte) *Keys {
	t.Helper()
	k, err := NewKeys(vault, bytes.Repeat([]byte{master}, KeySize))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(k.Destroy)
	return k
}

func TestKeysAreDerivedAsTheFormatSays(t *testing.T) {
	vault, master := ID{1, 2, 3}, bytes.Repeat([]byte{9}, KeySize)
	k := newKeys(t, vault, 9)
	seen := map[string]bool{}
	for i, label := range []string{"encfsrun v1 header mac", "encfsrun v1 segment header", "encfsrun v1 block data", "encfsrun v1 block nonce"} {
		want, err := hkdf.Key(sha256.New, master, vault[:], label, KeySize)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(k.key(i)[:], want) {
			t.Errorf("the key of %q differs", label)
		}
		seen[string(want)] = true
	}
	if len(seen) != 4 {
		t.Error("two keys are the same")
	}
	h := hmac.New(sha256.New, k.key(headerKey)[:])
	h.Write([]byte("text"))
	if mac := k.HeaderMAC([]byte("text")); !bytes.Equal(mac[:], h.Sum(nil)) {
		t.Error("the header's MAC differs")
	}
	if _, err := NewKeys(vault, master[1:]); err == nil {
		t.Error("a short master key was taken")
	}
}

// TestBlocksOpenInTheirPlaceAlone seals a block and opens it with every one thing another way.
func TestBlocksOpenInTheirPlaceAlone(t *testing.T) {
	vault, segment, number := ID{1}, ID{2}, uint64(3)
	k := newKeys(t, vault, 9)
	plain := bytes.Repeat([]byte("block "), 100)
	sealed, dst := make([]byte, len(plain)+Overhead), make([]byte, len(plain))
	if err := k.SealBlock(sealed, plain, segment, number); err != nil {
		t.Fatal(err)
	}
	if err := k.OpenBlock(dst, sealed, segment, number); err != nil || !bytes.Equal(dst, plain) {
		t.Fatalf("in its place: %v", err)
	}
	other := func(id ID) ID { id[15] ^= 1; return id }
	for name, open := range map[string]func(dst []byte) error{
		"another segment":    func(dst []byte) error { return k.OpenBlock(dst, sealed, other(segment), number) },
		"another number":     func(dst []byte) error { return k.OpenBlock(dst, sealed, segment, number+1<<32) },
		"another vault":      func(dst []byte) error { return newKeys(t, other(vault), 9).OpenBlock(dst, sealed, segment, number) },
		"another master key": func(dst []byte) error { return newKeys(t, vault, 8).OpenBlock(dst, sealed, segment, number) },
		"as a header":        func(dst []byte) error { return k.OpenHeader(dst, sealed) },
	} {
		dst := bytes.Clone(plain)
		if err := open(dst); !errors.Is(err, ErrAuthentication) || !bytes.Equal(dst, make([]byte, len(dst))) {
			t.Errorf("%s: %v, and %x is left", name, err, dst[:8])
		}
	}
	for i := range sealed {
		for bit := range 8 {
			sealed[i] ^= 1 << bit
			if err := k.OpenBlock(dst, sealed, segment, number); !errors.Is(err, ErrAuthentication) {
				t.Fatalf("bit %d of byte %d flipped: %v", bit, i, err)
			}
			sealed[i] ^= 1 << bit
		}
	}
	for _, n := range []int{0, 1, Overhead - 1, Overhead, len(sealed) - 1} {
		if err := k.OpenBlock(make([]byte, max(0, n-Overhead)), sealed[:n], segment, number); !errors.Is(err, ErrAuthentication) {
			t.Errorf("cut to %d bytes: %v", n, err)
		}
	}
	if err := k.OpenBlock(dst[1:], sealed, segment, number); !errors.Is(err, ErrAuthentication) {
		t.Errorf("into too small a place: %v", err)
	}
}

func TestRoundTrips(t *testing.T) {
	k := newKeys(t, ID{1}, 9)
	nonces := map[string]bool{}
	rapid.Check(t, func(r *rapid.T) {
		plain := rapid.SliceOfN(rapid.Byte(), 0, 2000).Draw(r, "plain")
		segment := ID(rapid.SliceOfN(rapid.Byte(), 16, 16).Draw(r, "segment"))
		number := rapid.Uint64().Draw(r, "number")
		sealed, dst := make([]byte, len(plain)+Overhead), make([]byte, len(plain))
		if err := k.SealBlock(sealed, plain, segment, number); err != nil {
			r.Fatal(err)
		}
		if err := k.OpenBlock(dst, sealed, segment, number); err != nil || !bytes.Equal(dst, plain) {
			r.Fatalf("block: %v", err)
		}
		if nonces[string(sealed[:NonceSize])] {
			r.Fatal("a nonce came twice")
		}
		nonces[string(sealed[:NonceSize])] = true
		if err := k.SealHeader(sealed, plain); err != nil {
			r.Fatal(err)
		}
		if err := k.OpenHeader(dst, sealed); err != nil || !bytes.Equal(dst, plain) {
			r.Fatalf("header: %v", err)
		}
		if err := k.OpenBlock(dst, sealed, segment, number); err == nil {
			r.Fatal("a header opened as a block")
		}
	})
}
