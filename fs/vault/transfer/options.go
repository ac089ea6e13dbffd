package transfer

import (
	"time"
)

// ImportOptions say what of a source is taken along.
type ImportOptions struct {
	// Vault is the path of the vault being written, if it has one. Where it, or the folder that it is being built in, lies
	// inside the source, it is left out with a Note: it would be packed into itself.
	Vault string
	// Exclude holds patterns of what is left out; the last that matches a path decides. Those of the file IgnoreFile at the
	// source's top come before them.
	Exclude []Pattern
	// KeepExtra lets Update keep what the source lacks.
	KeepExtra bool
	// Progress, if not nil, is called at most about every 50 ms, and once at the end.
	Progress func(Progress)
	// Total is what Scan counted; Progress hands it on.
	Total Totals
}

// ExportOptions say how a tree is written out.
type ExportOptions struct {
	// Progress, if not nil, is called at most about every 50 ms, and once at the end.
	Progress func(Progress)
}

// Totals counts a tree: its names without the top, and the sizes of its files in bytes, those of hard links once.
type Totals struct {
	Files uint64 // names of every kind
	Bytes uint64
}

// Progress says how far a transfer is.
type Progress struct {
	Files, Bytes           uint64 // done; names of every kind, and bytes of files, holes included
	TotalFiles, TotalBytes uint64 // as they were counted; 0 if nobody counted
}

// Report says what was carried over, and what the user should know of it.
type Report struct {
	Files    uint64 // names of regular files
	Dirs     uint64 // without the top
	Symlinks uint64
	Other    uint64 // FIFOs
	Bytes    uint64 // sizes of the regular files, those of hard links once

	// Of names in the vault, the top included. What was replaced by something of another kind was removed and added.
	Added, Changed, Removed uint64

	// Notes in the order of the walk, at most notesPerKind of a kind; Unlisted counts the others.
	Notes    []Note
	Unlisted map[NoteKind]int
}

// progressInterval keeps a progress bar smooth without costing anything.
const progressInterval = 50 * time.Millisecond

// meter counts what is done and tells of it now and then.
type meter struct {
	Progress
	tell func(Progress)
	told time.Time
}

func newMeter(tell func(Progress), total Totals) *meter {
	return &meter{Progress: Progress{TotalFiles: total.Files, TotalBytes: total.Bytes}, tell: tell, told: time.Now()}
}

func (m *meter) add(files, bytes uint64) {
	m.Files += files
	m.Bytes += bytes
	if m.tell == nil {
		return
	}
	if now := time.Now(); now.Sub(m.told) >= progressInterval {
		m.told = now
		m.tell(m.Progress)
	}
}

func (m *meter) end() {
	if m.tell != nil {
		m.tell(m.Progress)
	}
}
