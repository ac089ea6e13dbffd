package vault

import (
	"fmt"
	"strings"
	"sync"
	"testing"

	"encfsrun/fs/vault/disk/memdisk"
	"encfsrun/fs/vault/tree"
)

// TestReadersBesideSession reads a vault's files from several goroutines while its session writes and commits: what was committed
// reads as it was written, also under the race detector.
func TestReadersBesideSession(t *testing.T) {
	f, d := newFixture(t), memdisk.New()
	mkdirs(t, d)
	if _, err := f.create(d, Options{}, smallTree); err != nil {
		t.Fatal(err)
	}
	u, err := f.unlock(d)
	if err != nil {
		t.Fatal(err)
	}
	defer u.Close()
	v, err := u.OpenWriter(d, Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer v.Close()
	s, err := v.Begin()
	if err != nil {
		t.Fatal(err)
	}
	committed := make(chan int, 20)
	var readers sync.WaitGroup
	for range 3 {
		readers.Go(func() {
			for n := range committed {
				name := fmt.Sprintf("file%d", n)
				ino, err := v.Lookup(tree.Root, name)
				if err != nil {
					t.Errorf("%s: %v", name, err)
					continue
				}
				if content, err := readFile(v, ino, 50_000); err != nil || string(content) != strings.Repeat(fmt.Sprint(n%10), 50_000) {
					t.Errorf("%s does not read as it was written: %v", name, err)
				}
				_, _, _ = v.Root(), v.Closed(), v.Sequence()
			}
		})
	}
	b := newBuilder(s)
	for n := range 20 {
		b.file(fmt.Sprintf("file%d", n), strings.Repeat(fmt.Sprint(n%10), 50_000))
		if b.do(s.Commit()); b.err != nil {
			t.Fatal(b.err)
		}
		committed <- n
	}
	close(committed)
	readers.Wait()
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}
