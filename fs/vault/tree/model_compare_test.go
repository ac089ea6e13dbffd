package tree

import (
	"bytes"
	"errors"
	"fmt"
	"reflect"
)

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
	got := p.tree.Stats()
	stats := got // what of it is not counted here is looked at by checkTree
	stats.Inodes, stats.Names, stats.Xattrs, stats.Bytes = 0, 0, 0, 0
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
