package vault

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"encfsrun/fs/vault/record"
	"encfsrun/fs/vault/tree"
)

// sealing is a session of records that somebody with the key seals after the log of good: its input to FuzzReplay.
type sealing struct {
	checkpoint bool   // the segment says that a checkpoint begins it
	lie        uint32 // what is wrong with the first block's "first": bits that are the other way
	again      []byte // comes times times before the rest: long streams are short inputs, and a fuzzer need not make them smaller
	times      uint32
	rest       []byte
}

func (s *sealing) tooLong() bool {
	return uint64(len(s.again))*uint64(s.times)+uint64(len(s.rest)) > 4*PayloadSize
}

// seal appends the session to a crafted log.
func (s *sealing) seal(c *crafter) {
	c.begin(s.checkpoint)
	c.lay(append(bytes.Repeat(s.again, int(s.times)), s.rest...), s.lie)
}

// lay seals a stream of records, which it changes, in blocks as a writer does: each says where the first record begins that starts
// in it, and a commit ends its block. Commits and checkpoints get the right chain values, which nobody can guess. From the first
// bytes on that are no record, all is taken as it stands. What would need more than eight blocks is left out.
func (c *crafter) lay(stream []byte, lie uint32) {
	block, first := []byte(nil), noRecord
	end := func() {
		c.block(prefix{c.session, 0, first ^ lie}, block)
		block, first, lie = nil, noRecord, 0
	}
	for len(stream) > 0 && c.tail.blocks < 8 {
		if len(block) == PayloadSize {
			end()
		}
		if first == noRecord {
			first = uint32(len(block))
		}
		h, err := record.ParseHeader(stream, false)
		part := stream
		if err == nil {
			part = stream[:min(len(stream), record.HeaderSize+h.Length)]
			c.chainInto(h.Type, part[record.HeaderSize:])
		}
		stream = stream[len(part):]
		for len(part) > 0 {
			if len(block) == PayloadSize {
				end()
			}
			n := min(len(part), PayloadSize-len(block))
			block, part = append(block, part[:n]...), part[n:]
		}
		if err == nil && h.Type == record.Commit {
			end()
		}
	}
	if len(block) > 0 {
		end()
	}
}

// chainInto puts the right chain value into the payload of a commit, or of a piece that begins with a checkpoint's state.
func (c *crafter) chainInto(typ record.Type, payload []byte) {
	const chainAt = 8 // in both
	const stateAt = 5 // in a piece
	switch {
	case typ == record.Commit && len(payload) == record.CommitSize:
		copy(payload[chainAt:], c.tail.chain[:])
	case typ == record.Piece && len(payload) > 60 && record.Type(payload[stateAt]) == record.State:
		before := c.ids[c.tail.number].predChain
		copy(payload[stateAt+record.HeaderSize+chainAt:], before[:])
	}
}

// replaySeed is a session, and the number of the last commit when replay has taken it; 0 where it is refused.
type replaySeed struct {
	name     string
	sequence uint64
	sealing
}

