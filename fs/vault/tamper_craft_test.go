package vault

import (
	"testing"

	"encfsrun/fs/vault/record"
	"encfsrun/fs/vault/tree"
)

// TestTamperTableBeyondTheEnd seals a checkpoint whose table takes in a void block of its predecessor, behind the end that its
// own segment's header names: one block number would then stand for two blocks, and a file's bytes for either.
func TestTamperTableBeyondTheEnd(t *testing.T) {
	c := newCrafter(t, newFixture(t))
	c.begin(false).commit(c.tree(), nil)
	end := c.tail
	c.block(c.prefix(), c.fileRecords(3, "void", "void"))
	c.tail.blocks, c.tail.next, c.tail.chain = end.blocks, end.next, end.chain
	c.next = 3
	c.segmentWith(func(h *segmentHeader) { h.checkpoint = true })
	pieces := func(change func(*record.SegmentRecord)) []byte {
		records := c.checkpoint(func(_ *record.StateRecord, s *record.SegmentRecord, _ *tree.Extent) { change(s) })
		return record.AppendPiece(nil, record.PieceHeader{Last: true}, records)
	}
	sealed := *c // two ways from here
	sealed.d = c.d.Clone()
	sealed.commit(pieces(func(s *record.SegmentRecord) { s.Sums = s.Sums[:1] }), nil).close()
	v, err := sealed.f.open(sealed.d, Options{})
	if err != nil {
		t.Fatalf("a table to the sealed end: %v", err)
	}
	defer v.keys.Destroy()
	defer v.Close()
	c.commit(pieces(func(*record.SegmentRecord) {}), nil).close()
	if _, err := c.f.open(c.d, Options{}); !isIntegrity(err) {
		t.Errorf("a table beyond the sealed end: %v", err)
	}
}
