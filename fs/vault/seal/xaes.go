package seal

import (
	"crypto/aes"
	"crypto/cipher"
)

// xaes returns the AES-256-GCM instance and the 12-byte nonce that XAES-256-GCM (C2SP, XAES-256-GCM.md) derives from a
// 32-byte key and a 24-byte nonce: a CMAC-based NIST SP 800-108r1 KDF over the nonce's first half. Random 24-byte nonces
// are safe for 2^80 messages, where plain GCM's 12 bytes are spent after 2^32.
func xaes(key *[KeySize]byte, nonce []byte) (cipher.AEAD, []byte, error) {
	block, err := aes.NewCipher(key[:])
	if err != nil {
		return nil, nil, err
	}
	var k1 [aes.BlockSize]byte
	block.Encrypt(k1[:], k1[:])
	msb := k1[0] >> 7
	for i := range len(k1) - 1 {
		k1[i] = k1[i]<<1 | k1[i+1]>>7
	}
	k1[len(k1)-1] = k1[len(k1)-1]<<1 ^ msb*0x87

	var derived [KeySize]byte
	for counter := range byte(2) {
		m := derived[int(counter)*aes.BlockSize:][:aes.BlockSize]
		copy(m, []byte{0, counter + 1, 'X', 0})
		copy(m[4:], nonce[:12])
		for i := range m {
			m[i] ^= k1[i]
		}
		block.Encrypt(m, m)
	}
	inner, err := aes.NewCipher(derived[:])
	clear(derived[:])
	clear(k1[:])
	if err != nil {
		return nil, nil, err
	}
	aead, err := cipher.NewGCM(inner)
	return aead, nonce[12:NonceSize], err
}
