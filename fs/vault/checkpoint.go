package vault

import (
	"encfsrun/fs/guarded"
	"encfsrun/fs/vault/record"
	"encfsrun/fs/vault/tree"
)

// checkpointDistance in bytes: a checkpoint is due when the log since the last one is longer than this and than the checkpoint
// itself, so that opening reads at most about twice as much as the tree takes.
const checkpointDistance = 64 << 20

// Checkpoint writes the whole tree, the segment tables and the epoch table, at the head of a segment of its own, and commits.
// Opening then begins there. Everything before it has to be committed.
func (s *Session) Checkpoint() error {
	if err := s.Commit(); err != nil {
		return err
	}
	if s.began == 0 && s.v.state.last.chain != s.v.tail.chain { // a crash left a tip without a commit; a checkpoint follows one
		if err := s.commit(false); err != nil {
			return err
		}
	}
	s.w.newSegment(true)
	since := s.w.next
	p := &pieces{w: s.w}
	p.all(s.v) // only a session changes the tree, and this one is here
	p.flush(true)
	if s.w.err != nil {
		return s.w.err
	}
	if err := s.commit(false); err != nil {
		return err
	}
	s.since = since
	s.checkpointed = s.v.segmentNumber(since)
	return nil
}

// segmentNumber returns the number of the segment that holds a block.
func (v *Vault) segmentNumber(block uint64) uint64 {
	v.mu.RLock()
	defer v.mu.RUnlock()
	return v.segmentOf(block).header.number
}

// checkpointIfDue writes a checkpoint when the log since the last, which begins with that one, is longer than checkpointDistance and than
// a checkpoint. Its segment tables count: in a large vault they are longer than the tree.
func (s *Session) checkpointIfDue() error {
	size := uint64(s.checkpointSize())
	if log := (s.w.next - s.since) * BlockSize; log <= size+max(checkpointDistance, size) {
		return nil
	}
	if err := s.Commit(); err != nil {
		return err
	}
	if _, err := s.copyRoom(0); err != nil {
		return err
	}
	return s.Checkpoint()
}

// pieces cuts a checkpoint's records into Piece records.
type pieces struct {
	w     *writer
	index uint32
	buf   []byte // records of the piece at hand
	out   []byte
}

// room makes sure that a record of n payload bytes still fits the piece at hand.
func (p *pieces) room(n int) {
	if len(p.buf)+record.HeaderSize+n > record.MaxPiece {
		p.flush(false)
	}
}

func (p *pieces) flush(last bool) {
	p.out = record.AppendPiece(p.out[:0], record.PieceHeader{Index: p.index, Last: last}, p.buf)
	p.w.record(p.out)
	guarded.Wipe(p.buf)
	guarded.Wipe(p.out)
	p.index++
	p.buf = p.buf[:0]
}

func (p *pieces) all(v *Vault) {
	st := v.state
	p.buf = record.StateRecord{Sequence: st.last.sequence, Chain: st.last.chain, NextIno: st.nextIno, Inodes: st.tree.Stats().Inodes}.Append(p.buf)
	v.mu.RLock()
	segs := v.segs // what is durable while the checkpoint is written comes in with another slice
	v.mu.RUnlock()
	for _, s := range segs {
		if len(s.sums) > 0 {
			r := record.SegmentRecord{Number: s.header.number, ID: s.header.id, Session: s.header.session, First: s.header.first, Sums: s.sums}
			p.room(len(s.sums)*record.SumSize + 64)
			p.buf = r.Append(p.buf)
		}
	}
	for _, e := range st.epochs {
		p.room(64)
		p.buf = e.Append(p.buf)
	}
	st.tree.Inodes(func(a tree.Attr) bool {
		p.inode(st.tree, a)
		return p.w.err == nil
	})
	st.tree.Inodes(func(a tree.Attr) bool {
		st.tree.Entries(a.Ino, 0, func(e tree.Entry) bool { // an error says that it is no directory
			p.room(16 + len(e.Name))
			p.buf = record.AppendLink(p.buf, a.Ino, e.Name, e.Ino)
			return true
		})
		return p.w.err == nil
	})
}

func (p *pieces) inode(t *tree.Tree, a tree.Attr) {
	p.room(128)
	p.buf = record.AppendInode(p.buf, a)
	if target, err := t.Target(a.Ino); err == nil && target != "" {
		p.room(8 + len(target))
		p.buf = record.AppendTarget(p.buf, a.Ino, target)
	}
	names, _ := t.Xattrs(a.Ino) // the inode is there: it was just yielded
	for _, name := range names {
		value, _ := t.Xattr(a.Ino, name)
		p.room(10 + len(name) + len(value))
		p.buf = record.AppendSetXattr(p.buf, a.Ino, name, value)
	}
	t.Extents(a.Ino, 0, a.Size, func(e tree.Extent) bool {
		p.room(64)
		p.buf = record.AppendExtent(p.buf, a.Ino, e)
		return true
	})
}
