package vault

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"path"
	"slices"

	"encfsrun/fs/vault/record"
)

// How long a log may be, in bytes beside its live data: the bound in docs/FORMAT.md is 3 × live data + 4 segments + 2
// checkpoints, and a session begins to clean before that.
const (
	slackWriting = 2 * maxSegmentSize // while a session goes on
	slackClosing = maxSegmentSize     // when it ends
	// fewSegments is how many segments there may be beside those that the log's length fills: each takes a descriptor while the
	// vault is open, and a session that writes little leaves a small one.
	fewSegments = 64
	// copyAtOnce bounds in bytes what one round of cleaning copies, and so for how long others wait for it.
	copyAtOnce = 64 << 20
)

// Maintain keeps the log within its bounds while the session goes on: it cleans where the log is too long, and writes a
// checkpoint where one is due. It commits, so it is called when all that was changed may become true. Damage that it finds in the
// log is told, and left where it is.
func (s *Session) Maintain() error {
	if !s.tooLong(slackWriting) {
		return s.tell(s.checkpointIfDue())
	}
	_, err := s.clean(s.worst(slackWriting/2, copyAtOnce))
	return s.tell(err)
}

// Reclaim cleans where that frees space on a full disk, and says whether it did. Like Maintain, it commits.
func (s *Session) Reclaim() (bool, error) {
	if s.garbage() < 2*s.checkpointSize() {
		return false, nil
	}
	if err := s.Commit(); err != nil {
		return false, err
	}
	victims, err := s.within(s.worst(0, copyAtOnce)(s.usage()))
	if err != nil {
		return false, s.tell(err)
	}
	gain := -s.checkpointSize() // cleaning writes one, and the one before is among what is dead
	for _, u := range victims {
		gain += int64(u.segment.size()) - u.cost()
	}
	if gain <= 0 {
		return false, nil
	}
	freed, err := s.clean(func([]usage) []usage { return victims })
	return freed > 0, s.tell(err)
}

// tell passes on why not all could be cleaned (damage, a bad sector, a file that can't be removed, a full disk, no memory to lock) as
// long as the session can go on: what was committed is, and the next cleaning tries again.
func (s *Session) tell(err error) error {
	if err == nil || s.w.broken() {
		return err
	}
	if !errors.Is(err, ErrNoSpace) { // that is told to whoever asks for space
		s.w.warn(err)
	}
	return nil
}

// copyRoom sets space aside for two commits, a checkpoint and as much copying as there is room for, up to a limit, and returns that
// much, in bytes. Asking the file system counts quotas too, which its free space does not show. ErrNoSpace where there is not even
// room for the checkpoint, without which nothing is freed.
func (s *Session) copyRoom(limit int64) (int64, error) {
	need := s.checkpointSize() + deleteRoom
	space, err := s.v.fsys.Space(path.Join(s.v.path, logDir))
	if err != nil {
		return 0, fmt.Errorf("look for space: %w", bare(err))
	}
	for n := min(limit, max(0, int64(space.Free)+s.w.ballast.holds()-need)); ; n /= 2 {
		if n < BlockSize {
			n = 0
		}
		err := s.w.ballast.hold(need + n)
		if n == 0 || !errors.Is(err, ErrNoSpace) {
			return n, err
		}
	}
}

// within leaves out of what was chosen to be cleaned, in that order, what there is no room to copy.
func (s *Session) within(victims []usage) ([]usage, error) {
	var all int64
	for _, u := range victims {
		all += u.cost()
	}
	room, err := s.copyRoom(all)
	return slices.DeleteFunc(victims, func(u usage) bool {
		if cost := u.cost(); cost <= room {
			room -= cost
			return false
		}
		return true
	}), err
}

// Collect cleans the whole log, whatever its length: all segments of which a fifth is dead, and small ones. progress, if not
// nil, is told of the bytes looked at and their number. It returns by how many bytes the log is shorter. Damage is an
// *IntegrityError, after all else was cleaned.
func (s *Session) Collect(ctx context.Context, progress func(done, total uint64)) (freed int64, err error) {
	before := s.logBytes()
	c := &collection{last: s.w.next, small: s.small()}
	var damage error
	for more := true; more; {
		if err := ctx.Err(); err != nil {
			return 0, err
		}
		n, err := s.clean(c.next)
		if isIntegrity(err) {
			damage, err = errors.Join(damage, err), nil
		}
		if err != nil {
			return 0, err
		}
		if progress != nil {
			progress(c.done, c.total)
		}
		more = n > 0 && c.done < c.total
	}
	return int64(before) - int64(s.logBytes()), damage
}

