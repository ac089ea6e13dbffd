package fs

import (
	"errors"

	"encfsrun/fs/vault"
	"encfsrun/fs/vault/record"
)

const (
	// recordSize is what a record takes in bytes, rounded up, without names, values and contents.
	recordSize = vault.RecordOverhead
	// promiseLimit is how many bytes are promised before they are committed without anybody asking, and the log is looked after:
	// what is promised is kept from others until then, although most of it has long taken its place.
	promiseLimit = 64 << 20
)

// reserve sees to it that an operation can append so many records, holding so many bytes beside, and commit them. It is called
// before anything is changed. Where the disk is full, what was promised to earlier operations and turned out not to be needed is
// given back first, and then space that can be cleaned.
func (f *FS) reserve(records, bytes int) error { return f.reserveFor(records, bytes, false) }

// reserveRemoval is reserve for what makes room: it works on a full disk.
func (f *FS) reserveRemoval(records, bytes int) error { return f.reserveFor(records, bytes, true) }

func (f *FS) reserveFor(records, bytes int, removes bool) error {
	n := int64(bytes) + int64(records)*recordSize
	n += n / record.MaxChunk * recordSize // long contents are more than one record
	if f.promised > promiseLimit {
		if _, err := f.prepare(); err != nil {
			return err
		}
		if err := f.maintainLocked(); err != nil { // who writes faster than the log is cleaned waits for it
			return err
		}
	}
	if err := f.store.Reserve(n, removes); err == nil || !errors.Is(err, vault.ErrNoSpace) {
		f.promised += n
		return err
	}
	if f.promised > 0 {
		if _, err := f.prepare(); err != nil {
			return err
		}
		if err := f.store.Reserve(n, removes); err == nil || !errors.Is(err, vault.ErrNoSpace) {
			f.promised += n
			return err
		}
	}
	if reclaimed, err := f.reclaim(); err != nil || !reclaimed {
		return errors.Join(vault.ErrNoSpace, err)
	}
	err := f.store.Reserve(n, removes)
	f.promised += n
	return err
}

// reclaim cleans the log of a full disk. It commits, so everything has to be in the log.
func (f *FS) reclaim() (bool, error) {
	if err := f.flushAll(); err != nil {
		return false, err
	}
	reclaimed, err := f.store.Reclaim()
	if err == nil {
		err = f.promiseAgain()
	}
	return reclaimed, err
}

// promiseAgain keeps the space of what a commit has left in memory, files without names, for which the commit ended all promises:
// they may get names. What can't have it any more goes into the log at once, where the promise that has just ended has left room.
func (f *FS) promiseAgain() error {
	var n int64
	for _, file := range f.dirty.files {
		n += int64(file.bytes) + recordSize
		for _, c := range file.chunks {
			n += int64(len(c.ranges)) * recordSize
		}
	}
	if n == 0 {
		return nil
	}
	n += n / record.MaxChunk * recordSize
	if f.store.Reserve(n, true) == nil {
		f.promised += n
		return nil
	}
	for ino := range f.dirty.files {
		if err := f.flush(ino); err != nil {
			return err
		}
	}
	return nil
}

// freeBytes returns how many bytes could still be written.
func (f *FS) freeBytes() uint64 {
	f.mu.Lock() // it looks at what the store's other methods change
	defer f.mu.Unlock()
	space, err := f.store.Space()
	if err != nil {
		return 0
	}
	return space.Free
}
