// Package record holds the codec of the vault's record stream: what a change is made of. Every record sets a state instead of
// describing an operation, as far as it can, so that replay needs no history and each type has one meaning. docs/FORMAT.md, "Records", is the specification; decoding is strict, and what would encode differently is
// refused, so that there is exactly one byte string for each record.
//
// The package knows neither blocks nor keys nor files.
package record

import (
	"encoding/binary"
	"errors"
	"fmt"

	"encfsrun/fs/vault/tree"
)

// Type says what a record is. On disk.
type Type uint8

// The types. Zero is invalid, so that a run of zeros is never a record.
const (
	Pad          Type = 1 // no length and no payload: the rest of the block is zeros
	Commit       Type = 2
	Inode        Type = 3
	Target       Type = 4
	Link         Type = 5
	Unlink       Type = 6
	SetXattr     Type = 7
	RemoveXattr  Type = 8
	Data         Type = 9
	Clear        Type = 10
	Free         Type = 11
	Piece        Type = 12
	Rename       Type = 13
	pieceTypes   Type = 32 // those from here on stand only inside a checkpoint's pieces
	State        Type = 32
	Extent       Type = 33
	Segment      Type = 34
	Epoch        Type = 35
	firstInvalid Type = 36
)

// Sizes in bytes. On disk.
const (
	HeaderSize  = 5                      // type, length
	DataPrefix  = 16                     // inode, offset; the file's bytes follow
	MaxChunk    = 1 << 20                // file bytes in one Data record: a writer holds no more than one length ahead
	MaxPayload  = 128 << 10              // of every other record: a 64 KiB xattr or a segment's table of 2047 blocks fits
	CommitSize  = 8 + 32 + 8 + 4 + 8 + 4 // payload of Commit
	CommitChain = 8                      // where in it the chain value stands
	inodeSize   = 8 + 5*4 + 3*12 + 8     // payload of Inode
	extentSize  = 8 + 8 + 8 + 8 + 4      // payload of Extent
	stateSize   = 8 + 32 + 8 + 8         // payload of State
	epochSize   = 16 + 8                 // payload of Epoch
	segmentMin  = 8 + 16 + 16 + 8 + 4    // payload of Segment before its table
	SumSize     = 32 + 16                // one block in a segment's table
	pieceMin    = 4 + 1                  // payload of Piece before its records
	MaxPiece    = MaxPayload - pieceMin  // records in one Piece
	// FlagClosing marks the empty commit that ends a session.
	FlagClosing uint32 = 1
)

// ErrMalformed says that bytes are no record, or not its one encoding.
var ErrMalformed = errors.New("malformed record")

func malformed(format string, args ...any) error {
	return fmt.Errorf("%w: %s", ErrMalformed, fmt.Sprintf(format, args...))
}

// Header is a record's type and the length of its payload.
type Header struct {
	Type   Type
	Length int
}

// ParseHeader reads the five bytes of a record header in a log (inPiece false) or in a checkpoint's piece, and caps the length
// before anybody allocates by it.
func ParseHeader(b []byte, inPiece bool) (Header, error) {
	if len(b) < HeaderSize {
		return Header{}, malformed("header of %d bytes", len(b))
	}
	h := Header{Type: Type(b[0]), Length: int(binary.LittleEndian.Uint32(b[1:]))}
	limit := MaxPayload
	if h.Type == Data {
		limit = DataPrefix + MaxChunk
	}
	switch {
	case h.Length > limit:
		return Header{}, malformed("type %d with %d bytes", h.Type, h.Length)
	case inPiece && (h.Type >= pieceTypes && h.Type < firstInvalid || h.Type == Inode || h.Type == Target || h.Type == Link || h.Type == SetXattr):
		return h, nil
	case !inPiece && h.Type > Pad && h.Type <= Rename:
		return h, nil
	}
	return Header{}, malformed("type %d", h.Type)
}

// AppendHeader appends a record header.
func AppendHeader(b []byte, t Type, length int) []byte {
	return binary.LittleEndian.AppendUint32(append(b, byte(t)), uint32(length))
}

// CommitRecord makes everything since the last commit true.
type CommitRecord struct {
	Sequence uint64   // grows by one with each commit of the vault
	Chain    [32]byte // the chain value before the block that this record lies in
	Time     tree.Time
	NextIno  tree.Ino // the lowest inode number never used
	Closing  bool     // an empty commit written once all before it was durable
}

// Append appends the record with its header.
func (c CommitRecord) Append(b []byte) []byte {
	b = AppendHeader(b, Commit, CommitSize)
	b = binary.LittleEndian.AppendUint64(b, c.Sequence)
	b = append(b, c.Chain[:]...)
	b = appendTime(b, c.Time)
	b = binary.LittleEndian.AppendUint64(b, uint64(c.NextIno))
	var flags uint32
	if c.Closing {
		flags = FlagClosing
	}
	return binary.LittleEndian.AppendUint32(b, flags)
}

