package vault

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"testing"

	"encfsrun/fs/vault/disk/memdisk"
	"encfsrun/fs/vault/record"
	"encfsrun/fs/vault/seal"
	"encfsrun/fs/vault/tree"
	"encfsrun/keyring"
)

// FuzzHeader parses arbitrary text as vault.json: what is taken is its own canonical form, and nothing else is an error but
// that it is not a vault or too new.
func FuzzHeader(f *testing.F) {
	x := newFixture(f)
	h := Header{VaultID: x.id, Generation: 3, Slots: []keyring.Slot{x.slot}}
	good, err := h.encode(fmt.Sprintf("%064x", 7))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	for _, old := range []string{`"version": 1`, `"generation": 3`, `"hkdf-sha256"`, `"slots": [`, `machine`, `"mac"`} {
		for _, other := range []string{"", "0", `"version": 2`, `"generation": 18446744073709551616`, `"argon2id"`, `"slots": [[`, `"MAC"`} {
			f.Add(bytes.Replace(good, []byte(old), []byte(other), 1))
		}
	}
	f.Add([]byte(`{"format":"encfsrun vault","version":1}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		h, err := parseHeader(testVault, headerName, b)
		if err != nil {
			var notVault *NotVaultError
			var tooNew *TooNewError
			if !errors.As(err, &notVault) && !errors.As(err, &tooNew) || h != nil {
				t.Fatalf("%v, %v", h, err)
			}
			return
		}
		if again, err := h.encode(fmt.Sprintf("%x", h.mac)); err != nil || !bytes.Equal(again, b) {
			t.Fatalf("taken:\n%s\nits canonical form (%v):\n%s", b, err, again)
		}
	})
}

// FuzzSegmentHeader decodes arbitrary plaintext as a segment's header: what is taken encodes to the same bytes.
func FuzzSegmentHeader(f *testing.F) {
	for _, h := range []segmentHeader{
		{number: 1}, {number: 7, predecessor: 6, predEnd: 2047, first: 99, generation: 3, checkpoint: true, id: seal.ID{1}, predChain: Root{2}},
		{number: 2, predecessor: 2}, {number: 2, predecessor: 1, predEnd: 2048}, {},
	} {
		f.Add(h.encode()[:136])
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		plain := make([]byte, headerPlain)
		copy(plain, b)
		if h, err := decodeSegmentHeader(plain); err == nil && !bytes.Equal(h.encode(), plain) {
			t.Fatalf("%+v encodes to other bytes", h)
		}
	})
}

// FuzzPrefix is the same for a block's prefix.
func FuzzPrefix(f *testing.F) {
	for _, p := range []prefix{{}, {seal.ID{1}, 5, 0}, {seal.ID{1}, 5, noRecord}, {seal.ID{1}, 5, PayloadSize - 1}, {seal.ID{1}, 5, PayloadSize}} {
		b := make([]byte, PayloadStart)
		p.put(b)
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		plain, again := make([]byte, PayloadStart), make([]byte, PayloadStart)
		copy(plain, b)
		p, err := parsePrefix(plain)
		if err != nil {
			return
		}
		if p.put(again); !bytes.Equal(again, plain) || p.first != noRecord && p.first >= PayloadSize {
			t.Fatalf("%+v of %x", p, plain)
		}
	})
}

// FuzzPin decodes arbitrary text as a pin: what is taken is its own canonical form.
func FuzzPin(f *testing.F) {
	f.Add((&Pin{VaultID: seal.ID{1}, Generation: 2, Session: seal.ID{3}, Sequence: 4, Chain: Root{5}}).encode())
	f.Add((&Pin{}).encode())
	f.Add([]byte("{}\n"))
	f.Add((&Pin{Sequence: 9}).encode()[:100])
	f.Fuzz(func(t *testing.T, b []byte) {
		if p, err := decodePin(b); err == nil && !bytes.Equal(p.encode(), b) {
			t.Fatalf("taken: %s", b)
		}
	})
}

// FuzzReplay opens a log whose last segment holds arbitrary records under the real keys: what a faulty writer, or a hostile one
// who has the passkey, could seal. Commits and checkpoints get the right chain values, which nobody can guess. The log is
// refused as damaged, or it is a tree that can be walked and that Check finds whole; it never takes much memory.
func FuzzReplay(f *testing.F) {
	x := newFixture(f)
	c := newCrafter(f, x)
	added := c.fileRecords(3, "added.py", "x = 1\n")
	commit := func(closing bool) []byte {
		return record.CommitRecord{Sequence: 2, NextIno: 9, Closing: closing}.Append(nil)
	}
	f.Add(false, uint32(0), slices.Concat(added, commit(false)), uint32(1), []byte{})
	f.Add(false, uint32(0), commit(true), uint32(1), []byte{})
	f.Add(false, uint32(0), append(record.AppendHeader(nil, record.Commit, record.MaxPayload), commit(true)...), uint32(1), []byte{})
	f.Add(false, uint32(0), slices.Concat(record.AppendRename(nil, 1, "main.py", 1, "x"), record.AppendUnlink(nil, 1, "x"), record.AppendFree(nil, 2), commit(false)), uint32(1), []byte{})
	f.Add(false, uint32(0), slices.Concat(record.AppendClear(nil, 2, 1, 5), record.AppendSetXattr(nil, 2, "user.a", []byte("b")), record.AppendRemoveXattr(nil, 2, "user.a"), commit(false)), uint32(1), []byte{})
	f.Add(false, uint32(0), slices.Concat(record.AppendInode(nil, tree.Attr{Ino: 5, Mode: 0o100644, Size: 1 << 62}), record.AppendLink(nil, 1, "huge", 5), commit(false)), uint32(1), []byte{})
	f.Add(false, uint32(0), slices.Concat(record.AppendDataHeader(nil, 2, 0, 14), []byte("print('HELLO')"), commit(false)), uint32(1), []byte{})
	f.Add(false, uint32(0), record.AppendDataHeader(nil, 2, 0, record.MaxChunk), uint32(1), []byte{})
	f.Add(false, noRecord, []byte{7}, uint32(2*PayloadSize), []byte{})
	xattr := record.AppendSetXattr(nil, 2, "user.a", make([]byte, 65_000))
	f.Add(false, uint32(0), xattr[:30], uint32(1), []byte{})
	f.Add(false, uint32(0), slices.Concat(record.AppendUnlink(nil, 1, "main.py"), record.AppendLink(nil, 1, "main.py", 2)), uint32(900), commit(false))
	good(c)
	c.segmentWith(nil) // so that the checkpoint's table is that of segment 1
	for _, change := range []func(*record.StateRecord, *record.SegmentRecord, *tree.Extent){
		nil,
		func(s *record.StateRecord, _ *record.SegmentRecord, _ *tree.Extent) { s.Inodes = 1 << 60 },
		func(_ *record.StateRecord, t *record.SegmentRecord, _ *tree.Extent) { t.First = 1 << 63 },
		func(_ *record.StateRecord, _ *record.SegmentRecord, e *tree.Extent) { e.Block = 1<<64 - 1 },
	} {
		piece := record.AppendPiece(nil, record.PieceHeader{Last: true}, c.checkpoint(change))
		f.Add(true, uint32(0), slices.Concat(piece, commit(false)), uint32(1), []byte{})
	}
	f.Fuzz(func(t *testing.T, checkpoint bool, first uint32, again []byte, times uint32, stream []byte) {
		// Long streams are short inputs, so that a fuzzer need not make them smaller.
		if uint64(len(again))*uint64(times)+uint64(len(stream)) > 4*PayloadSize {
			return
		}
		stream = append(bytes.Repeat(again, int(times)), stream...)
		c := good(newCrafter(t, x))
		c.segmentWith(func(h *segmentHeader) { h.checkpoint = checkpoint })
		for len(stream) > 0 {
			part := stream[:min(len(stream), PayloadSize)]
			stream = stream[len(part):]
			c.block(prefix{c.session, 0, first}, c.mend(slices.Clone(part), first))
		}
		if err := opensOrIsRefused(x, c.d); err != nil {
			t.Fatal(err)
		}
	})
}

// mend puts the right chain values into commits and checkpoints of a block's records.
func (c *crafter) mend(stream []byte, first uint32) []byte {
	for rest := stream; uint64(first) < uint64(len(rest)); {
		rest, first = rest[first:], 0
		h, err := record.ParseHeader(rest, false)
		if err != nil || h.Length > len(rest)-record.HeaderSize {
			break
		}
		payload := rest[record.HeaderSize:][:h.Length]
		const chainAt = 8 // in a Commit, and in a State at the head of a Piece's records
		switch {
		case h.Type == record.Commit && h.Length == record.CommitSize:
			copy(payload[chainAt:], c.tail.chain[:])
		case h.Type == record.Piece && h.Length > 60 && record.Type(payload[5]) == record.State:
			predecessor := c.ids[c.tail.number].predChain
			copy(payload[5+record.HeaderSize+chainAt:], predecessor[:])
		}
		rest = rest[record.HeaderSize+h.Length:]
	}
	return stream
}

// opensOrIsRefused opens a crafted vault and, if it opens, walks all of it.
func opensOrIsRefused(x *fixture, d *memdisk.Disk) error {
	v, err := x.open(d, Options{})
	if isIntegrity(err) {
		return nil
	}
	if err != nil {
		return err
	}
	defer v.keys.Destroy()
	defer v.Close()
	if m := v.Stats().Memory; m > 64<<20 {
		return fmt.Errorf("a tree of %d bytes", m)
	}
	report, err := v.Check(context.Background(), nil)
	if err != nil || len(report.Damage) > 0 {
		return fmt.Errorf("check: %v, %w", report.Damage, err)
	}
	return walkAll(v, tree.Root)
}

// walkAll calls every reading method on all of a tree, but reads no more than two blocks of any file.
func walkAll(v *Vault, dir Ino) error {
	var children []tree.Entry
	if err := v.ReadDir(dir, 0, func(e tree.Entry) bool { children = append(children, e); return true }); err != nil {
		return err
	}
	for _, e := range children {
		ino, err := v.Lookup(dir, e.Name)
		if err != nil || ino != e.Ino {
			return fmt.Errorf("%q is %d, listed as %d: %w", e.Name, ino, e.Ino, err)
		}
		a, err := v.Attr(ino)
		if err != nil || a.Nlink == 0 {
			return fmt.Errorf("%q: %+v %w", e.Name, a, err)
		}
		names, err := v.ListXattr(ino)
		for _, name := range names {
			_, e := v.GetXattr(ino, name)
			err = errors.Join(err, e)
		}
		if err != nil {
			return err
		}
		switch a.Mode & typeMask {
		case typeDir:
			if parent, err := v.Parent(ino); err != nil || parent != dir || !fs.ValidPath(e.Name) {
				return fmt.Errorf("%q is in %d, not in %d: %w", e.Name, parent, dir, err)
			}
			err = walkAll(v, ino)
		case 0o100000:
			err = readSome(v, ino, a.Size)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func readSome(v *Vault, ino Ino, size uint64) error {
	n := int(min(size, 2*BlockSize))
	if _, err := readFile(v, ino, n); err != nil {
		return err
	}
	spans, err := v.Spans(ino, int64(size)-int64(n), n+1, nil)
	total := 0
	for _, s := range spans {
		total += s.Len
	}
	if err != nil || total != n {
		return fmt.Errorf("spans of %d bytes at the end of %d: %w", total, size, err)
	}
	return nil
}
