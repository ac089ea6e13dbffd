package vault

import (
	"errors"
	"fmt"
	"io/fs"
	"path"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"encfsrun/fs/guarded"
	"encfsrun/fs/vault/disk"
	"encfsrun/fs/vault/record"
	"encfsrun/fs/vault/seal"
	"encfsrun/fs/vault/tree"
)

// batchBlocks is how many blocks are sealed and written at once. Two batches are in guarded memory at a time: one is filled
// while the other is sealed on all cores and written; 2 × 16 × 32 KiB fits the smallest common RLIMIT_MEMLOCK (8 MiB).
const batchBlocks = 16

// tail is where a log ends: what the next segment names as its predecessor.
type tail struct {
	number uint64
	id     seal.ID
	blocks uint64 // of the segment that count
	next   uint64 // number of the next block
	chain  Root
}

// writer appends the record stream of one session to the log. Its methods are called by one goroutine; sealing and writing
// run behind it. The first error sticks: nothing is written after it.
type writer struct {
	fsys       disk.FS
	vault      string
	keys       *seal.Keys
	session    seal.ID
	generation uint64
	limit      uint64 // blocks that a segment takes: MaxSegmentBlocks, and a few in tests of what happens between two

	// The filling side.
	batch      *batch
	spare      *batch
	pos        int    // bytes of stream in the block being filled
	next       uint64 // number of the block being filled
	left       uint64 // blocks that the segment still takes, the one being filled among them
	segment    seal.ID
	checkpoint bool // the segment to come begins with a checkpoint

	// The writing side: touched by the batch under way, and by the filling side only after wait.
	tail    tail
	torn    []uint64 // segment files that were never finished; they go when their number is needed
	made    []*segment
	adopted int           // of them, that the vault reads from and closes
	durable atomic.Uint64 // blocks below this number are synced (W3)

	running   chan error // holds the result of the batch under way
	err       error
	committed bool // a commit is in the log, durable or not
}

type batch struct {
	plain  *guarded.Buffer
	sealed []byte
	sums   []record.Sum
	blocks int    // filled
	first  uint64 // number of the first of them

	segment    seal.ID
	opens      bool // the segment is to be made before the blocks are written
	checkpoint bool
}

func newBatch() (*batch, error) {
	plain, err := guarded.NewBuffer(batchBlocks * PlainSize)
	if err != nil {
		return nil, fmt.Errorf("memory for blocks to be sealed: %w", err)
	}
	return &batch{plain: plain, sealed: make([]byte, batchBlocks*BlockSize), sums: make([]record.Sum, batchBlocks)}, nil
}

func (b *batch) block(i int) []byte { return b.plain.Bytes()[i*PlainSize:][:PlainSize] }

// newWriter starts a session of writing after t. The log is not touched before there is something to write.
func newWriter(fsys disk.FS, vault string, keys *seal.Keys, generation uint64, t tail, torn []uint64) (*writer, error) {
	w := &writer{fsys: fsys, vault: vault, keys: keys, session: seal.NewID(), generation: generation, limit: MaxSegmentBlocks, tail: t, torn: torn, next: t.next}
	w.durable.Store(t.next) // W2: the tail that was found is synced before a session begins
	var err error
	if w.batch, err = newBatch(); err == nil {
		w.spare, err = newBatch()
	}
	if err != nil {
		w.release()
		return nil, err
	}
	w.newSegment(false)
	return w, nil
}

// release wipes the writer's buffers and closes the segments that hold no commit. The batch under way has to be over.
func (w *writer) release() {
	for _, s := range w.made[w.adopted:] {
		s.file.Close()
	}
	w.adopted = len(w.made)
	for _, b := range []*batch{w.batch, w.spare} {
		if b != nil {
			b.plain.Destroy()
		}
	}
}

// newSegment lets the block being filled, which is empty, open a segment of its own.
func (w *writer) newSegment(checkpoint bool) {
	w.segment, w.left, w.checkpoint = seal.NewID(), w.limit, checkpoint
	w.startBatch()
	w.batch.opens, w.batch.checkpoint = true, checkpoint
}

func (w *writer) startBatch() {
	b := w.batch
	b.blocks, b.first, b.segment, b.opens, b.checkpoint = 0, w.next, w.segment, false, false
	w.startBlock()
}

