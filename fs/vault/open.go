package vault

import (
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"sync"

	"encfsrun/fs/vault/disk"
	"encfsrun/fs/vault/record"
	"encfsrun/fs/vault/seal"
	"encfsrun/fs/vault/tree"
)

// Options say how a vault is opened.
type Options struct {
	Pins           *Pins       // where this machine remembers what it has seen; nil: nowhere
	AcceptRollback bool        // pin what is found, even where it is not what was pinned
	ExpectRoot     *Root       // refuse every other root, and verify every block's SHA-256 when it is read
	Warn           func(error) // told of a pin that can't be read or written, and of a disk's failure that was mended; may be nil
	// Stale, unless nil, is told of a block whose contents LoadBlock has given out and that has more of them now: a cache has to
	// forget it. It must not call the vault or its session.
	Stale func(block uint64)
}

// Open opens the vault for reading: as it was after the newest commit. It may stand beside a writer and other readers. The keys
// of u are used until Close, and stay u's to destroy.
func (u *Unlocked) Open(fsys disk.FS, o Options) (*Vault, error) {
	v := &Vault{path: u.Path, fsys: fsys, keys: u.Keys, header: u.Header, options: o}
	if err := v.load(false); err != nil {
		v.Close()
		return nil, err
	}
	return v, nil
}

// OpenWriter opens the vault for the one session of writing that there may be at a time; another one is a *BusyError.
func (u *Unlocked) OpenWriter(fsys disk.FS, o Options) (*Vault, error) {
	v := &Vault{path: u.Path, fsys: fsys, keys: u.Keys, header: u.Header, options: o}
	lock, err := takeLock(fsys, u.Path, writerByte)
	if err != nil {
		return nil, err
	}
	v.lock = lock
	if err := v.load(true); err != nil {
		v.Close()
		return nil, err
	}
	return v, nil
}

// load is the opening algorithm of docs/FORMAT.md, "Opening", step by step.
func (v *Vault) load(writer bool) error {
	w, err := newWorkspace()
	if err != nil {
		return err
	}
	defer w.destroy()
	return v.loadWith(w, writer)
}

// loadWith is load in memory that is there already. The pin is read before the log: what a writer pins while we read is newer
// than what we find. A reader has no lock: it looks again where what it found is not what the disk has, does not fit together, or
// is behind the pin, because others have gone on in between: once, and as long as they do, up to a limit.
func (v *Vault) loadWith(w *workspace, writer bool) error {
	var before []string
	for tries := 0; ; tries++ {
		names, _ := v.fsys.List(path.Join(v.path, logDir)) // what is wrong with it, opening will say
		pinned, pinErr := v.pinned()
		if pinErr != nil {
			v.warnOfPin(pinErr)
		}
		err := v.freshHeader(writer)
		if err == nil {
			err = v.loadLog(w, writer)
		}
		lost := false
		if err == nil {
			durable := writer
			if !writer {
				durable, lost = v.onDisk(pinned)
			}
			err = v.checkPin(pinned, durable && !lost)
		}
		var rollback *RollbackError
		moved := lost || isIntegrity(err) || errors.Is(err, fs.ErrNotExist) || errors.As(err, &rollback)
		if writer || !moved || tries > 0 && slices.Equal(names, before) || tries == maxTries {
			return err
		}
		before = names
		v.closeSegments()
	}
}

// maxTries is how often a reader looks again, at most.
const maxTries = 10

// loadLog is opening but for the header before it and the pin after it.
func (v *Vault) loadLog(w *workspace, writer bool) error {
	o := &opener{v: v, workspace: w, settle: writer, open: map[uint64]*segment{}}
	defer o.close()
	if err := o.findTip(); err != nil {
		return err
	}
	end, err := o.tipEnd()
	if err != nil {
		return err
	}
	st, err := o.replay(end)
	if err != nil {
		return err
	}
	if err := o.adopt(st); err != nil {
		return err
	}
	if newest := o.tip.header.generation; newest > v.header.Generation { // vault.json restored from an older copy
		if v.header.unread != nil {
			return v.header.unread
		}
		return &IntegrityError{fmt.Sprintf("%s of %s", headerName, v.path),
			fmt.Sprintf("is older (generation %d) than the log (generation %d)", v.header.Generation, newest)}
	}
	if want := v.options.ExpectRoot; want != nil && *want != st.last.chain {
		return &RootError{v.path, st.last.chain, *want}
	}
	v.torn = o.torn
	return nil
}

