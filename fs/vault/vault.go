package vault

import (
	"bytes"
	"fmt"
	"sync"

	"encfsrun/fs/guarded"
	"encfsrun/fs/vault/record"
	"encfsrun/fs/vault/seal"
	"encfsrun/fs/vault/tree"
)

// Ino is the number of an inode; the root is tree.Root.
type Ino = tree.Ino

// Close ends the vault; a session of writing has to be closed or aborted before. The keys are left to their owner.
func (v *Vault) Close() {
	v.closeSegments()
	if v.lock != nil {
		v.lock.Close()
	}
}

func (v *Vault) closeSegments() {
	for _, s := range v.segs {
		s.file.Close()
	}
	v.segs = nil
}

// Path returns where the vault is.
func (v *Vault) Path() string { return v.path }

// ID returns the vault's id.
func (v *Vault) ID() seal.ID { return v.header.VaultID }

// Root returns the chain value of the last commit: one hash for the whole tree at that moment, and its history.
func (v *Vault) Root() Root {
	v.mu.RLock()
	defer v.mu.RUnlock()
	return v.state.last.chain
}

// Closed says whether the last session of writing ended in order. If not, a crash ended it; nothing that was reported durable
// is lost by that.
func (v *Vault) Closed() bool {
	v.mu.RLock()
	defer v.mu.RUnlock()
	return v.state.closed
}

// Sequence returns the number of the last commit.
func (v *Vault) Sequence() uint64 {
	v.mu.RLock()
	defer v.mu.RUnlock()
	return v.state.last.sequence
}

// Lookup returns the inode that name is in dir. The errors of the reading methods are those of package tree.
func (v *Vault) Lookup(dir Ino, name string) (Ino, error) {
	v.mu.RLock()
	defer v.mu.RUnlock()
	return v.state.tree.Lookup(dir, name)
}

// Attr returns an inode's attributes.
func (v *Vault) Attr(ino Ino) (tree.Attr, error) {
	v.mu.RLock()
	defer v.mu.RUnlock()
	return v.state.tree.Attr(ino)
}

// Readlink returns what a symlink points to.
func (v *Vault) Readlink(ino Ino) (string, error) {
	v.mu.RLock()
	defer v.mu.RUnlock()
	return v.state.tree.Target(ino)
}

// ReadDir yields the entries of dir whose cookie is above after, by rising cookie, until yield says false.
func (v *Vault) ReadDir(dir Ino, after uint64, yield func(tree.Entry) bool) error {
	v.mu.RLock()
	defer v.mu.RUnlock()
	return v.state.tree.Entries(dir, after, yield)
}

// Parent returns the directory that dir is in; the root's is the root.
func (v *Vault) Parent(dir Ino) (Ino, error) {
	v.mu.RLock()
	defer v.mu.RUnlock()
	return v.state.tree.Parent(dir)
}

// ListXattr returns the names of an inode's extended attributes.
func (v *Vault) ListXattr(ino Ino) ([]string, error) {
	v.mu.RLock()
	defer v.mu.RUnlock()
	return v.state.tree.Xattrs(ino)
}

// GetXattr returns the value of an extended attribute.
func (v *Vault) GetXattr(ino Ino, name string) ([]byte, error) {
	v.mu.RLock()
	defer v.mu.RUnlock()
	return v.state.tree.Xattr(ino, name)
}

// SeekData returns the first offset from off on that holds data.
func (v *Vault) SeekData(ino Ino, off uint64) (uint64, error) {
	v.mu.RLock()
	defer v.mu.RUnlock()
	return v.state.tree.SeekData(ino, off)
}

// SeekHole returns the first offset from off on that lies in a hole; the end of a file is one.
func (v *Vault) SeekHole(ino Ino, off uint64) (uint64, error) {
	v.mu.RLock()
	defer v.mu.RUnlock()
	return v.state.tree.SeekHole(ino, off)
}

