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

	"encfsrun/fs/guarded"
	"encfsrun/fs/vault/disk"
	"encfsrun/fs/vault/record"
	"encfsrun/fs/vault/seal"
)

// keptBlocks is how many sealed blocks are kept in memory until they are known to be durable, 16 MiB: the bound on what is in
// the air. More force a sync.
const keptBlocks = 16 << 20 / BlockSize

// tail is where a log ends: what the next segment names as its predecessor.
type tail struct {
	number uint64
	id     seal.ID
	blocks uint64 // of the segment that count
	next   uint64 // number of the next block
	chain  Root
}

// appender is the side of a writer that seals blocks, appends them to the log and makes them durable. Sealed blocks are kept
// until they are: after a write or a sync that failed, Linux shows pages that the disk never got, so nothing is tried again on
// that file; what is not durable is sealed anew into another segment (rescue.go).
type appender struct {
	fsys       disk.FS
	vault      string
	keys       *seal.Keys
	session    seal.ID
	generation uint64
	keep       int // blocks that may be in the air: keptBlocks, and a few in tests
	ballast    ballast
	reopened   *guarded.Buffer // for a block that is sealed anew: a rescue is no time to ask for memory

	// Told under disk, so in the order of the log: of a commit that is written (again, with another chain value, after a
	// rescue), and of what became durable.
	committed func(m commitMark, chain Root)
	adopt     func()
	warn      func(error)
	stale     func(block uint64) // told without a lock of a block that was read before it was full

	disk    sync.Mutex // held over each batch and each sync
	tail    tail       // where the log ends
	good    tail       // where it ended when last it was synced
	torn    []uint64   // segment files that were never finished; they go when their number is needed
	made    []*segment
	adopted int   // of them, that the vault reads from and closes
	failed  error // what could not be mended
	marked  bool  // a commit is in the log, durable or not

	mem     sync.Mutex     // held for memory work alone
	arena   []byte         // where kept blocks lie, one after the other
	kept    []keptBlock    // from good to tail
	first   uint64         // number of the first of them
	sealing blocksInMemory // the batch under way
	filling blocksInMemory
	lent    bool // somebody has read the block being filled
}

// keptBlock is a sealed block that is not known to be durable.
type keptBlock struct {
	segment seal.ID
	sum     record.Sum
	commit  *commitMark // that stands in it
}

// keptAt returns n kept blocks from one on, as they stand on disk.
func (w *appender) keptAt(i, n int) []byte { return w.arena[i*BlockSize:][:n*BlockSize] }

// write seals a batch and appends it to the log.
func (w *appender) write(b *batch) error {
	w.disk.Lock()
	defer w.disk.Unlock()
	if w.failed != nil {
		return w.failed
	}
	err := w.put(b)
	if err != nil {
		err = w.rescue(b, err)
	}
	w.failed = err
	return err
}

// sync makes the log durable up to a block's number.
func (w *appender) sync(next uint64) error {
	w.disk.Lock()
	defer w.disk.Unlock()
	if w.good.next >= next {
		return nil
	}
	if w.failed != nil {
		return w.failed
	}
	err := w.settleDisk()
	if err != nil {
		err = w.rescue(nil, err)
	}
	w.failed = err
	return err
}

// put does for a batch what is still to be done: the segment, the seals, the write. disk is held, as for all below.
func (w *appender) put(b *batch) error {
	if b.opens {
		if err := w.settleDisk(); err != nil { // W1
			return err
		}
		if err := w.makeSegment(b.checkpoint); err != nil {
			return err
		}
		b.opens = false
	}
	if b.blocks == 0 {
		return nil
	}
	if len(w.kept)+b.blocks > w.keep {
		if err := w.settleDisk(); err != nil {
			return err
		}
	}
	from := len(w.kept)
	if err := w.seal(b); err != nil {
		return err
	}
	return w.writeKept(from)
}

// writeKept appends the kept blocks from one on to the newest segment.
func (w *appender) writeKept(from int) error {
	s, blocks := w.made[len(w.made)-1], w.kept[from:]
	w.ballast.claim(s.file, blockOffset(w.tail.blocks), blockOffset(w.tail.blocks+uint64(len(blocks))))
	if _, err := s.file.WriteAt(w.keptAt(from, len(blocks)), blockOffset(w.tail.blocks)); err != nil {
		return fmt.Errorf("write to %s: %w", segmentObject(w.vault, s.header.number), bare(err))
	}
	for _, k := range blocks {
		s.sums = append(s.sums, k.sum)
		w.tail.chain = chain(w.tail.chain, chainBlock, k.sum.Hash)
		w.tail.blocks++
		w.tail.next++
		if k.commit != nil {
			w.marked = true
			w.committed(*k.commit, w.tail.chain)
		}
	}
	return nil
}

// seal seals the blocks of a batch on all cores and keeps them. Then it wipes the plaintext.
func (w *appender) seal(b *batch) error {
	if w.arena == nil {
		w.arena = make([]byte, w.keep*BlockSize)
	}
	segment := w.tail.id
	from, fresh := len(w.kept), make([]keptBlock, b.blocks)
	if c := b.commit; c != nil { // a commit's block is the first of its batch
		copy(b.block(0)[c.at:], w.tail.chain[:])
		fresh[0].commit = c
	}
	err := onAllCores(b.blocks, func(i int) error {
		fresh[i].segment = segment
		sealed := w.keptAt(from+i, 1)
		defer func() { fresh[i].sum = sum(sealed) }()
		return w.sealBlock(sealed, b.block(i), b.first+uint64(i))
	})
	if err != nil {
		return err
	}
	w.mem.Lock()
	if from == 0 {
		w.first = b.first
	}
	w.kept = append(w.kept, fresh...)
	w.sealing = blocksInMemory{}
	w.mem.Unlock()
	b.sealed = true
	guarded.Wipe(b.plain.Bytes()[:b.blocks*PlainSize])
	return nil
}