// collection is a cleaning of the whole log in rounds.
type collection struct {
	last        uint64 // block number at which it began: what was written since is not looked at
	small       uint64 // below this many bytes a segment is small
	done, total uint64 // bytes of segments that are chosen
}

// next chooses what one round cleans.
func (c *collection) next(use []usage) (victims []usage) {
	use = slices.DeleteFunc(use, func(u usage) bool { return u.segment.header.first >= c.last || !c.dear(u) })
	if c.total == 0 {
		for _, u := range use {
			c.total += u.segment.size()
		}
	}
	var copied uint64
	for _, u := range use {
		if copied += u.live; copied > copyAtOnce && len(victims) > 0 {
			break
		}
		victims = append(victims, u)
		c.done += u.segment.size()
	}
	return victims
}

// usage is how much of a segment is live: bytes of files.
type usage struct {
	segment *segment
	live    uint64
	pieces  uint64 // records that copying them takes
}

// cost is what copying takes in the log, in bytes.
func (u *usage) cost() int64 {
	if u.live == 0 {
		return 0
	}
	n := u.live + u.pieces*(record.HeaderSize+record.DataPrefix)
	return int64((n/PayloadSize + 1) * BlockSize)
}

// dear says whether a segment is worth to be cleaned for good: a fifth of it is dead, or it is small.
func (c *collection) dear(u usage) bool {
	size := u.segment.size()
	return u.live*BlockSize/PayloadSize < size/5*4 || size < c.small
}

// worst chooses what to clean so that the log comes down to what is live, half as much again and a slack: what is dead, and then
// segments of which least is live, of which no more is to be copied than a limit.
func (s *Session) worst(slack, limit uint64) func([]usage) []usage {
	return func(use []usage) []usage { return s.worstOf(use, slack, limit) }
}

func (s *Session) worstOf(use []usage, slack, limit uint64) (victims []usage) {
	slices.SortFunc(use, func(a, b usage) int {
		return cmp.Or(cmp.Compare(a.live*b.segment.size(), b.live*a.segment.size()), cmp.Compare(a.segment.header.number, b.segment.header.number))
	})
	log, want := s.logBytes(), s.liveBytes()*3/2+slack
	many := len(use) - fewSegments/2 - int(2*log/s.segmentBytes())
	var copied uint64
	for _, u := range use {
		size, small := u.segment.size(), u.segment.size() < s.small()
		enough := log <= want && (many <= 0 || !small)
		if u.live > 0 && (enough || copied+u.live > limit || !small && u.live > size/10*9) {
			continue
		}
		victims = append(victims, u)
		copied += u.live
		log -= min(log, size-min(size, u.live))
		many--
	}
	return victims
}

// logBytes is what the log takes on the disk, as far as it is durable.
func (s *Session) logBytes() (n uint64) {
	s.v.mu.RLock()
	defer s.v.mu.RUnlock()
	for _, x := range s.v.segs {
		n += x.size()
	}
	return n
}

// liveBytes is what the contents of files take in the log.
func (s *Session) liveBytes() uint64 { return s.v.state.tree.Stats().Bytes / PayloadSize * BlockSize }

func (s *Session) garbage() int64 {
	return int64(s.logBytes()) - int64(s.liveBytes()) - s.checkpointSize()
}

func (s *Session) tooLong(slack uint64) bool {
	log := s.logBytes()
	s.v.mu.RLock()
	segments := len(s.v.segs)
	s.v.mu.RUnlock()
	return log > 2*s.liveBytes()+slack+uint64(s.checkpointSize()) || segments > fewSegments+int(2*log/s.segmentBytes())
}

// segmentBytes is how large this session's segments are when they are full; small, below which one is small.
func (s *Session) segmentBytes() uint64 { return headerSize + s.w.limit*BlockSize }
func (s *Session) small() uint64        { return s.segmentBytes() / 8 }
