package vault

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"

	"encfsrun/fs/guarded"
	"encfsrun/fs/vault/tree"
)

// ErrMoved says that a block is gone because a cleaner moved what was live in it: whoever was told of the block asks for the
// spans anew.
var ErrMoved = errors.New("what was in the block was moved elsewhere in the log")

// clean copies what is live in chosen segments to the end of the log, and removes them and all others in which nothing is live. The
// order is what makes it safe: the copies are durable before a checkpoint that names the old places no more, and that is durable
// before a file goes. It returns how many bytes went. An *IntegrityError says that something could not be read: that stays where
// it is, and all else is done.
func (s *Session) clean(choose func([]usage) []usage) (freed uint64, err error) {
	if err := s.Commit(); err != nil { // first: what is not durable is in no segment yet
		return 0, err
	}
	chosen, err := s.within(choose(s.usage()))
	if err != nil {
		return 0, err
	}
	victims := map[uint64]bool{}
	for _, u := range chosen {
		victims[u.segment.header.number] = true
	}
	damage, err := s.relocate(victims)
	if err == nil {
		err = s.Commit()
	}
	if err != nil {
		return 0, err
	}
	for _, x := range s.letGo() {
		freed += x.size()
		x.file.Close()
	}
	if err := s.Checkpoint(); err != nil {
		return 0, err
	}
	return freed, errors.Join(s.removeDead(), damage)
}

// usage counts what is live in each segment, by one walk over all extents.
func (s *Session) usage() []usage {
	segs := s.v.segments()
	use := make([]usage, len(segs))
	for i, x := range segs {
		use[i].segment = x
	}
	s.live(segs, func(i int, p piece) {
		use[i].live += p.Len
		use[i].pieces += p.Len/copyBuffer + 1
	})
	return use
}

// segments returns those that the vault reads from, as they are now.
func (v *Vault) segments() []*segment {
	v.mu.RLock()
	defer v.mu.RUnlock()
	return v.segs
}

// piece is a part of a file that lies in one segment.
type piece struct {
	ino Ino
	tree.Extent
}

// live yields what files have in segments, cut at the borders of those.
func (s *Session) live(segs []*segment, yield func(segment int, p piece)) {
	t := s.v.state.tree
	at := 0
	t.Inodes(func(a tree.Attr) bool {
		t.Extents(a.Ino, 0, a.Size, func(e tree.Extent) bool { // an error says that it is no file
			for e.Len > 0 {
				if at >= len(segs) || !segs[at].holds(e.Block) { // neighbours mostly lie in the same one
					var found bool
					if at, found = findSegment(segs, e.Block); !found {
						return true // not durable yet: nothing that is cleaned
					}
				}
				here := min(e.Len, PlainSize-uint64(e.At)+(segs[at].end()-e.Block-1)*PayloadSize)
				part := e
				part.Len = here
				yield(at, piece{a.Ino, part})
				e.Off, e.Len, e.Block, e.At = e.Off+here, e.Len-here, segs[at].end(), PayloadStart
			}
			return true
		})
		return true
	})
}

func (s *segment) holds(block uint64) bool { return s.header.first <= block && block < s.end() }

func (s *segment) size() uint64 { return headerSize + uint64(len(s.sums))*BlockSize }

// copyBuffer is how many bytes are copied at once, in guarded memory.
const copyBuffer = 8 * BlockSize

// relocate writes what is live in segments, named by number, anew, in the order in which it lies there: what was imported together stays together.
// What can't be read is left where it is: damage.
func (s *Session) relocate(victims map[uint64]bool) (damage, err error) {
	segs := s.v.segments()
	var pieces []piece
	s.live(segs, func(i int, p piece) {
		if victims[segs[i].header.number] {
			pieces = append(pieces, p)
		}
	})
	slices.SortFunc(pieces, func(a, b piece) int { return cmp.Or(cmp.Compare(a.Block, b.Block), cmp.Compare(a.At, b.At)) })
	buf, err := guarded.NewBuffer(copyBuffer + PlainSize)
	if err != nil {
		return nil, err
	}
	defer buf.Destroy()
	r := &blockReader{v: s.v, plain: buf.Bytes()[copyBuffer:]}
	for _, p := range pieces {
		for p.Len > 0 {
			b := buf.Bytes()[:min(p.Len, copyBuffer)]
			if err := r.read(b, &p); err != nil {
				damage = errors.Join(damage, err)
				break
			}
			if err := s.Write(p.ino, p.Off, uint64(len(b)), copyFrom(b)); err != nil {
				return damage, err
			}
			p.Off, p.Len = p.Off+uint64(len(b)), p.Len-uint64(len(b))
		}
	}
	return damage, nil
}

// copyFrom fills what it is given with the next bytes of b.
func copyFrom(b []byte) func([]byte) error {
	return func(dst []byte) error {
		b = b[copy(dst, b):]
		return nil
	}
}

// blockReader reads bytes that lie one after the other in the log, and keeps the last block.
type blockReader struct {
	v      *Vault
	plain  []byte
	loaded bool
	number uint64
}

// read fills b from the place of a piece, which moves on.
func (r *blockReader) read(b []byte, p *piece) error {
	for len(b) > 0 {
		if !r.loaded || r.number != p.Block {
			r.loaded = false
			if _, err := r.v.LoadBlock(p.Block, r.plain); err != nil {
				return err
			}
			r.loaded, r.number = true, p.Block
		}
		n := copy(b, r.plain[p.At:PlainSize])
		b = b[n:]
		if p.At += uint32(n); p.At == PlainSize {
			p.Block, p.At = p.Block+1, PayloadStart
		}
	}
	return nil
}

// letGo takes the segments in which nothing is live from the vault and from the session, and returns them when nobody reads from
// them any more. The next checkpoint does not name them.
func (s *Session) letGo() (gone []*segment) {
	dead := map[uint64]bool{}
	for _, u := range s.usage() {
		if u.live == 0 {
			gone = append(gone, u.segment)
			dead[u.segment.header.number] = true
		}
	}
	isDead := func(x *segment) bool { return dead[x.header.number] }
	w := s.w
	w.disk.Lock()
	w.made = slices.DeleteFunc(w.made, isDead)
	w.adopted = len(w.made)
	w.disk.Unlock()
	v := s.v
	v.loading.Lock() // waits for those who found a block in one of them
	defer v.loading.Unlock()
	v.mu.Lock()
	defer v.mu.Unlock()
	v.segs, v.cleaned = slices.DeleteFunc(slices.Clone(v.segs), isDead), true
	return gone
}

// removeDead unlinks what is older than the newest checkpoint, which is durable, and not named by it; what a crash has left of an
// earlier cleaning too. It need not be durable: a file that comes back is ignored, and goes with the next cleaning.
func (s *Session) removeDead() error {
	dir := path.Join(s.v.path, logDir)
	names, err := s.v.fsys.List(dir)
	if err != nil {
		return fmt.Errorf("read %s: %w", dir, bare(err))
	}
	segs := s.v.segments()
	for _, name := range names {
		n := parseSegmentName(name)
		if n == 0 || n >= s.checkpointed || slices.ContainsFunc(segs, func(x *segment) bool { return x.header.number == n }) {
			continue
		}
		if err := s.v.fsys.Remove(path.Join(dir, name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("remove %s: %w", segmentObject(s.v.path, n), bare(err))
		}
	}
	return nil
}