// opener is one run of the opening algorithm. The segments it opened are closed at its end, but for those that the vault took.
type opener struct {
	v *Vault
	*workspace
	settle bool     // W2, for a writer
	names  []uint64 // of segment files, rising
	torn   []uint64 // those of them that were never finished
	open   map[uint64]*segment
	tip    *segment
	segs   []*segment // from the one that replay began with to the tip
}

func (o *opener) close() {
	for _, s := range o.open {
		s.file.Close()
	}
}

func (o *opener) segment(number uint64) (*segment, error) {
	if s := o.open[number]; s != nil {
		return s, nil
	}
	s, err := openSegment(o.v.fsys, o.v.path, number, o.v.keys, o.settle && o.tip == nil)
	if err == nil {
		o.open[number] = s
	}
	return s, err
}

// findTip is step 1: the highest segment whose header authenticates. Files above it that are no longer than a header are
// creations that a crash cut short. A writer follows W2: it makes durable what it finds, and takes it from the disk itself, since
// after a failed sync the page cache shows what the disk never got.
func (o *opener) findTip() error {
	dir := path.Join(o.v.path, logDir)
	names, err := o.v.fsys.List(dir)
	if err == nil && o.settle {
		err = o.v.fsys.SyncDir(dir)
	}
	if errors.Is(err, fs.ErrNotExist) {
		return &IntegrityError{dir, "is missing"}
	}
	if err != nil {
		return fmt.Errorf("read %s: %w", dir, bare(err))
	}
	for _, name := range names {
		if n := parseSegmentName(name); n > 0 {
			o.names = append(o.names, n)
		}
	}
	slices.Sort(o.names)
	for _, n := range slices.Backward(o.names) {
		s, err := o.segment(n)
		switch {
		case errors.Is(err, errTorn):
			o.torn = append(o.torn, n)
			continue
		case err != nil:
			return fmt.Errorf("open %s: %w", segmentObject(o.v.path, n), bare(err))
		}
		o.tip = s
		return nil
	}
	return &IntegrityError{dir, "holds no segment"}
}

// tipEnd is step 4: how many blocks of the tip count. Where the file ends with a closing commit, all before it was durable
// when it was written, and replay treats every fault as damage. Else all blocks are authenticated: D is the greatest
// durable-through found, also beyond damage; a first failing block below D is damage, at or above D a torn tail.
func (o *opener) tipEnd() (uint64, error) {
	size, err := o.tip.file.Size()
	if err != nil {
		return 0, fmt.Errorf("read %s: %w", segmentObject(o.v.path, o.tip.header.number), bare(err))
	}
	n := uint64(size-headerSize) / BlockSize
	if n > MaxSegmentBlocks {
		return 0, &IntegrityError{segmentObject(o.v.path, o.tip.header.number), "is longer than a segment can be"}
	}
	t := &tailScan{o}
	if n > 0 && size == blockOffset(n) {
		ok, err := t.closing(n - 1)
		if ok || err != nil {
			return n, err
		}
	}
	return t.scan(n)
}

// tailScan looks at the tip's blocks one by one.
type tailScan struct{ *opener }

func (t *tailScan) load(index uint64) (prefix, error) {
	if err := readBlock(t.v.path, t.tip, index, t.sealed); err != nil {
		return prefix{}, err
	}
	return openBlock(t.v.path, t.v.keys, t.tip, index, t.sealed, t.plain.Bytes())
}

// closing says whether a block is a closing commit and nothing else.
func (t *tailScan) closing(index uint64) (bool, error) {
	p, err := t.load(index)
	if err != nil {
		if isIntegrity(err) {
			err = nil
		}
		return false, err
	}
	body := t.plain.Bytes()[PayloadStart:]
	h, err := record.ParseHeader(body, false)
	if err != nil || p.first != 0 || h.Type != record.Commit || h.Length != record.CommitSize {
		return false, nil
	}
	c, err := record.ParseCommit(body[record.HeaderSize:][:h.Length])
	return err == nil && c.Closing, nil
}

