package vault

import (
	"errors"
	"fmt"
	"io/fs"
	"path"
	"sync"
	"syscall"

	"encfsrun/fs/vault/disk"
	"encfsrun/fs/vault/record"
)

// ErrNoSpace says that the disk has no room for what was asked. Nothing was changed.
var ErrNoSpace = fmt.Errorf("no space for the vault's log: %w", syscall.ENOSPC)

// Sizes of reservations, in bytes.
const (
	// ballastStep is how much more than it needs a reservation takes where it can: to ask the file system each time costs.
	ballastStep = 2 << 20
	// deleteRoom is set aside so that on a full disk names can still be removed, and the removals committed.
	deleteRoom = 16 * BlockSize
	// plenty is the room on the disk from which on appends don't ask for theirs first.
	plenty = 64 << 20
)

// isFull says whether an error means that the disk, or what of it the user may have, is full.
func isFull(err error) bool { return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) }

// ballast is a file in the log's folder that holds space for what was promised: all that was acknowledged and is not appended
// yet, a commit, and a checkpoint, without which a cleaner could free nothing. When the disk is full it gives way to what is
// appended. It holds no data, and a reader does not look at it.
type ballast struct {
	fsys  disk.FS
	vault string

	mu   sync.Mutex
	file disk.File // nil until something is reserved
	size int64     // that it holds
}

func (b *ballast) name() string { return path.Join(b.vault, logDir, "ballast") }

// hold makes the ballast hold at least size bytes; ErrNoSpace if that can't be had.
func (b *ballast) hold(size int64) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if size <= b.size {
		return nil
	}
	if err := b.open(); err != nil {
		return err
	}
	err := b.file.Reserve(size + ballastStep)
	if err == nil {
		size += ballastStep
	} else if isFull(err) {
		err = b.file.Reserve(size)
	}
	switch {
	case errors.Is(err, errors.ErrUnsupported): // NFS before 4.2, 9p, ext3: what is free is all that can be known
		return b.free(size)
	case isFull(err):
		return ErrNoSpace
	case err != nil:
		return fmt.Errorf("reserve space for %s: %w", b.vault, bare(err))
	}
	b.size = size
	return nil
}

// free says whether there are so many bytes on a disk that sets none aside. Others may take them, but we don't take twice what is there.
func (b *ballast) free(size int64) error {
	s, err := b.fsys.Space(path.Join(b.vault, logDir))
	if err != nil {
		return fmt.Errorf("look for space: %w", bare(err))
	}
	if s.Free < uint64(size) {
		return ErrNoSpace
	}
	return nil
}

func (b *ballast) holds() int64 {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.size
}

// open makes the file, in the place of one that a killed process left.
func (b *ballast) open() error {
	if b.file != nil {
		return nil
	}
	file, err := b.fsys.Create(b.name(), 0o600)
	if errors.Is(err, fs.ErrExist) {
		if err = b.fsys.Remove(b.name()); err == nil {
			file, err = b.fsys.Create(b.name(), 0o600)
		}
	}
	if isFull(err) {
		return ErrNoSpace
	}
	if err != nil {
		return fmt.Errorf("reserve space for %s: %w", b.vault, bare(err))
	}
	b.file = file
	return nil
}

// claim makes room for a file to grow to a size, out of the ballast where the disk has none. Whether it did, the write will tell.
func (b *ballast) claim(file disk.File, from, to int64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.file == nil {
		return
	}
	if s, err := b.fsys.Space(path.Join(b.vault, logDir)); err == nil && s.Free >= plenty {
		return
	}
	if err := file.Reserve(to); !isFull(err) {
		return
	}
	b.shrink(to - from + BlockSize)
	file.Reserve(to)
	b.restore()
}

// release gives all of it to whoever needs it now; restore takes back what is left of it.
func (b *ballast) release() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.file != nil {
		b.shrink(0)
	}
}

func (b *ballast) shrink(by int64) {
	b.size = max(0, b.size-by)
	b.file.Trim()
}

// restore sets aside again what the ballast should hold, or as much of it as there is.
func (b *ballast) restore() {
	for b.size > 0 {
		if err := b.file.Reserve(b.size); !isFull(err) {
			return
		}
		b.size /= 2
	}
}

// tidy removes a ballast that a killed process left: what it holds is needed by who cleans a full disk, before anything is reserved.
// The writer's lock is held, so that nobody's is removed.
func (b *ballast) tidy() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.file == nil {
		b.fsys.Remove(b.name()) // mostly there is none; whoever needs one will be told why it can't be made
	}
}

// remove ends the reservation. The name need not be gone durably: who finds the file removes it.
func (b *ballast) remove() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.file == nil {
		return
	}
	b.file.Close()
	b.fsys.Remove(b.name())
	b.file, b.size = nil, 0
}

// Reserve sees to it that records of n more bytes (headers counted) can be appended, beside all that was reserved since the
// last Prepare, and committed: who acknowledges a change before it is appended, or would rather know before, calls it first.
// ErrNoSpace if not. What removes more than it adds may use what is set aside for that.
func (s *Session) Reserve(n int64, removes bool) error {
	want := s.promised + n
	want += want/PayloadSize*(BlockSize-PayloadSize) + 4*BlockSize // as blocks; a commit pads its own and the one before
	err := s.w.ballast.hold(want + s.checkpointSize() + deleteRoom + s.cleanRoom())
	if errors.Is(err, ErrNoSpace) && removes {
		err = s.w.ballast.hold(want + s.checkpointSize()) // where it does not hold that yet: the disk was full already when the session began
	}
	if err == nil {
		s.promised += n
	}
	return err
}

// cleanRoom is set aside so that on a full disk a segment can be cleaned.
func (s *Session) cleanRoom() int64 { return int64(s.w.limit * BlockSize) }

// RecordOverhead is what a record takes at most beside names, values and contents, in bytes.
const RecordOverhead = 128

// checkpointSize estimates from above what a checkpoint takes on the disk, in bytes.
func (s *Session) checkpointSize() int64 {
	st := s.v.state.tree.Stats()
	n := st.Inodes*(record.HeaderSize+72) + st.Names*(record.HeaderSize+16) + st.Extents*(record.HeaderSize+36) + st.Xattrs*(record.HeaderSize+10) + st.Strings
	n += (s.v.logBlocks()+MaxSegmentBlocks)*record.SumSize + maxEpochs*(record.HeaderSize+24)
	return int64(n+n/64) + 4*BlockSize
}

// logBlocks is how many blocks there are in the segments that the vault reads from.
func (v *Vault) logBlocks() (n uint64) {
	v.mu.RLock()
	defer v.mu.RUnlock()
	for _, s := range v.segs {
		n += uint64(len(s.sums))
	}
	return n
}

// Space tells the size of the disk that the vault lies on, and how many bytes of files may still be written.
func (s *Session) Space() (disk.Space, error) {
	space, err := s.v.fsys.Space(path.Join(s.v.path, logDir))
	if err != nil {
		return space, err
	}
	held := s.w.ballast.holds()
	keep := s.checkpointSize() + deleteRoom + s.cleanRoom() + s.promised + 4*BlockSize
	free := int64(space.Free) + held - keep
	space.Free = uint64(max(0, free)) / BlockSize * (PayloadSize - 256)
	return space, nil
}
