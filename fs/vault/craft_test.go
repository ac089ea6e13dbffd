package vault

import (
	"maps"
	"path"
	"slices"
	"testing"

	"encfsrun/fs/vault/disk/memdisk"
	"encfsrun/fs/vault/record"
	"encfsrun/fs/vault/seal"
	"encfsrun/fs/vault/tree"
	"encfsrun/keyring"
)

// crafter writes logs block by block with the real keys, also such as no writer would: it is what a fault with the key in hand
// looks like.
type crafter struct {
	t       testing.TB
	f       *fixture
	d       *memdisk.Disk
	tail    tail
	session seal.ID
	segment seal.ID
	content []byte // of the segment file at hand
	seq     uint64
	next    tree.Ino
	sums    map[uint64][]record.Sum
	ids     map[uint64]segmentHeader
}

func newCrafter(t testing.TB, f *fixture) *crafter {
	c := &crafter{t: t, f: f, d: memdisk.New(), next: 1, sums: map[uint64][]record.Sum{}, ids: map[uint64]segmentHeader{}}
	mkdirs(t, c.d)
	c.must(c.d.Mkdir(testVault, 0o700))
	c.must(c.d.Mkdir(path.Join(testVault, logDir), 0o700))
	c.must(writeHeader(c.d, testVault, c.header(), f.Keys))
	c.must(c.d.WriteFile(path.Join(testVault, lockName), nil))
	return c
}

func (c *crafter) header() *Header {
	return &Header{VaultID: c.f.ID, Generation: 1, Slots: []keyring.Slot{c.f.Slot}}
}

// clone returns a crafter that goes on from the same log on a disk of its own.
func (c *crafter) clone(t testing.TB) *crafter {
	other := *c
	other.t, other.d, other.content = t, c.d.Clone(), slices.Clone(c.content)
	other.ids, other.sums = maps.Clone(c.ids), map[uint64][]record.Sum{}
	for number, sums := range c.sums {
		other.sums[number] = slices.Clone(sums)
	}
	return &other
}

func (c *crafter) must(err error) {
	c.t.Helper()
	if err != nil {
		c.t.Fatal(err)
	}
}

// begin starts a session with a segment of its own.
func (c *crafter) begin(checkpoint bool) *crafter {
	c.session = seal.NewID()
	return c.segmentWith(func(h *segmentHeader) { h.checkpoint = checkpoint })
}

// segmentWith starts a segment whose header change may spoil.
func (c *crafter) segmentWith(change func(*segmentHeader)) *crafter {
	h := segmentHeader{
		number: c.tail.number + 1, id: seal.NewID(), session: c.session, generation: 1, first: c.tail.next,
		predecessor: c.tail.number, predID: c.tail.id, predEnd: c.tail.blocks, predChain: c.tail.chain,
	}
	if change != nil {
		change(&h)
	}
	c.content = make([]byte, headerSize)
	c.must(c.f.Keys.SealHeader(c.content, h.encode()))
	c.segment, c.ids[h.number] = h.id, h
	c.tail = tail{number: h.number, id: h.id, next: h.first, chain: chain(h.predChain, chainHeader, hashOf(c.content))}
	c.flush()
	return c
}

func (c *crafter) flush() {
	c.must(c.d.WriteFile(segmentPath(testVault, c.tail.number), c.content))
}

// block appends a block whose stream begins with the given bytes; the rest is a Pad and zeros, if there is a rest.
func (c *crafter) block(p prefix, stream []byte) *crafter {
	plain := make([]byte, PlainSize)
	p.put(plain)
	if n := copy(plain[PayloadStart:], stream); n < PayloadSize {
		plain[PayloadStart+n] = byte(record.Pad)
	}
	return c.plainBlock(plain)
}

// plainBlock seals any plaintext into the next block.
func (c *crafter) plainBlock(plain []byte) *crafter {
	sealed := make([]byte, BlockSize)
	c.must(c.f.Keys.SealBlock(sealed, plain, c.segment, c.tail.next))
	s := sum(sealed)
	c.sums[c.tail.number] = append(c.sums[c.tail.number], s)
	c.content = append(c.content, sealed...)
	c.tail.blocks++
	c.tail.next++
	c.tail.chain = chain(c.tail.chain, chainBlock, s.Hash)
	c.flush()
	return c
}

func (c *crafter) prefix() prefix { return prefix{c.session, c.tail.next, 0} }

// commit appends one block with the records and a commit, which change may spoil.
func (c *crafter) commit(records []byte, change func(*record.CommitRecord)) *crafter {
	c.seq++
	r := record.CommitRecord{Sequence: c.seq, Chain: c.tail.chain, Time: tree.Time{Sec: 1_700_000_000}, NextIno: c.next}
	if change != nil {
		change(&r)
	}
	return c.block(c.prefix(), append(append([]byte{}, records...), r.Append(nil)...))
}

// close appends a closing commit.
func (c *crafter) close() *crafter {
	return c.commit(nil, func(r *record.CommitRecord) { r.Closing = true })
}

// Records of a small tree.

func (c *crafter) dirRecord(ino tree.Ino) []byte {
	c.next = max(c.next, ino+1)
	return record.AppendInode(nil, tree.Attr{Ino: ino, Mode: 0o40755, Mtime: tree.Time{Sec: 1_700_000_000}})
}

func (c *crafter) fileRecords(ino tree.Ino, name, content string) []byte {
	c.next = max(c.next, ino+1)
	b := record.AppendInode(nil, tree.Attr{Ino: ino, Mode: 0o100644, Size: uint64(len(content)), Mtime: tree.Time{Sec: 1_700_000_000, Nsec: 5}})
	b = record.AppendLink(b, tree.Root, name, ino)
	b = record.AppendDataHeader(b, ino, 0, len(content))
	return append(b, content...)
}

// tree returns the records of a root with one file.
func (c *crafter) tree() []byte {
	return append(c.dirRecord(tree.Root), c.fileRecords(2, "main.py", "print('hello')\n")...)
}

// checkpoint returns the records of the checkpoint of tree() after commit 1 in segment 1, which change may spoil: the state,
// the table, the inodes and links.
func (c *crafter) checkpoint(change func(*record.StateRecord, *record.SegmentRecord, *tree.Extent)) []byte {
	h := c.ids[1]
	state := record.StateRecord{Sequence: c.seq, Chain: c.tail.chain, NextIno: c.next, Inodes: 2}
	state.Chain = c.ids[c.tail.number].predChain
	table := record.SegmentRecord{Number: 1, ID: h.id, Session: h.session, First: h.first, Sums: append([]record.Sum{}, c.sums[1]...)}
	content := "print('hello')\n"
	extent := tree.Extent{Off: 0, Len: uint64(len(content)), Block: 0, At: uint32(PayloadStart + len(c.tree()) - len(content))}
	if change != nil {
		change(&state, &table, &extent)
	}
	b := table.Append(state.Append(nil))
	b = record.EpochRecord{Session: h.session, Sequence: 1}.Append(b)
	b = append(b, c.dirRecord(tree.Root)...)
	b = record.AppendInode(b, tree.Attr{Ino: 2, Mode: 0o100644, Size: uint64(len(content)), Mtime: tree.Time{Sec: 1_700_000_000, Nsec: 5}})
	b = record.AppendExtent(b, 2, extent)
	return record.AppendLink(b, tree.Root, "main.py", 2)
}
