package tree

import "math"

// extent is 16 bytes, beside the 16 of its node in ranges, whose key is the offset in the file. A place in the log is
// one number, the bytes of payload before it in the stream of all blocks, so that cutting an extent is an addition.
type extent struct {
	len uint64
	pos uint64
}

// end returns the offset behind the extent of a row.
func (t *Tree) end(i uint32) uint64 { return t.ranges.nodes.at(i).key + t.extents.at(i).len }

// position turns a place in a block into one in the stream. It is false when the place is not in the payload, or when
// length bytes from there would leave the 63 bits within which no sum of positions overflows.
func (t *Tree) position(block uint64, at uint32, length uint64) (uint64, bool) {
	if at < t.payloadStart || uint64(at-t.payloadStart) >= t.payloadLen || block > math.MaxInt64/t.payloadLen {
		return 0, false
	}
	pos := block*t.payloadLen + uint64(at-t.payloadStart)
	return pos, pos <= math.MaxInt64 && length <= math.MaxInt64-pos
}

// part returns what lies in [from, to) of the extent of a row that overlaps it.
func (t *Tree) part(i uint32, from, to uint64) Extent {
	key, e := t.ranges.nodes.at(i).key, t.extents.at(i)
	from, to = max(from, key), min(to, key+e.len)
	pos := e.pos + (from - key)
	return Extent{
		Off: from, Len: to - from,
		Block: pos / t.payloadLen, At: t.payloadStart + uint32(pos%t.payloadLen),
	}
}

// addExtent puts an extent in a set.
func (t *Tree) addExtent(root *uint32, off, length, pos uint64) {
	i := t.ranges.make(off)
	t.extents.ensure(i)
	*t.extents.at(i) = extent{len: length, pos: pos}
	t.ranges.insert(root, i)
}

// carve makes [from, to) of a file a hole: extents inside go, those across an edge are cut, which may need one row
// more. It costs O(log n + k) for a file of n extents, k of which go.
func (t *Tree) carve(n *inode, from, to uint64) {
	if n.body == 0 || from >= to {
		return
	}
	left, rest := t.ranges.split(n.body, from)
	middle, right := t.ranges.split(rest, to)
	var gone uint64
	if i := t.ranges.last(left); i != 0 && t.end(i) > from {
		gone += t.cut(i, from, to, &right)
	}
	if i := t.ranges.last(middle); i != 0 && t.end(i) > to {
		t.cut(i, to, to, &right)
	}
	t.ranges.walk(middle, 0, func(i uint32) bool {
		gone += t.extents.at(i).len
		t.ranges.slots.give(i)
		return true
	})
	n.body = t.ranges.merge(left, right)
	n.extra -= gone
	t.mapped -= gone
}

// cut ends the extent of a row at from, and gives what it had behind to, if anything, to the set on the right. It
// returns how many bytes are in neither now.
func (t *Tree) cut(i uint32, from, to uint64, right *uint32) uint64 {
	key, end, e := t.ranges.nodes.at(i).key, t.end(i), t.extents.at(i)
	e.len = from - key
	if end <= to {
		return end - from
	}
	t.addExtent(right, to, end-to, e.pos+(to-key))
	return to - from
}

// Map says where [e.Off, e.Off+e.Len) of a regular file lies, in place of what was said of any part of it before. It
// costs O(log n + k) for a file of n extents of which k are replaced; extents are never joined. ErrInvalid: the range
// is empty or does not end within the file's size, or the place is not in a block's payload.
func (t *Tree) Map(ino Ino, e Extent) error {
	n, err := t.findFile(ino)
	if err != nil {
		return err
	}
	if e.Len == 0 || e.Len > n.size || e.Off > n.size-e.Len {
		return ErrInvalid
	}
	pos, ok := t.position(e.Block, e.At, e.Len)
	if !ok {
		return ErrInvalid
	}
	if !t.ranges.slots.room(2) {
		return ErrFull
	}
	t.carve(n, e.Off, e.Off+e.Len)
	t.addExtent(&n.body, e.Off, e.Len, pos)
	n.extra += e.Len
	t.mapped += e.Len
	return nil
}

// Clear makes [off, off+length) of a regular file a hole, at the cost of Map; what of it lies behind the file's end is
// ignored. ErrFull: only where an extent begins before the hole's end and goes on behind it.
func (t *Tree) Clear(ino Ino, off, length uint64) error {
	n, err := t.findFile(ino)
	if err != nil {
		return err
	}
	end := rangeEnd(n, off, length)
	if off >= end {
		return nil
	}
	if i := t.ranges.floor(n.body, end-1); i != 0 && t.end(i) > end && !t.ranges.slots.room(1) {
		return ErrFull
	}
	t.carve(n, off, end)
	return nil
}

// rangeEnd returns where a range ends that is cut at the file's.
func rangeEnd(n *inode, off, length uint64) uint64 {
	if off >= n.size || length > n.size-off {
		return n.size
	}
	return off + length
}

// Extents yields what is mapped in [off, off+length) of a regular file, cut to it, in the order of offsets, until
// yield says false. What lies between is a hole. It costs O(log n) and O(1) for each extent.
func (t *Tree) Extents(ino Ino, off, length uint64, yield func(Extent) bool) error {
	n, err := t.findFile(ino)
	if err != nil {
		return err
	}
	end := rangeEnd(n, off, length)
	if off >= end {
		return nil
	}
	t.walkExtents(n, off, func(i uint32) bool {
		if t.ranges.nodes.at(i).key >= end {
			return false
		}
		return yield(t.part(i, off, end))
	})
	return nil
}

// walkExtents yields the extents of a file that end behind off.
func (t *Tree) walkExtents(n *inode, off uint64, yield func(uint32) bool) {
	from := off
	if i := t.ranges.floor(n.body, off); i != 0 && t.end(i) > off {
		from = t.ranges.nodes.at(i).key
	}
	t.ranges.walk(n.body, from, yield)
}

// SeekData returns the first offset, not before off, of mapped bytes of a regular file. ErrNoData: there is none.
func (t *Tree) SeekData(ino Ino, off uint64) (uint64, error) {
	n, err := t.findFile(ino)
	if err != nil {
		return 0, err
	}
	found, err := uint64(0), ErrNoData
	t.walkExtents(n, off, func(i uint32) bool {
		found, err = max(off, t.ranges.nodes.at(i).key), nil
		return false
	})
	return found, err
}

// SeekHole returns the first offset, not before off, of a regular file at which nothing is mapped; a hole is also at
// its end. ErrNoData: off is not before the end. It walks over the extents that touch each other from off on.
func (t *Tree) SeekHole(ino Ino, off uint64) (uint64, error) {
	n, err := t.findFile(ino)
	if err != nil {
		return 0, err
	}
	if off >= n.size {
		return 0, ErrNoData
	}
	t.walkExtents(n, off, func(i uint32) bool {
		if t.ranges.nodes.at(i).key > off {
			return false
		}
		off = t.end(i)
		return true
	})
	return off, nil
}
