package record

import (
	"bytes"
	"errors"
	"fmt"
	"testing"

	"pgregory.net/rapid"

	"encfsrun/fs/vault/seal"
	"encfsrun/fs/vault/tree"
)

// again decodes a whole record and encodes what was found. The bytes behind a Data's prefix are its caller's.
func again(b []byte, inPiece bool) ([]byte, error) {
	h, err := ParseHeader(b, inPiece)
	if err != nil {
		return nil, err
	}
	if len(b) < HeaderSize+h.Length {
		return nil, malformed("%d bytes", len(b))
	}
	p := b[HeaderSize:][:h.Length]
	switch h.Type {
	case Commit:
		return encoded(ParseCommit(p))
	case Inode:
		a, err := ParseInode(p)
		return AppendInode(nil, a), err
	case Target:
		ino, target, err := ParseTarget(p)
		return AppendTarget(nil, ino, target), err
	case Link:
		dir, name, ino, err := ParseLink(p)
		return AppendLink(nil, dir, name, ino), err
	case Unlink:
		dir, name, err := ParseNamed(p)
		return AppendUnlink(nil, dir, name), err
	case RemoveXattr:
		ino, name, err := ParseNamed(p)
		return AppendRemoveXattr(nil, ino, name), err
	case Rename:
		dir, name, newDir, newName, err := ParseRename(p)
		return AppendRename(nil, dir, name, newDir, newName), err
	case SetXattr:
		ino, name, value, err := ParseSetXattr(p)
		return AppendSetXattr(nil, ino, name, value), err
	case Data:
		ino, off, err := ParseDataPrefix(p)
		if err != nil {
			return nil, err
		}
		return append(AppendDataHeader(nil, ino, off, len(p)-DataPrefix), p[DataPrefix:]...), nil
	case Clear:
		ino, off, n, err := ParseClear(p)
		return AppendClear(nil, ino, off, n), err
	case Free:
		ino, err := ParseFree(p)
		return AppendFree(nil, ino), err
	case Piece:
		head, records, err := ParsePiece(p)
		return AppendPiece(nil, head, records), err
	case State:
		return encoded(ParseState(p))
	case Extent:
		ino, e, err := ParseExtent(p)
		return AppendExtent(nil, ino, e), err
	case Segment:
		return encoded(ParseSegment(p))
	case Epoch:
		return encoded(ParseEpoch(p))
	}
	return nil, fmt.Errorf("type %d has no decoder", h.Type)
}

func encoded(r interface{ Append([]byte) []byte }, err error) ([]byte, error) {
	return r.Append(nil), err
}

// draw makes any record of a type, with any values that its codec takes.
func draw(r *rapid.T, typ Type) []byte {
	ino := tree.Ino(rapid.Uint64().Draw(r, "ino"))
	number := func(name string) uint64 { return rapid.Uint64().Draw(r, name) }
	word := func(name string) uint32 { return rapid.Uint32().Draw(r, name) }
	text := func(name string, most int) string { return string(rapid.SliceOfN(rapid.Byte(), 0, most).Draw(r, name)) }
	instant := func() tree.Time {
		return tree.Time{Sec: rapid.Int64().Draw(r, "sec"), Nsec: rapid.Uint32Max(999_999_999).Draw(r, "nsec")}
	}
	hash := func() [32]byte { return [32]byte(rapid.SliceOfN(rapid.Byte(), 32, 32).Draw(r, "hash")) }
	id := func() seal.ID { return seal.ID(rapid.SliceOfN(rapid.Byte(), 16, 16).Draw(r, "id")) }
	switch typ {
	case Commit:
		return CommitRecord{number("sequence"), hash(), instant(), ino, rapid.Bool().Draw(r, "closing")}.Append(nil)
	case Inode:
		return AppendInode(nil, tree.Attr{
			Ino: ino, Mode: word("mode"), UID: word("uid"), GID: word("gid"), Rdev: word("rdev"), Size: number("size"),
			Atime: instant(), Mtime: instant(), Ctime: instant(),
		})
	case Target:
		return AppendTarget(nil, ino, text("target", 100))
	case Link:
		return AppendLink(nil, ino, text("name", 100), tree.Ino(number("child")))
	case Unlink:
		return AppendUnlink(nil, ino, text("name", 100))
	case RemoveXattr:
		return AppendRemoveXattr(nil, ino, text("name", 100))
	case Rename:
		return AppendRename(nil, ino, text("name", 100), tree.Ino(number("new dir")), text("new name", 100))
	case SetXattr:
		return AppendSetXattr(nil, ino, text("name", 100), []byte(text("value", 200)))
	case Data:
		bytes := text("bytes", 100)
		return append(AppendDataHeader(nil, ino, number("off"), len(bytes)), bytes...)
	case Clear:
		return AppendClear(nil, ino, number("off"), number("length"))
	case Free:
		return AppendFree(nil, ino)
	case Piece:
		return AppendPiece(nil, PieceHeader{word("index"), rapid.Bool().Draw(r, "last")}, []byte(text("records", 200)))
	case State:
		return StateRecord{number("sequence"), hash(), ino, number("inodes")}.Append(nil)
	case Extent:
		return AppendExtent(nil, ino, tree.Extent{Off: number("off"), Len: number("length"), Block: number("block"), At: word("at")})
	case Segment:
		s := SegmentRecord{Number: number("number"), ID: id(), Session: id(), First: number("first")}
		for range rapid.IntRange(0, 5).Draw(r, "blocks") {
			s.Sums = append(s.Sums, Sum{hash(), [seal.TagSize]byte(id())})
		}
		return s.Append(nil)
	case Epoch:
		return EpochRecord{id(), number("sequence")}.Append(nil)
	}
	r.Fatalf("type %d can't be drawn", typ)
	return nil
}

