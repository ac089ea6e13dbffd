package vault

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"

	"encfsrun/fs/guarded"
	"encfsrun/fs/vault/record"
	"encfsrun/fs/vault/seal"
	"encfsrun/fs/vault/tree"
)

// maxEpochs bounds the epoch table: sessions remembered beyond their history. A pin older than that many sessions of writing
// can't be told from a rollback any more, and is refused as one.
const maxEpochs = 1024

// point is a commit of the log: its sequence number and the chain value after it.
type point struct {
	sequence uint64
	chain    Root
}

// state is what replay builds: the tree as it was after the last commit, and what is known of the log until there.
type state struct {
	tree    *tree.Tree
	nextIno tree.Ino
	last    point
	session seal.ID // that wrote the last commit
	closed  bool    // the last commit is a closing one
	history []point // commits since the checkpoint, and the checkpoint's own
	epochs  []record.EpochRecord
	tables  []record.SegmentRecord // of the segments before the checkpoint
	segment int                    // index of the segment that the last commit lies in, -1 before the first
	blocks  uint64                 // of that segment, up to the commit
	since   uint64                 // blocks of the log since the checkpoint
}

func newState() *state {
	return &state{tree: tree.New(PayloadStart, PayloadSize), nextIno: tree.Root, segment: -1}
}

// errIncomplete says that the checkpoint that a segment begins with was never committed.
var errIncomplete = errors.New("the checkpoint is incomplete")

// replay rebuilds the state from segments of which the first begins the log, or begins with a checkpoint. end is how many
// blocks count in the last. All that fails is an error: where a torn tail may be, the caller has cut it off.
func replay(w *workspace, vault string, keys *seal.Keys, segs []*segment, end uint64) (*state, error) {
	r := &replayer{stream: newStream(w, vault, keys, segs, end), state: newState()}
	defer func() { guarded.Wipe(r.pending[:cap(r.pending)]) }()
	if segs[0].header.checkpoint {
		r.piece = new(uint32)
		r.state.tables = []record.SegmentRecord{}
	} else if h := &segs[0].header; h.predecessor != 0 || h.first != 0 || h.predChain != (Root{}) {
		return nil, &IntegrityError{segmentObject(vault, h.number), "does not begin a log"}
	}
	if err := r.run(); err != nil {
		return nil, err
	}
	if r.piece != nil || r.state.segment < 0 && segs[0].header.checkpoint {
		return nil, errIncomplete
	}
	return r.state, r.settle()
}

type replayer struct {
	stream  *stream
	state   *state
	piece   *uint32 // the index of the checkpoint's next piece; nil when it is complete, or none is read
	pieces  bool    // the checkpoint's last piece was read: its commit is next
	pending []byte  // records since the last commit, encoded; Data stands there as Extent
	inodes  uint64  // that the checkpoint promises
}

func (r *replayer) malformed(err error) error { return r.stream.malformed(err.Error()) }

func (r *replayer) run() error {
	for {
		e, err := r.stream.next()
		switch {
		case errors.Is(err, io.EOF):
			return nil
		case errors.Is(err, errVoid):
			r.drop()
			if r.piece != nil {
				return errIncomplete
			}
			continue
		case err != nil:
			return err
		}
		if err := r.entry(e); err != nil {
			return err
		}
	}
}

func (r *replayer) drop() {
	guarded.Wipe(r.pending)
	r.pending = r.pending[:0]
}

func (r *replayer) entry(e entry) error {
	switch {
	case r.pieces && e.Type != record.Commit, r.piece != nil && e.Type != record.Piece:
		return r.stream.malformed("a checkpoint is interrupted")
	case e.Type == record.Piece:
		return r.pieceOf(e.payload)
	case e.Type == record.Commit:
		return r.commit(e.payload)
	case e.Type == record.Data:
		ino, off, err := record.ParseDataPrefix(e.payload)
		if err != nil {
			return r.malformed(err)
		}
		x := tree.Extent{Off: off, Len: uint64(e.Length - record.DataPrefix), Block: e.block, At: e.at}
		r.pending = record.AppendExtent(r.pending, ino, x)
	default:
		r.pending = append(record.AppendHeader(r.pending, e.Type, len(e.payload)), e.payload...)
	}
	return nil
}

