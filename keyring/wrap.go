package keyring

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/binary"
	"fmt"

	"encfsrun/fs/guarded"
)

// Labels of everything derived for a slot; format.
const (
	contextLabel    = "encfsrun v1 slot\x00"
	commitmentLabel = "encfsrun v1 slot commitment"
	wrappingLabel   = "encfsrun v1 slot wrapping key"
)

const wrappingKeySize = 32

// NewPassphraseSlot wraps a master key of MasterKeySize bytes under a
// passphrase. It takes as long as the KDF does.
func NewPassphraseSlot(vaultID [16]byte, master []byte, passphrase *guarded.Buffer, params Params, kdf KDF) (Slot, error) {
	if err := params.Validate(); err != nil {
		return Slot{}, err
	}
	s := newSlot(KindPassphrase, params)
	ikm, err := kdf(passphrase, s.Salt[:], params)
	if err != nil {
		return Slot{}, err
	}
	defer ikm.Destroy()
	if err := s.wrap(vaultID, master, ikm.Bytes()); err != nil {
		return Slot{}, err
	}
	return s, nil
}

// NewMachineSlot wraps a master key of MasterKeySize bytes under a machine key
// of MachineKeySize bytes.
func NewMachineSlot(vaultID [16]byte, master []byte, machineKey *guarded.Buffer) (Slot, error) {
	if n := len(machineKey.Bytes()); n != MachineKeySize {
		return Slot{}, fmt.Errorf("machine key of %d bytes instead of %d", n, MachineKeySize)
	}
	s := newSlot(KindMachine, Params{})
	if err := s.wrap(vaultID, master, machineKey.Bytes()); err != nil {
		return Slot{}, err
	}
	return s, nil
}

func newSlot(kind Kind, params Params) Slot {
	s := Slot{Kind: kind, Params: params}
	rand.Read(s.ID[:])
	rand.Read(s.Salt[:])
	return s
}

// wrap fills in the commitment and the wrapped key.
func (s *Slot) wrap(vaultID [16]byte, master, ikm []byte) error {
	if len(master) != MasterKeySize {
		return fmt.Errorf("master key of %d bytes instead of %d", len(master), MasterKeySize)
	}
	return s.derive(ikm, func(commitment []byte, aead cipher.AEAD) error {
		copy(s.Commitment[:], commitment)
		aead.Seal(s.WrappedKey[:0], zeroNonce(aead), master, s.context(vaultID))
		return nil
	})
}

// unwrap writes the master key to dst, of MasterKeySize bytes. It returns
// false when the input key is not the slot's, and a *DamagedSlotError when it
// is and the rest of the slot is not what was written.
func (s *Slot) unwrap(vaultID [16]byte, dst, ikm []byte) (opened bool, err error) {
	err = s.derive(ikm, func(commitment []byte, aead cipher.AEAD) error {
		// AES-GCM is not key-committing: without this one ciphertext could be made
		// to open under many passphrases, and each attempt on a server would test
		// all of them (partitioning oracles: Len, Grubbs, Ristenpart 2021).
		if subtle.ConstantTimeCompare(commitment, s.Commitment[:]) != 1 {
			return nil
		}
		if _, err := aead.Open(dst[:0], zeroNonce(aead), s.WrappedKey[:], s.context(vaultID)); err != nil {
			return &DamagedSlotError{s.ID}
		}
		opened = true
		return nil
	})
	return opened, err
}

// zeroNonce is all zero because a wrapping key seals once: every slot has a
// fresh random salt.
func zeroNonce(aead cipher.AEAD) []byte { return make([]byte, aead.NonceSize()) }

// derive hands the two values that come of an input key to use. They do not
// outlive it.
func (s *Slot) derive(ikm []byte, use func(commitment []byte, aead cipher.AEAD) error) (err error) {
	guarded.Do(func() {
		var prk, commitment, key []byte
		defer func() {
			guarded.Wipe(prk)
			guarded.Wipe(key)
		}()
		if prk, err = hkdf.Extract(sha256.New, ikm, s.Salt[:]); err != nil {
			return
		}
		if commitment, err = hkdf.Expand(sha256.New, prk, commitmentLabel, commitmentSize); err != nil {
			return
		}
		if key, err = hkdf.Expand(sha256.New, prk, wrappingLabel, wrappingKeySize); err != nil {
			return
		}
		var block cipher.Block
		if block, err = aes.NewCipher(key); err != nil {
			return
		}
		var aead cipher.AEAD
		if aead, err = cipher.NewGCM(block); err != nil {
			return
		}
		err = use(commitment, aead)
	})
	return err
}

// context is the associated data of the wrapped key: a slot altered or moved
// to another vault does not open.
//
//	label, NUL         17
//	vault id           16
//	slot id            16
//	kind                1
//	memory in KiB       4  zero in a machine slot, like the next two
//	time                4
//	parallelism         4
//	salt               32
func (s *Slot) context(vaultID [16]byte) []byte {
	b := make([]byte, 0, len(contextLabel)+len(vaultID)+idSize+1+3*4+SaltSize)
	b = append(b, contextLabel...)
	b = append(b, vaultID[:]...)
	b = append(b, s.ID[:]...)
	b = append(b, byte(s.Kind))
	b = binary.LittleEndian.AppendUint32(b, s.Params.MemoryKiB)
	b = binary.LittleEndian.AppendUint32(b, s.Params.Time)
	b = binary.LittleEndian.AppendUint32(b, s.Params.Parallelism)
	return append(b, s.Salt[:]...)
}
