package vault

import (
	"errors"
	"fmt"
	"path"
	"sync"
	"time"

	"encfsrun/fs/vault/record"
	"encfsrun/fs/vault/tree"
)

// Session is a session of writing. Each method changes the tree in memory and appends the change to the log; a commit makes all
// changes since the last one true at once: who needs several to come true together makes no commit between them. Readers of the
// vault see each change at once. But for Sync, it is used by one goroutine at a time. Once a method has failed for another reason
// than the tree's own rules, nothing more is written and only Abort is left.
type Session struct {
	v        *Vault
	w        *writer
	buf      []byte // an encoded record
	dirty    bool   // changes since the last commit
	began    int    // commits of this session
	sequence uint64 // of the last commit
	promised int64  // bytes of records that were reserved since
	since    uint64 // block number at which the log since the last checkpoint begins

	checkpointed uint64 // number of the segment that the session's last checkpoint begins
	now          func() time.Time

	pins   sync.Mutex
	pinned time.Time // when the session has pinned last, or began
}

// Begin starts the session of writing of a vault that was opened for it. The log is not touched before the first commit or the
// first full block.
func (v *Vault) Begin() (*Session, error) {
	if v.lock == nil {
		return nil, fmt.Errorf("%s was opened for reading only", v.path)
	}
	w, err := newWriter(v.fsys, v.path, v.keys, v.header.Generation, v.tail, v.torn)
	if err != nil {
		return nil, err
	}
	w.limit = v.segmentLimit()
	w.left, w.keep = w.limit, min(keptBlocks, int(w.limit)) // what is kept fits what is set aside for cleaning
	w.committed = func(m commitMark, chain Root) { v.noteCommit(w.session, m, chain) }
	w.adopt = func() { v.adopt(&w.appender) }
	w.warn = func(err error) {
		if v.options.Warn != nil {
			v.options.Warn(err)
		}
	}
	w.stale = v.options.Stale
	w.ballast.tidy()
	v.mu.Lock()
	defer v.mu.Unlock()
	v.writing = &w.appender
	return &Session{
		v: v, w: w, sequence: v.state.last.sequence, now: time.Now, pinned: time.Now(),
		since: v.tail.next - min(v.tail.next, v.state.since),
	}, nil
}

// segmentLimit is how many blocks a segment takes, fewer on a small disk: a segment that is partly live can only be cleaned into
// free space.
func (v *Vault) segmentLimit() uint64 {
	const least, parts = 32, 64
	space, err := v.fsys.Space(path.Join(v.path, logDir))
	if err != nil {
		return MaxSegmentBlocks
	}
	return min(MaxSegmentBlocks, max(least, space.Total/parts/BlockSize))
}

// change applies a record to the tree and, if the tree takes it, to the log.
func (s *Session) change(b []byte) error {
	s.buf = b
	if s.w.err != nil {
		return s.w.err
	}
	s.v.mu.Lock()
	err := apply(s.v.state.tree, record.Type(b[0]), b[record.HeaderSize:])
	s.v.mu.Unlock() // before the log, which may wait for the disk
	if err != nil {
		return err
	}
	s.dirty = true
	return s.w.record(b)
}

func (s *Session) lock() func() {
	s.v.mu.Lock()
	return s.v.mu.Unlock
}

// NewIno hands out an inode number that was never used.
func (s *Session) NewIno() Ino {
	defer s.lock()()
	n := s.v.state.nextIno
	s.v.state.nextIno++
	return n
}

// Put makes or changes an inode: all attributes but Nlink and Blocks, which links and extents give.
func (s *Session) Put(a tree.Attr) error {
	return s.change(record.AppendInode(s.buf[:0], a))
}

// SetTarget says what a symlink points to.
func (s *Session) SetTarget(ino Ino, target string) error {
	return s.change(record.AppendTarget(s.buf[:0], ino, target))
}

// Link gives an inode a name in dir.
func (s *Session) Link(dir Ino, name string, ino Ino) error {
	return s.change(record.AppendLink(s.buf[:0], dir, name, ino))
}

// Unlink takes a name out of dir. An inode without names is there until Free.
func (s *Session) Unlink(dir Ino, name string) error {
	return s.change(record.AppendUnlink(s.buf[:0], dir, name))
}

// Rename moves a name, and a directory with all below it, to a name that is not taken.
func (s *Session) Rename(dir Ino, name string, newDir Ino, newName string) error {
	return s.change(record.AppendRename(s.buf[:0], dir, name, newDir, newName))
}

// Free forgets an inode without names.
func (s *Session) Free(ino Ino) error {
	return s.change(record.AppendFree(s.buf[:0], ino))
}

// SetXattr sets an extended attribute.
func (s *Session) SetXattr(ino Ino, name string, value []byte) error {
	return s.change(record.AppendSetXattr(s.buf[:0], ino, name, value))
}

// RemoveXattr removes an extended attribute.
func (s *Session) RemoveXattr(ino Ino, name string) error {
	return s.change(record.AppendRemoveXattr(s.buf[:0], ino, name))
}

// Clear makes n bytes of a file at off a hole.
func (s *Session) Clear(ino Ino, off, n uint64) error {
	return s.change(record.AppendClear(s.buf[:0], ino, off, n))
}

