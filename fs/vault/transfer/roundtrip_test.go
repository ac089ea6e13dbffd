package transfer

import (
	"testing"
)

func TestRoundTrip(t *testing.T) {
	w := newWorkshop(t)
	w.one()
	s := newSafe(t)
	want := onDisk(t, w.top)
	r := s.mustPack(w.top, ImportOptions{})
	if len(r.Notes) != 0 || r.Files != 9 || r.Dirs != 5 || r.Symlinks != 3 || r.Other != 1 || r.Added != 19 {
		t.Errorf("report %+v", r)
	}
	dst, r := s.export()
	if len(r.Notes) != 0 {
		t.Errorf("notes %v", r.Notes)
	}
	mustEqual(t, "the export", want, onDisk(t, dst))
}