// commit makes the pending records true.
func (r *replayer) commit(payload []byte) error {
	c, err := record.ParseCommit(payload)
	if err != nil {
		return r.malformed(err)
	}
	st, s := r.state, r.stream
	object := segmentObject(s.vault, s.segs[s.i].header.number)
	if c.Chain != s.before { // blocks of two branches of history in one segment
		return &IntegrityError{object, "does not follow from what is before it"}
	}
	if c.Sequence != st.last.sequence+1 || c.NextIno < st.nextIno {
		return &IntegrityError{object, fmt.Sprintf("holds commit %d after commit %d", c.Sequence, st.last.sequence)}
	}
	if c.Closing && (len(r.pending) > 0 || r.pieces) {
		return s.malformed("a closing commit that is not empty")
	}
	if st.closed && st.session == s.segs[s.i].header.session {
		return s.malformed("a commit after its session was closed")
	}
	r.pieces = false
	for p := r.pending; len(p) > 0; {
		var used int
		if used, err = r.apply(p); err != nil {
			return r.malformed(err)
		}
		p = p[used:]
	}
	r.drop()
	st.nextIno, st.last, st.closed = c.NextIno, point{c.Sequence, s.chain}, c.Closing
	st.session = s.segs[s.i].header.session
	st.segment, st.blocks = s.i, s.index
	st.history = append(st.history, st.last)
	st.noteEpoch(record.EpochRecord{Session: st.session, Sequence: c.Sequence})
	return nil
}

// apply applies the encoded record at the head of p and returns its length.
func (r *replayer) apply(p []byte) (int, error) {
	n := record.HeaderSize + int(uint32(p[1])|uint32(p[2])<<8|uint32(p[3])<<16|uint32(p[4])<<24)
	return n, apply(r.state.tree, record.Type(p[0]), p[record.HeaderSize:n])
}

// apply applies one record to the tree.
func apply(t *tree.Tree, typ record.Type, p []byte) error {
	switch typ {
	case record.Inode:
		a, err := record.ParseInode(p)
		if err != nil {
			return err
		}
		return t.Put(a)
	case record.Target:
		ino, target, err := record.ParseTarget(p)
		if err != nil {
			return err
		}
		return t.SetTarget(ino, target)
	case record.Link:
		dir, name, ino, err := record.ParseLink(p)
		if err != nil {
			return err
		}
		return t.Link(dir, name, ino)
	case record.Unlink:
		dir, name, err := record.ParseNamed(p)
		if err != nil {
			return err
		}
		return t.Unlink(dir, name)
	case record.Rename:
		dir, name, newDir, newName, err := record.ParseRename(p)
		if err != nil {
			return err
		}
		return t.Rename(dir, name, newDir, newName)
	case record.SetXattr:
		ino, name, value, err := record.ParseSetXattr(p)
		if err != nil {
			return err
		}
		return t.SetXattr(ino, name, value)
	case record.RemoveXattr:
		ino, name, err := record.ParseNamed(p)
		if err != nil {
			return err
		}
		return t.RemoveXattr(ino, name)
	case record.Extent:
		ino, e, err := record.ParseExtent(p)
		if err != nil {
			return err
		}
		return t.Map(ino, e)
	case record.Clear:
		ino, off, n, err := record.ParseClear(p)
		if err != nil {
			return err
		}
		return t.Clear(ino, off, n)
	case record.Free:
		ino, err := record.ParseFree(p)
		if err != nil {
			return err
		}
		return t.Free(ino)
	}
	return fmt.Errorf("%w: type %d", record.ErrMalformed, typ)
}

