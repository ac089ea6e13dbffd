package durability

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
)

// verifyOrder is what a verifier is told on its standard input.
type verifyOrder struct {
	Root    string
	Batches []batch
}

// finding is what became of a batch.
type finding struct {
	Lost, Torn, Ragged int
	Said               []string // the first few, in words
}

// verifyReport is what a verifier answers: a finding for each batch, and what could not be read in the whole tree.
type verifyReport struct {
	Findings   []finding
	Unreadable []string
}

// mostSaid bounds what is said of a batch.
const mostSaid = 4

// verifyJob is a verifier.
func verifyJob() error {
	var o verifyOrder
	if err := json.NewDecoder(os.Stdin).Decode(&o); err != nil {
		return err
	}
	var r verifyReport
	for i := range o.Batches {
		v := verifier{root: o.Root, batch: &o.Batches[i]}
		r.Findings = append(r.Findings, v.verify())
	}
	r.Unreadable = unreadable(o.Root)
	return json.NewEncoder(os.Stdout).Encode(r)
}

// verifier looks for the records of a batch.
type verifier struct {
	root  string
	batch *batch
	finding
}

func (v *verifier) say(seq int, format string, args ...any) {
	if len(v.Said) < mostSaid {
		v.Said = append(v.Said, fmt.Sprintf("%s %d of %d: ", v.batch.Kind, seq, v.batch.Acked)+fmt.Sprintf(format, args...))
	}
}

func (v *verifier) verify() finding {
	b := v.batch
	keeps := b.kind().keeps
	if keeps == 0 {
		for seq := 1; seq <= b.Acked; seq++ {
			if seq <= b.Removed && seq%2 == 0 {
				v.gone(seq)
			} else {
				v.one(seq, nil)
			}
		}
		v.inWork()
		return v.finding
	}
	// Of the records that share a place the last one that was reported has to be there, or a later one.
	for slot := range keeps {
		var last int
		var later []int
		for seq := slot; seq <= b.Late+1; seq += keeps {
			if seq > b.Acked {
				later = append(later, seq)
			} else {
				last = seq // never 0: there is no such record
			}
		}
		v.one(last, later)
	}
	return v.finding
}

// gone wants that a removed record did not come back.
func (v *verifier) gone(seq int) {
	at := v.batch.kind().place(v.batch, seq)
	if _, err := os.Lstat(filepath.Join(v.root, at.path)); !errors.Is(err, fs.ErrNotExist) {
		v.Lost++
		v.say(seq, "its removal was undone (%v)", err)
	}
}

// one looks at the place of a record that was reported (0: none was), and of those that may have replaced it since.
func (v *verifier) one(seq int, later []int) {
	if seq == 0 && len(later) == 0 {
		return
	}
	named := seq
	if seq == 0 {
		named = later[0]
	}
	found, err := v.read(named)
	if err == nil {
		for _, other := range later {
			if v.compare(other, found) == "" {
				return
			}
		}
	}
	nothing := errors.Is(err, fs.ErrNotExist) || err == nil && len(found) == 0
	if v.batch.kind().keeps > 0 && err == nil && len(trimZeros(found)) == 0 {
		nothing = true // a hole of a table
	}
	if seq == 0 && nothing {
		return
	}
	if err != nil {
		v.Lost++
		v.say(named, "%v", err)
		return
	}
	problem := v.compare(named, found)
	if problem == "" && seq != 0 {
		return
	}
	// Nothing there, or what was there before: lost. Something that nobody wrote: torn, or ragged where it was in work.
	_, whole := identify(found)
	switch {
	case seq != 0 && (whole || len(found) == 0):
		v.Lost++
	case len(later) > 0:
		v.Ragged++
		problem += ", and no later record"
	default:
		v.Torn++
	}
	v.say(named, "%s", problem)
}