// sealBlock seals a block for the newest segment. It is known by now what was durable when it was (W3).
func (w *appender) sealBlock(sealed, plain []byte, number uint64) error {
	p, err := parsePrefix(plain)
	if err != nil {
		return err
	}
	p.durable = w.good.next
	p.put(plain)
	return w.keys.SealBlock(sealed, plain, w.tail.id, number)
}

// onAllCores calls do for 0 to n-1, on as many cores as there are.
func onAllCores(n int, do func(i int) error) error {
	var next atomic.Int64
	errs := make([]error, min(runtime.GOMAXPROCS(0), n))
	var group sync.WaitGroup
	for core := range errs {
		group.Go(func() {
			for errs[core] == nil {
				i := int(next.Add(1)) - 1
				if i >= n {
					return
				}
				errs[core] = do(i)
			}
		})
	}
	group.Wait()
	return errors.Join(errs...)
}

// makeSegment is the rest of rule W1, after the predecessor was synced up to the end that the header will seal: make the file;
// write the header; sync it; sync the folder; only then blocks. So a header on disk proves that all it names is on disk.
func (w *appender) makeSegment(checkpoint bool) error {
	h := segmentHeader{
		number: w.tail.number + 1, id: seal.NewID(), session: w.session, generation: w.generation,
		first: w.tail.next, checkpoint: checkpoint,
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
	w.ballast.claim(file, 0, headerSize)
	_, err = file.WriteAt(sealed, 0)
	if err == nil {
		err = file.Sync()
	}
	if err == nil {
		err = w.fsys.SyncDir(path.Join(w.vault, logDir))
	}
	if err != nil {
		file.Close()
		w.torn = append(w.torn, h.number)
		return fmt.Errorf("make %s: %w", object, bare(err))
	}
	w.made = append(w.made, s)
	w.tail = tail{number: h.number, id: h.id, next: h.first, chain: chain(h.predChain, chainHeader, s.hash)}
	w.good = w.tail
	return nil
}

// settleDisk makes all that was written durable, and lets the vault read it from there. What is durable is not synced again.
func (w *appender) settleDisk() error {
	if len(w.kept) == 0 {
		return nil
	}
	s := w.made[len(w.made)-1]
	if err := s.file.Sync(); err != nil {
		return fmt.Errorf("sync %s: %w", segmentObject(w.vault, s.header.number), bare(err))
	}
	w.good = w.tail
	w.adopt() // before the blocks are forgotten here: a reader looks here first
	w.mem.Lock()
	defer w.mem.Unlock()
	clear(w.kept)
	w.kept = w.kept[:0]
	return nil
}

var errEnded = errors.New("the session of writing has ended")

// closeUnread closes the segments that the vault does not read from, and gives back what was set aside. Nothing is written after it: who
// still waits for a sync must not make a segment of a session that is over.
func (w *appender) closeUnread() {
	w.disk.Lock()
	defer w.disk.Unlock()
	if w.failed == nil {
		w.failed = errEnded
	}
	w.reopened.Destroy()
	if n := len(w.made); n > 0 && w.ballast.holds() > 0 {
		w.made[n-1].file.Trim()
	}
	w.ballast.remove()
	for _, s := range w.made[w.adopted:] {
		s.file.Close()
	}
	w.adopted = len(w.made)
}

// takeBack removes the segments that were made, the newest first. Each is gone from the disk before the next goes, so that a
// crash in between leaves a log without a gap.
func (w *appender) takeBack() error {
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

// load copies the plaintext of a block that is not durable yet to dst, and says whether it has it; all others are in the
// segments that the vault reads from. A block that is still being filled is zeros from where it is filled on, and stale when more
// is: then stale is told of it.
func (w *appender) load(number uint64, dst []byte) (bool, error) {
	w.mem.Lock()
	if i := number - w.first; number >= w.first && i < uint64(len(w.kept)) {
		sealed := sealedBlocks.Get().(*[BlockSize]byte)
		defer sealedBlocks.Put(sealed)
		copy(sealed[:], w.keptAt(int(i), 1))
		segment := w.kept[i].segment
		w.mem.Unlock()
		return true, w.keys.OpenBlock(dst, sealed[:], segment, number)
	}
	defer w.mem.Unlock()
	if w.sealing.copyTo(dst, number) {
		return true, nil
	}
	found := w.filling.copyTo(dst, number)
	w.lent = w.lent || found && number == w.filling.first+uint64(w.filling.full)
	return found, nil
}

// blocksInMemory are blocks that are not sealed yet: full ones, and one of which a part is filled.
type blocksInMemory struct {
	plain []byte
	first uint64
	full  int
	part  int // bytes of the block after them
}

// copyTo copies a block's plaintext to dst, zeros where nothing stands yet, and says whether it is here.
func (m *blocksInMemory) copyTo(dst []byte, number uint64) bool {
	i := number - m.first
	if number < m.first || i > uint64(m.full) {
		return false
	}
	n := PlainSize
	if i == uint64(m.full) {
		n = m.part
	}
	if n <= PayloadStart {
		return false
	}
	clear(dst[:PayloadStart]) // the prefix still changes
	copy(dst[PayloadStart:n], m.plain[i*PlainSize+PayloadStart:])
	clear(dst[n:PlainSize])
	return true
}