// replaySeeds are sessions after the log of c, whose last commit is the second.
func replaySeeds(c *crafter) []replaySeed {
	commit := func(sequence uint64, closing bool) []byte {
		return record.CommitRecord{Sequence: sequence, NextIno: 9, Closing: closing}.Append(nil)
	}
	committed := func(parts ...[]byte) sealing {
		return sealing{rest: append(slices.Concat(parts...), commit(3, false)...)}
	}
	added := c.fileRecords(3, "added.py", "x = 1\n")
	xattr := record.AppendSetXattr(nil, 2, "user.a", make([]byte, 65_000))
	inode := func(ino Ino, mode uint32, size uint64) []byte {
		return record.AppendInode(nil, tree.Attr{Ino: ino, Mode: mode, Size: size})
	}
	return append(checkpointSeeds(c, commit(3, false)), []replaySeed{
		{"a file", 3, committed(added)},
		{"three commits, the last closing", 5, sealing{rest: slices.Concat(added, commit(3, false),
			record.AppendUnlink(nil, 1, "added.py"), record.AppendFree(nil, 3), commit(4, false), commit(5, true))}},
		{"a rename, and a file that goes", 3, committed(record.AppendRename(nil, 1, "main.py", 1, "x"),
			record.AppendUnlink(nil, 1, "x"), record.AppendFree(nil, 2))},
		{"a hole, and attributes", 3, committed(record.AppendClear(nil, 2, 1, 5),
			record.AppendSetXattr(nil, 2, "user.a", []byte("b")), record.AppendSetXattr(nil, 2, "user.b", nil),
			record.AppendRemoveXattr(nil, 2, "user.a"))},
		{"a huge file", 3, committed(inode(5, 0o100644, 1<<62), record.AppendLink(nil, 1, "huge", 5))},
		{"a directory, whose name is no text, with a symlink", 3, committed(inode(5, 0o40700, 0), record.AppendLink(nil, 1, "di\x94", 5),
			inode(6, 0o120777, 0), record.AppendTarget(nil, 6, "main.py"), record.AppendLink(nil, 5, "link", 6))},
		{"bytes written over", 3, committed(record.AppendDataHeader(nil, 2, 0, 14), []byte("print('HELLO')"))},
		{"many records in two blocks", 3, sealing{times: 900, rest: commit(3, false),
			again: append(record.AppendUnlink(nil, 1, "main.py"), record.AppendLink(nil, 1, "main.py", 2)...)}},
		{"a record in three blocks", 3, committed(xattr)},
		{"no commit", 2, sealing{rest: added}},
		{"a record cut short", 2, sealing{rest: xattr[:30]}},
		{"a commit that is cut short", 2, sealing{rest: append(record.AppendHeader(nil, record.Commit, record.MaxPayload), commit(3, false)...)}},
		{"a commit where no record is said to start", 2, sealing{lie: noRecord, rest: committed(added).rest}},
		{"data cut short", 2, sealing{rest: record.AppendDataHeader(nil, 2, 0, record.MaxChunk)}},

		{"a commit again", 0, sealing{rest: commit(2, false)}},
		{"a thousand commits", 0, sealing{again: commit(3, false), times: 1000}},
		{"a closing commit with records", 0, sealing{rest: append(added[:len(added):len(added)], commit(3, true)...)}},
		{"a record is said to start in another", 0, sealing{lie: 1, rest: committed(added).rest}},
		{"no records", 0, sealing{again: []byte{7}, times: 2 * PayloadSize}},
	}...)
}

// checkpointSeeds begin with a checkpoint.
func checkpointSeeds(c *crafter, commit []byte) (seeds []replaySeed) {
	c = c.clone(c.t)
	c.segmentWith(nil) // so that the checkpoint's table is that of segment 1
	for _, k := range []struct {
		name     string
		sequence uint64
		change   func(*record.StateRecord, *record.SegmentRecord, *tree.Extent)
	}{
		{"a checkpoint", 3, nil},
		{"a checkpoint of too many inodes", 0, func(s *record.StateRecord, _ *record.SegmentRecord, _ *tree.Extent) { s.Inodes = 1 << 60 }},
		{"a segment's table far away", 0, func(_ *record.StateRecord, t *record.SegmentRecord, _ *tree.Extent) { t.First = 1 << 63 }},
		{"an extent in no block", 0, func(_ *record.StateRecord, _ *record.SegmentRecord, e *tree.Extent) { e.Block = 1000 }},
		{"an extent beyond all blocks", 0, func(_ *record.StateRecord, _ *record.SegmentRecord, e *tree.Extent) { e.Block = 1<<64 - 1 }},
	} {
		piece := record.AppendPiece(nil, record.PieceHeader{Last: true}, c.checkpoint(k.change))
		seeds = append(seeds, replaySeed{k.name, k.sequence, sealing{checkpoint: true, rest: append(piece, commit...)}})
	}
	return seeds
}

// replaying is what FuzzReplay needs and makes only once, because it takes longer than an input does: the header, the log before
// the session, guarded memory.
type replaying struct {
	before *crafter
	memory *workspace
}

func newReplaying(t testing.TB) *replaying {
	w, err := newWorkspace()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.destroy)
	return &replaying{good(newCrafter(t, newFixture(t))), w}
}

// load replays the log with a session at its end.
func (r *replaying) load(t testing.TB, s sealing) (*Vault, error) {
	c := r.before.clone(t)
	s.seal(c)
	v := &Vault{path: testVault, fsys: c.d, keys: c.f.Keys, header: c.header()}
	if err := v.loadLog(r.memory, false); err != nil {
		v.Close()
		return nil, err
	}
	return v, nil
}

