package fs

import (
	"testing"

	"pgregory.net/rapid"

	"encfsrun/fs/vault/tree"
)

// TestDirtyRanges marks and cuts ranges of a file, and compares with a table of bytes.
func TestDirtyRanges(t *testing.T) {
	const size = 5 * ChunkSize
	rapid.Check(t, func(rt *rapid.T) {
		pool := &heapChunks{left: 1 << 20}
		var d dirtyFiles
		d.init(pool)
		const ino = tree.Ino(7)
		var want [size]byte // 0: not dirty
		end := size
		count := func(from, to int) (n int) {
			for _, b := range want[from:to] {
				if b != 0 {
					n++
				}
			}
			return n
		}
		offset := rapid.OneOf(rapid.IntRange(0, size-1), rapid.Map(rapid.IntRange(0, 3*size/ChunkSize), func(i int) int { return min(i*ChunkSize/3, size-1) }))
		rt.Repeat(map[string]func(*rapid.T){
			"write": func(rt *rapid.T) {
				from := offset.Draw(rt, "from")
				to := min(size, from+rapid.IntRange(1, 2*ChunkSize).Draw(rt, "length"))
				fill := rapid.ByteRange(1, 255).Draw(rt, "fill")
				for at := from; at < to; {
					file := d.open(ino)
					c := file.chunks[uint64(at/ChunkSize)]
					if c == nil {
						data, _ := pool.Get()
						c = &chunk{data: data}
						file.chunks[uint64(at/ChunkSize)] = c
					}
					start := at / ChunkSize * ChunkSize
					stop := min(to, start+ChunkSize)
					fresh := 0
					bytes := c.mark(at-start, stop-start, func(a, b int) {
						if a >= b || count(start+a, start+b) != 0 {
							rt.Fatalf("%d to %d were not all clean", start+a, start+b)
						}
						fresh += b - a
					})
					if int(bytes) != fresh || fresh != stop-at-count(at, stop) {
						rt.Fatalf("marking %d to %d made %d bytes dirty, told of %d, want %d", at, stop, bytes, fresh, stop-at-count(at, stop))
					}
					d.account(file, bytes)
					for i := at; i < stop; i++ {
						want[i], c.data[i-start] = fill, fill
					}
					at = stop
				}
			},
			"truncate": func(rt *rapid.T) {
				end = offset.Draw(rt, "size")
				d.truncate(ino, uint64(end))
				clear(want[end:])
			},
			"drop": func(rt *rapid.T) {
				if rapid.IntRange(0, 9).Draw(rt, "rarely") == 0 {
					d.drop(ino)
					clear(want[:])
				}
			},
			"": func(rt *rapid.T) {
				checkDirty(rt, &d, ino, want[:])
				from := offset.Draw(rt, "asked from")
				n := rapid.IntRange(0, size-from).Draw(rt, "asked length")
				if got := d.dirtyIn(ino, uint64(from), uint64(n)); int(got) != count(from, from+n) {
					rt.Fatalf("%d of %d bytes from %d on are dirty, want %d", got, n, from, count(from, from+n))
				}
			},
		})
		d.drop(ino)
		if pool.out != 0 || d.bytes != 0 || d.order.Len() != 0 {
			rt.Fatalf("%d chunks, %d bytes, %d files are left", pool.out, d.bytes, d.order.Len())
		}
	})
}

// checkDirty compares runs and contents.
func checkDirty(rt *rapid.T, d *dirtyFiles, ino tree.Ino, want []byte) {
	got := make([]byte, len(want))
	last := uint64(0)
	if file := d.files[ino]; file != nil {
		file.runs(func(off, n uint64) bool {
			if n == 0 || off < last || off == last && last > 0 {
				rt.Fatalf("a run of %d bytes at %d after one that ends at %d", n, off, last)
			}
			last = off + n
			file.copyOut(got[off:off+n], off)
			return true
		})
	}
	dirty := uint64(0)
	for i := range want {
		if got[i] != want[i] {
			rt.Fatalf("byte %d is %d, want %d", i, got[i], want[i])
		}
		if want[i] != 0 {
			dirty++
		}
	}
	if d.bytes != dirty {
		rt.Fatalf("%d bytes are counted, want %d", d.bytes, dirty)
	}
}
