package tree

import (
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"

	"pgregory.net/rapid"
)

func TestAgainstModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p := newPair()
		numbers := map[int]*rapid.Generator[int]{}
		draw := func(n int) int {
			if numbers[n] == nil {
				numbers[n] = rapid.IntRange(0, n-1)
			}
			return numbers[n].Draw(t, "n")
		}
		for range rapid.IntRange(1, 120).Draw(t, "steps") {
			if err := p.step(draw); err != nil {
				t.Fatal(err)
			}
		}
		if err := errors.Join(p.compareAll(), checkTree(p.tree)); err != nil {
			t.Fatal(err)
		}
	})
}

// TestAgainstModelLong runs few but long streams, in which rows and bytes are used again many times.
func TestAgainstModelLong(t *testing.T) {
	for seed := range uint64(4) {
		rnd := rand.New(rand.NewPCG(seed, 0))
		p := newPair()
		if err := errors.Join(p.tree.Put(Attr{Ino: Root, Mode: typeDir}), p.put(Attr{Ino: Root, Mode: typeDir})); err != nil {
			t.Fatal(err)
		}
		var done [3]uint64
		for i := range 20000 {
			if err := p.step(rnd.IntN); err != nil {
				t.Fatalf("seed %d, step %d: %v", seed, i, err)
			}
			if i%100 == 0 {
				if err := errors.Join(p.compareAll(), checkTree(p.tree)); err != nil {
					t.Fatalf("seed %d, step %d: %v", seed, i, err)
				}
			}
			s := p.tree.Stats()
			done[0], done[1], done[2] = max(done[0], s.Inodes), max(done[1], s.Names), max(done[2], s.Extents)
		}
		if done[0] < 10 || done[1] < 8 || done[2] < 6 {
			t.Fatalf("seed %d: the stream never got beyond %d inodes, names, extents", seed, done)
		}
	}
}

func FuzzOperations(f *testing.F) {
	rnd := rand.New(rand.NewPCG(7, 7))
	for range 5 {
		b := make([]byte, 2000)
		for i := range b {
			b[i] = byte(rnd.Uint32())
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		b = b[:min(len(b), 4096)] // longer ones find nothing else and take their time
		p := newPair()
		draw := func(n int) (v int) {
			for ; n > 0 && len(b) > 0; n >>= 8 {
				v, b = v<<8|int(b[0]), b[1:]
			}
			return v
		}
		bounded := func(n int) int { return draw(n) % n }
		for len(b) > 0 {
			if err := p.step(bounded); err != nil {
				t.Fatal(err)
			}
		}
		if err := errors.Join(p.compareAll(), checkTree(p.tree)); err != nil {
			t.Fatal(err)
		}
	})
}

// must fails the test when an operation that should work does not.
func must(t testing.TB, errs ...error) {
	t.Helper()
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
}

// newTree returns a tree with a root and blocks of 100 bytes of payload at offset 10.
func newTree(t testing.TB) *Tree {
	tree := New(10, 100)
	must(t, tree.Put(Attr{Ino: Root, Mode: typeDir | 0o755}))
	return tree
}

func TestPutRefuses(t *testing.T) {
	file := Attr{Ino: 2, Mode: typeFile}
	for what, change := range map[string]func(*Attr){
		"number 0":               func(a *Attr) { a.Ino = 0 },
		"number beyond 63 bits":  func(a *Attr) { a.Ino = MaxInoValue + 1 },
		"root that is a file":    func(a *Attr) { a.Ino = Root },
		"no type":                func(a *Attr) { a.Mode = 0o644 },
		"unknown type":           func(a *Attr) { a.Mode = 0o030000 },
		"mode beyond 16 bits":    func(a *Attr) { a.Mode |= 1 << 16 },
		"size beyond 63 bits":    func(a *Attr) { a.Size = MaxSize + 1 },
		"a second of 1e9 ns (a)": func(a *Attr) { a.Atime.Nsec = 1e9 },
		"a second of 1e9 ns (m)": func(a *Attr) { a.Mtime.Nsec = 1e9 },
		"a second of 1e9 ns (c)": func(a *Attr) { a.Ctime.Nsec = math.MaxUint32 },
	} {
		tree, a := newTree(t), file
		change(&a)
		if err := tree.Put(a); err != ErrInvalid {
			t.Errorf("%s: %v", what, err)
		}
		if n := tree.Stats().Inodes; n != 1 {
			t.Errorf("%s: %d inodes", what, n)
		}
	}
	if err := New(10, 100).RaiseMaxIno(MaxInoValue + 1); err != ErrInvalid {
		t.Errorf("RaiseMaxIno: %v", err)
	}
}

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

