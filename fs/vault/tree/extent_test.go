package tree

import (
	"math"
	"math/rand/v2"
	"slices"
	"testing"
)

func TestMapRefuses(t *testing.T) {
	tree := newTree(t)
	must(t, tree.Put(Attr{Ino: 2, Mode: typeFile, Size: 1000}), tree.Put(Attr{Ino: 3, Mode: typeFile, Size: MaxSize}),
		tree.Put(Attr{Ino: 4, Mode: typeLink}))
	for _, c := range []struct {
		what string
		ino  Ino
		e    Extent
		want error
	}{
		{"no bytes", 2, Extent{0, 0, 1, 10}, ErrInvalid},
		{"beyond the size", 2, Extent{1, 1000, 1, 10}, ErrInvalid},
		{"an end that overflows", 2, Extent{math.MaxUint64, 2, 1, 10}, ErrInvalid},
		{"before the payload", 2, Extent{0, 1, 1, 9}, ErrInvalid},
		{"behind the payload", 2, Extent{0, 1, 1, 110}, ErrInvalid},
		{"a block whose position overflows", 2, Extent{0, 1, math.MaxUint64, 10}, ErrInvalid},
		{"a block whose position wraps to a small one", 2, Extent{0, 1, math.MaxUint64/100 + 1, 10}, ErrInvalid},
		{"a block at the edge of 63 bits", 2, Extent{0, 1, math.MaxInt64 / 100, 109}, ErrInvalid},
		{"an end beyond 63 bits", 3, Extent{0, MaxSize, 1, 10}, ErrInvalid},
		{"a symlink", 4, Extent{0, 1, 1, 10}, ErrInvalid},
		{"a directory", Root, Extent{0, 1, 1, 10}, ErrIsDir},
		{"nothing", 9, Extent{0, 1, 1, 10}, ErrNotFound},
		{"the last byte", 2, Extent{999, 1, math.MaxInt64/100 - 1, 109}, nil},
		{"the longest", 3, Extent{0, MaxSize, 0, 10}, nil},
	} {
		if err := tree.Map(c.ino, c.e); err != c.want {
			t.Errorf("%s: %v, want %v", c.what, err, c.want)
		}
	}
	if err := New(10, 0).Put(Attr{Ino: 2, Mode: typeFile, Size: 9}); err != nil {
		t.Error(err)
	}
	empty := New(10, 0)
	must(t, empty.Put(Attr{Ino: 2, Mode: typeFile, Size: 9}))
	if err := empty.Map(2, Extent{0, 1, 0, 10}); err != ErrInvalid {
		t.Errorf("blocks without payload: %v", err)
	}
}

// TestRandomOverwrites maps and clears ranges of all lengths of one file and compares it with an array.
func TestRandomOverwrites(t *testing.T) {
	const size = 200_000
	tree := newTree(t)
	must(t, tree.Put(Attr{Ino: 2, Mode: typeFile, Size: size}))
	rnd := rand.New(rand.NewPCG(5, 5))
	want := make([]uint64, size) // position and one, 0 for a hole
	for i := range 30000 {
		length := 1 + rnd.Uint64N(1<<rnd.UintN(12))
		off, pos := rnd.Uint64N(size-length), rnd.Uint64N(1e9)
		if rnd.IntN(4) == 0 {
			must(t, tree.Clear(2, off, length))
			clear(want[off : off+length])
			continue
		}
		must(t, tree.Map(2, Extent{off, length, pos / 100, 10 + uint32(pos%100)}))
		for j := range length {
			want[off+j] = pos + j + 1
		}
		if i%10000 == 0 {
			must(t, checkTree(tree))
		}
	}
	if n := tree.Stats().Extents; n < 1000 {
		t.Errorf("only %d extents", n)
	}
	got := make([]uint64, size)
	must(t, checkTree(tree), tree.Extents(2, 0, size, func(e Extent) bool {
		for j := range e.Len {
			got[e.Off+j] = e.Block*100 + uint64(e.At-10) + j + 1
		}
		return true
	}))
	if !slices.Equal(got, want) {
		t.Error("the file is mapped wrongly")
	}
	must(t, tree.Put(Attr{Ino: 2, Mode: typeFile}), checkTree(tree))
	if s := tree.Stats(); s.Extents != 0 || s.Bytes != 0 {
		t.Errorf("after truncation: %+v", s)
	}
}