func (w *writer) startBlock() {
	w.pos = 0
	prefix{w.session, 0, noRecord}.put(w.current()) // durable-through is known only when the block is sealed
}

func (w *writer) current() []byte { return w.batch.block(w.batch.blocks) }

// startRecord notes that a record begins at the present place, for the block's prefix.
func (w *writer) startRecord() {
	if p, _ := parsePrefix(w.current()); p.first == noRecord {
		p.first = uint32(w.pos)
		p.put(w.current())
	}
}

// room returns the bytes that the present block still takes, at least one; filled says how many were used.
func (w *writer) room() []byte { return w.current()[PayloadStart+w.pos:] }

func (w *writer) filled(n int) {
	if w.pos += n; w.pos == PayloadSize {
		w.endBlock()
	}
}

// at returns where the next byte of the stream will lie.
func (w *writer) at() (block uint64, offset uint32) { return w.next, uint32(PayloadStart + w.pos) }

// append puts bytes of one record into the stream.
func (w *writer) append(b []byte) {
	for len(b) > 0 {
		n := copy(w.room(), b)
		b = b[n:]
		w.filled(n)
	}
}

func (w *writer) record(b []byte) error {
	w.startRecord()
	w.append(b)
	return w.err
}

// endBlock closes the block that was filled to its end.
func (w *writer) endBlock() {
	w.batch.blocks++
	w.next++
	w.left--
	switch {
	case w.left == 0:
		w.flush()
		w.newSegment(false)
	case w.batch.blocks == batchBlocks:
		w.flush()
		w.startBatch()
	default:
		w.startBlock()
	}
}

// pad ends the present block, if anything stands in it.
func (w *writer) pad() {
	if w.pos == 0 {
		return
	}
	w.startRecord()
	rest := w.room()
	clear(rest)
	rest[0] = byte(record.Pad)
	w.filled(len(rest))
}

// flush hands the filled blocks over to be sealed and written, after those before them. The spare becomes the batch.
func (w *writer) flush() {
	w.wait()
	b := w.batch
	w.batch, w.spare = w.spare, b
	if w.err != nil || b.blocks == 0 && !b.opens {
		return
	}
	running := make(chan error, 1)
	w.running = running
	go func() { running <- w.write(b) }()
}

// wait returns when the batch under way is written.
func (w *writer) wait() {
	if w.running != nil {
		if err := <-w.running; w.err == nil {
			w.err = err
		}
		w.running = nil
	}
}

func (w *writer) write(b *batch) error {
	if b.opens {
		if err := w.makeSegment(b); err != nil {
			return err
		}
	}
	if b.blocks == 0 {
		return nil
	}
	if err := w.seal(b); err != nil {
		return err
	}
	s := w.made[len(w.made)-1]
	if _, err := s.file.WriteAt(b.sealed[:b.blocks*BlockSize], blockOffset(w.tail.blocks)); err != nil {
		return fmt.Errorf("write to %s: %w", segmentObject(w.vault, s.header.number), bare(err))
	}
	s.sums = append(s.sums, b.sums[:b.blocks]...)
	for i := range b.blocks {
		w.tail.chain = chain(w.tail.chain, chainBlock, b.sums[i].Hash)
	}
	w.tail.blocks += uint64(b.blocks)
	w.tail.next += uint64(b.blocks)
	return nil
}

// seal seals the blocks of a batch on all cores.
func (w *writer) seal(b *batch) error {
	durable := w.durable.Load()
	var next atomic.Int64
	errs := make([]error, min(runtime.GOMAXPROCS(0), b.blocks))
	var group sync.WaitGroup
	for i := range errs {
		group.Go(func() {
			for {
				n := int(next.Add(1)) - 1
				if n >= b.blocks || errs[i] != nil {
					return
				}
				plain, sealed := b.block(n), b.sealed[n*BlockSize:][:BlockSize]
				p, err := parsePrefix(plain)
				if err == nil {
					p.durable = durable
					p.put(plain)
					err = w.keys.SealBlock(sealed, plain, b.segment, b.first+uint64(n))
				}
				guarded.Wipe(plain)
				b.sums[n], errs[i] = sum(sealed), err
			}
		})
	}
	group.Wait()
	return errors.Join(errs...)
}

