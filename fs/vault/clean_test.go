package vault

import (
	"bytes"
	"context"
	"errors"
	"testing"

	"encfsrun/fs/vault/tree"
)

// TestCleaningFullDisk fills a log with garbage between what is live, so that hardly any room is left on the disk for cleaning:
// that must not try to copy more than there is room for, for the session ends with a write that fails.
func TestCleaningFullDisk(t *testing.T) {
	for _, tt := range []struct {
		name  string
		log   int // MiB that are written, one in five of them live
		clean func(*Session) error
	}{
		{"gc", 64, func(s *Session) error { _, err := s.Collect(context.Background(), nil); return err }},
		{"at the end", 130, func(*Session) error { return nil }},
		{"while writing", 250, (*Session).Maintain},
	} {
		t.Run(tt.name, func(t *testing.T) {
			f := newFixture(t)
			d := newVault(t, f)
			d.Capacity = int64(tt.log+8) << 20
			w := startWriting(t, f, d)
			content := bytes.Repeat([]byte("live"), tt.log<<20/5/4)
			live, garbage := w.s.NewIno(), w.s.NewIno()
			for ino, size := range map[Ino]int{live: len(content), garbage: 1 << 20} {
				if err := w.s.Put(tree.Attr{Ino: ino, Mode: 0o100600, Size: uint64(size)}); err != nil {
					t.Fatal(err)
				}
			}
			if err := errors.Join(w.s.Link(tree.Root, "live", live), w.s.Link(tree.Root, "garbage", garbage)); err != nil {
				t.Fatal(err)
			}
			const piece = 256 << 10
			for off := 0; off < len(content); off += piece {
				p := content[off:min(off+piece, len(content))]
				if err := errors.Join(w.write(garbage, 0, make([]byte, 4*piece)), w.write(live, off, p), w.s.Commit()); err != nil {
					t.Fatal(err)
				}
			}
			space, err := w.s.Space()
			if err != nil || space.Free > uint64(len(content))/2 {
				t.Fatalf("there is room: %d bytes, %v", space.Free, err)
			}
			if err := tt.clean(w.s); err != nil {
				t.Errorf("cleaning: %v", err)
			}
			if err := errors.Join(w.write(live, 0, []byte("goes on")), w.s.Commit()); err != nil {
				t.Errorf("afterwards: %v", err)
			}
			if err := w.close(); err != nil {
				t.Errorf("the end: %v", err)
			}
		})
	}
}