// TestHugeNumbers: the cost of a number, an offset or a size does not grow with its value.
func TestHugeNumbers(t *testing.T) {
	tree := newTree(t)
	before := tree.Stats().Memory
	rnd := rand.New(rand.NewPCG(1, 1))
	want := map[Ino]uint64{}
	for range 1000 {
		ino := Ino(rnd.Uint64N(uint64(MaxInoValue)-2)) + 2
		want[ino] = rnd.Uint64N(MaxSize)
		must(t, tree.Put(Attr{Ino: ino, Mode: typeFile, Size: want[ino]}))
	}
	must(t, tree.Put(Attr{Ino: MaxInoValue, Mode: typeFile, Size: MaxSize}))
	for ino, size := range want {
		if a, err := tree.Attr(ino); err != nil || a.Size != size {
			t.Fatal(ino, a, err)
		}
	}
	must(t, tree.Map(MaxInoValue, Extent{Off: MaxSize - 150, Len: 150, Block: 7, At: 20}))
	must(t, tree.Map(MaxInoValue, Extent{Off: MaxSize - 140, Len: 5, Block: 0, At: 10}))
	var got []Extent
	must(t, tree.Extents(MaxInoValue, 0, math.MaxUint64, func(e Extent) bool { got = append(got, e); return true }))
	mapped := []Extent{{MaxSize - 150, 10, 7, 20}, {MaxSize - 140, 5, 0, 10}, {MaxSize - 135, 135, 7, 35}}
	if !slices.Equal(got, mapped) {
		t.Errorf("extents %v, want %v", got, mapped)
	}
	got = nil
	must(t, tree.Extents(MaxInoValue, MaxSize-10, math.MaxUint64, func(e Extent) bool { got = append(got, e); return true }))
	if want := []Extent{{MaxSize - 10, 10, 8, 60}}; !slices.Equal(got, want) {
		t.Errorf("extents to the end of all numbers %v, want %v", got, want)
	}
	must(t, tree.Clear(MaxInoValue, MaxSize-145, math.MaxUint64))
	if a, err := tree.Attr(MaxInoValue); err != nil || a.Blocks != 1 || tree.Stats().Bytes != 5 {
		t.Errorf("after Clear to the end of all numbers: %+v, %+v, %v", a, tree.Stats(), err)
	}
	if tree.MaxIno() != MaxInoValue {
		t.Errorf("MaxIno %d", tree.MaxIno())
	}
	if grown := tree.Stats().Memory - before; grown > 1<<20 {
		t.Errorf("1000 inodes took %d bytes", grown)
	}
	if err := checkTree(tree); err != nil {
		t.Error(err)
	}
}

// TestStride: numbers at equal distances, as an attacker who can't know the seed would choose them, make no long chains.
func TestStride(t *testing.T) {
	for _, stride := range []Ino{1, 16, 1 << 10, 1 << 32, 1 << 45} {
		tree := newTree(t)
		for i := range Ino(10000) {
			must(t, tree.Put(Attr{Ino: 2 + i*stride, Mode: typeFIFO}))
		}
		longest := 0
		for b := range tree.byIno.size {
			n := 0
			for i := *tree.byIno.heads.at(b); i != 0; i = tree.inodes.at(i).next {
				n++
			}
			longest = max(longest, n)
		}
		if longest > 100 {
			t.Errorf("stride %d: a chain of %d", stride, longest)
		}
	}
}

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