// pieceOf takes in a piece of the checkpoint at the beginning, and passes over those of later ones, which were not finished
// or say what is known already.
func (r *replayer) pieceOf(payload []byte) error {
	h, records, err := record.ParsePiece(payload)
	if err != nil {
		return r.malformed(err)
	}
	if r.piece == nil {
		return nil
	}
	if h.Index != *r.piece {
		return r.stream.malformed("a checkpoint's piece is out of order")
	}
	*r.piece++
	for first := h.Index == 0; len(records) > 0; first = false {
		head, err := record.ParseHeader(records, true)
		if err == nil && len(records) < record.HeaderSize+head.Length {
			err = record.ErrMalformed
		}
		if err == nil && (head.Type == record.State) != first {
			err = record.ErrMalformed
		}
		if err == nil {
			err = r.checkpointRecord(head.Type, records[record.HeaderSize:][:head.Length])
		}
		if err != nil {
			return r.malformed(err)
		}
		records = records[record.HeaderSize+head.Length:]
	}
	if h.Last {
		r.piece, r.pieces = nil, true
		if n := r.state.tree.Stats().Inodes; n != r.inodes || h.Index == 0 && n == 0 {
			return r.stream.malformed("a checkpoint does not hold all that it promises")
		}
	}
	return nil
}

func (r *replayer) checkpointRecord(typ record.Type, p []byte) error {
	st := r.state
	switch typ {
	case record.State:
		s, err := record.ParseState(p)
		if err != nil {
			return err
		}
		if s.Chain != r.stream.segs[0].header.predChain {
			return fmt.Errorf("%w: a checkpoint of another history", record.ErrMalformed)
		}
		st.last, st.nextIno, r.inodes = point{s.Sequence, s.Chain}, s.NextIno, s.Inodes
		st.history = append(st.history, st.last)
	case record.Segment:
		s, err := record.ParseSegment(p)
		if err != nil {
			return err
		}
		if len(s.Sums) > MaxSegmentBlocks {
			return fmt.Errorf("%w: a table of %d blocks", record.ErrMalformed, len(s.Sums))
		}
		if n := len(st.tables); n > 0 && (st.tables[n-1].Number >= s.Number || st.tables[n-1].First+uint64(len(st.tables[n-1].Sums)) > s.First) {
			return fmt.Errorf("%w: segment tables out of order", record.ErrMalformed)
		}
		st.tables = append(st.tables, s)
	case record.Epoch:
		e, err := record.ParseEpoch(p)
		if err != nil {
			return err
		}
		if len(st.epochs) == maxEpochs {
			return fmt.Errorf("%w: more than %d epochs", record.ErrMalformed, maxEpochs)
		}
		st.epochs = append(st.epochs, e)
	default:
		return apply(st.tree, typ, p)
	}
	return nil
}

// noteEpoch remembers the last commit of a session, the newest session last.
func (st *state) noteEpoch(e record.EpochRecord) {
	if i := slices.IndexFunc(st.epochs, func(x record.EpochRecord) bool { return x.Session == e.Session }); i >= 0 {
		st.epochs = slices.Delete(st.epochs, i, i+1)
	}
	st.epochs = append(st.epochs, e)
	if n := len(st.epochs) - maxEpochs; n > 0 {
		st.epochs = slices.Delete(st.epochs, 0, n)
	}
}

// settle checks what only the whole log shows: a commit, a root, and no bytes of a file outside the log. Inodes that a crash
// left without a name are dropped.
func (r *replayer) settle() error {
	st := r.state
	object := "the log of " + r.stream.vault
	if st.segment < 0 {
		return &IntegrityError{object, "holds no commit"}
	}
	if _, err := st.tree.Attr(tree.Root); err != nil {
		return &IntegrityError{object, "has no root directory"}
	}
	if st.tree.MaxIno() >= st.nextIno {
		return &IntegrityError{object, "holds an inode number that was never given out"}
	}
	orphans := map[tree.Ino]bool{}
	st.tree.Orphans(func(ino tree.Ino) bool { orphans[ino] = true; return true })
	for ino := range maps.Keys(orphans) {
		if err := st.tree.Free(ino); err != nil {
			return &IntegrityError{object, fmt.Sprintf("has an orphan that can't be dropped: %v", err)}
		}
	}
	for _, s := range r.stream.segs {
		st.since += uint64(len(s.sums))
	}
	return nil
}
