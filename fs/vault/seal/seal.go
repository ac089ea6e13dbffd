// Package seal holds the cryptography of the vault: the keys that come from the master key, and the sealing and opening of
// the two units that stand on disk, segment headers and blocks. It knows no file and no record; docs/FORMAT.md, "Keys" and
// "Sealed blocks", is its specification.
//
// Key schedules are made per call inside guarded.Do, so that no live object keeps a raw key in the heap; the derived keys
// themselves lie in a guarded buffer until Destroy. All methods may be called from several goroutines at once.
package seal

import (
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"

	"encfsrun/fs/guarded"
)

// Sizes in bytes. On disk.
const (
	KeySize   = 32
	NonceSize = 24
	TagSize   = 16
	Overhead  = NonceSize + TagSize

	// Version is the format version; it stands in all associated data, so that no block of one version opens as another's.
	Version = 1
)

// ID is a random identity: of a vault, a segment, a session.
type ID [16]byte

// Hash is a SHA-256.
type Hash [sha256.Size]byte

// ErrAuthentication says that a unit did not authenticate: it was altered, torn, or belongs elsewhere.
var ErrAuthentication = errors.New("does not authenticate")

// Keys are the keys derived from one vault's master key.
type Keys struct {
	vault ID
	buf   *guarded.Buffer // four keys of KeySize, in the order of the labels
}

// labels of HKDF-SHA256, one for each use: a key that serves two purposes lets one protocol's output be replayed in the
// other's place. On disk.
var labels = [...]string{"encfsrun v1 header mac", "encfsrun v1 segment header", "encfsrun v1 block data", "encfsrun v1 block nonce"}

const (
	headerKey = iota
	segmentKey
	dataKey
	nonceKey
)

// NewKeys derives the keys of the vault from its 32-byte master key with HKDF-SHA256 (RFC 5869), the vault id as salt. The
// master key is not kept.
func NewKeys(vault ID, master []byte) (*Keys, error) {
	if len(master) != KeySize {
		return nil, fmt.Errorf("master key has %d bytes, want %d", len(master), KeySize)
	}
	buf, err := guarded.NewBuffer(len(labels) * KeySize)
	if err != nil {
		return nil, fmt.Errorf("memory for the vault's keys: %w", err)
	}
	k := &Keys{vault: vault, buf: buf}
	guarded.Do(func() {
		for i, label := range labels {
			var derived []byte
			if derived, err = hkdf.Key(sha256.New, master, vault[:], label, KeySize); err != nil {
				return
			}
			copy(k.key(i)[:], derived)
			guarded.Wipe(derived)
		}
	})
	if err != nil {
		buf.Destroy()
		return nil, err
	}
	return k, nil
}

// Destroy wipes the keys. No method may be called after it.
func (k *Keys) Destroy() { k.buf.Destroy() }

// Vault returns the id of the vault whose keys these are.
func (k *Keys) Vault() ID { return k.vault }

func (k *Keys) key(i int) *[KeySize]byte {
	return (*[KeySize]byte)(k.buf.Bytes()[i*KeySize:])
}

// HeaderMAC is HMAC-SHA256 of message under the header key.
func (k *Keys) HeaderMAC(message []byte) (mac Hash) {
	guarded.Do(func() {
		h := hmac.New(sha256.New, k.key(headerKey)[:])
		h.Write(message)
		h.Sum(mac[:0])
	})
	return mac
}

// SealHeader writes nonce, ciphertext and tag of a segment header to dst; len(dst) is len(plain)+Overhead.
func (k *Keys) SealHeader(dst, plain []byte) error {
	return k.seal(segmentKey, dst, plain, k.headerAD())
}

// OpenHeader is the reverse of SealHeader; the error is ErrAuthentication.
func (k *Keys) OpenHeader(dst, sealed []byte) error {
	return k.open(segmentKey, dst, sealed, k.headerAD())
}

// SealBlock writes nonce, ciphertext and tag of a block to dst; len(dst) is len(plain)+Overhead. The associated data binds
// it to its place (vault, segment, number), so that no block can be served in another's place.
func (k *Keys) SealBlock(dst, plain []byte, segment ID, number uint64) error {
	return k.seal(dataKey, dst, plain, k.blockAD(segment, number))
}

// OpenBlock is the reverse of SealBlock; dst has len(sealed)-Overhead bytes and does not overlap sealed. The error is
// ErrAuthentication, and dst is then all zeros.
func (k *Keys) OpenBlock(dst, sealed []byte, segment ID, number uint64) error {
	return k.open(dataKey, dst, sealed, k.blockAD(segment, number))
}

func (k *Keys) headerAD() []byte {
	ad := binary.LittleEndian.AppendUint32(make([]byte, 0, 20), Version)
	return append(ad, k.vault[:]...)
}

func (k *Keys) blockAD(segment ID, number uint64) []byte {
	ad := binary.LittleEndian.AppendUint32(make([]byte, 0, 44), Version)
	ad = append(ad, k.vault[:]...)
	ad = append(ad, segment[:]...)
	return binary.LittleEndian.AppendUint64(ad, number)
}

// seal draws a hedged nonce: HMAC-SHA256(nonce key, 32 random bytes ‖ associated data ‖ plaintext). Where a VM is cloned
// with its memory and its random generator, two clones draw the same random bytes; the nonce then repeats only where place
// and plaintext are equal too, which tells an attacker nothing but that.
func (k *Keys) seal(key int, dst, plain, ad []byte) (err error) {
	guarded.Do(func() {
		var random [32]byte
		rand.Read(random[:]) // never fails: crypto/rand ends the process instead
		h := hmac.New(sha256.New, k.key(nonceKey)[:])
		h.Write(random[:])
		h.Write(ad)
		h.Write(plain)
		var mac Hash
		h.Sum(mac[:0])
		copy(dst[:NonceSize], mac[:NonceSize])

		aead, nonce, e := xaes(k.key(key), dst[:NonceSize])
		if e != nil {
			err = e
			return
		}
		aead.Seal(dst[NonceSize:NonceSize], nonce, plain, ad)
	})
	return err
}

func (k *Keys) open(key int, dst, sealed, ad []byte) (err error) {
	if len(sealed) < Overhead || len(dst) != len(sealed)-Overhead {
		return fmt.Errorf("%d bytes: %w", len(sealed), ErrAuthentication)
	}
	guarded.Do(func() {
		aead, nonce, e := xaes(k.key(key), sealed[:NonceSize])
		if e != nil {
			err = e
			return
		}
		if _, e := aead.Open(dst[:0], nonce, sealed[NonceSize:], ad); e != nil {
			guarded.Wipe(dst)
			err = ErrAuthentication
		}
	})
	return err
}

// NewID draws a random identity.
func NewID() (id ID) {
	rand.Read(id[:])
	return id
}
