package seal

import (
	"bytes"
	"crypto/sha3"
	"encoding/hex"
	"os"
	"testing"
)

// The vectors are those of C2SP's XAES-256-GCM.md.
func TestXAESVectors(t *testing.T) {
	for _, c := range []struct {
		name                         string
		key                          byte
		plaintext, ad, want, derived string
	}{
		{"the first bit of L is 0", 1, "XAES-256-GCM", "", "ce546ef63c9cc60765923609b33a9a1974e96e52daf2fcf7075e2271", "4d4e4f505152535455565758"},
		{"the first bit of L is 1", 3, "XAES-256-GCM", "c2sp.org/XAES-256-GCM", "986ec1832593df5443a179437fd083bf3fdb41abd740a21f71eb769d", "4d4e4f505152535455565758"},
	} {
		t.Run(c.name, func(t *testing.T) {
			key := [KeySize]byte(bytes.Repeat([]byte{c.key}, KeySize))
			aead, nonce, err := xaes(&key, []byte("ABCDEFGHIJKLMNOPQRSTUVWX"))
			if err != nil {
				t.Fatal(err)
			}
			if got := hex.EncodeToString(nonce); got != c.derived {
				t.Errorf("derived nonce %s, want %s", got, c.derived)
			}
			sealed := aead.Seal(nil, nonce, []byte(c.plaintext), []byte(c.ad))
			if got := hex.EncodeToString(sealed); got != c.want {
				t.Errorf("sealed %s, want %s", got, c.want)
			}
			opened, err := aead.Open(nil, nonce, sealed, []byte(c.ad))
			if err != nil || string(opened) != c.plaintext {
				t.Errorf("opened %q, %v", opened, err)
			}
		})
	}
}

// TestXAESAccumulated is the accumulated randomized test of the same document: keys, nonces, plaintexts and associated data from
// SHAKE-128, all ciphertexts hashed. A soak does the long one.
func TestXAESAccumulated(t *testing.T) {
	iterations, want := 10_000, "e6b9edf2df6cec60c8cbd864e2211b597fb69a529160cd040d56c0c210081939"
	if os.Getenv("ENCFSRUN_SOAK") == "1" || os.Getenv("ENCFSRUN_ROUNDS") != "" {
		iterations, want = 1_000_000, "2163ae1445985a30b60585ee67daa55674df06901b890593e824b8a7c885ab15"
	}
	source, sum := sha3.NewSHAKE128(), sha3.NewSHAKE128()
	take := func(n int) []byte {
		b := make([]byte, n)
		source.Read(b)
		return b
	}
	for range iterations {
		key, nonce := [KeySize]byte(take(KeySize)), take(NonceSize)
		plaintext := take(int(take(1)[0]))
		ad := take(int(take(1)[0]))
		aead, inner, err := xaes(&key, nonce)
		if err != nil {
			t.Fatal(err)
		}
		sealed := aead.Seal(nil, inner, plaintext, ad)
		sum.Write(sealed)
		if opened, err := aead.Open(nil, inner, sealed, ad); err != nil || !bytes.Equal(opened, plaintext) {
			t.Fatalf("what was sealed does not open: %v", err)
		}
	}
	got := make([]byte, 32)
	sum.Read(got)
	if hex.EncodeToString(got) != want {
		t.Errorf("%x after %d iterations, want %s", got, iterations, want)
	}
}