// Write writes n bytes of a file at off, which lie below its size. fill is called with parts of the block being filled, in
// order, and puts the file's next bytes there: so contents go from their source straight into guarded memory. An error of
// fill ends the session like a failing disk, because the record is begun by then.
func (s *Session) Write(ino Ino, off uint64, n uint64, fill func([]byte) error) error {
	for n > 0 {
		chunk := min(n, record.MaxChunk)
		if err := s.writeChunk(ino, off, chunk, fill); err != nil {
			return err
		}
		off, n = off+chunk, n-chunk
	}
	return nil
}

func (s *Session) writeChunk(ino Ino, off, n uint64, fill func([]byte) error) error {
	w := s.w
	s.buf = record.AppendDataHeader(s.buf[:0], ino, off, int(n))
	if err := w.record(s.buf); err != nil {
		return err
	}
	s.dirty = true
	block, at := w.at()
	for left := int(n); left > 0; {
		if w.err != nil {
			return w.err
		}
		room := w.room()
		room = room[:min(left, len(room))]
		if err := fill(room); err != nil {
			w.err = errors.Join(w.err, err)
			return err
		}
		w.filled(len(room))
		left -= len(room)
	}
	if w.err != nil { // the bytes are nowhere: the tree must not name them
		return w.err
	}
	defer s.lock()()
	if err := s.v.state.tree.Map(ino, tree.Extent{Off: off, Len: n, Block: block, At: at}); err != nil {
		w.err = errors.Join(w.err, err) // the record is in the log already
		return err
	}
	return w.err
}

// Point names a commit, for Sync.
type Point struct{ next uint64 } // number of the block after it

// Commit makes all changes since the last commit true and durable. Without changes it does nothing.
func (s *Session) Commit() error {
	p, err := s.Prepare()
	if err != nil {
		return err
	}
	return s.Sync(p)
}

// Prepare commits all changes since the last commit and writes the commit to the log; Sync makes it durable. Without changes the
// point is that of the last commit.
func (s *Session) Prepare() (Point, error) {
	if !s.dirty && s.w.err == nil {
		s.promised = 0
		return s.point(), nil
	}
	return s.prepare(false)
}

func (s *Session) prepare(closing bool) (Point, error) {
	if err := s.w.commit(s.sequence+1, s.v.state.nextIno, s.now(), closing); err != nil {
		return Point{}, err
	}
	s.dirty, s.promised = false, 0
	s.began++
	s.sequence++
	return s.point(), nil
}

func (s *Session) point() Point { return Point{s.w.next} }

// Sync returns when a commit, and all before it, are durable. It may run beside all other methods, and beside itself: who waits
// for an earlier point is served by the sync of a later one. What fails is written anew elsewhere; if that fails too, the error is
// the disk's, and what was not durable is kept for readers and no more than that.
//
// What is durable is pinned, once a second at most: who puts the disk back to what it was while the session ran is noticed too.
func (s *Session) Sync(p Point) error {
	if err := s.w.sync(p.next); err != nil {
		return err
	}
	s.pins.Lock()
	defer s.pins.Unlock()
	if now := s.now(); now.Sub(s.pinned) >= pinInterval {
		s.v.savePin(false)
		s.pinned = now
	}
	return nil
}

// pinInterval is the least time between two pins of a session that goes on.
const pinInterval = time.Second

func (s *Session) commit(closing bool) error {
	p, err := s.prepare(closing)
	if err != nil {
		return err
	}
	return s.Sync(p)
}

// Close ends the session in order (W4): a checkpoint where one is due, one empty commit after all else is durable, and the pin.
// A session that committed nothing leaves the log as it was. Changes that were not committed are given up.
func (s *Session) Close() error {
	if s.dirty || s.began == 0 || s.w.err != nil {
		return s.Abort()
	}
	err := s.tell(s.checkpointIfDue())
	for round := 0; err == nil && round < 8 && s.tooLong(slackClosing); round++ {
		var freed uint64
		freed, err = s.clean(s.worst(slackClosing/2, copyAtOnce))
		if err = s.tell(err); freed == 0 {
			break
		}
	}
	if err != nil {
		return errors.Join(err, s.Abort())
	}
	if err := s.finish(); err != nil {
		return err
	}
	s.pins.Lock()
	defer s.pins.Unlock()
	s.v.savePin(false)
	return nil
}

// end takes the session's memory from readers.
func (s *Session) end() {
	s.v.mu.Lock()
	defer s.v.mu.Unlock()
	s.v.writing = nil
}

// finish writes the closing commit.
func (s *Session) finish() error {
	defer s.end()
	err := s.commit(true)
	s.w.release()
	return err
}

// Abort gives up what was not committed. Where the session has committed nothing, its segments are taken back; a commit whose
// sync failed stays, for readers may have seen it already, and pinned it where their own sync worked. The vault's tree is then
// not the log's any more: close the vault.
func (s *Session) Abort() error {
	defer s.end()
	s.w.wait()
	if s.w.marked {
		s.w.release()
		return nil
	}
	if err := s.w.abort(); err != nil {
		return fmt.Errorf("take back the unfinished segments of %s: %w", s.v.path, bare(err))
	}
	return nil
}
