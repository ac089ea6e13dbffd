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
)

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
