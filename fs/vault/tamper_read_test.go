package vault

import (
	"bytes"
	"crypto/aes"
	"crypto/hkdf"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"math/bits"
	"path"
	"slices"
	"testing"

	"encfsrun/fs/vault/disk/memdisk"
	"encfsrun/fs/vault/seal"
)

// overwrite changes bytes of a file as another process would: below the feet of those who have it open.
func overwrite(t *testing.T, d *memdisk.Disk, name string, at int, b []byte) {
	t.Helper()
	file, err := d.OpenWrite(name)
	if err == nil {
		_, err = file.WriteAt(b, int64(at))
		err = errors.Join(err, file.Close())
	}
	if err != nil {
		t.Fatal(err)
	}
}

// TestTamperWhileOpen alters blocks of a vault that is open already. Every read of an altered block is refused and leaves
// nothing behind; when the block is as it was, it is read again.
func TestTamperWhileOpen(t *testing.T) {
	w := newVictim(t, newFixture(t), smallTree).session(true, edit, adding("more", 100_000))
	g := w.target()
	for _, o := range []Options{{}, {ExpectRoot: &g.root}} {
		v, err := w.f.open(w.d, o)
		if err != nil {
			t.Fatal(err)
		}
		defer v.keys.Destroy()
		defer v.Close()
		want := map[uint64][]byte{}
		for _, s := range v.segs {
			for i := range s.sums {
				number := s.header.first + uint64(i)
				want[number] = make([]byte, PlainSize)
				if _, err := v.LoadBlock(number, want[number]); err != nil {
					t.Fatal(err)
				}
			}
		}
		for _, s := range v.segs {
			name := segmentPath(testVault, s.header.number)
			for i := range s.sums {
				number, at := s.header.first+uint64(i), int(blockOffset(uint64(i)))
				good := slices.Clone(g.good[name][at:][:BlockSize])
				for what, bad := range g.otherBlocks(good) {
					overwrite(t, w.d, name, at, bad)
					dst := bytes.Repeat([]byte{0xAA}, PlainSize)
					if _, err := v.LoadBlock(number, dst); !isIntegrity(err) {
						t.Errorf("block %d of segment %d, %s: %v", i, s.header.number, what, err)
					}
					if !bytes.Equal(dst, make([]byte, PlainSize)) {
						t.Errorf("block %d of segment %d, %s: something was left behind", i, s.header.number, what)
					}
				}
				overwrite(t, w.d, name, at, good)
				dst := make([]byte, PlainSize)
				if _, err := v.LoadBlock(number, dst); err != nil || !bytes.Equal(dst, want[number]) {
					t.Errorf("block %d of segment %d as it was: %v", i, s.header.number, err)
				}
			}
		}
	}
}

// otherBlocks gives what may stand in a block's place.
func (g *target) otherBlocks(good []byte) map[string][]byte {
	others := map[string][]byte{"zeros": make([]byte, BlockSize)}
	for _, at := range []int{0, 23, 24, 5000, BlockSize - 17, BlockSize - 16, BlockSize - 1} {
		b := slices.Clone(good)
		b[at] ^= 0x10
		others[fmt.Sprintf("byte %d flipped", at)] = b
	}
	for _, p := range g.blocksOf() {
		if b := g.block(g.good, p); !bytes.Equal(b, good) {
			others[fmt.Sprintf("block %v", p)] = b
			tagged := slices.Clone(b) // what the table's tag alone would not tell
			copy(tagged[BlockSize-seal.TagSize:], good[BlockSize-seal.TagSize:])
			others[fmt.Sprintf("block %v under this one's tag", p)] = tagged
		}
	}
	return others
}

