package vault

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"

	"encfsrun/fs/vault/record"
	"encfsrun/fs/vault/seal"
)

// Sizes in bytes. On disk; docs/BENCHMARKS.md has the measurement that chose BlockSize.
//
//	block on disk   | nonce 24 | ciphertext 32728                                       | tag 16 |
//	its plaintext              | session 16 | durable 8 | first 4 | zero 4 | stream 32696 |
const (
	BlockSize    = 32 << 10
	PlainSize    = BlockSize - seal.Overhead
	PayloadStart = 32                       // the prefix's size; the record stream follows
	PayloadSize  = PlainSize - PayloadStart // of the record stream in one block
)

// noRecord stands for "first" where no record starts in the block. On disk.
const noRecord = ^uint32(0)

// prefix is what a block's plaintext begins with.
type prefix struct {
	session seal.ID // the writing session
	durable uint64  // all blocks below this number were known to be synced when this one was sealed
	first   uint32  // offset in the stream part of the first record that starts in it, or noRecord
}

func (p prefix) put(plain []byte) {
	copy(plain, p.session[:])
	binary.LittleEndian.PutUint64(plain[16:], p.durable)
	binary.LittleEndian.PutUint32(plain[24:], p.first)
	binary.LittleEndian.PutUint32(plain[28:], 0)
}

func parsePrefix(plain []byte) (p prefix, err error) {
	copy(p.session[:], plain)
	p.durable = binary.LittleEndian.Uint64(plain[16:])
	p.first = binary.LittleEndian.Uint32(plain[24:])
	if binary.LittleEndian.Uint32(plain[28:]) != 0 || p.first != noRecord && p.first >= PayloadSize {
		return p, fmt.Errorf("%w: block prefix", record.ErrMalformed)
	}
	return p, nil
}

// sum computes what a segment's table says of a block as it stands on disk.
func sum(block []byte) (s record.Sum) {
	s.Hash = sha256.Sum256(block)
	copy(s.Tag[:], block[len(block)-seal.TagSize:])
	return s
}

// Chain links. The chain value starts at 32 zero bytes and takes in every segment header and every block of the log in order:
//
//	next = SHA-256(kind ‖ previous ‖ SHA-256(the item as it stands on disk))
//
// so that its value at a commit, the root, names the whole history at that moment.
const (
	chainHeader byte = 1
	chainBlock  byte = 2
)

// Root is a chain value; that of the last commit is the vault's root.
type Root = seal.Hash

func chain(previous Root, kind byte, item seal.Hash) Root {
	var b [1 + 2*sha256.Size]byte
	b[0] = kind
	copy(b[1:], previous[:])
	copy(b[1+sha256.Size:], item[:])
	return sha256.Sum256(b[:])
}
