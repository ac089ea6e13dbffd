package record

import (
	"encoding/binary"

	"encfsrun/fs/vault/seal"
	"encfsrun/fs/vault/tree"
)

// A checkpoint is a stream of records too, cut at record boundaries into Piece records of the log. Its records come in this
// order: one State; Segment for each live segment; Epoch for each session remembered; then for each inode Inode, Target,
// SetXattr and Extent; then Link for each name.

// PieceHeader is what stands before the records in a Piece.
type PieceHeader struct {
	Index uint32 // from 0
	Last  bool
}

// AppendPiece appends a Piece with the given records.
func AppendPiece(b []byte, h PieceHeader, records []byte) []byte {
	b = AppendHeader(b, Piece, pieceMin+len(records))
	b = binary.LittleEndian.AppendUint32(b, h.Index)
	var last byte
	if h.Last {
		last = 1
	}
	return append(append(b, last), records...)
}

// ParsePiece decodes a Piece's payload; records points into p.
func ParsePiece(p []byte) (h PieceHeader, records []byte, err error) {
	if len(p) < pieceMin || p[4] > 1 {
		return h, nil, malformed("piece of %d bytes", len(p))
	}
	return PieceHeader{binary.LittleEndian.Uint32(p), p[4] == 1}, p[pieceMin:], nil
}

// StateRecord is the commit that a checkpoint describes: the last one before the checkpoint's segment.
type StateRecord struct {
	Sequence uint64
	Chain    [32]byte // at that commit
	NextIno  tree.Ino
	Inodes   uint64 // so that a checkpoint cut short by a fault of the writer is noticed
}

// Append appends the record with its header.
func (s StateRecord) Append(b []byte) []byte {
	b = AppendHeader(b, State, stateSize)
	b = binary.LittleEndian.AppendUint64(b, s.Sequence)
	b = append(b, s.Chain[:]...)
	b = binary.LittleEndian.AppendUint64(b, uint64(s.NextIno))
	return binary.LittleEndian.AppendUint64(b, s.Inodes)
}

// ParseState decodes a State's payload.
func ParseState(p []byte) (s StateRecord, err error) {
	if len(p) != stateSize {
		return s, malformed("state of %d bytes", len(p))
	}
	d := decoder{p}
	s.Sequence = d.u64()
	copy(s.Chain[:], d.take(32))
	s.NextIno, s.Inodes = tree.Ino(d.u64()), d.u64()
	return s, nil
}

// AppendExtent appends an Extent record: where bytes of a file lie in the log.
func AppendExtent(b []byte, ino tree.Ino, e tree.Extent) []byte {
	b = AppendHeader(b, Extent, extentSize)
	for _, v := range []uint64{uint64(ino), e.Off, e.Len, e.Block} {
		b = binary.LittleEndian.AppendUint64(b, v)
	}
	return binary.LittleEndian.AppendUint32(b, e.At)
}

// ParseExtent decodes an Extent's payload.
func ParseExtent(p []byte) (ino tree.Ino, e tree.Extent, err error) {
	if len(p) != extentSize {
		return 0, e, malformed("extent of %d bytes", len(p))
	}
	d := decoder{p}
	ino, e.Off, e.Len, e.Block, e.At = tree.Ino(d.u64()), d.u64(), d.u64(), d.u64(), d.u32()
	return ino, e, nil
}

// Sum is what identifies a block on disk without opening it.
type Sum struct {
	Hash seal.Hash          // SHA-256 of nonce ‖ ciphertext ‖ tag
	Tag  [seal.TagSize]byte // its tag
}

// SegmentRecord is the table of one live segment.
type SegmentRecord struct {
	Number  uint64
	ID      seal.ID
	Session seal.ID
	First   uint64 // the number of its first block
	Sums    []Sum  // of its blocks, to its sealed end
}

// Append appends the record with its header.
func (s SegmentRecord) Append(b []byte) []byte {
	b = AppendHeader(b, Segment, segmentMin+len(s.Sums)*SumSize)
	b = binary.LittleEndian.AppendUint64(b, s.Number)
	b = append(b, s.ID[:]...)
	b = append(b, s.Session[:]...)
	b = binary.LittleEndian.AppendUint64(b, s.First)
	b = binary.LittleEndian.AppendUint32(b, uint32(len(s.Sums)))
	for i := range s.Sums {
		b = append(b, s.Sums[i].Hash[:]...)
		b = append(b, s.Sums[i].Tag[:]...)
	}
	return b
}

// ParseSegment decodes a Segment's payload.
func ParseSegment(p []byte) (s SegmentRecord, err error) {
	if len(p) < segmentMin {
		return s, malformed("segment of %d bytes", len(p))
	}
	d := decoder{p}
	s.Number = d.u64()
	copy(s.ID[:], d.take(16))
	copy(s.Session[:], d.take(16))
	s.First = d.u64()
	n := int(d.u32())
	if len(d.b) != n*SumSize {
		return s, malformed("segment of %d blocks in %d bytes", n, len(p))
	}
	s.Sums = make([]Sum, n)
	for i := range s.Sums {
		copy(s.Sums[i].Hash[:], d.take(32))
		copy(s.Sums[i].Tag[:], d.take(16))
	}
	return s, nil
}

// EpochRecord remembers the last commit of a session of writing, after its history was cleaned away.
type EpochRecord struct {
	Session  seal.ID
	Sequence uint64
}

// Append appends the record with its header.
func (e EpochRecord) Append(b []byte) []byte {
	b = AppendHeader(b, Epoch, epochSize)
	b = append(b, e.Session[:]...)
	return binary.LittleEndian.AppendUint64(b, e.Sequence)
}

// ParseEpoch decodes an Epoch's payload.
func ParseEpoch(p []byte) (e EpochRecord, err error) {
	if len(p) != epochSize {
		return e, malformed("epoch of %d bytes", len(p))
	}
	d := decoder{p}
	copy(e.Session[:], d.take(16))
	e.Sequence = d.u64()
	return e, nil
}
