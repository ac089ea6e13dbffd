package durability

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"math/rand/v2"
	"testing"
)

// recordID says which record it is. Its content follows from it, so that what was written need not be remembered.
type recordID struct{ cut, writer, seq int }

// A record begins with a magic number, its id, its size and the CRC-32 of all that follows the header; integers are little-endian.
const (
	recordMagic  = 0x64726365
	recordHeader = 24
)

// recordSize is the size of a record in bytes: mostly a few KB, some beyond a sealed block's 32 KiB, and nothing that is aligned.
func recordSize(id recordID) int {
	r := rand.New(rand.NewPCG(uint64(id.cut)<<32|uint64(id.writer), uint64(id.seq)))
	if id.seq%41 == 0 {
		return 30_000 + r.IntN(20_000)
	}
	return 60 + r.IntN(5000)
}

// content makes a record of a size in bytes, which is at least recordHeader.
func content(id recordID, size int) []byte {
	b := make([]byte, size)
	body := b[recordHeader:]
	var seed [32]byte
	for i, v := range []int{id.cut, id.writer, id.seq, size} {
		binary.LittleEndian.PutUint64(seed[8*i:], uint64(v))
	}
	rand.NewChaCha8(seed).Read(body)
	for i, v := range []int{recordMagic, id.cut, id.writer, id.seq, size, int(crc32.ChecksumIEEE(body))} {
		binary.LittleEndian.PutUint32(b[4*i:], uint32(v))
	}
	return b
}

// identify reads the id of what may be a whole record.
func identify(b []byte) (id recordID, ok bool) {
	if len(b) < recordHeader || binary.LittleEndian.Uint32(b) != recordMagic {
		return id, false
	}
	field := func(i int) int { return int(binary.LittleEndian.Uint32(b[4*i:])) }
	id = recordID{field(1), field(2), field(3)}
	size := field(4)
	return id, recordHeader <= size && size <= len(b) && field(5) == int(crc32.ChecksumIEEE(b[recordHeader:size]))
}

// differs says how what was found differs from what was written; "" if it does not.
func differs(found, want []byte) string {
	if bytes.Equal(found, want) {
		return ""
	}
	if other, ok := identify(found); ok {
		return fmt.Sprintf("record %d of writer %d, cut %d", other.seq, other.writer, other.cut)
	}
	same := 0
	for same < min(len(found), len(want)) && found[same] == want[same] {
		same++
	}
	switch rest := found[same:]; {
	case len(found) < len(want) && len(rest) == 0:
		return fmt.Sprintf("%d of %d bytes", len(found), len(want))
	case len(bytes.Trim(rest, "\x00")) == 0:
		return fmt.Sprintf("zeros after %d of %d bytes", same, len(want))
	default:
		return fmt.Sprintf("other bytes after %d of %d", same, len(want))
	}
}

func TestDiffers(t *testing.T) {
	id := recordID{1, 2, 3}
	want := content(id, 1000)
	flipped := bytes.Clone(want)
	flipped[500] ^= 1
	zeroed := append(bytes.Clone(want[:300]), make([]byte, 700)...)
	for _, c := range []struct {
		found []byte
		said  string
	}{
		{want, ""},
		{nil, "0 of 1000 bytes"},
		{want[:999], "999 of 1000 bytes"},
		{flipped, "other bytes after 500 of 1000"},
		{zeroed, "zeros after 300 of 1000 bytes"},
		{content(recordID{1, 2, 2}, 1000), "record 2 of writer 2, cut 1"},
	} {
		if said := differs(c.found, want); said != c.said {
			t.Errorf("said %q, want %q", said, c.said)
		}
	}
	if bytes.Equal(content(recordID{0, 2, 3}, 1000)[recordHeader:], want[recordHeader:]) {
		t.Error("records of two cuts hold the same")
	}
}
