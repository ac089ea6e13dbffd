package tree

import (
	"math"
	"unsafe"
)

// Rows of a table lie in chunks of 1024: large enough that a million rows are a thousand objects to the garbage
// collector, small enough that an empty tree costs a few hundred kilobytes.
const (
	chunkShift = 10
	chunkRows  = 1 << chunkShift
)

// rows is a table of T that grows in chunks and never moves a row. T must hold no pointer.
type rows[T any] struct {
	chunks []*[chunkRows]T
}

// at returns row i, which must have been ensured.
func (r *rows[T]) at(i uint32) *T {
	return &r.chunks[i>>chunkShift][i%chunkRows]
}

// ensure makes the table long enough to hold row i.
func (r *rows[T]) ensure(i uint32) {
	for uint32(len(r.chunks)) <= i>>chunkShift {
		r.chunks = append(r.chunks, new([chunkRows]T))
	}
}

// memory returns the bytes of heap taken.
func (r *rows[T]) memory() uint64 {
	var chunk [chunkRows]T
	return uint64(len(r.chunks))*uint64(unsafe.Sizeof(chunk)) + uint64(cap(r.chunks))*8
}

// slots hands out row numbers, from 1, those given back first.
type slots struct {
	free []uint32
	used uint32 // the greatest number ever handed out
	max  uint32 // the greatest number that may be; smaller in tests only
}

func newSlots() slots { return slots{max: math.MaxUint32 - 1} }

// room reports whether n more can be taken.
func (s *slots) room(n uint32) bool {
	return uint64(s.max-s.used)+uint64(len(s.free)) >= uint64(n)
}

// take hands out a number; room must have been asked for.
func (s *slots) take() uint32 {
	if n := len(s.free); n > 0 {
		i := s.free[n-1]
		s.free = s.free[:n-1]
		return i
	}
	s.used++
	return s.used
}

// give takes a number back.
func (s *slots) give(i uint32) { s.free = append(s.free, i) }

// live returns how many are handed out now.
func (s *slots) live() uint64 { return uint64(s.used) - uint64(len(s.free)) }

func (s *slots) memory() uint64 { return uint64(cap(s.free)) * 4 }
