package vault

import (
	"slices"
	"testing"

	"encfsrun/fs/vault/record"
)

// TestReplayRefuses holds logs that authenticate and that no writer makes, beside those of the test vectors.
func TestReplayRefuses(t *testing.T) {
	head := func(c *crafter) {
		c.begin(false).commit(c.tree(), nil)
		c.segmentWith(func(h *segmentHeader) { h.checkpoint = true })
	}
	last := func(c *crafter) []byte {
		return record.AppendPiece(nil, record.PieceHeader{Last: true}, c.checkpoint(nil))
	}
	cases := map[string]func(*crafter){
		"a record between a checkpoint's last piece and its commit": func(c *crafter) {
			head(c)
			c.commit(slices.Concat(last(c), c.fileRecords(3, "b", "b")), nil).close()
		},
		"a checkpoint's commit that closes": func(c *crafter) {
			head(c)
			c.commit(last(c), func(r *record.CommitRecord) { r.Closing = true })
		},
		"a commit after its session was closed": func(c *crafter) {
			good(c)
			c.commit(c.fileRecords(3, "b", "b"), nil)
		},
	}
	for name, build := range cases {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t)
			c := newCrafter(t, f)
			build(c)
			if _, err := f.open(c.d, Options{}); !isIntegrity(err) {
				t.Errorf("opening it gives %v, want an integrity error", err)
			}
		})
	}
}
