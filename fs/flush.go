package fs

import (
	"github.com/hanwen/go-fuse/v2/fuse"

	"encfsrun/fs/guarded"
	"encfsrun/fs/vault"
	"encfsrun/fs/vault/tree"
)

// flush puts what is pending of an inode and writes what is dirty of it to the log. Its chunks are wiped and free again. After a
// failure they stay: the store takes nothing more, and what can't be read can't be lied about.
func (f *FS) flush(ino tree.Ino) error {
	if err := f.putPending(ino); err != nil {
		return err
	}
	file := f.dirty.files[ino]
	if file == nil {
		return nil
	}
	var err error
	file.runs(func(off, n uint64) bool {
		at := off
		err = f.store.Write(ino, off, n, func(p []byte) error {
			file.copyOut(p, at)
			at += uint64(len(p))
			return nil
		})
		return err == nil
	})
	if err != nil {
		return f.noteLoss(err)
	}
	f.dirty.drop(ino)
	f.changed()
	return nil
}

// flushAll makes records of all that waits in memory. A commit follows, and with it ends what was reserved for these records: so also
// of what has no name, although nobody will find that after a crash. What stayed dirty would meet a full disk without its space.
func (f *FS) flushAll() error {
	for e := f.dirty.order.Front(); e != nil; {
		file := e.Value.(*dirtyFile)
		e = e.Next() // flush takes it out of the list
		if err := f.flush(file.ino); err != nil {
			return err
		}
	}
	return f.putAllPending()
}

// chunkOf returns the chunk of a file that an offset lies in, making room where there is none.
func (f *FS) chunkOf(ino tree.Ino, off uint64) (*dirtyFile, *chunk, error) {
	for {
		file := f.dirty.open(ino)
		if c := file.chunks[off/ChunkSize]; c != nil {
			return file, c, nil
		}
		data, err := f.dirty.pool.Get()
		if err == nil {
			c := &chunk{data: data}
			file.chunks[off/ChunkSize] = c
			return file, c, nil
		}
		oldest := f.dirty.oldest()
		if oldest == file && len(file.chunks) == 0 { // nothing is dirty at all
			f.dirty.drop(ino)
			return nil, nil, errNoChunk
		}
		if len(oldest.chunks) == 0 { // just opened, for this very write
			f.dirty.order.MoveToBack(oldest.place)
			continue
		}
		if err := f.flush(oldest.ino); err != nil {
			return nil, nil, err
		}
	}
}

// keep copies written bytes into dirty chunks. Size and times are pending by then: a flush on the way puts them.
func (f *FS) keep(h *fuse.InHeader, ino tree.Ino, off uint64, data [][]byte) error {
	crowded := false
	for _, p := range data {
		for len(p) > 0 {
			file, c, err := f.chunkOf(ino, off)
			if err != nil {
				return err
			}
			at := int(off % ChunkSize)
			n := copy(c.data[at:], p)
			start := off - uint64(at)
			bytes := c.mark(at, at+n, func(from, to int) {
				file.fresh += f.unmapped(ino, start+uint64(from), to-from)
			})
			f.dirty.account(file, bytes)
			crowded = crowded || len(c.ranges) > maxRanges
			p, off = p[n:], off+uint64(n)
		}
	}
	if file := f.dirty.files[ino]; file != nil && (file.bytes >= eagerFlush || crowded) {
		f.waits(h)
		return f.flush(ino)
	}
	return nil
}

// unmapped returns how many of n bytes of a file lie in a hole or behind its end, as far as the log knows.
func (f *FS) unmapped(ino tree.Ino, off uint64, n int) uint64 {
	spans, err := f.src.Spans(ino, int64(off), n, f.dirty.spans[:0])
	f.dirty.spans = spans
	if err != nil {
		return 0
	}
	free := uint64(n)
	for _, s := range spans {
		if !s.Hole {
			free -= uint64(s.Len)
		}
	}
	return free
}

// unflushed says whether the log alone would answer a read of [off, off+n) of a file wrongly.
func (f *FS) unflushed(ino tree.Ino, off, n uint64) bool {
	if f.dirty.dirtyIn(ino, off, n) > 0 {
		return true
	}
	p, found := f.pending[ino]
	if !found {
		return false
	}
	a, err := f.src.Attr(ino)
	return err == nil && a.Size != p.Size && off+n > min(a.Size, p.Size)
}

// spans returns where bytes of a file lie, after flushing what of them is not in the log yet.
func (f *FS) spans(h *fuse.InHeader, off int64, n int, spans []vault.Span) ([]vault.Span, error) {
	ino := tree.Ino(h.NodeId)
	f.mu.RLock()
	defer f.mu.RUnlock()
	if f.store != nil && f.unflushed(ino, uint64(off), uint64(n)) {
		f.mu.RUnlock()
		err := f.flushLocked(h, ino)
		f.mu.RLock()
		if err != nil {
			return spans, err
		}
	}
	return f.src.Spans(ino, off, n, spans)
}

// settle flushes a file, so that the log alone tells where its data and holes are.
func (f *FS) settle(h *fuse.InHeader) error {
	ino := tree.Ino(h.NodeId)
	if f.store == nil {
		return nil
	}
	f.mu.RLock()
	_, pending := f.pending[ino]
	dirty := f.dirty.files[ino] != nil
	f.mu.RUnlock()
	if !pending && !dirty {
		return nil
	}
	return f.flushLocked(h, ino)
}

// flushLocked is flush for callers that don't hold the lock.
func (f *FS) flushLocked(h *fuse.InHeader, ino tree.Ino) error {
	f.waits(h)
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.flush(ino)
}

// wipe zeroes the payload of a WRITE, which lies on the heap.
func wipe(data [][]byte) {
	for _, p := range data {
		guarded.Wipe(p)
	}
}