// ParseCommit decodes a Commit's payload.
func ParseCommit(p []byte) (c CommitRecord, err error) {
	if len(p) != CommitSize {
		return c, malformed("commit of %d bytes", len(p))
	}
	d := decoder{p}
	c.Sequence = d.u64()
	copy(c.Chain[:], d.take(32))
	if c.Time, err = d.time(); err != nil {
		return c, err
	}
	c.NextIno = tree.Ino(d.u64())
	flags := d.u32()
	if flags&^FlagClosing != 0 {
		return c, malformed("commit with flags %#x", flags)
	}
	c.Closing = flags == FlagClosing
	return c, nil
}

// AppendInode appends an Inode record: all of a's attributes but those that links and extents give (Nlink, Blocks).
func AppendInode(b []byte, a tree.Attr) []byte {
	b = AppendHeader(b, Inode, inodeSize)
	b = binary.LittleEndian.AppendUint64(b, uint64(a.Ino))
	for _, v := range []uint32{a.Mode, a.UID, a.GID, a.Rdev, 0} {
		b = binary.LittleEndian.AppendUint32(b, v)
	}
	b = binary.LittleEndian.AppendUint64(b, a.Size)
	for _, t := range []tree.Time{a.Atime, a.Mtime, a.Ctime} {
		b = appendTime(b, t)
	}
	return b
}

// ParseInode decodes an Inode's payload.
func ParseInode(p []byte) (a tree.Attr, err error) {
	if len(p) != inodeSize {
		return a, malformed("inode of %d bytes", len(p))
	}
	d := decoder{p}
	a.Ino = tree.Ino(d.u64())
	a.Mode, a.UID, a.GID, a.Rdev = d.u32(), d.u32(), d.u32(), d.u32()
	if d.u32() != 0 {
		return a, malformed("inode with reserved bits")
	}
	a.Size = d.u64()
	for _, t := range []*tree.Time{&a.Atime, &a.Mtime, &a.Ctime} {
		if *t, err = d.time(); err != nil {
			return a, err
		}
	}
	return a, nil
}

// AppendTarget appends a Target record: what a symlink points to.
func AppendTarget(b []byte, ino tree.Ino, target string) []byte {
	b = AppendHeader(b, Target, 8+len(target))
	b = binary.LittleEndian.AppendUint64(b, uint64(ino))
	return append(b, target...)
}

// ParseTarget decodes a Target's payload.
func ParseTarget(p []byte) (ino tree.Ino, target string, err error) {
	if len(p) < 8 {
		return 0, "", malformed("target of %d bytes", len(p))
	}
	return tree.Ino(binary.LittleEndian.Uint64(p)), string(p[8:]), nil
}

// AppendLink appends a Link record: name in dir is ino.
func AppendLink(b []byte, dir tree.Ino, name string, ino tree.Ino) []byte {
	b = AppendHeader(b, Link, 16+len(name))
	b = binary.LittleEndian.AppendUint64(b, uint64(dir))
	b = binary.LittleEndian.AppendUint64(b, uint64(ino))
	return append(b, name...)
}

// ParseLink decodes a Link's payload.
func ParseLink(p []byte) (dir tree.Ino, name string, ino tree.Ino, err error) {
	if len(p) < 16 {
		return 0, "", 0, malformed("link of %d bytes", len(p))
	}
	d := decoder{p}
	dir, ino = tree.Ino(d.u64()), tree.Ino(d.u64())
	return dir, string(d.b), ino, nil
}

// AppendUnlink appends an Unlink record: dir has no such name any more.
func AppendUnlink(b []byte, dir tree.Ino, name string) []byte {
	return appendNamed(b, Unlink, dir, name)
}

// AppendRename appends a Rename record: what name in dir is, is newName in newDir from now on.
func AppendRename(b []byte, dir tree.Ino, name string, newDir tree.Ino, newName string) []byte {
	b = AppendHeader(b, Rename, 18+len(name)+len(newName))
	b = binary.LittleEndian.AppendUint64(b, uint64(dir))
	b = binary.LittleEndian.AppendUint64(b, uint64(newDir))
	b = binary.LittleEndian.AppendUint16(b, uint16(len(name)))
	b = append(b, name...)
	return append(b, newName...)
}

// ParseRename decodes a Rename's payload.
func ParseRename(p []byte) (dir tree.Ino, name string, newDir tree.Ino, newName string, err error) {
	if len(p) < 18 {
		return 0, "", 0, "", malformed("rename of %d bytes", len(p))
	}
	d := decoder{p}
	dir, newDir = tree.Ino(d.u64()), tree.Ino(d.u64())
	n := int(d.u16())
	if n > len(d.b) {
		return 0, "", 0, "", malformed("rename whose name has %d bytes of %d", n, len(d.b))
	}
	return dir, string(d.b[:n]), newDir, string(d.b[n:]), nil
}

