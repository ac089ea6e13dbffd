package vault

import (
	"encoding/hex"
	"slices"
	"strings"

	"encfsrun/fs/vault/record"
	"encfsrun/fs/vault/seal"
	"encfsrun/fs/vault/tree"
	"encfsrun/internal/testkit/secrets"
	"encfsrun/keyring"
)

// good is a closed vault of one session: the tree, and a closing commit.
func good(c *crafter) *crafter { return c.begin(false).commit(c.tree(), nil).close() }

// checkpointed is what pack leaves: the tree in segment 1, a checkpoint and the closing commit in segment 2.
func checkpointed(c *crafter) *crafter {
	return checkpointedWith(c, nil)
}

func checkpointedWith(c *crafter, change func(*record.StateRecord, *record.SegmentRecord, *tree.Extent)) *crafter {
	c.begin(false).commit(c.tree(), nil)
	c.segmentWith(func(h *segmentHeader) { h.checkpoint = true })
	return c.commit(record.AppendPiece(nil, record.PieceHeader{Last: true}, c.checkpoint(change)), nil).close()
}

// second adds a session that adds a file.
func second(c *crafter) *crafter {
	return c.begin(false).commit(c.fileRecords(3, "added.py", "x = 1\n"), nil).close()
}

// one is a vault whose first commit holds the given records after the tree's.
func one(c *crafter, records ...[]byte) *crafter {
	return c.begin(false).commit(slices.Concat(append([][]byte{c.tree()}, records...)...), nil).close()
}