// makeSegment is rule W1: sync the predecessor up to the end that the header will seal; make the file; write the header; sync
// it; sync the folder; only then blocks. So a header on disk proves that all it names is on disk.
func (w *writer) makeSegment(b *batch) error {
	if err := w.sync(); err != nil {
		return err
	}
	h := segmentHeader{
		number: w.tail.number + 1, id: b.segment, session: w.session, generation: w.generation,
		first: w.tail.next, checkpoint: b.checkpoint,
		predecessor: w.tail.number, predID: w.tail.id, predEnd: w.tail.blocks, predChain: w.tail.chain,
	}
	object := segmentObject(w.vault, h.number)
	name := segmentPath(w.vault, h.number)
	if slices.Contains(w.torn, h.number) {
		if err := w.fsys.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("remove the unfinished %s: %w", object, bare(err))
		}
	}
	sealed := make([]byte, headerSize)
	if err := w.keys.SealHeader(sealed, h.encode()); err != nil {
		return err
	}
	file, err := w.fsys.Create(name, 0o600)
	if err != nil {
		return fmt.Errorf("make %s: %w", object, bare(err))
	}
	s := &segment{header: h, file: file, hash: hashOf(sealed)}
	w.made = append(w.made, s)
	_, err = file.WriteAt(sealed, 0)
	if err == nil {
		err = file.Sync()
	}
	if err == nil {
		err = w.fsys.SyncDir(path.Join(w.vault, logDir))
	}
	if err != nil {
		return fmt.Errorf("make %s: %w", object, bare(err))
	}
	w.tail = tail{number: h.number, id: h.id, next: h.first, chain: chain(h.predChain, chainHeader, s.hash)}
	return nil
}

// sync makes all that was written durable.
func (w *writer) sync() error {
	if len(w.made) == 0 {
		return nil
	}
	s := w.made[len(w.made)-1]
	if err := s.file.Sync(); err != nil {
		return fmt.Errorf("sync %s: %w", segmentObject(w.vault, s.header.number), bare(err))
	}
	w.durable.Store(w.tail.next)
	return nil
}

// commit writes a commit record and makes it durable. The record lies within one block, with the chain value before that
// block in it: so the block vouches for every one before it, and blocks of two branches can't be mixed.
func (w *writer) commit(sequence uint64, nextIno tree.Ino, now time.Time, closing bool) error {
	if w.pos > 0 && len(w.room()) < record.HeaderSize+record.CommitSize {
		w.pad()
	}
	w.settle(true)
	if w.err != nil {
		return w.err
	}
	c := record.CommitRecord{Sequence: sequence, Chain: w.tail.chain, Time: timeOf(now), NextIno: nextIno, Closing: closing}
	w.record(c.Append(nil))
	w.pad()
	w.settle(false)
	if w.err == nil {
		w.committed = true // it is the last block written: what failed above did not write all of it
		w.err = w.sync()
	}
	return w.err
}

// settle writes every full block; the one being filled stays as it is. With make, the segment of that one is made too, even
// if no block of it is full.
func (w *writer) settle(make bool) {
	b := w.batch
	if b.blocks == 0 && !(b.opens && make) {
		w.wait()
		return
	}
	pos := w.pos
	w.flush()
	w.wait()
	copy(w.batch.block(0), b.block(b.blocks)) // the part-filled block moves to the head of the next batch
	guarded.Wipe(b.block(b.blocks))
	w.batch.blocks, w.batch.first, w.batch.segment, w.batch.opens, w.batch.checkpoint = 0, w.next, w.segment, false, false
	w.pos = pos
}

// abort takes back the segments of a session that committed nothing, the newest first. Each is gone from the disk before the
// next goes, so that a crash in between leaves a log without a gap.
func (w *writer) abort() error {
	w.wait()
	w.release()
	var failed error
	for _, s := range slices.Backward(w.made) {
		if failed == nil {
			if failed = w.fsys.Remove(segmentPath(w.vault, s.header.number)); errors.Is(failed, fs.ErrNotExist) {
				failed = nil
			}
		}
		if failed == nil {
			failed = w.fsys.SyncDir(path.Join(w.vault, logDir))
		}
	}
	return failed
}

func timeOf(t time.Time) tree.Time { return tree.Time{Sec: t.Unix(), Nsec: uint32(t.Nanosecond())} }