// TestTamperFilesBelowAnOpenVault takes the files away, renames and replaces them: an open vault holds its segments. A file that
// is cut is another matter.
func TestTamperFilesBelowAnOpenVault(t *testing.T) {
	w := newVictim(t, newFixture(t), smallTree).session(true, edit)
	g := w.target()
	v, err := w.f.open(w.d, Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer v.keys.Destroy()
	defer v.Close()
	one, two := segmentPath(testVault, 1), segmentPath(testVault, 2)
	for _, step := range []func() error{
		func() error { return w.d.Rename(one, two) },
		func() error { return w.d.Delete(path.Join(testVault, logDir)) },
		func() error { return w.d.WriteFile(one, make([]byte, len(g.good[one]))) },
	} {
		if err := step(); err != nil {
			t.Fatal(err)
		}
		if got, err := g.judgeOpen(v); err != nil || got != same {
			t.Errorf("%s %v", got, err)
		}
	}
}

// TestTamperCutBelowAnOpenVault cuts a segment that is open: what is gone is refused, not zeros.
func TestTamperCutBelowAnOpenVault(t *testing.T) {
	w := newVictim(t, newFixture(t), smallTree).session(true, edit)
	g := w.target()
	one := segmentPath(testVault, 1)
	for _, size := range []int{0, 100, headerSize, headerSize + 1, headerSize + BlockSize - 1} {
		w.load(g.good)
		v, err := w.f.open(w.d, Options{})
		if err != nil {
			t.Fatal(err)
		}
		defer v.keys.Destroy()
		defer v.Close()
		if err := w.d.WriteFile(one, g.good[one][:size]); err != nil {
			t.Fatal(err)
		}
		if got, err := g.judgeOpen(v); err != nil || got != partly {
			t.Errorf("cut to %d bytes: %s %v", size, got, err)
		}
	}
}

// TestTamperWithTheKey shows what --expect-root is for. Who has the key can change a block without changing its GCM tag: under
// one nonce the tag is a linear function of the ciphertext. So a tag in a table stops everybody but them; the hash stops them too.
func TestTamperWithTheKey(t *testing.T) {
	f := newFixture(t)
	w := newVictim(t, f, smallTree)
	g := w.target()
	var changed int
	for _, p := range g.blocksOf() {
		s, err := openSegmentOf(g, uint64(p.segment))
		if err != nil {
			t.Fatal(err)
		}
		block := slices.Clone(g.block(g.good, p))
		forge(t, f, block, PayloadSize/2)
		if bytes.Equal(block, g.block(g.good, p)) || !bytes.Equal(block[BlockSize-seal.TagSize:], g.block(g.good, p)[BlockSize-seal.TagSize:]) {
			t.Fatal("nothing was forged")
		}
		plain := make([]byte, PlainSize)
		if _, err := openBlock(testVault, f.Keys, s, uint64(p.block), block, plain); err != nil {
			t.Fatalf("the forged block does not open: %v", err)
		}
		forged := g.put(g.good, p, block)
		v, err := f.open(forged, Options{})
		if err == nil { // without a root the table's tag is satisfied
			if _, err := v.LoadBlock(s.header.first+uint64(p.block), plain); err == nil && p.segment == 1 {
				changed++
			}
			v.keys.Destroy()
			v.Close()
		}
		if r, err := g.checked(forged); err != nil || len(r.Damage) == 0 && r.Root == g.root {
			t.Errorf("%v forged: check says %+v, %v", p, r, err)
		}
		if got, err := g.judge(forged, Options{ExpectRoot: &g.root}); err != nil || got != refusal && got != partly {
			t.Errorf("%v forged, with a root: %s %v", p, got, err)
		}
	}
	if changed == 0 {
		t.Error("no forged block was served without a root: this test has lost its meaning")
	}
}

// TestTamperAnotherRoot opens whole, genuine vaults that are not the expected one.
func TestTamperAnotherRoot(t *testing.T) {
	w := newVictim(t, newFixture(t), smallTree)
	before := w.target()
	after := w.session(true, edit).target()
	for name, c := range map[string]struct {
		g    *target
		root Root
		want verdict
	}{
		"the expected":          {before, before.root, same},
		"newer than wanted":     {after, before.root, refusal},
		"older than wanted":     {before, after.root, refusal},
		"no root that ever was": {before, Root{}, refusal},
	} {
		if got, err := c.g.judge(c.g.good, Options{ExpectRoot: &c.root}); err != nil || got != c.want {
			t.Errorf("%s: %s %v", name, got, err)
		}
	}
}

// forge changes two neighbouring 16-byte words of a sealed block's ciphertext so that its tag stays right: the difference δ at
// one word and δ·H at the next cancel out in GHASH. H comes from the block data key as docs/FORMAT.md derives it.
func forge(t *testing.T, f *fixture, sealed []byte, at int) {
	t.Helper()
	data, err := hkdf.Key(sha256.New, f.Master.Bytes(), f.ID[:], "encfsrun v1 block data", 32)
	if err != nil {
		t.Fatal(err)
	}
	h := make([]byte, 16)
	inner, err := aes.NewCipher(xaesKey(t, data, sealed[:12]))
	if err != nil {
		t.Fatal(err)
	}
	inner.Encrypt(h, h)
	at = seal.NonceSize + at/16*16
	delta := element{hi: 0x8000000000000001, lo: 5}
	delta.xorInto(sealed[at:])
	delta.times(elementOf(h)).xorInto(sealed[at+16:])
}

// xaesKey derives the key of AES-256-GCM for the first half of a nonce (C2SP, XAES-256-GCM.md).
func xaesKey(t *testing.T, key, nonce []byte) []byte {
	t.Helper()
	c, err := aes.NewCipher(key)
	if err != nil {
		t.Fatal(err)
	}
	k1 := make([]byte, 16)
	c.Encrypt(k1, k1)
	hi, lo := binary.BigEndian.Uint64(k1), binary.BigEndian.Uint64(k1[8:])
	carry := hi >> 63
	binary.BigEndian.PutUint64(k1, hi<<1|lo>>63)
	binary.BigEndian.PutUint64(k1[8:], lo<<1^carry*0x87)
	var derived []byte
	for i := byte(1); i <= 2; i++ {
		m := append([]byte{0, i, 'X', 0}, nonce...)
		for j := range m {
			m[j] ^= k1[j]
		}
		c.Encrypt(m, m)
		derived = append(derived, m...)
	}
	return derived
}

// element is an element of GCM's field GF(2^128), in its order of bits: the highest bit of hi is the coefficient of x^0.
type element struct{ hi, lo uint64 }

func elementOf(b []byte) element {
	return element{binary.BigEndian.Uint64(b), binary.BigEndian.Uint64(b[8:])}
}

func (e element) xorInto(b []byte) {
	x := elementOf(b)
	binary.BigEndian.PutUint64(b, x.hi^e.hi)
	binary.BigEndian.PutUint64(b[8:], x.lo^e.lo)
}

// times multiplies as NIST SP 800-38D, 6.3, does.
func (e element) times(v element) (z element) {
	for i := range 128 {
		word := e.hi
		if i >= 64 {
			word = e.lo
		}
		if bits.Reverse64(word)>>(i%64)&1 == 1 {
			z.hi, z.lo = z.hi^v.hi, z.lo^v.lo
		}
		carry := v.lo & 1
		v.lo = v.lo>>1 | v.hi<<63
		v.hi = v.hi>>1 ^ carry*0xE1<<56
	}
	return z
}
