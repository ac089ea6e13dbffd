package main

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
)

const (
	// Small files with fsync: how many threads make how many files each, of how many bytes.
	syncThreads        = 8
	syncFilesPerThread = 125
	syncFileSize       = 4 << 10
	// bigFile is the size of the file that is written, read and overwritten, in MiB.
	bigFile = 256
	// Overwritten is as much as a part of a file, in pieces of so many bytes.
	overwriteShare = 4
	overwriteSize  = 4 << 10
)

// syncFiles makes many small files and fsyncs each, in threads that don't wait for each other.
func syncFiles(dir string) error {
	failures := make(chan error, syncThreads)
	var threads sync.WaitGroup
	for thread := range syncThreads {
		threads.Go(func() {
			for i := range syncFilesPerThread {
				if err := syncFile(filepath.Join(dir, fmt.Sprintf("thread%d-file%d", thread, i))); err != nil {
					failures <- err
					return
				}
			}
		})
	}
	threads.Wait()
	close(failures)
	return <-failures
}

func syncFile(name string) error {
	f, err := os.Create(name)
	if err != nil {
		return err
	}
	_, err = f.Write(make([]byte, syncFileSize))
	return errors.Join(err, f.Sync(), f.Close())
}

// overwrite writes pieces of a file anew, each where it begins a multiple of its size, and syncs at the end. The order is random,
// and the same each time.
func overwrite(name string) error {
	f, err := os.OpenFile(name, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	r := rand.New(rand.NewPCG(1, 2))
	piece, pieces := make([]byte, overwriteSize), info.Size()/overwriteSize
	for i := range pieces / overwriteShare {
		piece[0] = byte(i)
		if _, err := f.WriteAt(piece, r.Int64N(pieces)*overwriteSize); err != nil {
			return err
		}
	}
	return f.Sync()
}
