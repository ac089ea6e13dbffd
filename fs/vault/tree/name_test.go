package tree

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
)

func TestLinkRefuses(t *testing.T) {
	tree := newTree(t)
	must(t, tree.Put(Attr{Ino: 2, Mode: typeFile}))
	for name, want := range map[string]error{
		"": ErrInvalid, ".": ErrInvalid, "..": ErrInvalid, "/": ErrInvalid, "a/b": ErrInvalid, "a\x00": ErrInvalid, "\x00": ErrInvalid,
		strings.Repeat("n", 256): ErrNameTooLong,
		"...":                    nil, " ": nil, "\xff": nil, strings.Repeat("n", 255): nil,
	} {
		if err := tree.Link(Root, name, 2); err != want {
			t.Errorf("%q: %v, want %v", name, err, want)
		}
	}
	// An orphan 3 with 4 and 5 below it: each link that would close a cycle.
	for ino := Ino(3); ino <= 5; ino++ {
		must(t, tree.Put(Attr{Ino: ino, Mode: typeDir}))
	}
	must(t, tree.Link(3, "d", 4), tree.Link(4, "d", 5))
	for _, c := range []struct {
		dir, ino Ino
		want     error
	}{{3, 3, ErrInvalid}, {4, 3, ErrInvalid}, {5, 3, ErrInvalid}, {5, 1, ErrInvalid}, {1, 1, ErrInvalid}, {1, 4, ErrIsDir}, {1, 3, nil}, {1, 3, ErrIsDir}} {
		if err := tree.Link(c.dir, fmt.Sprint(c.ino, c.want), c.ino); err != c.want {
			t.Errorf("%d into %d: %v, want %v", c.ino, c.dir, err, c.want)
		}
	}
}

// TestDeep: a chain of directories costs no stack and its building is not quadratic.
func TestDeep(t *testing.T) {
	const depth = 200_000
	tree := newTree(t)
	for ino := Ino(2); ino <= depth; ino++ {
		must(t, tree.Put(Attr{Ino: ino, Mode: typeDir}), tree.Link(ino-1, "d", ino))
	}
	n := 0
	tree.Inodes(func(Attr) bool { n++; return true })
	if n != depth {
		t.Errorf("%d of %d", n, depth)
	}
}

// TestManyNames adds and removes names in a few directories at random, so that the indexes grow by thousands of
// buckets and rows are used again, while a listing of one directory goes on in small steps.
func TestManyNames(t *testing.T) {
	tree := newTree(t)
	rnd := rand.New(rand.NewPCG(3, 3))
	must(t, tree.Put(Attr{Ino: 2, Mode: typeDir}), tree.Put(Attr{Ino: 3, Mode: typeDir}), tree.Put(Attr{Ino: 4, Mode: typeFile}))
	have := map[string]bool{} // of directory 2; 3 is filled beside it and never read
	stay := map[string]bool{} // names never removed
	for i := range 3000 {
		name := fmt.Sprint("stay", i)
		must(t, tree.Link(2, name, 4))
		have[name], stay[name] = true, true
	}
	met, after := map[string]int{}, uint64(0)
	for i := 0; len(met) < len(stay) || i < 40000; i++ {
		name := fmt.Sprint("come", rnd.IntN(9000))
		if err := tree.Link(2, name, 4); have[name] {
			if err != ErrExists {
				t.Fatalf("%s a second time: %v", name, err)
			}
			must(t, tree.Unlink(2, name))
			delete(have, name)
		} else {
			must(t, err)
			have[name] = true
		}
		if rnd.IntN(2) == 0 {
			must(t, tree.Link(3, fmt.Sprint(i), 4))
		}
		if i%4 == 0 {
			step := 0
			must(t, tree.Entries(2, after, func(e Entry) bool {
				if e.Cookie <= after || !have[e.Name] {
					t.Fatalf("%s with cookie %d after %d", e.Name, e.Cookie, after)
				}
				after = e.Cookie
				if stay[e.Name] {
					met[e.Name]++
				}
				step++
				return step < 2
			}))
		}
	}
	for name := range stay {
		if met[name] != 1 {
			t.Fatalf("%s was met %d times", name, met[name])
		}
	}
	for name := range have {
		if _, err := tree.Lookup(2, name); err != nil {
			t.Fatal(name, err)
		}
	}
	if n, _ := tree.Attr(2); n.Size != uint64(len(have)) {
		t.Fatalf("%d entries of %d", n.Size, len(have))
	}
	must(t, checkIndex(&tree.byName, tree.nextName, tree.hashOfName))
}

// checkIndex checks that each row hangs in the chain of its hash, once.
func checkIndex(x *index, next func(uint32) *uint32, hash func(uint32) uint64) error {
	count := uint32(0)
	for b := range x.size {
		for i := *x.heads.at(b); i != 0; i = *next(i) {
			if count++; x.head(hash(i)) != x.heads.at(b) {
				return fmt.Errorf("row %d is in bucket %d", i, b)
			}
		}
	}
	if count != x.count {
		return fmt.Errorf("%d rows of %d", count, x.count)
	}
	return nil
}