func TestXattrLimits(t *testing.T) {
	tree := newTree(t)
	n := 0
	for ; ; n++ {
		err := tree.SetXattr(Root, fmt.Sprintf("user.%0250d", n), nil)
		if err == ErrTooBig {
			break
		}
		must(t, err)
	}
	if n != MaxXattrList/256 {
		t.Errorf("%d attributes", n)
	}
	must(t, tree.SetXattr(Root, fmt.Sprintf("user.%0250d", 3), make([]byte, MaxXattrValue)))
	if err := tree.SetXattr(Root, fmt.Sprintf("user.%0250d", 3), make([]byte, MaxXattrValue+1)); err != ErrTooBig {
		t.Errorf("a long value: %v", err)
	}
	value, err := tree.Xattr(Root, fmt.Sprintf("user.%0250d", 4))
	if err != nil || value == nil || len(value) != 0 {
		t.Errorf("an empty value: %v, %v", value, err)
	}
}

// TestFull: a tree that is out of rows or bytes says so, changes nothing, and goes on when something was removed.
func TestFull(t *testing.T) {
	tree := newTree(t)
	must(t, tree.Put(Attr{Ino: 2, Mode: typeFile, Size: 100}), tree.Put(Attr{Ino: 3, Mode: typeLink}), tree.Link(1, "a", 2),
		tree.Map(2, Extent{0, 100, 0, 10}), tree.SetXattr(2, "x", []byte("1")))
	tree.inodeSlots.max, tree.order.slots.max, tree.ranges.slots.max, tree.xslots.max = 3, 1, 2, 1
	room := tree.bytes.next
	for what, err := range map[string]error{
		"Put":      tree.Put(Attr{Ino: 4, Mode: typeFile}),
		"Link":     tree.Link(1, "b", 2),
		"Map":      tree.Map(2, Extent{10, 10, 0, 10}),
		"SetXattr": tree.SetXattr(2, "y", nil),
	} {
		if err != ErrFull {
			t.Errorf("%s: %v", what, err)
		}
	}
	tree.order.slots.max, tree.xslots.max, tree.bytes.max = 9, 9, room
	for what, err := range map[string]error{
		"Link":                    tree.Link(1, strings.Repeat("b", 9), 2),
		"SetXattr's name":         tree.SetXattr(2, strings.Repeat("y", 9), nil),
		"SetXattr's value":        tree.SetXattr(2, "y", make([]byte, 9)),
		"SetXattr, another value": tree.SetXattr(2, "x", make([]byte, 9)),
		"SetTarget":               tree.SetTarget(3, "somewhere"),
	} {
		if err != ErrFull {
			t.Errorf("%s: %v", what, err)
		}
	}
	must(t, checkTree(tree))
	tree.bytes.max = room + 3
	if err := tree.SetXattr(2, strings.Repeat("y", 9), make([]byte, 9)); err != ErrFull {
		t.Errorf("SetXattr whose value fits and whose name does not: %v", err)
	}
	must(t, checkTree(tree), tree.Clear(2, 10, 10))
	for _, off := range []uint64{30, 20, 15, 11} { // inside an extent, from its start, from before it, its first byte
		if err := tree.Clear(2, off, 10); err != ErrFull {
			t.Errorf("Clear from %d: %v", off, err)
		}
	}
	must(t, checkTree(tree), tree.Clear(2, 95, 9), tree.Clear(2, 100, 9))
	must(t, tree.Clear(2, 0, 10), tree.Clear(2, 30, 10), tree.Unlink(1, "a"), tree.Free(2), tree.Put(Attr{Ino: 4, Mode: typeFile}))
	must(t, tree.Link(1, "c", 4), checkTree(tree))
	d, _ := tree.find(Root)
	tree.inodes.at(d).extra = math.MaxInt64
	if err := tree.Link(1, "d", 4); err != ErrFull {
		t.Errorf("Link without cookies: %v", err)
	}
}