// AppendRemoveXattr appends a RemoveXattr record.
func AppendRemoveXattr(b []byte, ino tree.Ino, name string) []byte {
	return appendNamed(b, RemoveXattr, ino, name)
}

func appendNamed(b []byte, t Type, ino tree.Ino, name string) []byte {
	b = AppendHeader(b, t, 8+len(name))
	b = binary.LittleEndian.AppendUint64(b, uint64(ino))
	return append(b, name...)
}

// ParseNamed decodes the payload of an Unlink or a RemoveXattr.
func ParseNamed(p []byte) (ino tree.Ino, name string, err error) {
	if len(p) < 8 {
		return 0, "", malformed("name record of %d bytes", len(p))
	}
	return tree.Ino(binary.LittleEndian.Uint64(p)), string(p[8:]), nil
}

// AppendSetXattr appends a SetXattr record.
func AppendSetXattr(b []byte, ino tree.Ino, name string, value []byte) []byte {
	b = AppendHeader(b, SetXattr, 10+len(name)+len(value))
	b = binary.LittleEndian.AppendUint64(b, uint64(ino))
	b = binary.LittleEndian.AppendUint16(b, uint16(len(name)))
	b = append(b, name...)
	return append(b, value...)
}

// ParseSetXattr decodes a SetXattr's payload; value points into p.
func ParseSetXattr(p []byte) (ino tree.Ino, name string, value []byte, err error) {
	if len(p) < 10 {
		return 0, "", nil, malformed("xattr of %d bytes", len(p))
	}
	n := int(binary.LittleEndian.Uint16(p[8:]))
	if len(p) < 10+n {
		return 0, "", nil, malformed("xattr whose name has %d bytes of %d", n, len(p)-10)
	}
	return tree.Ino(binary.LittleEndian.Uint64(p)), string(p[10 : 10+n]), p[10+n:], nil
}

// AppendDataHeader appends a Data record's header and prefix; the caller lets n bytes of the file follow.
func AppendDataHeader(b []byte, ino tree.Ino, off uint64, n int) []byte {
	b = AppendHeader(b, Data, DataPrefix+n)
	b = binary.LittleEndian.AppendUint64(b, uint64(ino))
	return binary.LittleEndian.AppendUint64(b, off)
}

// ParseDataPrefix decodes the first DataPrefix bytes of a Data's payload.
func ParseDataPrefix(p []byte) (ino tree.Ino, off uint64, err error) {
	if len(p) < DataPrefix {
		return 0, 0, malformed("data of %d bytes", len(p))
	}
	return tree.Ino(binary.LittleEndian.Uint64(p)), binary.LittleEndian.Uint64(p[8:]), nil
}

// AppendClear appends a Clear record: n bytes of the file at off become a hole.
func AppendClear(b []byte, ino tree.Ino, off, n uint64) []byte {
	b = AppendHeader(b, Clear, 24)
	b = binary.LittleEndian.AppendUint64(b, uint64(ino))
	b = binary.LittleEndian.AppendUint64(b, off)
	return binary.LittleEndian.AppendUint64(b, n)
}

// ParseClear decodes a Clear's payload.
func ParseClear(p []byte) (ino tree.Ino, off, n uint64, err error) {
	if len(p) != 24 {
		return 0, 0, 0, malformed("clear of %d bytes", len(p))
	}
	d := decoder{p}
	return tree.Ino(d.u64()), d.u64(), d.u64(), nil
}

// AppendFree appends a Free record: the inode, which has no links, is gone.
func AppendFree(b []byte, ino tree.Ino) []byte {
	return binary.LittleEndian.AppendUint64(AppendHeader(b, Free, 8), uint64(ino))
}

// ParseFree decodes a Free's payload.
func ParseFree(p []byte) (tree.Ino, error) {
	if len(p) != 8 {
		return 0, malformed("free of %d bytes", len(p))
	}
	return tree.Ino(binary.LittleEndian.Uint64(p)), nil
}

func appendTime(b []byte, t tree.Time) []byte {
	b = binary.LittleEndian.AppendUint64(b, uint64(t.Sec))
	return binary.LittleEndian.AppendUint32(b, t.Nsec)
}

// decoder takes fields off the front of a payload whose length was checked.
type decoder struct{ b []byte }

func (d *decoder) take(n int) []byte {
	p := d.b[:n]
	d.b = d.b[n:]
	return p
}
func (d *decoder) u16() uint16 { return binary.LittleEndian.Uint16(d.take(2)) }
func (d *decoder) u32() uint32 { return binary.LittleEndian.Uint32(d.take(4)) }
func (d *decoder) u64() uint64 { return binary.LittleEndian.Uint64(d.take(8)) }

func (d *decoder) time() (t tree.Time, err error) {
	t.Sec, t.Nsec = int64(d.u64()), d.u32()
	if t.Nsec > 999_999_999 {
		return t, malformed("time with %d nanoseconds", t.Nsec)
	}
	return t, nil
}
