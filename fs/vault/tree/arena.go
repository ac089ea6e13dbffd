package tree

import (
	"encoding/binary"
	"math"
	"math/bits"
)

// The arena keeps byte strings of up to 64 KiB in chunks of 256 KiB. A string is named by its place, in units of 4
// bytes so that 32 bits reach 16 GiB; its length is kept by who stored it. What is freed is kept in a list per size
// and used for the next string of that size: sizes go in steps of one unit up to 256 bytes (all names), and of an
// eighth of a power of two beyond (targets, values of extended attributes).
const (
	unit       = 4
	arenaChunk = 256 << 10
	smallUnits = 64  // sizes up to this are exact
	sizes      = 130 // list of the largest, 73,728 bytes, is number 129
)

type arena struct {
	chunks [][]byte
	next   uint64        // place of the first unit never used
	max    uint64        // the first place that can't be; smaller in tests only
	free   [sizes]uint32 // places of freed strings, each holding the next in its first unit
}

func newArena() arena { return arena{next: 1, max: math.MaxUint32} }

// sizeOf returns the number of a string's size and how many units that size has; n is 1 to 64 KiB and a little.
func sizeOf(n int) (number int, units uint64) {
	u := uint64(n+unit-1) / unit
	if u <= smallUnits {
		return int(u), u
	}
	e := bits.Len64(u-1) - 4
	q := (u - 1) >> e // 8 to 15
	return smallUnits + 1 + (e-3)*8 + int(q-8), (q + 1) << e
}

// alloc returns the place of n bytes of any content, or false when the arena is full.
func (a *arena) alloc(n int) (uint32, bool) {
	number, units := sizeOf(n)
	if ref := a.free[number]; ref != 0 {
		a.free[number] = binary.LittleEndian.Uint32(a.at(ref, unit))
		return ref, true
	}
	ref := a.next
	const perChunk = arenaChunk / unit
	if ref%perChunk+units > perChunk {
		ref = (ref + perChunk - 1) / perChunk * perChunk // strings don't cross chunks
	}
	if ref+units > a.max {
		return 0, false
	}
	for uint64(len(a.chunks)) <= ref/perChunk {
		a.chunks = append(a.chunks, make([]byte, arenaChunk))
	}
	a.next = ref + units
	return uint32(ref), true
}

// at returns the n bytes at a place.
func (a *arena) at(ref uint32, n int) []byte {
	off := uint64(ref) * unit
	i := off % arenaChunk
	return a.chunks[off/arenaChunk][i : i+uint64(n) : i+uint64(n)]
}

// release frees the n bytes at a place and wipes them, so that a removed name does not linger in memory.
func (a *arena) release(ref uint32, n int) {
	number, _ := sizeOf(n)
	b := a.at(ref, max(n, unit))
	clear(b)
	binary.LittleEndian.PutUint32(b, a.free[number])
	a.free[number] = ref
}

// allocName stores a name of at most 255 bytes behind a byte that says its length.
func (a *arena) allocName(name string) (uint32, bool) {
	ref, ok := a.alloc(1 + len(name))
	if ok {
		b := a.at(ref, 1+len(name))
		b[0] = byte(len(name))
		copy(b[1:], name)
	}
	return ref, ok
}

// name returns the name at a place.
func (a *arena) name(ref uint32) []byte {
	n := int(a.at(ref, 1)[0])
	return a.at(ref, 1+n)[1:]
}

// releaseName frees the name at a place.
func (a *arena) releaseName(ref uint32) { a.release(ref, 1+len(a.name(ref))) }

func (a *arena) memory() uint64 { return uint64(len(a.chunks))*arenaChunk + uint64(cap(a.chunks))*24 }