// inWork looks at the records of which nothing is known: each is there or not, and none without those before it.
func (v *verifier) inWork() {
	missing := 0
	for seq := v.batch.Acked + 1; seq <= v.batch.Late+1; seq++ {
		before := v.finding.Ragged
		v.one(0, []int{seq})
		found, err := v.read(seq)
		switch there := err == nil && v.compare(seq, found) == ""; {
		case !there && missing == 0:
			missing = seq
		case there && missing != 0 && v.finding.Ragged == before:
			v.Ragged++
			v.say(seq, "it is there, and %d is not", missing)
		}
	}
}

func trimZeros(b []byte) []byte {
	for len(b) > 0 && b[len(b)-1] == 0 {
		b = b[:len(b)-1]
	}
	return b
}

func (v *verifier) compare(seq int, found []byte) string {
	return differs(found, content(v.batch.id(seq), v.batch.kind().place(v.batch, seq).size))
}

// read returns what lies at a record's place: as many bytes as the record has, less where the file ends before.
func (v *verifier) read(seq int) ([]byte, error) {
	at := v.batch.kind().place(v.batch, seq)
	f, err := os.Open(filepath.Join(v.root, at.path))
	if err != nil {
		return nil, plainError(err)
	}
	defer f.Close()
	found := make([]byte, at.size)
	n, err := f.ReadAt(found, at.offset)
	if err != nil && err != io.EOF {
		return nil, plainError(err)
	}
	return found[:n], nil
}

// plainError leaves out the path: names are long here.
func plainError(err error) error {
	if e := (*fs.PathError)(nil); errors.As(err, &e) {
		return fmt.Errorf("%s: %w", e.Op, e.Err)
	}
	return err
}

// unreadable reads the whole tree, and returns what can't be.
func unreadable(root string) (list []string) {
	filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.Type().IsRegular() {
			var f *os.File
			if f, err = os.Open(path); err == nil {
				_, err = io.Copy(io.Discard, f)
				f.Close()
			}
		}
		if err != nil {
			list = append(list, fmt.Sprintf("%.60s: %v", filepath.Base(path), plainError(err)))
		}
		return nil
	})
	return list
}

// removeJob removes the records of batches that have even numbers, up to Removed, durably.
func removeJob() error {
	var o verifyOrder
	if err := json.NewDecoder(os.Stdin).Decode(&o); err != nil {
		return err
	}
	for i := range o.Batches {
		b := &o.Batches[i]
		for seq := 2; seq <= b.Removed; seq += 2 {
			if err := os.Remove(filepath.Join(o.Root, b.kind().place(b, seq).path)); err != nil {
				return fmt.Errorf("%s %d: %w", b.Kind, seq, plainError(err))
			}
		}
	}
	return fsyncPath(filepath.Join(o.Root, oldDir))
}