// Stats counts what the tree holds.
func (v *Vault) Stats() tree.Stats {
	v.mu.RLock()
	defer v.mu.RUnlock()
	return v.state.tree.Stats()
}

// Span says where bytes of a file are: Len bytes from At on in the plaintext of a block, or, in a hole, zeros.
type Span struct {
	Len   int
	Block uint64
	At    int
	Hole  bool
}

// Spans appends the spans of n bytes of a file from off on, in order, cut at the file's end.
func (v *Vault) Spans(ino Ino, off int64, n int, spans []Span) ([]Span, error) {
	v.mu.RLock()
	defer v.mu.RUnlock()
	a, err := v.state.tree.Attr(ino)
	if err != nil {
		return spans, err
	}
	if off < 0 || n < 0 {
		return spans, tree.ErrInvalid
	}
	at, end := uint64(off), min(uint64(off)+uint64(n), a.Size)
	if at >= end {
		return spans, nil
	}
	err = v.state.tree.Extents(ino, at, end-at, func(e tree.Extent) bool {
		if e.Off > at {
			spans = append(spans, Span{Len: int(e.Off - at), Hole: true})
		}
		for left, block, from := int(e.Len), e.Block, int(e.At); left > 0; block, from = block+1, PayloadStart {
			step := min(left, PlainSize-from)
			spans = append(spans, Span{Len: step, Block: block, At: from})
			left -= step
		}
		at = e.Off + e.Len
		return true
	})
	if err == nil && at < end {
		spans = append(spans, Span{Len: int(end - at), Hole: true})
	}
	return spans, err
}

// sealedBlocks holds buffers for blocks as they stand on disk; ciphertext needs no guard.
var sealedBlocks = sync.Pool{New: func() any { return new([BlockSize]byte) }}

// LoadBlock reads, authenticates and opens a block into dst, which has at least PlainSize bytes, and returns PlainSize. The
// block is compared with its segment's table before it is opened: so a genuine block of the same place in another branch of
// history is refused. Damage is an *IntegrityError. After any error dst is zeros.
func (v *Vault) LoadBlock(number uint64, dst []byte) (int, error) {
	dst = dst[:PlainSize]
	if err := v.loadBlock(number, dst); err != nil {
		guarded.Wipe(dst)
		return 0, err
	}
	return PlainSize, nil
}

func (v *Vault) loadBlock(number uint64, dst []byte) error {
	v.mu.RLock()
	w := v.writing
	v.mu.RUnlock()
	if w != nil {
		if found, err := w.load(number, dst); found {
			return err
		}
	}
	v.loading.RLock()
	defer v.loading.RUnlock()
	v.mu.RLock()
	s, cleaned := v.segmentOf(number), v.cleaned
	var want record.Sum
	if s != nil {
		want = s.sums[number-s.header.first]
	}
	v.mu.RUnlock()
	if s == nil && cleaned {
		return ErrMoved
	}
	if s == nil {
		return &IntegrityError{"the log of " + v.path, fmt.Sprintf("does not hold block %d", number)}
	}
	sealed := sealedBlocks.Get().(*[BlockSize]byte)
	defer sealedBlocks.Put(sealed)
	index := number - s.header.first
	if err := readBlock(v.path, s, index, sealed[:]); err != nil {
		return err
	}
	// Against somebody who has the key, a tag binds nothing (GCM commits to no key or plaintext): with an expected root the
	// hash decides.
	wrong := !bytes.Equal(sealed[BlockSize-seal.TagSize:], want.Tag[:])
	if !wrong && v.options.ExpectRoot != nil {
		wrong = hashOf(sealed[:]) != want.Hash
	}
	if wrong {
		return &IntegrityError{segmentObject(v.path, s.header.number), fmt.Sprintf("was altered: block %d is not the one that was committed", index)}
	}
	_, err := openBlock(v.path, v.keys, s, index, sealed[:], dst)
	return err
}
