package fs

import (
	"errors"

	"encfsrun/fs/vault"
	"encfsrun/fs/vault/record"
)

const (
	// recordSize is what a record takes in bytes, rounded up, without names, values and contents.
	recordSize = vault.RecordOverhead
	// promiseLimit is how many bytes are promised before they are committed without anybody asking: what is promised is kept from
	// others until then, although most of it has long taken its place; and the log may be too long by then.
	promiseLimit = 64 << 20
	// maxReclaims is how often the log of a full disk is cleaned for one request.
	maxReclaims = 8
)

// reserve sees to it that an operation can append so many records, holding so many bytes beside, and commit them. It is called
// before anything is changed. Where the disk is full, what was promised to earlier operations and turned out not to be needed is
// given back first, and then space that can be cleaned.
func (f *FS) reserve(records, bytes int) error { return f.reserveFor(records, bytes, false) }

// reserveRemoval is reserve for what makes room: it works on a full disk.
func (f *FS) reserveRemoval(records, bytes int) error { return f.reserveFor(records, bytes, true) }

// reserveSpare is reserve for what may as well be left out: nothing is committed or cleaned for it. A read on a full disk must not
// write a checkpoint.
func (f *FS) reserveSpare(records int) error {
	n := int64(records) * recordSize
	err := f.store.Reserve(n, false)
	if err == nil {
		f.promised += n
	}
	return err
}

func (f *FS) reserveFor(records, bytes int, removes bool) error {
	n := int64(bytes) + int64(records)*recordSize
	n += n / record.MaxChunk * recordSize // long contents are more than one record
	if f.promised > promiseLimit {
		if _, err := f.prepare(); err != nil {
			return err
		}
		poke(f.commits.hurried)
	}
	err := f.store.Reserve(n, removes)
	if errors.Is(err, vault.ErrNoSpace) && f.promised > 0 {
		if _, err = f.prepare(); err == nil {
			err = f.store.Reserve(n, removes)
		}
	}
	for round := 0; errors.Is(err, vault.ErrNoSpace) && round < maxReclaims; round++ {
		reclaimed, failed := f.reclaim()
		if failed != nil || !reclaimed {
			return errors.Join(err, failed)
		}
		err = f.store.Reserve(n, removes)
	}
	if err == nil {
		f.promised += n
	}
	return err
}

// reclaim cleans the log of a full disk. It commits, so everything has to be in the log.
func (f *FS) reclaim() (bool, error) {
	if err := f.flushAll(); err != nil {
		return false, err
	}
	return f.store.Reclaim()
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
