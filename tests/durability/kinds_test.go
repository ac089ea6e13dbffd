package durability

import (
	"fmt"
	"path/filepath"
	"strings"
)

// kind is a way in which programs keep what must not be lost. It says where each record goes.
type kind struct {
	name  string
	place func(b *batch, seq int) place
	// keeps is how many records there are at a time: record n is replaced by record n+keeps. 0: all of them.
	keeps int
}

// place is where a record lies.
type place struct {
	path   string // below the root of the tree
	offset int64
	size   int
	// replaces says that the record is written under another name, which is then renamed over path.
	replaces bool
}

// batch is what one writer wrote between two crashes: all that there is to know of it.
type batch struct {
	Kind        string
	Cut, Writer int
	// Scale makes records so many times as large, up to mostRecord.
	Scale int
	// Acked is the number of the last record that counts as reported. Of those up to Late, which were reported while the crash
	// happened, and of the one in work after them nothing is known; there are no more.
	Acked, Late int
	// Removed says that the records with even numbers up to it were removed.
	Removed int
}

func (b *batch) id(seq int) recordID { return recordID{b.Cut, b.Writer, seq} }

// size is a record's size in bytes.
func (b *batch) size(seq int) int { return min(b.Scale*recordSize(b.id(seq)), mostRecord) }

func (b *batch) kind() kind {
	for _, k := range kinds {
		if k.name == b.Kind {
			return k
		}
	}
	panic("there is no kind " + b.Kind)
}

const (
	// oldDir exists, and is on the disk, before anything else happens.
	oldDir = "old"
	// appendsPerFile is how many records a log has before the next one is begun.
	appendsPerFile = 100
	// recordsPerDir is how many records a new directory gets.
	recordsPerDir = 8
	// stateSlots is how many records a state has, of stateSize bytes each: they cross pages and sealed blocks.
	stateSlots = 16
	stateSize  = 3000
	// mostRecord is the largest record in bytes. A larger one would be several requests to a FUSE file system, and need not be
	// there as a whole when it was in work.
	mostRecord = 120_000
)

// kinds are what the four writers do.
var kinds = []kind{
	{name: "append", place: appendPlace},
	{name: "files", place: func(b *batch, seq int) place {
		return place{path: filepath.Join(oldDir, b.name("file", seq)), size: b.size(seq)}
	}},
	{name: "dirs", place: func(b *batch, seq int) place {
		dir := filepath.Join(oldDir, b.name("dir", seq/recordsPerDir), b.name("sub", seq/recordsPerDir))
		return place{path: filepath.Join(dir, b.name("file", seq)), size: b.size(seq)}
	}},
	{name: "state", place: statePlace, keeps: stateSlots},
}

// appendPlace appends to a log, and begins a new one now and then.
func appendPlace(b *batch, seq int) place {
	log := (seq - 1) / appendsPerFile
	var offset int64
	for before := log*appendsPerFile + 1; before < seq; before++ {
		offset += int64(b.size(before))
	}
	return place{path: filepath.Join(oldDir, b.name("log", log)), offset: offset, size: b.size(seq)}
}

// statePlace replaces files of a state by rename, and overwrites others in place.
func statePlace(b *batch, seq int) place {
	slot, size := seq%stateSlots, min(b.Scale*stateSize, mostRecord)
	if slot%2 == 0 {
		return place{path: filepath.Join(oldDir, b.name("state", slot)), size: size, replaces: true}
	}
	return place{path: filepath.Join(oldDir, b.name("table", 0)), offset: int64(slot / 2 * size), size: size}
}

// name makes a file name: long where the number is odd, so long that gocryptfs keeps it in a file of its own.
func (b *batch) name(what string, n int) string {
	name := fmt.Sprintf("%s-c%02d-w%d-%06d", what, b.Cut, b.Writer, n)
	if n%2 != 0 {
		name += "-" + strings.Repeat("a-long-name", 20)[:220]
	}
	return name
}
