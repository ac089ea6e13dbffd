package fs

import (
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"encfsrun/fs/vault"
)

// slowStore is a disk whose syncs come when they are let.
type slowStore struct {
	Store
	waiting atomic.Int64
	let     chan struct{}
}

func (s *slowStore) Sync(p vault.Point) error {
	s.waiting.Add(1)
	<-s.let
	s.waiting.Add(-1)
	return s.Store.Sync(p)
}

// TestManySyncsLetOthersGoOn: more programs than there are workers wait for a slow disk, and others are answered; all of them
// share a few commits.
func TestManySyncsLetOthersGoOn(t *testing.T) {
	s := &slowStore{let: make(chan struct{})}
	m := newVolume(t).mount(t, volumeOptions{store: func(real Store) Store { s.Store = real; return s }})
	const syncing = 4 * maxWorkers
	var files []*os.File
	for i := range syncing {
		f, err := os.Create(m.path(fmt.Sprint(i)))
		must(t, err)
		defer f.Close()
		_, err = f.WriteString("content")
		must(t, err)
		files = append(files, f)
	}
	var all sync.WaitGroup
	var failed, done atomic.Int64
	for _, f := range files {
		all.Go(func() {
			if f.Sync() != nil {
				failed.Add(1)
			}
			done.Add(1)
		})
	}
	for s.waiting.Load() == 0 {
		time.Sleep(time.Millisecond)
	}
	answered := make(chan error, 1)
	go func() {
		_, err := os.ReadFile(m.path("0"))
		answered <- err
	}()
	select {
	case err := <-answered:
		must(t, err)
	case <-time.After(20 * time.Second):
		t.Error("nobody is answered while programs sync")
	}
	if done.Load() > 0 {
		t.Error("a sync was reported before the disk had synced")
	}
	close(s.let)
	all.Wait()
	if failed.Load() > 0 {
		t.Errorf("%d syncs failed", failed.Load())
	}
}