var vectorRecipes = []vectorRecipe{
	// What must open.
	{"ok-one-session", "none", "ok", good},
	{"ok-checkpoint", "none: as pack leaves a vault", "ok", checkpointed},
	{"ok-two-sessions", "none", "ok", func(c *crafter) *crafter { return second(good(c)) }},
	{"ok-checkpoint-and-session", "none", "ok", func(c *crafter) *crafter { return second(checkpointed(c)) }},
	{"ok-every-record", "none: each type of record, a record over a block's border, a sparse file", "ok", everyRecord},
	{"ok-not-closed", "the last session did not end in order", "ok", func(c *crafter) *crafter { return c.begin(false).commit(c.tree(), nil) }},
	{"ok-torn-tail", "a block cut in the middle after the last commit", "ok", func(c *crafter) *crafter {
		c.begin(false).commit(c.tree(), nil)
		c.block(prefix{c.session, c.tail.next - 1, 0}, c.fileRecords(3, "lost", "never committed"))
		return c.put(seg(1), c.content[:len(c.content)-100])
	}},
	{"ok-uncommitted-tail", "a whole block after the last commit", "ok", func(c *crafter) *crafter {
		c.begin(false).commit(c.tree(), nil)
		return c.block(c.prefix(), c.fileRecords(3, "lost", "never committed"))
	}},
	{"ok-torn-creation", "segment 2 is shorter than a header", "ok", func(c *crafter) *crafter { return good(c).put(seg(2), make([]byte, 100)) }},
	{"ok-torn-creation-whole-page", "segment 2 is a header's length of zeros", "ok", func(c *crafter) *crafter { return good(c).put(seg(2), make([]byte, headerSize)) }},
	{"ok-void-session", "a session that a crash ended without a commit, in the middle of a record; another after it", "ok", func(c *crafter) *crafter {
		good(c).begin(false)
		c.block(c.prefix(), record.AppendDataHeader(nil, 2, 0, record.MaxChunk))
		return second(c)
	}},
	{"ok-checkpoint-incomplete", "the newest checkpoint was never committed: the log is replayed from its beginning", "ok", func(c *crafter) *crafter {
		c.begin(false).commit(c.tree(), nil)
		c.segmentWith(func(h *segmentHeader) { h.checkpoint = true })
		return c.block(c.prefix(), record.AppendPiece(nil, record.PieceHeader{}, c.checkpoint(nil)))
	}},
	{"ok-header-missing", "vault.json is gone, its twin is there", "ok", func(c *crafter) *crafter { return good(c).remove(headerName) }},
	{"ok-header-flipped", "vault.json has a flipped bit, its twin is whole", "ok", func(c *crafter) *crafter { return good(c).flip(headerName, 200) }},
	{"ok-beyond-the-end", "garbage behind the sealed end of segment 1", "ok", func(c *crafter) *crafter {
		second(good(c))
		return c.put(seg(1), append(slices.Clone(c.file(seg(1))), make([]byte, 50000)...))
	}},
	{"ok-orphan", "an inode without a name: dropped", "ok", func(c *crafter) *crafter {
		c.next = 4
		return one(c, record.AppendInode(nil, tree.Attr{Ino: 3, Mode: 0o100644}))
	}},

	// No header.
	{"no-header", "vault.json and its twin are gone", "not-a-vault", func(c *crafter) *crafter { return good(c).remove(headerName, twinName) }},
	{"header-garbage", "both are no JSON", "not-a-vault", func(c *crafter) *crafter {
		return good(c).put(headerName, []byte("hello\n")).put(twinName, nil)
	}},
	{"header-format", "another format's name", "not-a-vault", func(c *crafter) *crafter { return good(c).headers("encfsrun vault", "encfsrun Vault") }},
	{"header-not-canonical", "a space too many", "not-a-vault", func(c *crafter) *crafter { return good(c).headers(`"generation": 1`, `"generation":  1`) }},
	{"header-upper-case", "hexadecimal in upper case", "not-a-vault", func(c *crafter) *crafter {
		return good(c).headers(`"vault_id": "`+hex.EncodeToString(c.f.ID[:]), `"vault_id": "`+strings.ToUpper(hex.EncodeToString(c.f.ID[:])))
	}},
	{"header-unknown-member", "a member too many", "not-a-vault", func(c *crafter) *crafter {
		return good(c).headers(`  "generation"`, "  \"more\": 1,\n  \"generation\"")
	}},
	{"header-version-0", "version 0", "not-a-vault", func(c *crafter) *crafter { return good(c).headers(`"version": 1`, `"version": 0`) }},
	{"header-absurd-kdf", "a slot that asks for 4 TiB of memory", "not-a-vault", absurdSlot},
	{"header-nine-slots", "nine slots", "not-a-vault", nineSlots},
	{"too-new", "version 2", "too-new", func(c *crafter) *crafter { return good(c).headers(`"version": 1`, `"version": 2`) }},
	{"wrong-key", "the only slot is another key's", "wrong-key", wrongKey},
	{"header-mac", "the MAC is altered in both", "integrity", func(c *crafter) *crafter {
		h, err := ReadHeader(good(c).d, testVault)
		c.must(err)
		mac := hex.EncodeToString(h.mac[:])
		other := h.mac
		other[0] ^= 1
		return c.headers(mac, hex.EncodeToString(other[:]))
	}},
	{"header-generation", "the generation is altered in both, without a new MAC", "integrity", func(c *crafter) *crafter { return good(c).headers(`"generation": 1`, `"generation": 2`) }},
	{"header-rolled-back", "vault.json is older than the log", "integrity", func(c *crafter) *crafter {
		good(c)
		c.session = seal.NewID()
		c.segmentWith(func(h *segmentHeader) { h.generation = 2 })
		return c.close()
	}},
	{"slot-damaged", "the wrapped key of the only slot is altered", "integrity", func(c *crafter) *crafter {
		good(c)
		wrapped := hex.EncodeToString(c.f.Slot.WrappedKey[:])
		return c.headers(wrapped, strings.Repeat("0", len(wrapped)))
	}},

	// The log, without the key.
	{"no-log", "the segments are gone", "integrity", func(c *crafter) *crafter { return good(c).remove(seg(1)) }},
	{"flipped-segment-header", "a bit of a segment's header", "integrity", func(c *crafter) *crafter { return good(c).flip(seg(1), 300) }},
	{"flipped-block", "a bit of the first block", "integrity", func(c *crafter) *crafter { return good(c).flip(seg(1), headerSize+1000) }},
	{"flipped-block-under-checkpoint", "a bit of a block that a table names", "integrity", func(c *crafter) *crafter { return checkpointed(c).flip(seg(1), headerSize+1000) }},
	{"zeroed-block", "a block of zeros", "integrity", func(c *crafter) *crafter {
		b := slices.Clone(checkpointed(c).file(seg(2)))
		clear(b[headerSize:][:BlockSize])
		return c.put(seg(2), b)
	}},
	{"swapped-blocks", "two blocks of a segment change places", "integrity", func(c *crafter) *crafter {
		b := slices.Clone(good(c).file(seg(1)))
		swapped := slices.Concat(b[:headerSize], b[headerSize+BlockSize:], b[headerSize:][:BlockSize])
		return c.put(seg(1), swapped)
	}},
	{"swapped-segments", "two segments change names", "integrity", func(c *crafter) *crafter {
		one, two := checkpointed(c).file(seg(1)), c.file(seg(2))
		return c.put(seg(1), two).put(seg(2), one)
	}},
	{"missing-segment", "segment 1 is gone, which a table names", "integrity", func(c *crafter) *crafter { return checkpointed(c).remove(seg(1)) }},
	{"missing-predecessor", "segment 1 is gone, which replay needs", "integrity", func(c *crafter) *crafter { return second(good(c)).remove(seg(1)) }},
	{"cut-predecessor", "segment 1 ends a block before its sealed end", "integrity", func(c *crafter) *crafter {
		second(good(c))
		return c.put(seg(1), c.file(seg(1))[:headerSize+BlockSize])
	}},
	{"cut-below-durable", "the last block says that the first was durable, and the first is damaged", "integrity", func(c *crafter) *crafter {
		c.begin(false).commit(c.tree(), nil).commit(c.fileRecords(3, "b", "b"), nil)
		return c.flip(seg(1), headerSize+5)
	}},
	{"foreign-segment", "segment 2 follows another segment 1", "integrity", foreignSegment},

	// The log, with the key: what a faulty writer could do.
	{"commit-chain", "a commit with another chain value", "integrity", func(c *crafter) *crafter {
		return c.begin(false).commit(c.tree(), func(r *record.CommitRecord) { r.Chain[0] ^= 1 }).close()
	}},
	{"commit-sequence", "commit 3 after commit 1", "integrity", func(c *crafter) *crafter {
		c.begin(false).commit(c.tree(), nil)
		c.seq++
		return c.close()
	}},
	{"commit-flags", "an unknown flag in a commit", "integrity", func(c *crafter) *crafter {
		c.begin(false).commit(c.tree(), nil)
		r := record.CommitRecord{Sequence: 2, Chain: c.tail.chain, NextIno: c.next}.Append(nil)
		r[len(r)-4] = 2
		c.block(c.prefix(), r)
		c.seq = 2
		return c.close()
	}},
	{"commit-then-record", "a record after a commit in its block", "integrity", func(c *crafter) *crafter {
		c.begin(false)
		c.seq++
		r := record.CommitRecord{Sequence: 1, Chain: c.tail.chain, NextIno: 3}.Append(nil)
		c.block(c.prefix(), slices.Concat(c.tree(), r, record.AppendFree(nil, 2)))
		return c.close()
	}},
	{"closing-not-empty", "records before a closing commit", "integrity", func(c *crafter) *crafter {
		c.begin(false).commit(c.tree(), nil)
		return c.commit(c.fileRecords(3, "b", "b"), func(r *record.CommitRecord) { r.Closing = true }).commit(nil, nil).close()
	}},
	{"no-commit", "a log without a commit", "integrity", func(c *crafter) *crafter { c.begin(false); return c.block(c.prefix(), c.tree()) }},
	{"no-root", "a tree without a root", "integrity", func(c *crafter) *crafter {
		c.next = 4
		return c.begin(false).commit(record.AppendInode(nil, tree.Attr{Ino: 3, Mode: 0o100644}), nil).close()
	}},
	{"ino-not-given", "an inode number above the commit's next", "integrity", func(c *crafter) *crafter {
		return c.begin(false).commit(c.tree(), func(r *record.CommitRecord) { r.NextIno = 2 }).commit(nil, func(r *record.CommitRecord) { r.NextIno = 2 })
	}},
	{"unknown-record", "a record of type 14", "integrity", func(c *crafter) *crafter { return one(c, record.AppendHeader(nil, 14, 0)) }},
	{"record-type-0", "a record of type 0", "integrity", func(c *crafter) *crafter { return one(c, make([]byte, 5)) }},
	{"checkpoint-record-in-log", "an Extent outside of a checkpoint", "integrity", func(c *crafter) *crafter { return one(c, record.AppendExtent(nil, 2, tree.Extent{Len: 1, At: 32})) }},
	{"overlong-record", "a record longer than any may be", "integrity", func(c *crafter) *crafter { return one(c, record.AppendHeader(nil, record.Target, record.MaxPayload+1)) }},
	{"padding-not-zero", "a byte after a Pad", "integrity", func(c *crafter) *crafter {
		stream := make([]byte, PayloadSize)
		r := record.CommitRecord{Sequence: 1, NextIno: 3}
		c.begin(false)
		r.Chain = c.tail.chain
		n := copy(stream, slices.Concat(c.tree(), r.Append(nil)))
		stream[n], stream[PayloadSize-1] = byte(record.Pad), 7
		c.seq++
		return c.block(c.prefix(), stream).close()
	}},
	{"first-wrong", "a block says that its first record starts elsewhere", "integrity", func(c *crafter) *crafter {
		c.begin(false)
		r := record.CommitRecord{Sequence: 1, Chain: c.tail.chain, NextIno: 3}.Append(nil)
		c.seq++
		p := c.prefix()
		p.first = 5
		return c.block(p, append(c.tree(), r...)).close()
	}},
	{"session-wrong", "a block of another session", "integrity", func(c *crafter) *crafter {
		c.begin(false)
		r := record.CommitRecord{Sequence: 1, Chain: c.tail.chain, NextIno: 3}.Append(nil)
		c.seq++
		p := c.prefix()
		p.session = seal.ID{}
		return c.block(p, append(c.tree(), r...)).close()
	}},
	{"data-beyond-size", "data behind the end of its file", "integrity", func(c *crafter) *crafter {
		return one(c, append(record.AppendDataHeader(nil, 2, 100, 1), 'x'))
	}},
	{"data-into-directory", "data for a directory", "integrity", func(c *crafter) *crafter {
		return one(c, append(record.AppendDataHeader(nil, 1, 0, 1), 'x'))
	}},
	{"data-empty", "data without bytes", "integrity", func(c *crafter) *crafter { return one(c, record.AppendDataHeader(nil, 2, 0, 0)) }},
	{"link-exists", "a second link of one name", "integrity", func(c *crafter) *crafter { return one(c, record.AppendLink(nil, 1, "main.py", 2)) }},
	{"link-absent", "a link to an inode that is not there", "integrity", func(c *crafter) *crafter { return one(c, record.AppendLink(nil, 1, "x", 99)) }},
	{"link-slash", "a name with a slash", "integrity", func(c *crafter) *crafter { return one(c, record.AppendLink(nil, 1, "../x", 2)) }},
	{"link-dotdot", "the name ..", "integrity", func(c *crafter) *crafter { return one(c, record.AppendLink(nil, 1, "..", 2)) }},
	{"link-nul", "a name with a NUL", "integrity", func(c *crafter) *crafter { return one(c, record.AppendLink(nil, 1, "a\x00b", 2)) }},
	{"directory-twice", "a directory with two names", "integrity", func(c *crafter) *crafter {
		return one(c, c.dirRecord(3), record.AppendLink(nil, 1, "a", 3), record.AppendLink(nil, 1, "b", 3))
	}},
	{"directory-cycle", "a directory below itself", "integrity", func(c *crafter) *crafter {
		return one(c, c.dirRecord(3), c.dirRecord(4), record.AppendLink(nil, 3, "a", 4), record.AppendLink(nil, 4, "b", 3))
	}},
	{"unlink-absent", "an unlink of a name that is not there", "integrity", func(c *crafter) *crafter { return one(c, record.AppendUnlink(nil, 1, "x")) }},
	{"unlink-not-empty", "an unlink of a directory with an entry", "integrity", func(c *crafter) *crafter {
		return one(c, c.dirRecord(3), record.AppendLink(nil, 1, "a", 3), record.AppendLink(nil, 3, "b", 2), record.AppendUnlink(nil, 1, "a"))
	}},
	{"rename-taken", "a rename to a name that is taken", "integrity", func(c *crafter) *crafter {
		return one(c, c.dirRecord(3), record.AppendLink(nil, 1, "a", 3), record.AppendRename(nil, 1, "main.py", 1, "a"))
	}},
	{"rename-below-itself", "a directory renamed to below itself", "integrity", func(c *crafter) *crafter {
		return one(c, c.dirRecord(3), c.dirRecord(4), record.AppendLink(nil, 1, "a", 3), record.AppendLink(nil, 3, "b", 4), record.AppendRename(nil, 1, "a", 4, "c"))
	}},
	{"free-linked", "a free of an inode with a name", "integrity", func(c *crafter) *crafter { return one(c, record.AppendFree(nil, 2)) }},
	{"type-changed", "a file becomes a symlink", "integrity", func(c *crafter) *crafter {
		return one(c, record.AppendInode(nil, tree.Attr{Ino: 2, Mode: 0o120777}))
	}},
	{"inode-0", "inode number 0", "integrity", func(c *crafter) *crafter { return one(c, record.AppendInode(nil, tree.Attr{Ino: 0, Mode: 0o100644})) }},
	{"nanoseconds", "a time with 10^9 nanoseconds", "integrity", func(c *crafter) *crafter {
		return one(c, record.AppendInode(nil, tree.Attr{Ino: 2, Mode: 0o100644, Size: 15, Mtime: tree.Time{Nsec: 1e9}}))
	}},
	{"target-empty", "a symlink to nothing", "integrity", func(c *crafter) *crafter {
		c.next = 4
		return one(c, record.AppendInode(nil, tree.Attr{Ino: 3, Mode: 0o120777}), record.AppendTarget(nil, 3, ""))
	}},
	{"segment-number", "segment 1 under the name of 2, with 1 a copy", "integrity", func(c *crafter) *crafter { return good(c).put(seg(2), c.file(seg(1))) }},
	{"segment-first", "a first block number that does not follow", "integrity", func(c *crafter) *crafter {
		good(c)
		c.session = seal.NewID()
		return c.segmentWith(func(h *segmentHeader) { h.first++ }).close()
	}},
	{"segment-chain", "a header with another chain value", "integrity", func(c *crafter) *crafter {
		good(c)
		c.session = seal.NewID()
		return c.segmentWith(func(h *segmentHeader) { h.predChain[0] ^= 1 }).close()
	}},

	// Checkpoints.
	{"checkpoint-chain", "a checkpoint of another history", "integrity", func(c *crafter) *crafter {
		return checkpointedWith(c, func(s *record.StateRecord, _ *record.SegmentRecord, _ *tree.Extent) { s.Chain[0] ^= 1 })
	}},
	{"checkpoint-count", "a checkpoint with fewer inodes than it says", "integrity", func(c *crafter) *crafter {
		return checkpointedWith(c, func(s *record.StateRecord, _ *record.SegmentRecord, _ *tree.Extent) { s.Inodes++ })
	}},
	{"checkpoint-table-hash", "a table with another hash of a block", "integrity", func(c *crafter) *crafter {
		return checkpointedWith(c, func(_ *record.StateRecord, t *record.SegmentRecord, _ *tree.Extent) { t.Sums[0].Hash[0] ^= 1 })
	}},
	{"checkpoint-table-tag", "a table with another tag of a block", "integrity", func(c *crafter) *crafter {
		return checkpointedWith(c, func(_ *record.StateRecord, t *record.SegmentRecord, _ *tree.Extent) { t.Sums[0].Tag[0] ^= 1 })
	}},
	{"checkpoint-table-id", "a table of another segment", "integrity", func(c *crafter) *crafter {
		return checkpointedWith(c, func(_ *record.StateRecord, t *record.SegmentRecord, _ *tree.Extent) { t.ID[0] ^= 1 })
	}},
	{"checkpoint-table-long", "a table with more blocks than the segment has", "integrity", func(c *crafter) *crafter {
		return checkpointedWith(c, func(_ *record.StateRecord, t *record.SegmentRecord, _ *tree.Extent) {
			t.Sums = append(t.Sums, t.Sums[0])
		})
	}},
	{"checkpoint-extent-outside", "an extent in a block that no segment holds", "integrity", func(c *crafter) *crafter {
		return checkpointedWith(c, func(_ *record.StateRecord, _ *record.SegmentRecord, e *tree.Extent) { e.Block = 99 })
	}},
	{"checkpoint-extent-prefix", "an extent that reaches into a block's prefix", "integrity", func(c *crafter) *crafter {
		return checkpointedWith(c, func(_ *record.StateRecord, _ *record.SegmentRecord, e *tree.Extent) { e.At = 31 })
	}},
	{"checkpoint-piece-order", "the first piece has index 1", "integrity", func(c *crafter) *crafter {
		c.begin(false).commit(c.tree(), nil)
		c.segmentWith(func(h *segmentHeader) { h.checkpoint = true })
		return c.commit(record.AppendPiece(nil, record.PieceHeader{Index: 1, Last: true}, c.checkpoint(nil)), nil).close()
	}},
	{"checkpoint-interrupted", "another record between two pieces", "integrity", func(c *crafter) *crafter {
		c.begin(false).commit(c.tree(), nil)
		c.segmentWith(func(h *segmentHeader) { h.checkpoint = true })
		piece := record.AppendPiece(nil, record.PieceHeader{}, c.checkpoint(nil))
		last := record.AppendPiece(nil, record.PieceHeader{Index: 1, Last: true}, nil)
		return c.commit(slices.Concat(piece, record.AppendFree(nil, 9), last), nil).close()
	}},
	{"checkpoint-no-state", "a checkpoint that does not begin with its state", "integrity", func(c *crafter) *crafter {
		c.begin(false).commit(c.tree(), nil)
		c.segmentWith(func(h *segmentHeader) { h.checkpoint = true })
		records := c.checkpoint(nil)
		return c.commit(record.AppendPiece(nil, record.PieceHeader{Last: true}, records[len(record.StateRecord{}.Append(nil)):]), nil).close()
	}},
}

