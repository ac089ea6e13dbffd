package vault

import (
	"errors"
	"fmt"
	"io"

	"encfsrun/fs/guarded"
	"encfsrun/fs/vault/record"
	"encfsrun/fs/vault/seal"
)

// stream reads the record stream of consecutive segments from the beginning of the first to a given end of the last, and
// authenticates, sums up and chains every block on the way. Plaintext is in guarded memory only.
type stream struct {
	vault string
	keys  *seal.Keys
	segs  []*segment
	end   uint64 // blocks that count in the last segment; the others count to the end that their successor seals

	i      int    // the segment being read
	index  uint64 // of its next block
	inside bool   // its header is in the chain
	chain  Root   // after all that was read
	before Root   // before the present block

	*workspace     // plain is the present block
	pos        int // in the present block's stream; PayloadSize when it is used up
	first      uint32
	started    bool // a record has started in the present block
	commit     bool // the last record was a commit: only padding may follow in its block
}

// errVoid says that another session begins: what the one before left uncommitted, a record cut short among it, is void.
var errVoid = errors.New("another session begins")

// newStream starts at segs[0], whose predecessor ended with the chain value that its header names.
func newStream(w *workspace, vault string, keys *seal.Keys, segs []*segment, end uint64) *stream {
	for _, s := range segs {
		s.sums = nil
	}
	return &stream{
		vault: vault, keys: keys, segs: segs, end: end, chain: segs[0].header.predChain,
		workspace: w, pos: PayloadSize, first: noRecord,
	}
}

// workspace is the memory that opening a log takes for blocks and records: one for all attempts at it, because guarded memory
// is dear to make.
type workspace struct {
	plain   *guarded.Buffer // a block
	scratch *guarded.Buffer // a payload that lies in more than one block
	sealed  []byte          // a block as it stands on disk
}

func newWorkspace() (*workspace, error) {
	plain, err := guarded.NewBuffer(PlainSize)
	if err != nil {
		return nil, err
	}
	scratch, err := guarded.NewBuffer(record.MaxPayload)
	if err != nil {
		plain.Destroy()
		return nil, err
	}
	return &workspace{plain, scratch, make([]byte, BlockSize)}, nil
}

func (w *workspace) destroy() {
	w.plain.Destroy()
	w.scratch.Destroy()
}

// entry is one record of the log.
type entry struct {
	record.Header
	payload []byte // of a Data record only the prefix
	block   uint64 // where the payload, or a Data record's bytes, begin
	at      uint32
}

func (s *stream) malformed(detail string) error {
	return &IntegrityError{segmentObject(s.vault, s.segs[s.i].header.number), "holds a record that makes no sense: " + detail}
}

// blocks returns how many blocks of the segment at hand count.
func (s *stream) blocks() uint64 {
	if s.i+1 < len(s.segs) {
		return s.segs[s.i+1].header.predEnd
	}
	return s.end
}

// enter takes the header of the segment at hand into the chain, which has to stand where the header says.
func (s *stream) enter() error {
	h := &s.segs[s.i].header
	if s.chain != h.predChain {
		return &IntegrityError{segmentObject(s.vault, h.number), "does not follow from the segment before it"}
	}
	s.chain = chain(s.chain, chainHeader, s.segs[s.i].hash)
	s.inside = true
	return nil
}

// load makes the next block the present one. At the end of the log it returns io.EOF, and errVoid once before the first block
// of another session.
func (s *stream) load() error {
	if !s.started && s.first != noRecord {
		return s.malformed("a block names a record that does not start in it")
	}
	if !s.inside {
		if err := s.enter(); err != nil {
			return err
		}
	}
	for s.index == s.blocks() {
		if s.i+1 == len(s.segs) {
			return io.EOF
		}
		other := s.segs[s.i+1].header.session != s.segs[s.i].header.session
		s.i, s.index, s.inside = s.i+1, 0, false
		if err := s.enter(); err != nil {
			return err
		}
		if other {
			s.pos, s.first, s.started, s.commit = PayloadSize, noRecord, false, false
			return errVoid
		}
	}
	seg := s.segs[s.i]
	if err := readBlock(s.vault, seg, s.index, s.sealed); err != nil {
		return err
	}
	p, err := openBlock(s.vault, s.keys, seg, s.index, s.sealed, s.plain.Bytes())
	if err != nil {
		return err
	}
	b := sum(s.sealed)
	seg.sums = append(seg.sums, b)
	s.before = s.chain
	s.chain = chain(s.chain, chainBlock, b.Hash)
	s.index++
	s.pos, s.first, s.started, s.commit = 0, p.first, false, false
	return nil
}