// scan returns how many of the tip's n blocks belong to commits.
func (t *tailScan) scan(n uint64) (uint64, error) {
	good, durable, damaged := n, uint64(0), error(nil)
	for i := range n {
		p, err := t.load(i)
		switch {
		case err == nil:
			durable = max(durable, p.durable)
		case !isIntegrity(err):
			return 0, err
		case damaged == nil:
			good, damaged = i, err
		}
	}
	// The first block that fails is the first damaged one, or the one that the file no longer holds whole.
	if first := t.tip.header.first + good; first < durable {
		if damaged == nil {
			damaged = &IntegrityError{segmentObject(t.v.path, t.tip.header.number), "is cut short"}
		}
		return 0, damaged
	}
	return t.lastCommit(good)
}

// lastCommit returns how many of the first n blocks of the tip, which authenticate, there are up to the end of the last commit.
// A commit lies in one block and a block names the first record in it, so that no block before it is needed.
func (t *tailScan) lastCommit(n uint64) (uint64, error) {
	for i := n; i > 0; i-- {
		p, err := t.load(i - 1)
		if err != nil {
			return 0, err
		}
		if p.first == noRecord {
			continue
		}
		found, err := t.endsWithCommit(t.plain.Bytes()[PayloadStart+int(p.first):])
		if found || err != nil {
			return i, err
		}
	}
	return 0, nil
}

// endsWithCommit says whether the records of a block, rest being the first and all after it, end with a commit. What
// authenticates and is no record is damage, and not the end of what counts: authenticated blocks are never cut off in silence.
func (t *tailScan) endsWithCommit(rest []byte) (bool, error) {
	for len(rest) >= record.HeaderSize && record.Type(rest[0]) != record.Pad {
		h, err := record.ParseHeader(rest, false)
		if err != nil {
			return false, &IntegrityError{segmentObject(t.v.path, t.tip.header.number), "holds a record that makes no sense: " + err.Error()}
		}
		if h.Type == record.Commit {
			return true, nil
		}
		rest = rest[min(len(rest), record.HeaderSize+h.Length):]
	}
	return false, nil
}

// replay is steps 2, 3 and 5: back to the newest complete checkpoint, or to the beginning, and forward from there.
func (o *opener) replay(end uint64) (*state, error) {
	o.segs = []*segment{o.tip}
	for {
		first := o.segs[0]
		if first.header.checkpoint || first.header.predecessor == 0 {
			st, err := replay(o.workspace, o.v.path, o.v.keys, o.segs, end)
			if !errors.Is(err, errIncomplete) {
				return st, err
			}
		}
		before, err := o.predecessor(first)
		if err != nil {
			return nil, err
		}
		o.segs = slices.Insert(o.segs, 0, before)
	}
}

// predecessor opens the segment that s names as the one before it; any other in its place is damage.
func (o *opener) predecessor(s *segment) (*segment, error) {
	number := s.header.predecessor
	object := segmentObject(o.v.path, number)
	before, err := o.segment(number)
	switch {
	case errors.Is(err, fs.ErrNotExist), number == 0:
		return nil, &IntegrityError{object, "is missing"}
	case errors.Is(err, errTorn):
		return nil, &IntegrityError{object, "is cut short"}
	case err != nil:
		return nil, fmt.Errorf("open %s: %w", object, bare(err))
	}
	h := &before.header
	if h.id != s.header.predID || h.first+s.header.predEnd != s.header.first {
		return nil, &IntegrityError{object, "is not the one that its successor was written after"}
	}
	return before, nil
}

