package tree

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

// draw returns a number from 0 to n-1.
type draw func(n int) int

var (
	modelNames = []string{
		"a", "b", "c", "module.py", "__pycache__", strings.Repeat("n", 255), strings.Repeat("n", 254) + "m", "\xff\xfe", "...",
		"", ".", "..", "a/b", "a\x00", strings.Repeat("n", 256),
	}
	modelKinds = []uint32{typeFile, typeFile, typeFile, typeDir, typeDir, typeDir, typeLink, typeFIFO, typeChar, typeSocket, typeBlock}
	modelSizes = []int{0, 1, 3, 4, 5, 100, 255, 256, 257, 300, 1000, 4095, 4096, 65535, 65536, 65537}
)

// step draws one operation, runs it on both, and returns what was wrong.
func (p *pair) step(draw draw) error {
	ino, dir := Ino(draw(modelInos)), Ino(draw(modelInos))
	if draw(2) == 0 {
		dir = Root
	}
	name := modelNames[draw(len(modelNames))]
	off, length := uint64(draw(modelSize)), uint64(draw(modelSize))
	var what string
	var got, want error
	switch op := draw(14); op {
	case 0, 1:
		when := func() Time { return Time{int64(draw(100)) - 50, uint32(draw(1e9))} }
		a := Attr{
			Ino: ino, Mode: modelKinds[draw(len(modelKinds))] | uint32(draw(0o10000)), UID: uint32(draw(9)), GID: uint32(draw(9)),
			Nlink: 99, Blocks: 99, Rdev: uint32(draw(9)), Size: off, Atime: when(), Mtime: when(), Ctime: when(),
		}
		if n := p.inodes[ino]; n != nil && draw(4) != 0 {
			a.Mode = n.attr.Mode&typeMask | a.Mode&^typeMask
			a.Size = max(a.Size, uint64(len(n.data)))
		}
		what, got, want = fmt.Sprintf("Put(%+v)", a), p.tree.Put(a), p.put(a)
	case 2, 3:
		what = fmt.Sprintf("Link(%d, %q, %d)", dir, name, ino)
		got, want = p.tree.Link(dir, name, ino), p.link(dir, name, ino)
	case 4:
		what = fmt.Sprintf("Unlink(%d, %q)", dir, name)
		got, want = p.tree.Unlink(dir, name), p.unlink(dir, name)
	case 5:
		if draw(3) != 0 {
			ino = 0
		}
		what, got, want = fmt.Sprintf("Free(%d)", ino), p.tree.Free(ino), p.free(ino)
	case 6, 7:
		at := uint32(draw(modelStart + modelLen + 2))
		if n := p.inodes[ino]; n != nil && len(n.data) > 0 && draw(8) != 0 {
			off %= uint64(len(n.data))
			length = 1 + length%min(19, uint64(len(n.data))-off)
			at = modelStart + at%modelLen
		}
		e := Extent{Off: off, Len: length, Block: uint64(draw(50)), At: at}
		what, got, want = fmt.Sprintf("Map(%d, %+v)", ino, e), p.tree.Map(ino, e), p.mapExtent(ino, e)
	case 8:
		length = length % 20
		what = fmt.Sprintf("Clear(%d, %d, %d)", ino, off, length)
		got, want = p.tree.Clear(ino, off, length), p.clear(ino, off, length)
	case 9:
		target := strings.Repeat("t", modelSizes[draw(len(modelSizes))])
		if draw(8) == 0 {
			target += "\x00"
		}
		what = fmt.Sprintf("SetTarget(%d, %d bytes)", ino, len(target))
		got, want = p.tree.SetTarget(ino, target), p.setTarget(ino, target)
	case 10:
		value := bytes.Repeat([]byte{byte(draw(256))}, modelSizes[draw(len(modelSizes))])
		what = fmt.Sprintf("SetXattr(%d, %q, %d bytes)", ino, name, len(value))
		got, want = p.tree.SetXattr(ino, name, value), p.setXattr(ino, name, value)
	case 11:
		what = fmt.Sprintf("RemoveXattr(%d, %q)", ino, name)
		got, want = p.tree.RemoveXattr(ino, name), p.removeXattr(ino, name)
	case 12, 13:
		if draw(2) == 0 {
			ino = Root
		}
		newName := modelNames[draw(len(modelNames))]
		what = fmt.Sprintf("Rename(%d, %q, %d, %q)", dir, name, ino, newName)
		got, want = p.tree.Rename(dir, name, ino, newName), p.rename(dir, name, ino, newName)
	}
	if got != want {
		return fmt.Errorf("%s: %v, want %v", what, got, want)
	}
	if err := p.compare(ino, name, off, length); err != nil {
		return fmt.Errorf("after %s: inode %d: %w", what, ino, err)
	}
	if err := p.compare(dir, name, off, length); err != nil {
		return fmt.Errorf("after %s: inode %d: %w", what, dir, err)
	}
	return nil
}

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