// readBlock reads a sealed block; where the file ends before it, the error is an *IntegrityError.
func readBlock(vault string, seg *segment, index uint64, sealed []byte) error {
	n, err := seg.file.ReadAt(sealed, blockOffset(index))
	if n == len(sealed) {
		return nil
	}
	if err == nil || errors.Is(err, io.EOF) {
		return &IntegrityError{segmentObject(vault, seg.header.number), fmt.Sprintf("is cut short at block %d", index)}
	}
	return fmt.Errorf("read %s: %w", segmentObject(vault, seg.header.number), bare(err))
}

// openBlock opens a sealed block into plain, PlainSize bytes.
func openBlock(vault string, keys *seal.Keys, seg *segment, index uint64, sealed, plain []byte) (p prefix, err error) {
	altered := func() error {
		return &IntegrityError{segmentObject(vault, seg.header.number), fmt.Sprintf("was altered: block %d does not authenticate", index)}
	}
	if err := keys.OpenBlock(plain, sealed, seg.header.id, seg.header.first+index); err != nil {
		return p, altered()
	}
	if p, err = parsePrefix(plain); err != nil || p.session != seg.header.session || p.durable > seg.header.first+index {
		return p, altered()
	}
	return p, nil
}

// take fills b from the stream, over block borders.
func (s *stream) take(b []byte) error {
	for len(b) > 0 {
		if s.pos == PayloadSize {
			if err := s.load(); err != nil {
				return err
			}
		}
		n := copy(b, s.plain.Bytes()[PayloadStart+s.pos:])
		b = b[n:]
		s.pos += n
	}
	return nil
}

// start makes sure that a record may start here: the block's prefix names the first one.
func (s *stream) start() error {
	if !s.started {
		if s.first != uint32(s.pos) {
			return s.malformed("a record starts where its block does not say so")
		}
		s.started = true
	}
	return nil
}

// next returns the next record. The payload is valid until the next call. io.EOF: the log is over (a record cut short there is
// void); errVoid: a session is over in the same way; all else is damage or a failing disk.
func (s *stream) next() (e entry, err error) {
	for {
		if s.pos == PayloadSize {
			if err := s.load(); err != nil {
				return e, err
			}
		}
		if err := s.start(); err != nil {
			return e, err
		}
		rest := s.plain.Bytes()[PayloadStart+s.pos:]
		if record.Type(rest[0]) != record.Pad {
			break
		}
		for _, c := range rest[1:] {
			if c != 0 {
				return e, s.malformed("padding that is not zero")
			}
		}
		s.pos, s.commit = PayloadSize, false
	}
	if s.commit {
		return e, s.malformed("a commit that does not end its block")
	}
	return s.entry()
}

func (s *stream) entry() (e entry, err error) {
	block := s.index
	var b [record.HeaderSize]byte
	if err := s.take(b[:]); err != nil {
		return e, err
	}
	if e.Header, err = record.ParseHeader(b[:], false); err != nil {
		return e, s.malformed(err.Error())
	}
	n := e.Length
	if e.Type == record.Data {
		if n = record.DataPrefix; e.Length <= n {
			return e, s.malformed("data without bytes")
		}
	}
	e.payload = s.scratch.Bytes()[:n]
	if err := s.take(e.payload); err != nil {
		return e, err
	}
	switch e.Type {
	case record.Data:
		return e, s.skip(&e)
	case record.Commit:
		if block != s.index || s.pos == 0 {
			return e, s.malformed("a commit in two blocks")
		}
		s.commit = s.pos < PayloadSize
	}
	return e, nil
}

// skip notes where a Data record's bytes begin and goes past them; the blocks are authenticated all the same.
func (s *stream) skip(e *entry) error {
	if s.pos == PayloadSize {
		if err := s.load(); err != nil {
			return err
		}
	}
	e.block, e.at = s.segs[s.i].header.first+s.index-1, uint32(PayloadStart+s.pos)
	for n := e.Length - record.DataPrefix; ; {
		step := min(n, PayloadSize-s.pos)
		s.pos += step
		if n -= step; n == 0 {
			return nil
		}
		if err := s.load(); err != nil {
			return err
		}
	}
}
