package tree

import (
	"bytes"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
)

// The model is the tree as anybody would write it: maps, slices, and a file's mapping byte by byte. Its blocks carry 7
// bytes of payload at offset 5, so that nearly every extent crosses blocks and cuts fall everywhere.
const (
	modelStart = 5
	modelLen   = 7
	modelSize  = 160 // greatest size of a file
	modelInos  = 14
	hole       = -1
)

type modelEntry struct {
	name   string
	ino    Ino
	cookie uint64
}

type modelXattr struct {
	name  string
	value []byte
}

type modelInode struct {
	attr    Attr // Nlink and Blocks unset
	target  string
	xattrs  []modelXattr
	entries []modelEntry
	cookie  uint64
	data    []int // position in the stream of each byte, or hole
}

func (n *modelInode) is(kind uint32) bool { return n.attr.Mode&typeMask == kind }

// pair runs each operation on a tree and on the model and compares what they say.
type pair struct {
	tree   *Tree
	inodes map[Ino]*modelInode
	maxIno Ino
}

func newPair() *pair {
	return &pair{tree: New(modelStart, modelLen), inodes: map[Ino]*modelInode{}}
}

func (p *pair) names(ino Ino) (count int, parent Ino) {
	for d, n := range p.inodes {
		for _, e := range n.entries {
			if e.ino == ino {
				count, parent = count+1, d
			}
		}
	}
	return count, parent
}

// below reports whether ino is dir or lies above it.
func (p *pair) below(dir, ino Ino) bool {
	for dir != 0 {
		if dir == ino {
			return true
		}
		_, dir = p.names(dir)
	}
	return false
}

func (p *pair) attr(ino Ino) Attr {
	n := p.inodes[ino]
	a := n.attr
	links, _ := p.names(ino)
	a.Nlink = uint32(links)
	switch a.Mode & typeMask {
	case typeFile:
		mapped := 0
		for _, pos := range n.data {
			if pos != hole {
				mapped++
			}
		}
		a.Size, a.Blocks = uint64(len(n.data)), uint64(mapped+511)/512
	case typeDir:
		a.Size = uint64(len(n.entries))
		if links != 0 || ino == Root {
			a.Nlink = 2
			for _, e := range n.entries {
				if p.inodes[e.ino].is(typeDir) {
					a.Nlink++
				}
			}
		}
	case typeLink:
		a.Size = uint64(len(n.target))
	}
	return a
}

// find returns an inode of the model, with the error that a method on regular files gives for it.
func (p *pair) file(ino Ino) (*modelInode, error) {
	n := p.inodes[ino]
	switch {
	case n == nil:
		return nil, ErrNotFound
	case n.is(typeDir):
		return nil, ErrIsDir
	case !n.is(typeFile):
		return nil, ErrInvalid
	}
	return n, nil
}

func (p *pair) dir(ino Ino) (*modelInode, error) {
	n := p.inodes[ino]
	switch {
	case n == nil:
		return nil, ErrNotFound
	case !n.is(typeDir):
		return nil, ErrNotDir
	}
	return n, nil
}

func (n *modelInode) entry(name string) int {
	return slices.IndexFunc(n.entries, func(e modelEntry) bool { return e.name == name })
}

func (n *modelInode) xattr(name string) int {
	return slices.IndexFunc(n.xattrs, func(x modelXattr) bool { return x.name == name })
}

func (p *pair) put(a Attr) error {
	n := p.inodes[a.Ino]
	if a.Ino == 0 || a.Ino == Root && a.Mode&typeMask != typeDir || n != nil && !n.is(a.Mode&typeMask) {
		return ErrInvalid
	}
	if n == nil {
		n = &modelInode{cookie: firstCookie - 1}
		p.inodes[a.Ino] = n
		p.maxIno = max(p.maxIno, a.Ino)
	}
	for a.Mode&typeMask == typeFile && len(n.data) < int(a.Size) {
		n.data = append(n.data, hole)
	}
	if a.Mode&typeMask == typeFile {
		n.data = n.data[:a.Size]
	}
	a.Size, a.Nlink, a.Blocks = 0, 0, 0
	if !isDevice(a.Mode) {
		a.Rdev = 0
	}
	n.attr = a
	return nil
}