// everyRecord holds each type of record, a file over several blocks, and changes that undo earlier ones.
func everyRecord(c *crafter) *crafter {
	c.begin(false)
	c.next = 9
	inode := func(ino tree.Ino, mode uint32, size uint64) []byte {
		return record.AppendInode(nil, tree.Attr{Ino: ino, Mode: mode, UID: 1000, GID: 1001, Size: size, Atime: tree.Time{Sec: -5, Nsec: 1}})
	}
	big := strings.Repeat("0123456789abcdef", 5000) // 80,000 bytes: three blocks
	stream := slices.Concat(
		c.tree(), inode(3, 0o40700, 0), record.AppendLink(nil, 1, "dir", 3),
		inode(4, 0o100600, uint64(len(big))), record.AppendLink(nil, 3, "big", 4), record.AppendDataHeader(nil, 4, 0, len(big)), []byte(big),
		inode(5, 0o120777, 0), record.AppendTarget(nil, 5, "dir/big"), record.AppendLink(nil, 1, "symlink", 5),
		inode(6, 0o100644, 1<<40), record.AppendLink(nil, 1, "huge-hole", 6), inode(6, 0o100644, 70000),
		inode(7, 0o10644, 0), record.AppendLink(nil, 3, "fifo", 7),
		inode(8, 0o100644, 1), record.AppendLink(nil, 1, "gone", 8), record.AppendUnlink(nil, 1, "gone"), record.AppendFree(nil, 8),
		record.AppendRename(nil, 1, "dir", 1, "folder"), record.AppendRename(nil, 3, "fifo", 1, "pipe"),
		record.AppendLink(nil, 3, "hard", 2), record.AppendUnlink(nil, 1, "main.py"), record.AppendLink(nil, 1, "main.py", 2),
		record.AppendSetXattr(nil, 2, "user.a", []byte("value")), record.AppendSetXattr(nil, 2, "user.b", nil), record.AppendRemoveXattr(nil, 2, "user.b"),
		append(record.AppendDataHeader(nil, 4, 40000, 6), "middle"...), record.AppendClear(nil, 4, 100, 50),
		inode(4, 0o100640, 79990), inode(4, 0o100640, 80010),
	)
	first := uint32(0)
	for offset := 0; offset < len(stream); {
		part := stream[offset:min(offset+PayloadSize, len(stream))]
		offset += len(part)
		if offset < len(stream) {
			c.block(prefix{c.session, 0, first}, part)
			first = nextRecord(stream, offset)
			continue
		}
		c.seq++
		r := record.CommitRecord{Sequence: c.seq, Chain: c.tail.chain, NextIno: c.next}.Append(nil)
		c.block(prefix{c.session, 0, first}, append(slices.Clone(part), r...))
	}
	return c.close()
}

