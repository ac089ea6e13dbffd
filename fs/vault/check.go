package vault

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"encfsrun/fs/guarded"
	"encfsrun/fs/vault/tree"
)

// Damage is one thing that Check found wrong: a part of the log or the header, or a file that can't be read whole.
type Damage struct {
	Object string `json:"object"`
	Detail string `json:"detail"`
	File   bool   `json:"file"` // Object is a path inside the vault
}

// CheckReport is what Check found.
type CheckReport struct {
	Root     Root
	Closed   bool // the last session ended in order
	Sequence uint64
	Blocks   uint64 // verified
	Bytes    uint64
	Damage   []Damage // empty for a vault that is whole
}

// Check verifies every byte of an open vault: each block of each live segment against its table and its place in the chain, and
// the header against its twin. Opening has verified the rest. progress, if not nil, is told of the blocks done and their
// number. The error is the disk's, or ctx's; damage is in the report.
func (v *Vault) Check(ctx context.Context, progress func(done, total uint64)) (CheckReport, error) {
	r := CheckReport{Root: v.Root(), Closed: v.Closed(), Sequence: v.Sequence()}
	r.Damage = v.checkHeaders()
	var total uint64
	for _, s := range v.segs {
		total += uint64(len(s.sums))
	}
	plain, err := guarded.NewBuffer(PlainSize)
	if err != nil {
		return r, err
	}
	defer plain.Destroy()
	c := &checker{v: v, report: &r, plain: plain}
	for i, s := range v.segs {
		if i > 0 && v.segs[i-1].header.number == s.header.predecessor {
			c.follows(v.segs[i-1], s)
		}
		for index := range s.sums {
			if err := ctx.Err(); err != nil {
				return r, err
			}
			if err := c.block(s, uint64(index)); err != nil {
				return r, err
			}
			if progress != nil {
				progress(r.Blocks, total)
			}
		}
	}
	if len(c.bad) > 0 {
		c.files(tree.Root, "")
	}
	return r, nil
}

type checker struct {
	v      *Vault
	report *CheckReport
	plain  *guarded.Buffer
	sealed [BlockSize]byte
	bad    []uint64 // numbers of damaged blocks, rising
}

func (c *checker) add(object, detail string) {
	c.report.Damage = append(c.report.Damage, Damage{Object: object, Detail: detail})
}

// follows recomputes the chain over a whole segment, from its tables, and compares it with what its successor sealed.
func (c *checker) follows(s, next *segment) {
	value := chain(s.header.predChain, chainHeader, s.hash)
	for i := range s.sums {
		value = chain(value, chainBlock, s.sums[i].Hash)
	}
	if uint64(len(s.sums)) != next.header.predEnd || s.header.id != next.header.predID || value != next.header.predChain {
		c.add(segmentObject(c.v.path, next.header.number), "does not follow from the segment before it")
	}
}

func (c *checker) block(s *segment, index uint64) error {
	err := readBlock(c.v.path, s, index, c.sealed[:])
	if err == nil {
		if sum(c.sealed[:]) != s.sums[index] {
			err = &IntegrityError{segmentObject(c.v.path, s.header.number), fmt.Sprintf("was altered: block %d is not the one that was committed", index)}
		} else {
			_, err = openBlock(c.v.path, c.v.keys, s, index, c.sealed[:], c.plain.Bytes())
		}
	}
	var damage *IntegrityError
	if errors.As(err, &damage) {
		c.bad = append(c.bad, s.header.first+index)
		c.add(damage.Object, damage.Detail)
		err = nil
	}
	c.report.Blocks++
	c.report.Bytes += BlockSize
	return err
}

// files names every file that has bytes in a damaged block.
func (c *checker) files(dir Ino, path string) {
	t := c.v.state.tree
	var dirs []tree.Entry
	t.Entries(dir, 0, func(e tree.Entry) bool {
		if e.Mode&typeMask == typeDir {
			dirs = append(dirs, e)
			return true
		}
		t.Extents(e.Ino, 0, tree.MaxSize, func(x tree.Extent) bool {
			i, _ := slices.BinarySearch(c.bad, x.Block)
			if i < len(c.bad) && c.bad[i] <= lastBlock(x) {
				c.report.Damage = append(c.report.Damage, Damage{path + e.Name, "is damaged: it has bytes in a block that was altered", true})
				return false
			}
			return true
		})
		return true
	})
	for _, d := range dirs {
		c.files(d.Ino, path+d.Name+"/")
	}
}

// File types in a mode.
const (
	typeMask = 0o170000
	typeDir  = 0o040000
)

// lastBlock is the number of the last block that an extent reaches into.
func lastBlock(e tree.Extent) uint64 {
	return e.Block + (uint64(e.At)-PayloadStart+e.Len-1)/PayloadSize
}

// checkHeaders compares vault.json with its twin and authenticates both.
func (v *Vault) checkHeaders() (damage []Damage) {
	headers, errs := parseTwins(v.fsys, v.path)
	for _, e := range errs {
		damage = append(damage, Damage{Object: v.path, Detail: e.Error()})
	}
	for _, h := range headers {
		if !h.authentic(v.keys) {
			damage = append(damage, Damage{Object: h.name + " of " + v.path, Detail: "was altered: it does not authenticate"})
		}
	}
	if len(damage) == 0 && headers[0].Generation != headers[1].Generation {
		damage = append(damage, Damage{
			Object: headers[1].name + " of " + v.path,
			Detail: fmt.Sprintf("is older (generation %d) than its twin: a change of the keys was cut short, or it was put back", headers[1].Generation),
		})
	}
	return damage
}