func (p *pair) link(dir Ino, name string, ino Ino) error {
	if err := checkName(name); err != nil {
		return err
	}
	d, err := p.dir(dir)
	if err != nil {
		return err
	}
	n := p.inodes[ino]
	if n == nil {
		return ErrNotFound
	}
	if d.entry(name) >= 0 {
		return ErrExists
	}
	if n.is(typeDir) {
		links, _ := p.names(ino)
		switch {
		case ino == Root || dir == ino:
			return ErrInvalid
		case links != 0:
			return ErrIsDir
		case p.below(dir, ino):
			return ErrInvalid
		}
	}
	d.cookie++
	d.entries = append(d.entries, modelEntry{name, ino, d.cookie})
	return nil
}

func (p *pair) unlink(dir Ino, name string) error {
	d, err := p.dir(dir)
	if err != nil {
		return err
	}
	if len(name) > MaxName {
		return ErrNameTooLong
	}
	i := d.entry(name)
	if i < 0 {
		return ErrNotFound
	}
	if len(p.inodes[d.entries[i].ino].entries) != 0 {
		return ErrNotEmpty
	}
	d.entries = slices.Delete(d.entries, i, i+1)
	return nil
}

func (p *pair) free(ino Ino) error {
	n := p.inodes[ino]
	if n == nil {
		return ErrNotFound
	}
	if links, _ := p.names(ino); links != 0 || ino == Root {
		return ErrInvalid
	}
	if len(n.entries) != 0 {
		return ErrNotEmpty
	}
	delete(p.inodes, ino)
	return nil
}

func (p *pair) mapExtent(ino Ino, e Extent) error {
	n, err := p.file(ino)
	if err != nil {
		return err
	}
	if e.Len == 0 || e.Off+e.Len > uint64(len(n.data)) || e.At < modelStart || e.At >= modelStart+modelLen {
		return ErrInvalid
	}
	for i := range e.Len {
		n.data[e.Off+i] = int(e.Block*modelLen + uint64(e.At-modelStart) + i)
	}
	return nil
}

func (p *pair) clear(ino Ino, off, length uint64) error {
	n, err := p.file(ino)
	if err != nil {
		return err
	}
	for i := off; i < min(off+length, uint64(len(n.data))); i++ {
		n.data[i] = hole
	}
	return nil
}

func (p *pair) setTarget(ino Ino, target string) error {
	n := p.inodes[ino]
	switch {
	case n == nil:
		return ErrNotFound
	case !n.is(typeLink) || target == "" || len(target) > MaxTarget || strings.Contains(target, "\x00"):
		return ErrInvalid
	}
	n.target = target
	return nil
}

func (p *pair) setXattr(ino Ino, name string, value []byte) error {
	n := p.inodes[ino]
	switch {
	case n == nil:
		return ErrNotFound
	case len(name) > MaxName:
		return ErrNameTooLong
	case name == "" || strings.Contains(name, "\x00"):
		return ErrInvalid
	case len(value) > MaxXattrValue:
		return ErrTooBig
	}
	if i := n.xattr(name); i >= 0 {
		n.xattrs[i].value = value
	} else {
		n.xattrs = append(n.xattrs, modelXattr{name, value})
	}
	return nil
}