func TestRoundTrips(t *testing.T) {
	for typ := Commit; typ < firstInvalid; typ++ {
		if typ > Rename && typ < pieceTypes {
			continue
		}
		t.Run(fmt.Sprint(typ), rapid.MakeCheck(func(r *rapid.T) {
			b := draw(r, typ)
			inPiece := typ >= pieceTypes || rapid.Bool().Draw(r, "in a piece")
			got, err := again(b, inPiece)
			both := typ == Inode || typ == Target || typ == Link || typ == SetXattr
			if allowed := typ >= pieceTypes || both || !inPiece; !allowed {
				if !errors.Is(err, ErrMalformed) {
					r.Fatalf("taken in a piece: %v", err)
				}
				return
			}
			if err != nil || !bytes.Equal(got, b) {
				r.Fatalf("%x became %x: %v", b, got, err)
			}
			// A payload one byte longer or shorter is another one, or none.
			for _, n := range []int{-1, 1} {
				if len(b)+n < HeaderSize {
					continue
				}
				other := append(AppendHeader(nil, typ, len(b)-HeaderSize+n), append(bytes.Clone(b[HeaderSize:]), 0)[:len(b)-HeaderSize+n]...)
				if got, err := again(other, inPiece); err == nil && !bytes.Equal(got, other) {
					r.Fatalf("%x was taken for %x", other, got)
				}
			}
		}))
	}
}

func TestHeadersThatMustBeRefused(t *testing.T) {
	for name, c := range map[string]struct {
		b       []byte
		inPiece bool
	}{
		"nothing":                  {nil, false},
		"four bytes":               {[]byte{3, 0, 0, 0}, false},
		"type 0":                   {AppendHeader(nil, 0, 0), false},
		"a pad":                    {AppendHeader(nil, Pad, 0), false},
		"type 14":                  {AppendHeader(nil, Rename+1, 0), false},
		"type 31":                  {AppendHeader(nil, pieceTypes-1, 0), true},
		"type 36":                  {AppendHeader(nil, firstInvalid, 0), true},
		"type 255":                 {AppendHeader(nil, 255, 0), true},
		"a state in the log":       {AppendHeader(nil, State, stateSize), false},
		"an epoch in the log":      {AppendHeader(nil, Epoch, epochSize), false},
		"data in a piece":          {AppendHeader(nil, Data, 20), true},
		"a commit in a piece":      {AppendHeader(nil, Commit, CommitSize), true},
		"a piece in a piece":       {AppendHeader(nil, Piece, 10), true},
		"too long":                 {AppendHeader(nil, SetXattr, MaxPayload+1), false},
		"too long data":            {AppendHeader(nil, Data, DataPrefix+MaxChunk+1), false},
		"the longest of 32 bits":   {[]byte{byte(Data), 255, 255, 255, 255}, false},
		"a segment of too many":    {AppendHeader(nil, Segment, MaxPayload+1), true},
		"an unlink in a piece":     {AppendHeader(nil, Unlink, 10), true},
		"a rename in a checkpoint": {AppendHeader(nil, Rename, 20), true},
	} {
		if h, err := ParseHeader(c.b, c.inPiece); !errors.Is(err, ErrMalformed) || h != (Header{}) {
			t.Errorf("%s: %+v, %v", name, h, err)
		}
	}
	for name, b := range map[string][]byte{"data": AppendHeader(nil, Data, DataPrefix+MaxChunk), "others": AppendHeader(nil, SetXattr, MaxPayload)} {
		if _, err := ParseHeader(b, false); err != nil {
			t.Errorf("the longest of %s: %v", name, err)
		}
	}
}

// FuzzParse decodes arbitrary bytes as a record: what is taken encodes to the same bytes, and nothing but ErrMalformed is an
// error. What is longer than a payload may be is refused before anything is allocated for it.
func FuzzParse(f *testing.F) {
	for typ := Commit; typ < firstInvalid; typ++ {
		if typ > Rename && typ < pieceTypes {
			continue
		}
		f.Add(rapid.Custom(func(r *rapid.T) []byte { return draw(r, typ) }).Example(int(typ)), typ >= pieceTypes)
		f.Add(AppendHeader(nil, typ, 0), false)
		f.Add(append(AppendHeader(nil, typ, 8), make([]byte, 8)...), true)
	}
	f.Add([]byte{byte(Segment), 52, 0, 0, 0, 51: 0xff, 52: 0xff, 53: 0xff, 54: 0xff, 56: 0xff}, true)
	f.Fuzz(func(t *testing.T, b []byte, inPiece bool) {
		got, err := again(b, inPiece)
		if err != nil {
			if !errors.Is(err, ErrMalformed) {
				t.Fatal(err)
			}
			return
		}
		if !bytes.Equal(got, b[:len(got)]) || len(got) > HeaderSize+DataPrefix+MaxChunk {
			t.Fatalf("%x became %x", b, got)
		}
	})
}