// TestVerifierSeesDamage damages what writers wrote, one fault each.
func TestVerifierSeesDamage(t *testing.T) {
	const records = 40
	path := func(root string, b *batch, seq int) string { return filepath.Join(root, b.kind().place(b, seq).path) }
	cut := func(name string, n int64) { must(t, os.Truncate(name, n)) }
	flip := func(name string, at int64) {
		f, err := os.OpenFile(name, os.O_RDWR, 0)
		must(t, err)
		one := make([]byte, 1)
		_, err = f.ReadAt(one, at)
		must(t, err)
		one[0] ^= 1
		_, err = f.WriteAt(one, at)
		must(t, errors.Join(err, f.Close()))
	}
	for _, c := range []struct {
		name, kind               string
		damage                   func(root string, b *batch)
		late, lost, torn, ragged int
	}{
		{"nothing", "append", func(string, *batch) {}, 0, 0, 0, 0},
		{"nothing", "state", func(string, *batch) {}, 0, 0, 0, 0},
		{"a log without its last record", "append", func(root string, b *batch) {
			cut(path(root, b, records), b.kind().place(b, records).offset)
		}, 0, 1, 0, 0},
		{"a log cut in its last record", "append", func(root string, b *batch) {
			cut(path(root, b, records), b.kind().place(b, records).offset+5)
		}, 0, 0, 1, 0},
		{"a log with a flipped bit", "append", func(root string, b *batch) { flip(path(root, b, 1), 700) }, 0, 0, 1, 0},
		{"a log with a piece of the next record", "append", func(root string, b *batch) {
			at := b.kind().place(b, records+1)
			f, err := os.OpenFile(path(root, b, records), os.O_WRONLY, 0)
			must(t, err)
			_, err = f.WriteAt(content(b.id(records+1), at.size)[:50], at.offset)
			must(t, errors.Join(err, f.Close()))
		}, 0, 0, 0, 1},
		{"a file that is gone", "files", func(root string, b *batch) { must(t, os.Remove(path(root, b, 7))) }, 0, 1, 0, 0},
		{"an empty file", "files", func(root string, b *batch) { cut(path(root, b, 7), 0) }, 0, 1, 0, 0},
		{"a file full of zeros", "files", func(root string, b *batch) {
			cut(path(root, b, 7), 0)
			cut(path(root, b, 7), int64(b.kind().place(b, 7).size))
		}, 0, 0, 1, 0},
		{"the next file, empty", "files", func(root string, b *batch) { must(t, os.WriteFile(path(root, b, records+1), nil, 0o644)) }, 0, 0, 0, 0},
		{"the next file, half", "files", func(root string, b *batch) {
			must(t, os.WriteFile(path(root, b, records+1), make([]byte, 9), 0o644))
		}, 0, 0, 0, 1},
		{"a new directory that is gone", "dirs", func(root string, b *batch) {
			must(t, os.RemoveAll(filepath.Dir(path(root, b, recordsPerDir))))
		}, 0, recordsPerDir, 0, 0},
		{"a state that is back at an older record", "state", func(root string, b *batch) {
			must(t, os.WriteFile(path(root, b, 34), content(b.id(34-stateSlots), stateSize), 0o644))
		}, 0, 1, 0, 0},
		{"a state in which the next record is", "state", func(root string, b *batch) {
			(&writeOrder{Root: root, Batch: *b}).write(records + 1)
		}, 0, 0, 0, 0},
		{"a state in which a piece of the next record is", "state", func(root string, b *batch) {
			flip(path(root, b, records+1), b.kind().place(b, records+1).offset+100)
		}, 0, 0, 0, 1},
		{"three late files, the last gone", "files", func(root string, b *batch) { must(t, os.Remove(path(root, b, records))) }, 3, 0, 0, 0},
		{"three late files, the first gone", "files", func(root string, b *batch) { must(t, os.Remove(path(root, b, records-2))) }, 3, 0, 0, 2},
		{"three late files, one half", "files", func(root string, b *batch) { cut(path(root, b, records), 30) }, 3, 0, 0, 1},
		{"a late state that is back at the one before", "state", func(root string, b *batch) {
			must(t, os.WriteFile(path(root, b, records), content(b.id(records-stateSlots), stateSize), 0o644))
		}, 3, 0, 0, 0},
		{"a late state that is back at the second before", "state", func(root string, b *batch) {
			must(t, os.WriteFile(path(root, b, records), content(b.id(records-2*stateSlots), stateSize), 0o644))
		}, 3, 1, 0, 0},
	} {
		t.Run(c.kind+": "+c.name, func(t *testing.T) {
			root := t.TempDir()
			b := batch{Kind: c.kind, Writer: 1, Scale: 1}
			o := writeOrder{Root: root, Batch: b}
			for b.Acked < records {
				b.Acked++
				must(t, o.write(b.Acked))
			}
			b.Acked -= c.late
			b.Late = records
			c.damage(root, &b)
			v := verifier{root: root, batch: &b}
			if f := v.verify(); f.Lost != c.lost || f.Torn != c.torn || f.Ragged != c.ragged {
				t.Errorf("found %+v, want %d lost, %d torn, %d ragged", f, c.lost, c.torn, c.ragged)
			}
		})
	}
}
