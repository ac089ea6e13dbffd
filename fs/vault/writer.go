package vault

import (
	"fmt"
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

// writer appends the record stream of one session to the log. It has two sides. This one fills blocks with records; it is used
// by one goroutine. The other (append.go) seals and writes them, a batch at a time, in a goroutine that runs behind, and makes
// them durable. The first error that can't be mended (rescue.go) sticks: nothing is written after it.
type writer struct {
	appender
	limit uint64 // blocks that a segment takes: MaxSegmentBlocks, and a few in tests of what happens between two

	batch *batch
	spare *batch
	pos   int    // bytes of stream in the block being filled
	next  uint64 // number of the block being filled
	left  uint64 // blocks that the segment still takes, the one being filled among them

	running chan error // holds the result of the batch under way
	err     error
}

// batch is a number of blocks on their way to the log.
type batch struct {
	plain  *guarded.Buffer
	blocks int    // filled
	first  uint64 // number of the first of them

	opens      bool // a segment is to be made before the blocks are written
	checkpoint bool // which begins with a checkpoint
	commit     *commitMark
	sealed     bool // the blocks are among those kept
}

// commitMark says where in the first block of a batch a commit stands whose chain value is still to be filled in: it is known
// only when all blocks before that one are sealed.
type commitMark struct {
	sequence uint64
	at       int // of the chain value, in the block's plaintext
	closing  bool
}

func newBatch() (*batch, error) {
	plain, err := guarded.NewBuffer(batchBlocks * PlainSize)
	if err != nil {
		return nil, fmt.Errorf("memory for blocks to be sealed: %w", err)
	}
	return &batch{plain: plain}, nil
}

func (b *batch) block(i int) []byte { return b.plain.Bytes()[i*PlainSize:][:PlainSize] }

// shown is what readers may have of a batch: the full blocks from one on, and some bytes of the block being filled.
func (b *batch) shown(from, part int) blocksInMemory {
	return blocksInMemory{b.plain.Bytes()[from*PlainSize:], b.first + uint64(from), b.blocks - from, part}
}

// newWriter starts a session of writing after t. The log is not touched before there is something to write.
func newWriter(fsys disk.FS, vault string, keys *seal.Keys, generation uint64, t tail, torn []uint64) (*writer, error) {
	w := &writer{limit: MaxSegmentBlocks, next: t.next}
	w.appender = appender{
		fsys: fsys, vault: vault, keys: keys, session: seal.NewID(), generation: generation,
		ballast: ballast{fsys: fsys, vault: vault},
		tail:    t, good: t, torn: torn, keep: keptBlocks, // W2: the tail that was found is synced before a session begins
	}
	var err error
	if w.batch, err = newBatch(); err == nil {
		w.spare, err = newBatch()
	}
	if err == nil {
		w.reopened, err = guarded.NewBuffer(PlainSize)
	}
	if err != nil {
		w.release()
		return nil, err
	}
	w.newSegment(false)
	return w, nil
}

// release wipes the writer's buffers and closes the segments that hold nothing the vault reads. The batch under way has to be over.
func (w *writer) release() {
	w.closeUnread()
	w.mem.Lock()
	defer w.mem.Unlock()
	w.filling, w.sealing = blocksInMemory{}, blocksInMemory{}
	for _, b := range []*batch{w.batch, w.spare} {
		if b != nil {
			b.plain.Destroy()
		}
	}
}

// newSegment lets the block being filled, which is empty, open a segment of its own.
func (w *writer) newSegment(checkpoint bool) {
	if w.err != nil {
		return
	}
	w.left = w.limit
	w.startBatch()
	w.batch.opens, w.batch.checkpoint = true, checkpoint
}

func (w *writer) startBatch() {
	b := w.batch
	b.blocks, b.first, b.opens, b.checkpoint, b.commit, b.sealed = 0, w.next, false, false, nil, false
	w.startBlock()
}

func (w *writer) startBlock() {
	w.pos = 0
	prefix{w.session, 0, noRecord}.put(w.current()) // durable-through is known only when the block is sealed
	w.show()
}

// show lets readers have what stands in the batch, up to the present place, and takes back what they have of the block being
// filled from before.
func (w *writer) show() {
	w.mem.Lock()
	w.filling = w.batch.shown(0, PayloadStart+w.pos)
	stale := w.lent && w.pos > 0
	w.lent = w.lent && !stale
	w.mem.Unlock()
	if stale && w.stale != nil {
		w.stale(w.next)
	}
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
	w.pos += n
	w.show()
	if w.pos == PayloadSize {
		w.endBlock()
	}
}

// at returns where the next byte of the stream will lie.
func (w *writer) at() (block uint64, offset uint32) { return w.next, uint32(PayloadStart + w.pos) }

// append puts bytes of one record into the stream, unless it has failed: then what stands in memory is all that readers have of it.
func (w *writer) append(b []byte) {
	for len(b) > 0 && w.err == nil {
		n := copy(w.room(), b)
		b = b[n:]
		w.filled(n)
	}
}

func (w *writer) record(b []byte) error {
	if w.err != nil {
		return w.err
	}
	w.startRecord()
	w.append(b)
	return w.err
}

// endBlock closes the block that was filled to its end.
func (w *writer) endBlock() {
	w.batch.blocks++
	w.next++
	w.left--
	full := w.batch
	if w.left == 0 || full.blocks == batchBlocks {
		w.flush()
	}
	switch {
	case w.err != nil && w.batch == full: // it stays where readers find it
	case w.left == 0:
		w.newSegment(false)
	case w.batch != full:
		w.startBatch()
	default:
		w.startBlock()
	}
}

// pad ends the present block, if anything stands in it.
func (w *writer) pad() {
	if w.pos == 0 || w.err != nil {
		return
	}
	w.startRecord()
	rest := w.room()
	clear(rest)
	rest[0] = byte(record.Pad)
	w.filled(len(rest))
}

// flush hands the filled blocks over to be sealed and written, after those before them. The spare becomes the batch. After a failure
// neither is touched any more: one may hold what was never sealed, the other what comes after it, and readers have nothing else.
func (w *writer) flush() {
	w.wait()
	b := w.batch
	if w.err != nil || b.blocks == 0 && !b.opens {
		return
	}
	w.batch, w.spare = w.spare, b
	w.mem.Lock()
	w.sealing, w.filling = b.shown(0, 0), b.shown(b.blocks, w.filling.part)
	w.mem.Unlock()
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

// commit writes a commit record, and returns when it is in the segment's file, durable or not. The record lies within one
// block, with the chain value before that block in it: so the block vouches for every one before it, and blocks of two branches
// can't be mixed.
func (w *writer) commit(sequence uint64, nextIno tree.Ino, now time.Time, closing bool) error {
	if w.wait(); w.err != nil {
		return w.err
	}
	if w.pos > 0 && len(w.room()) < record.HeaderSize+record.CommitSize {
		w.pad()
	}
	w.settle(true)
	if w.err != nil {
		return w.err
	}
	w.batch.commit = &commitMark{sequence, PayloadStart + w.pos + record.HeaderSize + record.CommitChain, closing}
	c := record.CommitRecord{Sequence: sequence, Time: timeOf(now), NextIno: nextIno, Closing: closing}
	w.record(c.Append(nil))
	w.pad()
	w.settle(false)
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
	if w.batch == b { // it failed before
		return
	}
	copy(w.batch.block(0), b.block(b.blocks)) // the part-filled block moves to the head of the next batch
	next := w.batch
	next.blocks, next.first, next.opens, next.checkpoint, next.commit, next.sealed = 0, w.next, false, false, nil, false
	w.pos = pos
	w.show()
	guarded.Wipe(b.block(b.blocks))
}

// broken says whether it has failed for good.
func (w *writer) broken() bool {
	w.disk.Lock()
	defer w.disk.Unlock()
	return w.err != nil || w.failed != nil
}

// abort takes back the segments of a session that committed nothing.
func (w *writer) abort() error {
	w.wait()
	w.release()
	return w.takeBack()
}

func timeOf(t time.Time) tree.Time { return tree.Time{Sec: t.Unix(), Nsec: uint32(t.Nanosecond())} }
