package fs

import (
	"container/list"
	"errors"
	"maps"
	"slices"

	"encfsrun/fs/vault"
	"encfsrun/fs/vault/tree"
)

const (
	// ChunkSize is the unit of dirty memory in bytes: what the pool of Options.Dirty is to be cut into.
	ChunkSize = 32 << 10
	// eagerFlush is how many dirty bytes of one file are flushed without waiting: a Data record's most (record.MaxChunk), so that
	// what is written in sequence is sealed while more of it comes.
	eagerFlush = 1 << 20
)

// maxRanges is how many ranges a chunk may have before its file is flushed: a program that writes every other byte would else take
// more memory for the ranges, on the heap, than the chunk has.
const maxRanges = 256

var errNoChunk = errors.New("no guarded memory for what is written")

// dirtyFiles holds what was written to files and is not in the log yet, in chunks of guarded memory. Overwriting it costs
// nothing. The file system's lock guards it.
type dirtyFiles struct {
	pool  Chunks
	files map[tree.Ino]*dirtyFile
	order list.List // of *dirtyFile, the one that became dirty first in front
	bytes uint64    // of all files
	spans []vault.Span
}

type dirtyFile struct {
	ino    tree.Ino
	chunks map[uint64]*chunk // by offset / ChunkSize
	bytes  uint64
	fresh  uint64 // of bytes, those where the file has a hole until they are flushed
	place  *list.Element
}

// chunk holds ChunkSize bytes of a file, of which some are dirty.
type chunk struct {
	data   []byte
	ranges []byteRange // by offset; they don't touch
}

// byteRange is [from, to) within a chunk.
type byteRange struct{ from, to int }

func (d *dirtyFiles) init(pool Chunks) {
	d.pool = pool
	d.files = make(map[tree.Ino]*dirtyFile)
	d.order.Init()
}

// open returns what is dirty of a file, a new one where nothing is.
func (d *dirtyFiles) open(ino tree.Ino) *dirtyFile {
	file := d.files[ino]
	if file == nil {
		file = &dirtyFile{ino: ino, chunks: make(map[uint64]*chunk)}
		file.place = d.order.PushBack(file)
		d.files[ino] = file
	}
	return file
}

// oldest returns the file that became dirty first.
func (d *dirtyFiles) oldest() *dirtyFile {
	if e := d.order.Front(); e != nil {
		return e.Value.(*dirtyFile)
	}
	return nil
}

// drop forgets what is dirty of a file and wipes it.
func (d *dirtyFiles) drop(ino tree.Ino) {
	file := d.files[ino]
	if file == nil {
		return
	}
	for _, c := range file.chunks {
		d.pool.Put(c.data)
	}
	d.account(file, -int64(file.bytes))
	d.order.Remove(file.place)
	delete(d.files, ino)
}

// account keeps the sums when bytes of a file come or go.
func (d *dirtyFiles) account(file *dirtyFile, bytes int64) {
	file.bytes += uint64(bytes)
	d.bytes += uint64(bytes)
}

// dirtyIn returns how many of n bytes of a file are dirty.
func (d *dirtyFiles) dirtyIn(ino tree.Ino, off, n uint64) (bytes uint64) {
	file := d.files[ino]
	if file == nil || n == 0 {
		return 0
	}
	first, last := off/ChunkSize, (off+n-1)/ChunkSize
	if last-first >= uint64(len(file.chunks)) { // a long range over few chunks
		for i, c := range file.chunks {
			if i >= first && i <= last {
				bytes += c.dirtyIn(i*ChunkSize, off, off+n)
			}
		}
		return bytes
	}
	for i := first; i <= last; i++ {
		if c := file.chunks[i]; c != nil {
			bytes += c.dirtyIn(i*ChunkSize, off, off+n)
		}
	}
	return bytes
}

// dirtyIn is that of one chunk, which begins at start.
func (c *chunk) dirtyIn(start, from, to uint64) (bytes uint64) {
	for _, r := range c.ranges {
		a, b := max(from, start+uint64(r.from)), min(to, start+uint64(r.to))
		if a < b {
			bytes += b - a
		}
	}
	return bytes
}

// mark makes [from, to) of a chunk dirty. Each part of it that was not yet is given to fresh. It returns how many
// bytes these are.
func (c *chunk) mark(from, to int, fresh func(from, to int)) (bytes int64) {
	first, _ := slices.BinarySearchFunc(c.ranges, from, func(r byteRange, at int) int { return r.to - at })
	last := first
	merged := byteRange{from, to}
	at := from
	for ; last < len(c.ranges) && c.ranges[last].from <= to; last++ {
		r := c.ranges[last]
		if at < r.from {
			fresh(at, r.from)
			bytes += int64(r.from - at)
		}
		at = max(at, r.to)
		merged.from, merged.to = min(merged.from, r.from), max(merged.to, r.to)
	}
	if at < to {
		fresh(at, to)
		bytes += int64(to - at)
	}
	c.ranges = slices.Replace(c.ranges, first, last, merged)
	return bytes
}

// truncate forgets what is dirty of a file from size on. It must not be the whole file that stays the only one to know its size:
// the caller puts the size.
func (d *dirtyFiles) truncate(ino tree.Ino, size uint64) {
	file := d.files[ino]
	if file == nil {
		return
	}
	for i, c := range file.chunks {
		start := i * ChunkSize
		if start+ChunkSize <= size {
			continue
		}
		keep := int(max(size, start) - start)
		bytes := int64(0)
		c.ranges = slices.DeleteFunc(c.ranges, func(r byteRange) bool {
			if r.from >= keep {
				bytes -= int64(r.to - r.from)
			}
			return r.from >= keep
		})
		if n := len(c.ranges); n > 0 && c.ranges[n-1].to > keep {
			bytes -= int64(c.ranges[n-1].to - keep)
			c.ranges[n-1].to = keep
		}
		d.account(file, bytes)
		if len(c.ranges) == 0 {
			d.pool.Put(c.data)
			delete(file.chunks, i)
		}
	}
	if len(file.chunks) == 0 {
		d.drop(ino)
	}
}

// runs yields the dirty ranges of a file by offset, those that touch as one.
func (file *dirtyFile) runs(yield func(off, n uint64) bool) {
	var off, end uint64
	for _, i := range slices.Sorted(maps.Keys(file.chunks)) {
		for _, r := range file.chunks[i].ranges {
			from, to := i*ChunkSize+uint64(r.from), i*ChunkSize+uint64(r.to)
			if from == end && end > off {
				end = to
				continue
			}
			if end > off && !yield(off, end-off) {
				return
			}
			off, end = from, to
		}
	}
	if end > off {
		yield(off, end-off)
	}
}

// copyOut copies dirty bytes from off on, which the chunks have.
func (file *dirtyFile) copyOut(p []byte, off uint64) {
	for len(p) > 0 {
		n := copy(p, file.chunks[off/ChunkSize].data[off%ChunkSize:])
		p, off = p[n:], off+uint64(n)
	}
}
