package fs

import "encfsrun/fs/vault/record"

// Sizes in bytes of what operations append to the log, without what they name and hold.
const (
	inodeRecord = 128                                   // an Inode record, rounded up
	nameRecord  = 64                                    // a Link, Unlink, Rename, Target, Free, Clear or xattr record
	dataRecord  = record.HeaderSize + record.DataPrefix // before the bytes of a file
)

// owed returns how many bytes of records all that waits in memory will take.
func (f *FS) owed() uint64 {
	perFile := uint64(len(f.dirty.files)) * dataRecord * 2 // a long run is cut into more than one record
	return f.dirty.owed + perFile + f.dirty.bytes/record.MaxChunk*dataRecord + uint64(len(f.pending))*inodeRecord
}

// reserve says whether an operation may append n bytes of records, beside all that was accepted and still waits in memory. It is
// asked before anything is changed.
func (f *FS) reserve(n int) error { return f.store.Reserve(f.owed() + uint64(n)) }

// freeBytes returns how many bytes could still be written.
func (f *FS) freeBytes() uint64 {
	f.mu.RLock()
	defer f.mu.RUnlock()
	free := f.store.FreeBytes()
	return free - min(free, f.owed())
}
