package keyring

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"fmt"
)

// Sizes in bytes; format.
const (
	MasterKeySize  = 32 // the random key that everything in a vault is derived from
	MachineKeySize = 32 // the whole content of a machine-key file
	SaltSize       = 32

	// MaxSlots in a header. Each costs a whole key derivation when a passphrase
	// is wrong.
	MaxSlots = 8

	idSize         = 16
	commitmentSize = 32
	wrappedKeySize = MasterKeySize + 16 // with the tag of AES-GCM
)

// Kind says what opens a slot. Its value is a byte of the slot's context;
// format.
type Kind uint8

const (
	KindPassphrase Kind = 1
	KindMachine    Kind = 2
)

func (k Kind) String() string {
	switch k {
	case KindPassphrase:
		return "passphrase"
	case KindMachine:
		return "machine"
	}
	return fmt.Sprintf("Kind(%d)", uint8(k))
}

// SlotID names a slot within its vault; random.
type SlotID [idSize]byte

func (id SlotID) String() string { return hex.EncodeToString(id[:]) }

// Slot wraps the master key under one passkey. Nothing in it is secret. Its
// JSON form is canonical: what UnmarshalJSON accepts, MarshalJSON gives back
// byte for byte (white space apart), so that no two encodings mean the same.
type Slot struct {
	ID         SlotID
	Kind       Kind
	Params     Params // of a passphrase slot; zero in a machine slot
	Salt       [SaltSize]byte
	Commitment [commitmentSize]byte
	WrappedKey [wrappedKeySize]byte
}

// Validate returns a *ParameterError or a *FormatError for a slot that must
// not be used.
func (s Slot) Validate() error {
	switch s.Kind {
	case KindPassphrase:
		return s.Params.Validate()
	case KindMachine:
		if s.Params != (Params{}) {
			return &FormatError{"a machine slot has no argon2id parameters"}
		}
		return nil
	}
	return &FormatError{fmt.Sprintf("unknown type %d", uint8(s.Kind))}
}

// ValidateSlots checks a header's slots, singly and together: one to MaxSlots
// of them, each valid, with distinct ids.
func ValidateSlots(slots []Slot) error {
	if len(slots) == 0 || len(slots) > MaxSlots {
		return &FormatError{fmt.Sprintf("a header holds 1 to %d slots, not %d", MaxSlots, len(slots))}
	}
	seen := make(map[SlotID]bool, len(slots))
	for _, s := range slots {
		if err := s.Validate(); err != nil {
			return err
		}
		if seen[s.ID] {
			return &FormatError{"two slots have the id " + s.ID.String()}
		}
		seen[s.ID] = true
	}
	return nil
}

// Names of the key derivations in JSON; format.
const (
	algorithmArgon2id = "argon2id"
	algorithmHKDF     = "hkdf-sha256"
)

// slotJSON is a slot as written; the order of fields is part of the format.
type slotJSON struct {
	ID         string  `json:"id"`
	Type       string  `json:"type"`
	KDF        kdfJSON `json:"kdf"`
	Commitment string  `json:"commitment"`
	WrappedKey string  `json:"wrapped_key"`
}

// kdfJSON has its numbers in a passphrase slot only. They are wider than
// needed, so that an absurd one is a *ParameterError.
type kdfJSON struct {
	Algorithm   string  `json:"algorithm"`
	MemoryKiB   *uint64 `json:"memory_kib,omitempty"`
	Time        *uint64 `json:"time,omitempty"`
	Parallelism *uint64 `json:"parallelism,omitempty"`
	Salt        string  `json:"salt"`
}

// MarshalJSON gives the canonical encoding of a valid slot.
func (s Slot) MarshalJSON() ([]byte, error) {
	if err := s.Validate(); err != nil {
		return nil, err
	}
	w := slotJSON{
		ID:         hex.EncodeToString(s.ID[:]),
		Type:       s.Kind.String(),
		KDF:        kdfJSON{Algorithm: algorithmHKDF, Salt: hex.EncodeToString(s.Salt[:])},
		Commitment: hex.EncodeToString(s.Commitment[:]),
		WrappedKey: hex.EncodeToString(s.WrappedKey[:]),
	}
	if s.Kind == KindPassphrase {
		memory, time, lanes := uint64(s.Params.MemoryKiB), uint64(s.Params.Time), uint64(s.Params.Parallelism)
		w.KDF.Algorithm = algorithmArgon2id
		w.KDF.MemoryKiB, w.KDF.Time, w.KDF.Parallelism = &memory, &time, &lanes
	}
	return json.Marshal(w)
}

// UnmarshalJSON accepts the canonical encoding alone. What it accepts is
// valid; else the error is a *FormatError or a *ParameterError.
func (s *Slot) UnmarshalJSON(data []byte) error {
	var w slotJSON
	if err := json.Unmarshal(data, &w); err != nil {
		return &FormatError{err.Error()}
	}
	decoded, err := w.slot()
	if err != nil {
		return err
	}
	// Field order, unknown, repeated and differently spelled fields and escapes
	// are all judged at once by encoding again.
	canonical, err := json.Marshal(decoded)
	if err != nil {
		return err
	}
	var given bytes.Buffer
	if err := json.Compact(&given, data); err != nil {
		return &FormatError{err.Error()}
	}
	if !bytes.Equal(given.Bytes(), canonical) {
		return &FormatError{"it is not in canonical form"}
	}
	*s = decoded
	return nil
}

func (w *slotJSON) slot() (Slot, error) {
	var s Slot
	k := &w.KDF
	switch {
	case w.Type == KindPassphrase.String() && k.Algorithm == algorithmArgon2id:
		s.Kind = KindPassphrase
		if k.MemoryKiB == nil || k.Time == nil || k.Parallelism == nil {
			return s, &FormatError{"an argon2id parameter is missing"}
		}
		if err := checkParams(*k.MemoryKiB, *k.Time, *k.Parallelism); err != nil {
			return s, err
		}
		s.Params = Params{uint32(*k.MemoryKiB), uint32(*k.Time), uint32(*k.Parallelism)}
	case w.Type == KindMachine.String() && k.Algorithm == algorithmHKDF:
		s.Kind = KindMachine
	default:
		return s, &FormatError{fmt.Sprintf("unknown type %q with algorithm %q", w.Type, k.Algorithm)}
	}
	for _, f := range []struct {
		name string
		dst  []byte
		text string
	}{
		{"id", s.ID[:], w.ID},
		{"salt", s.Salt[:], k.Salt},
		{"commitment", s.Commitment[:], w.Commitment},
		{"wrapped_key", s.WrappedKey[:], w.WrappedKey},
	} {
		if err := decodeHex(f.dst, f.text); err != nil {
			return s, &FormatError{f.name + " " + err.Error()}
		}
	}
	return s, nil
}

// decodeHex fills dst exactly; the case of the digits is left to the
// comparison with the canonical form.
func decodeHex(dst []byte, text string) error {
	if len(text) != hex.EncodedLen(len(dst)) {
		return fmt.Errorf("is not %d hexadecimal digits", hex.EncodedLen(len(dst)))
	}
	_, err := hex.Decode(dst, []byte(text))
	return err
}
