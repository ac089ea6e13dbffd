package keyring

import (
	"golang.org/x/crypto/argon2"

	"encfsrun/fs/guarded"
)

// ikmSize is the length of what a KDF derives, in bytes; format.
const ikmSize = 32

// InProcessKDF is a KDF that leaves its memory and residue of the passphrase
// to this process's heap: for the helper, which ends then, and for tests.
func InProcessKDF(passphrase *guarded.Buffer, salt []byte, p Params) (*guarded.Buffer, error) {
	if err := p.Validate(); err != nil {
		return nil, err
	}
	ikm, err := guarded.NewBuffer(ikmSize)
	if err != nil {
		return nil, err
	}
	guarded.Do(func() {
		key := argon2.IDKey(passphrase.Bytes(), salt, p.Time, p.MemoryKiB, uint8(p.Parallelism), ikmSize)
		copy(ikm.Bytes(), key)
		guarded.Wipe(key)
	})
	return ikm, nil
}
