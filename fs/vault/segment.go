package vault

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"path"
	"strconv"

	"encfsrun/fs/guarded"
	"encfsrun/fs/vault/disk"
	"encfsrun/fs/vault/record"
	"encfsrun/fs/vault/seal"
)

// Sizes. On disk. A header fills a page, so that blocks lie on page borders and a torn header touches no block.
const (
	headerSize       = 4096
	headerPlain      = headerSize - seal.Overhead
	maxSegmentSize   = 64 << 20
	MaxSegmentBlocks = (maxSegmentSize - headerSize) / BlockSize // 2047
	flagCheckpoint   = 1                                         // a checkpoint begins with this segment's first record
)

// segmentHeader is the sealed first page of a segment file. It binds the segment to its predecessor, so that no segment of
// another branch of history can stand in its place.
type segmentHeader struct {
	number     uint64 // from 1; equals the file's name
	id         seal.ID
	session    seal.ID
	generation uint64 // of vault.json when the segment was made
	first      uint64 // number of its first block
	checkpoint bool

	predecessor uint64 // number-1; 0 for the first segment
	predID      seal.ID
	predEnd     uint64 // how many of the predecessor's blocks count
	predChain   Root   // the chain value there
}

func (h *segmentHeader) encode() []byte {
	b := make([]byte, headerPlain)
	le := binary.LittleEndian
	le.PutUint64(b, h.number)
	copy(b[8:], h.id[:])
	copy(b[24:], h.session[:])
	le.PutUint64(b[40:], h.generation)
	le.PutUint64(b[48:], h.first)
	if h.checkpoint {
		le.PutUint32(b[56:], flagCheckpoint)
	}
	le.PutUint64(b[64:], h.predecessor)
	copy(b[72:], h.predID[:])
	le.PutUint64(b[88:], h.predEnd)
	copy(b[96:], h.predChain[:])
	return b
}

func decodeSegmentHeader(b []byte) (h segmentHeader, err error) {
	le := binary.LittleEndian
	h.number = le.Uint64(b)
	copy(h.id[:], b[8:])
	copy(h.session[:], b[24:])
	h.generation = le.Uint64(b[40:])
	h.first = le.Uint64(b[48:])
	flags := le.Uint32(b[56:])
	h.checkpoint = flags == flagCheckpoint
	h.predecessor = le.Uint64(b[64:])
	copy(h.predID[:], b[72:])
	h.predEnd = le.Uint64(b[88:])
	copy(h.predChain[:], b[96:])
	zero := le.Uint32(b[60:]) == 0
	for _, c := range b[128:] {
		zero = zero && c == 0
	}
	wrong := !zero || flags > flagCheckpoint || h.number == 0 || h.predecessor != h.number-1 || h.predEnd > MaxSegmentBlocks
	if h.number == 1 { // nothing is before it
		wrong = wrong || h.checkpoint || h.first != 0 || h.predID != (seal.ID{}) || h.predEnd != 0 || h.predChain != (Root{})
	}
	if wrong {
		return h, fmt.Errorf("%w: segment header", record.ErrMalformed)
	}
	return h, nil
}

// segment is an open segment file and what is known of its blocks.
type segment struct {
	header segmentHeader
	file   disk.File
	hash   seal.Hash    // of the header as it stands on disk
	sums   []record.Sum // of its blocks up to its end
}

func (s *segment) end() uint64                    { return s.header.first + uint64(len(s.sums)) }
func blockOffset(index uint64) int64              { return headerSize + int64(index)*BlockSize }
func segmentName(number uint64) string            { return fmt.Sprintf("%010d.seg", number) }
func segmentPath(vault string, n uint64) string   { return path.Join(vault, logDir, segmentName(n)) }
func segmentObject(vault string, n uint64) string { return fmt.Sprintf("segment %d of %s", n, vault) }

// parseSegmentName returns the number in a segment file's name, or 0 where the name is none.
func parseSegmentName(name string) uint64 {
	if len(name) < len("0000000001.seg") || name[len(name)-4:] != ".seg" {
		return 0
	}
	n, err := strconv.ParseUint(name[:len(name)-4], 10, 64)
	if err != nil || segmentName(n) != name {
		return 0
	}
	return n
}

// errTorn says that a segment file is no longer than a header and has none that authenticates: its making was cut short.
var errTorn = errors.New("was never finished")

// openSegment opens a segment file and its header, which has to carry the file's number. The error is errTorn, an
// *IntegrityError, or that of the disk (an EIO is never taken for damage). With settle, all of the file is made durable and
// read from the disk, not from the page cache.
func openSegment(fsys disk.FS, vault string, number uint64, keys *seal.Keys, settle bool) (*segment, error) {
	file, err := fsys.Open(segmentPath(vault, number))
	if err != nil {
		return nil, err
	}
	if settle {
		if err = file.Sync(); err == nil {
			err = file.DropCache()
		}
	}
	var s *segment
	if err == nil {
		s, err = readSegmentHeader(file, vault, number, keys)
	}
	if err != nil {
		file.Close()
		return nil, err
	}
	return s, nil
}

func readSegmentHeader(file disk.File, vault string, number uint64, keys *seal.Keys) (*segment, error) {
	size, err := file.Size()
	if err != nil {
		return nil, err
	}
	sealed := make([]byte, headerSize)
	if n, err := file.ReadAt(sealed, 0); err != nil && !(errors.Is(err, io.EOF) && int64(n) == min(size, headerSize)) {
		return nil, err
	}
	damaged := func(detail string) error {
		if size <= headerSize {
			return errTorn
		}
		return &IntegrityError{segmentObject(vault, number), detail}
	}
	if size < headerSize {
		return nil, errTorn
	}
	plain := make([]byte, headerPlain)
	defer guarded.Wipe(plain)
	if err := keys.OpenHeader(plain, sealed); err != nil {
		return nil, damaged("has a header that does not authenticate")
	}
	h, err := decodeSegmentHeader(plain)
	if err != nil {
		return nil, &IntegrityError{segmentObject(vault, number), "has a header that makes no sense"}
	}
	if h.number != number { // a segment renamed into another's place
		return nil, &IntegrityError{segmentObject(vault, number), fmt.Sprintf("is segment %d under another name", h.number)}
	}
	return &segment{header: h, file: file, hash: hashOf(sealed)}, nil
}