func TestOrderOfInodes(t *testing.T) {
	tree := newTree(t)
	for ino, mode := range []uint32{2: typeDir, typeFile, typeDir, typeFile, typeFile, typeDir, typeFile, typeFile, typeDir, typeFile} {
		if mode != 0 {
			must(t, tree.Put(Attr{Ino: Ino(ino), Mode: mode}))
		}
	}
	for _, l := range []struct {
		dir  Ino
		name string
		ino  Ino
	}{
		{1, "z", 4}, {1, "a", 3}, {1, "b", 2}, {2, "c", 7}, {4, "d", 9}, {4, "hard", 3}, {2, "e", 5}, {7, "f", 6}, {10, "in an orphan", 11},
	} {
		must(t, tree.Link(l.dir, l.name, l.ino))
	}
	var got []Ino
	tree.Inodes(func(a Attr) bool { got = append(got, a.Ino); return true })
	if want := []Ino{1, 4, 3, 2, 9, 7, 5, 6, 8, 10, 11}; !slices.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
	for stop := 1; stop < len(got); stop++ {
		var some []Ino
		tree.Inodes(func(a Attr) bool { some = append(some, a.Ino); return len(some) < stop })
		if !slices.Equal(some, got[:stop]) {
			t.Errorf("stopped after %d: %v", stop, some)
		}
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

func TestMaxIno(t *testing.T) {
	tree := newTree(t)
	must(t, tree.Put(Attr{Ino: 90, Mode: typeFIFO}), tree.Free(90), tree.RaiseMaxIno(40))
	if tree.MaxIno() != 90 {
		t.Errorf("after Free: %d", tree.MaxIno())
	}
	must(t, tree.RaiseMaxIno(100))
	if tree.MaxIno() != 100 {
		t.Errorf("after RaiseMaxIno: %d", tree.MaxIno())
	}
}

// TestRemovedNameIsWiped: a name, target or value that was removed is nowhere in the arena.
func TestRemovedNameIsWiped(t *testing.T) {
	tree := newTree(t)
	must(t, tree.Put(Attr{Ino: 2, Mode: typeLink}), tree.Link(1, "canary-name", 2), tree.SetTarget(2, "canary-target"),
		tree.SetXattr(2, "canary-x", []byte("canary-value")))
	find := func(s string) bool { return strings.Contains(string(tree.bytes.chunks[0]), s) }
	if !find("canary-name") || !find("canary-target") || !find("canary-x") || !find("canary-value") {
		t.Fatal("the canaries are not found while they are there")
	}
	must(t, tree.Unlink(1, "canary-name"), tree.Free(2))
	for _, rest := range []string{"canary", "name", "target", "value"} {
		if find(rest) {
			t.Errorf("%q is still there", rest)
		}
	}
}

// TestRowsHoldNoPointer: else the garbage collector would trace them.
func TestRowsHoldNoPointer(t *testing.T) {
	var check func(reflect.Type)
	check = func(x reflect.Type) {
		switch x.Kind() {
		case reflect.Struct:
			for i := range x.NumField() {
				check(x.Field(i).Type)
			}
		case reflect.Array:
			check(x.Elem())
		case reflect.Uint16, reflect.Uint32, reflect.Uint64, reflect.Int64:
		default:
			t.Errorf("%v", x)
		}
	}
	for size, row := range map[uintptr]any{96: inode{}, 16: node{}} {
		check(reflect.TypeOf(row))
		if got := reflect.TypeOf(row).Size(); got != size {
			t.Errorf("%T takes %d bytes", row, got)
		}
	}
	check(reflect.TypeFor[dirent]())
	check(reflect.TypeFor[extent]())
	check(reflect.TypeFor[xattr]())
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

// TestReadersBesideEachOther is for the race detector: reading changes nothing.
func TestReadersBesideEachOther(t *testing.T) {
	tree := newTree(t)
	must(t, tree.Put(Attr{Ino: 2, Mode: typeFile, Size: 1000}), tree.Put(Attr{Ino: 3, Mode: typeLink}), tree.SetTarget(3, "t"),
		tree.Link(1, "a", 2), tree.Link(1, "b", 3), tree.Map(2, Extent{10, 300, 1, 10}), tree.SetXattr(2, "x", []byte("1")))
	var wait sync.WaitGroup
	for range 4 {
		wait.Go(func() {
			for range 200 {
				tree.Lookup(1, "a")
				tree.Attr(2)
				tree.Target(3)
				tree.Parent(1)
				tree.Xattr(2, "x")
				tree.Xattrs(2)
				tree.SeekData(2, 0)
				tree.SeekHole(2, 20)
				tree.Entries(1, 0, func(Entry) bool { return true })
				tree.Extents(2, 20, 40, func(Extent) bool { return true })
				tree.Inodes(func(Attr) bool { return true })
				tree.Orphans(func(Ino) bool { return true })
				tree.Stats()
				tree.MaxIno()
			}
		})
	}
	wait.Wait()
}