// adopt gives the vault the state and the segments that it reads from. Of the segments before the checkpoint, those in its
// tables have to be there; their blocks are authenticated when they are read.
func (o *opener) adopt(st *state) error {
	v := o.v
	for _, t := range st.tables {
		s, err := o.tabled(t)
		if err != nil {
			return err
		}
		v.segs = append(v.segs, s)
		delete(o.open, t.Number)
	}
	for _, s := range o.segs {
		if n := len(v.segs); n > 0 && v.segs[n-1].header.number >= s.header.number {
			return &IntegrityError{segmentObject(v.path, s.header.number), "stands in a checkpoint made before it"}
		}
		if n := len(v.segs); n > 0 && v.segs[n-1].end() > s.header.first { // a table beyond its segment's sealed end
			return &IntegrityError{segmentObject(v.path, v.segs[n-1].header.number), "has more blocks in the checkpoint than its successor says"}
		}
		v.segs = append(v.segs, s)
		delete(o.open, s.header.number)
	}
	v.state = st
	v.durable = v.newest() // whether it is durable is asked before it is pinned
	// What replay read beyond the last commit is not part of the vault.
	v.tail = tail{number: o.tip.header.number, id: o.tip.header.id, chain: o.tailChain(st)}
	if o.segs[st.segment] == o.tip {
		v.tail.blocks = st.blocks
	}
	v.tail.next = o.tip.header.first + v.tail.blocks
	return v.checkExtents()
}

// tailChain is the chain value at the tail: after the last commit, or after the tip's header where no commit is in the tip.
func (o *opener) tailChain(st *state) Root {
	if o.segs[st.segment] == o.tip {
		return st.last.chain
	}
	return chain(o.tip.header.predChain, chainHeader, o.tip.hash)
}

func (o *opener) tabled(t record.SegmentRecord) (*segment, error) {
	object := segmentObject(o.v.path, t.Number)
	s, err := o.segment(t.Number)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, &IntegrityError{object, "is missing"}
	case errors.Is(err, errTorn):
		return nil, &IntegrityError{object, "is cut short"}
	case err != nil:
		return nil, fmt.Errorf("open %s: %w", object, bare(err))
	}
	if h := &s.header; h.id != t.ID || h.session != t.Session || h.first != t.First {
		return nil, &IntegrityError{object, "is not the one that the checkpoint names"}
	}
	size, err := s.file.Size()
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", object, bare(err))
	}
	if size < blockOffset(uint64(len(t.Sums))) {
		return nil, &IntegrityError{object, "is cut short"}
	}
	s.sums = t.Sums
	return s, nil
}

// checkExtents makes sure that no file reaches for bytes that the live segments do not hold, so that nothing later has to.
func (v *Vault) checkExtents() (err error) {
	v.state.tree.Inodes(func(a tree.Attr) bool {
		v.state.tree.Extents(a.Ino, 0, a.Size, func(e tree.Extent) bool {
			for block := e.Block; err == nil && block <= lastBlock(e); {
				s := v.segmentOf(block)
				if s == nil {
					err = &IntegrityError{"the log of " + v.path, fmt.Sprintf("names block %d, which it does not hold", block)}
					break
				}
				block = s.end()
			}
			return err == nil
		})
		return err == nil
	})
	return err
}

// segmentOf returns the live segment that holds a block, or nil.
func (v *Vault) segmentOf(block uint64) *segment {
	i, found := findSegment(v.segs, block)
	if !found {
		return nil
	}
	return v.segs[i]
}

func findSegment(segs []*segment, block uint64) (int, bool) {
	return slices.BinarySearchFunc(segs, block, func(s *segment, block uint64) int {
		switch {
		case s.end() <= block:
			return -1
		case s.header.first > block:
			return 1
		}
		return 0
	})
}

// Vault is an open vault. Its reading methods may be called from many goroutines at once.
type Vault struct {
	path    string
	fsys    disk.FS
	keys    *seal.Keys
	header  *Header
	options Options
	lock    disk.File // nil for a reader

	mu      sync.RWMutex // guards state.tree, state.last and what belongs to it, and all below
	state   *state
	segs    []*segment // live, by number; blocks rise with them
	durable Pin        // the last commit that is known to be durable
	tail    tail
	torn    []uint64
	writing *appender // of the session of writing, which holds what is not durable yet
	cleaned bool      // blocks that were told of may be gone

	loading sync.RWMutex // held shared while a block is read from a segment

	warned bool // the user knows that this machine can't remember the vault
}