// nextRecord is where, from offset on, the first record of a stream begins, for the prefix of the block that begins there.
func nextRecord(stream []byte, offset int) uint32 {
	at := 0
	for at < offset {
		h, err := record.ParseHeader(stream[at:], false)
		if err != nil {
			panic(err)
		}
		at += record.HeaderSize + h.Length
	}
	if at-offset >= PayloadSize {
		return noRecord
	}
	return uint32(at - offset)
}

func foreignSegment(c *crafter) *crafter {
	other := second(good(newCrafter(c.t, c.f)))
	second(good(c))
	return c.put(seg(2), other.file(seg(2)))
}

func (c *crafter) withSlots(slots ...keyring.Slot) *crafter {
	h := &Header{VaultID: c.f.ID, Generation: 1, Slots: slots}
	c.must(writeHeader(c.d, testVault, h, c.f.Keys))
	return c
}

func absurdSlot(c *crafter) *crafter {
	good(c)
	c.withSlots(c.f.Slot, keyring.Slot{ID: keyring.SlotID{9}, Kind: keyring.KindPassphrase, Params: keyring.Params{MemoryKiB: 1024, Time: 1, Parallelism: 1}})
	return c.headers(`"memory_kib": 1024`, `"memory_kib": 4294967295`)
}

func nineSlots(c *crafter) *crafter {
	slots := []keyring.Slot{}
	for i := range 9 {
		s := good(newCrafter(c.t, c.f)).f.Slot
		s.ID = keyring.SlotID{byte(i + 1)}
		slots = append(slots, s)
	}
	return good(c).withSlots(slots...)
}

func wrongKey(c *crafter) *crafter {
	slot, err := keyring.NewMachineSlot(c.f.ID, c.f.Master.Bytes(), secrets.Key(c.t, 0x33))
	c.must(err)
	return good(c).withSlots(slot)
}
