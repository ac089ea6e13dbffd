package fs

import (
	"time"

	"encfsrun/fs/vault/tree"
)

// maxPending bounds the attributes that wait in memory, so that a walk over a large tree that only touches times can't fill it.
const maxPending = 16 << 10

// pendingAttrs are attributes that changed and are no record yet: sizes and times, which would else be written with every WRITE
// and every name that comes or goes. They are merged into all answers, and put with the next flush of the inode or the next
// commit. The file system's lock guards them.
type pendingAttrs map[tree.Ino]tree.Attr

// attr returns the attributes of an inode as they are, put or pending. f.mu is held, for reading at least.
func (f *FS) attr(ino tree.Ino) (tree.Attr, error) {
	a, err := f.src.Attr(ino)
	if err != nil || f.store == nil {
		return a, err
	}
	if p, found := f.pending[ino]; found {
		p.Nlink, p.Blocks = a.Nlink, a.Blocks
		if !isFile(a.Mode) {
			p.Size = a.Size
		}
		a = p
	}
	if d := f.dirty.files[ino]; d != nil {
		a.Blocks += d.fresh/512 + min(d.fresh%512, 1)
	}
	return a, nil
}

// pend remembers attributes until they are put. f.mu is held for writing, as for all that change something.
func (f *FS) pend(a tree.Attr) {
	f.pending[a.Ino] = a
	f.changed()
}

// put puts attributes, and with them all that was pending for the inode.
func (f *FS) put(a tree.Attr) error {
	if err := f.store.Put(a); err != nil {
		return err
	}
	delete(f.pending, a.Ino)
	f.changed()
	return nil
}

// putPending puts what is pending for an inode, if anything.
func (f *FS) putPending(ino tree.Ino) error {
	if a, found := f.pending[ino]; found {
		return f.put(a)
	}
	return nil
}

// times says which times of an inode are now.
type times uint8

const (
	accessed times = 1 << iota
	modified
	inodeChanged
)

func (t times) set(a *tree.Attr, now tree.Time) {
	if t&accessed != 0 {
		a.Atime = now
	}
	if t&modified != 0 {
		a.Mtime = now
	}
	if t&inodeChanged != 0 {
		a.Ctime = now
	}
}

// touch sets times of an inode that is known to be there to now.
func (f *FS) touch(ino tree.Ino, which times, now tree.Time) {
	a, err := f.attr(ino)
	if err != nil {
		return
	}
	which.set(&a, now)
	f.pend(a)
}

func now() tree.Time {
	t := time.Now()
	return tree.Time{Sec: t.Unix(), Nsec: uint32(t.Nanosecond())}
}

// day is how long an access time may lie behind before it is set again (relatime).
const day = 24 * 60 * 60

// noteAccess sets the access time of an inode that was read, by the rules of relatime: where it is not newer than the last change,
// or a day old. It never fails: where there is no space for it, the time stays.
func (f *FS) noteAccess(ino tree.Ino, flags uint32) {
	if f.store == nil || flags&oNoAtime != 0 || f.lost.Load() {
		return
	}
	t := now()
	f.mu.RLock()
	a, err := f.attr(ino)
	f.mu.RUnlock()
	if err != nil || !staleAccess(&a, t) {
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.reserveSpare(1) == nil && f.makePendingRoom() == nil {
		f.touch(ino, accessed, t)
	}
}

func staleAccess(a *tree.Attr, now tree.Time) bool {
	return !after(a.Atime, a.Mtime) || !after(a.Atime, a.Ctime) || now.Sec-a.Atime.Sec >= day
}

func after(a, b tree.Time) bool { return a.Sec > b.Sec || a.Sec == b.Sec && a.Nsec > b.Nsec }

// makePendingRoom puts all that is pending where there is too much of it.
func (f *FS) makePendingRoom() error {
	if len(f.pending) < maxPending {
		return nil
	}
	return f.putAllPending()
}

func (f *FS) putAllPending() error {
	for _, a := range f.pending {
		if err := f.put(a); err != nil {
			return err
		}
	}
	return nil
}