// FuzzReplay opens a log whose last segment holds arbitrary records under the real keys: what a faulty writer, or a hostile one
// who has the passkey, could seal. The log is refused as damaged, or it is a tree that can be walked and that Check finds whole;
// it never takes much memory.
func FuzzReplay(f *testing.F) {
	r := newReplaying(f)
	for _, s := range replaySeeds(r.before) {
		f.Add(s.checkpoint, s.lie, s.again, s.times, s.rest)
	}
	f.Fuzz(func(t *testing.T, checkpoint bool, lie uint32, again []byte, times uint32, rest []byte) {
		s := sealing{checkpoint, lie, again, times, rest}
		if s.tooLong() {
			return
		}
		v, err := r.load(t, s)
		if isIntegrity(err) {
			return
		}
		if err != nil {
			t.Fatal(err)
		}
		defer v.Close()
		if err := wholeAndSmall(v); err != nil {
			t.Fatal(err)
		}
	})
}

// TestReplaySeeds makes sure that FuzzReplay begins with what replay takes, all of it: a fuzzer that is refused at the first check
// finds nothing behind it.
func TestReplaySeeds(t *testing.T) {
	r := newReplaying(t)
	for _, s := range replaySeeds(r.before) {
		t.Run(s.name, func(t *testing.T) {
			if s.tooLong() {
				t.Fatal("the fuzzer passes it over")
			}
			v, err := r.load(t, s.sealing)
			if s.sequence == 0 && isIntegrity(err) {
				return
			}
			if s.sequence == 0 || err != nil {
				t.Fatalf("want commit %d, or 0 for a refusal: %v", s.sequence, err)
			}
			defer v.Close()
			if n := v.Sequence(); n != s.sequence {
				t.Errorf("the last commit is %d, want %d", n, s.sequence)
			}
		})
	}
}

// wholeAndSmall walks all of a vault's tree.
func wholeAndSmall(v *Vault) error {
	if m := v.Stats().Memory; m > 64<<20 {
		return fmt.Errorf("a tree of %d bytes", m)
	}
	report, err := v.Check(context.Background(), nil)
	if err != nil || len(report.Damage) > 0 {
		return fmt.Errorf("check: %v, %w", report.Damage, err)
	}
	return walkAll(v, tree.Root)
}

// walkAll calls every reading method on all of a tree, but reads no more than two blocks of any file.
func walkAll(v *Vault, dir Ino) error {
	var children []tree.Entry
	if err := v.ReadDir(dir, 0, func(e tree.Entry) bool { children = append(children, e); return true }); err != nil {
		return err
	}
	for _, e := range children {
		if e.Name == "" || e.Name == "." || e.Name == ".." || len(e.Name) > 255 || strings.ContainsAny(e.Name, "/\x00") {
			return fmt.Errorf("a file is called %q", e.Name)
		}
		ino, err := v.Lookup(dir, e.Name)
		if err != nil || ino != e.Ino {
			return fmt.Errorf("%q is %d, listed as %d: %w", e.Name, ino, e.Ino, err)
		}
		a, err := v.Attr(ino)
		if err != nil || a.Nlink == 0 {
			return fmt.Errorf("%q: %+v %w", e.Name, a, err)
		}
		names, err := v.ListXattr(ino)
		for _, name := range names {
			_, e := v.GetXattr(ino, name)
			err = errors.Join(err, e)
		}
		if err != nil {
			return err
		}
		switch a.Mode & typeMask {
		case typeDir:
			if parent, err := v.Parent(ino); err != nil || parent != dir {
				return fmt.Errorf("%q is in %d, not in %d: %w", e.Name, parent, dir, err)
			}
			err = walkAll(v, ino)
		case 0o100000:
			err = readSome(v, ino, a.Size)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func readSome(v *Vault, ino Ino, size uint64) error {
	n := int(min(size, 2*BlockSize))
	if _, err := readFile(v, ino, n); err != nil {
		return err
	}
	spans, err := v.Spans(ino, int64(size)-int64(n), n+1, nil)
	total := 0
	for _, s := range spans {
		total += s.Len
	}
	if err != nil || total != n {
		return fmt.Errorf("spans of %d bytes at the end of %d: %w", total, size, err)
	}
	return nil
}