func (p *pair) removeXattr(ino Ino, name string) error {
	n := p.inodes[ino]
	if n == nil {
		return ErrNotFound
	}
	i := n.xattr(name)
	if i < 0 {
		return ErrNoXattr
	}
	n.xattrs = slices.Delete(n.xattrs, i, i+1)
	return nil
}

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
	switch op := draw(12); op {
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

// same returns an error when two values differ, also as they print: no entries are no entries, nil or not.
func same(what string, got, want any) error {
	if reflect.DeepEqual(got, want) {
		return nil
	}
	if g, w := fmt.Sprintf("%+v", got), fmt.Sprintf("%+v", want); g != w {
		return fmt.Errorf("%s: %.500s, want %.500s", what, g, w)
	}
	return nil
}

// compare asks both everything about one inode.
func (p *pair) compare(ino Ino, name string, off, length uint64) error {
	n := p.inodes[ino]
	a, err := p.tree.Attr(ino)
	if n == nil {
		_, lookup := p.tree.Lookup(ino, name)
		_, target := p.tree.Target(ino)
		_, parent := p.tree.Parent(ino)
		_, value := p.tree.Xattr(ino, name)
		_, list := p.tree.Xattrs(ino)
		_, data := p.tree.SeekData(ino, off)
		_, gap := p.tree.SeekHole(ino, off)
		entries := p.tree.Entries(ino, 0, func(Entry) bool { return true })
		extents := p.tree.Extents(ino, 0, length, func(Extent) bool { return true })
		for i, err := range []error{err, lookup, target, parent, value, list, data, gap, entries, extents} {
			if err != ErrNotFound {
				return fmt.Errorf("reading a missing inode (%d): %v", i, err)
			}
		}
		return nil
	}
	return errors.Join(err, same("Attr", a, p.attr(ino)), p.compareDir(ino, n, name, off),
		p.compareFile(ino, n, off, length), p.compareXattrs(ino, n, name), p.compareTarget(ino, n))
}

func (p *pair) compareTarget(ino Ino, n *modelInode) error {
	target, err := p.tree.Target(ino)
	if !n.is(typeLink) {
		return same("Target's error", err, ErrInvalid)
	}
	return errors.Join(err, same("Target", target, n.target))
}

func (p *pair) compareXattrs(ino Ino, n *modelInode, name string) error {
	got, err := p.tree.Xattrs(ino)
	var want []string
	for _, x := range n.xattrs {
		want = append(want, x.name)
	}
	err = errors.Join(err, same("Xattrs", got, want))
	value, verr := p.tree.Xattr(ino, name)
	if i := n.xattr(name); i < 0 {
		return errors.Join(err, same("Xattr's error", verr, ErrNoXattr))
	} else if verr != nil || !bytes.Equal(value, n.xattrs[i].value) {
		return errors.Join(err, fmt.Errorf("Xattr: %d bytes, %v", len(value), verr))
	}
	return err
}

func (p *pair) compareDir(ino Ino, n *modelInode, name string, after uint64) error {
	parent, err := p.tree.Parent(ino)
	child, lookup := p.tree.Lookup(ino, name)
	if !n.is(typeDir) {
		entries := p.tree.Entries(ino, 0, func(Entry) bool { return true })
		return same("errors", []error{err, lookup, entries}, []error{ErrNotDir, ErrNotDir, ErrNotDir})
	}
	_, up := p.names(ino)
	switch {
	case ino == Root:
		err = errors.Join(err, same("Parent", parent, Root))
	case up == 0:
		err = same("Parent's error", err, ErrNotFound)
	default:
		err = errors.Join(err, same("Parent", parent, up))
	}
	switch i := n.entry(name); {
	case len(name) > MaxName:
		err = errors.Join(err, same("Lookup's error", lookup, ErrNameTooLong))
	case i < 0:
		err = errors.Join(err, same("Lookup's error", lookup, ErrNotFound))
	default:
		err = errors.Join(err, lookup, same("Lookup", child, n.entries[i].ino))
	}
	var want []Entry
	for _, e := range n.entries {
		if e.cookie > after%8 {
			want = append(want, Entry{e.name, e.ino, p.inodes[e.ino].attr.Mode, e.cookie})
		}
	}
	return errors.Join(err, same("Entries", p.listing(ino, after%8, int(after%3)+1), want))
}

// listing reads a directory's entries in steps of so many.
func (p *pair) listing(dir Ino, after uint64, batch int) (all []Entry) {
	for {
		got := 0
		p.tree.Entries(dir, after, func(e Entry) bool {
			all, after = append(all, e), e.Cookie
			got++
			return got < batch
		})
		if got < batch {
			return all
		}
	}
}

func (p *pair) compareFile(ino Ino, n *modelInode, off, length uint64) error {
	_, want := p.file(ino)
	at, data := p.tree.SeekData(ino, off)
	gap, hole1 := p.tree.SeekHole(ino, off)
	got := make([]int, len(n.data))
	for i := range got {
		got[i] = hole
	}
	end := uint64(0)
	var bad error
	err := p.tree.Extents(ino, off, length, func(e Extent) bool {
		if e.Len == 0 || e.Off < max(off, end) || e.Off+e.Len > min(off+length, uint64(len(n.data))) {
			bad = fmt.Errorf("extent %+v in [%d, +%d) after %d", e, off, length, end)
			return false
		}
		end = e.Off + e.Len
		for i := range e.Len {
			got[e.Off+i] = int(e.Block*modelLen + uint64(e.At-modelStart) + i)
		}
		return e.At >= modelStart && e.At < modelStart+modelLen
	})
	if want != nil {
		return same("errors", []error{err, data, hole1}, []error{want, want, want})
	}
	wantData, wantHole := ErrNoData, ErrNoData
	wantAt, wantGap := uint64(0), uint64(0)
	for i := len(n.data) - 1; i >= int(off); i-- {
		if n.data[i] != hole {
			wantData, wantAt = nil, uint64(i)
		}
		if i == len(n.data)-1 {
			wantHole, wantGap = nil, uint64(len(n.data))
		}
		if n.data[i] == hole {
			wantGap = uint64(i)
		}
	}
	inside := make([]int, len(n.data))
	for i := range inside {
		inside[i] = hole
		if uint64(i) >= off && uint64(i) < off+length {
			inside[i] = n.data[i]
		}
	}
	return errors.Join(err, bad, same("Extents", got, inside),
		same("SeekData", fmt.Sprint(at, data), fmt.Sprint(wantAt, wantData)),
		same("SeekHole", fmt.Sprint(gap, hole1), fmt.Sprint(wantGap, wantHole)))
}

// compareAll compares all inodes, the walks over them and the counts.
func (p *pair) compareAll() error {
	var stats Stats
	orphans := map[Ino]bool{}
	for ino, n := range p.inodes {
		if err := p.compare(ino, "a", 0, modelSize); err != nil {
			return fmt.Errorf("inode %d: %w", ino, err)
		}
		stats.Inodes++
		stats.Names += uint64(len(n.entries))
		stats.Xattrs += uint64(len(n.xattrs))
		for _, pos := range n.data {
			if pos != hole {
				stats.Bytes++
			}
		}
		if links, _ := p.names(ino); links == 0 && ino != Root {
			orphans[ino] = true
		}
	}
	got := p.tree.Stats()
	stats.Extents, stats.Memory = got.Extents, got.Memory // looked at by checkTree
	orphaned := map[Ino]bool{}
	p.tree.Orphans(func(ino Ino) bool { orphaned[ino] = true; return true })
	return errors.Join(same("Stats", got, stats), same("Orphans", orphaned, orphans),
		same("MaxIno", p.tree.MaxIno(), p.maxIno), p.compareWalk())
}

// compareWalk checks what Inodes promises of its order.
func (p *pair) compareWalk() error {
	seen := map[Ino]int{}
	var err error
	p.tree.Inodes(func(a Attr) bool {
		if seen[a.Ino] != 0 {
			err = errors.Join(err, fmt.Errorf("Inodes: %d twice", a.Ino))
		}
		seen[a.Ino] = len(seen) + 1
		err = errors.Join(err, same("Inodes", a, p.attr(a.Ino)))
		return true
	})
	if len(seen) != len(p.inodes) || p.inodes[Root] != nil && seen[Root] != 1 {
		err = errors.Join(err, fmt.Errorf("Inodes: %d of %d, the root number %d", len(seen), len(p.inodes), seen[Root]))
	}
	for ino, n := range p.inodes {
		for _, e := range n.entries {
			if p.inodes[e.ino].is(typeDir) && seen[e.ino] < seen[ino] {
				err = errors.Join(err, fmt.Errorf("Inodes: directory %d before %d, which it is in", e.ino, ino))
			}
		}
	}
	return err
}
