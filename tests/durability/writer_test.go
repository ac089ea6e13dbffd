package durability

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// writeOrder is what a writer is told on its standard input. It writes until it is killed.
type writeOrder struct {
	Root    string
	Batch   batch
	Durable bool // fsync before reporting; else only what close(2) gives
	Most    int  // records, after which it waits for its end; 0: no bound
}

// prepareJob makes the directory that is there before anything happens, and syncs it.
func prepareJob() error {
	var o writeOrder
	if err := json.NewDecoder(os.Stdin).Decode(&o); err != nil {
		return err
	}
	o.Durable = true
	return o.mkdir(filepath.Join(o.Root, oldDir))
}

// What a writer says on its standard output, a line each. After sayFull it waits for a line on its standard input, and tries the
// same record again.
const (
	sayDone = "done" // the next record is on the disk
	sayFull = "full" // the disk is full
)

// writeJob is a writer.
func writeJob() error {
	in := bufio.NewReader(os.Stdin)
	line, err := in.ReadBytes('\n')
	if err != nil {
		return err
	}
	var o writeOrder
	if err := json.Unmarshal(line, &o); err != nil {
		return err
	}
	unix.Umask(0o022)
	for seq := o.Batch.Acked + 1; ; seq++ {
		if o.Most > 0 && seq > o.Most {
			_, err := io.Copy(io.Discard, in)
			return err
		}
		for {
			err := o.write(seq)
			if err == nil {
				break
			}
			if !errors.Is(err, unix.ENOSPC) {
				return fmt.Errorf("%s %d: %w", o.Batch.Kind, seq, err)
			}
			fmt.Println(sayFull)
			if _, err := in.ReadBytes('\n'); err != nil {
				return nil
			}
		}
		// When nobody reads this any more, SIGPIPE ends the writer.
		fmt.Println(sayDone)
	}
}

// write puts a record where it belongs. It can be done again after it failed at any point.
func (o *writeOrder) write(seq int) error {
	at := o.Batch.kind().place(&o.Batch, seq)
	record := content(o.Batch.id(seq), at.size)
	path := filepath.Join(o.Root, at.path)
	dir := filepath.Dir(path)
	if err := o.mkdir(dir); err != nil {
		return err
	}
	name := path
	if at.replaces {
		name += ".new"
		if len(filepath.Base(name)) > unix.NAME_MAX {
			return fmt.Errorf("%s: %w", name, unix.ENAMETOOLONG)
		}
	}
	_, err := os.Lstat(name)
	fresh := err != nil
	if err := o.writeFile(name, record, at.offset); err != nil {
		return err
	}
	if at.replaces {
		if err := os.Rename(name, path); err != nil {
			return err
		}
	}
	if fresh {
		return o.syncDir(dir)
	}
	return nil
}

func (o *writeOrder) writeFile(name string, record []byte, offset int64) error {
	f, err := os.OpenFile(name, os.O_CREATE|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	_, err = f.WriteAt(record, offset)
	if err == nil && o.Durable {
		err = f.Sync()
	}
	// The first error is the one to act on; what close says of a full disk counts where nothing was synced.
	if closed := f.Close(); err == nil {
		err = closed
	}
	return err
}

// mkdir makes a directory and those above it, durably.
func (o *writeOrder) mkdir(dir string) error {
	if _, err := os.Lstat(dir); err == nil {
		return nil
	}
	if err := o.mkdir(filepath.Dir(dir)); err != nil {
		return err
	}
	if err := os.Mkdir(dir, 0o755); err != nil {
		return err
	}
	if err := o.syncDir(dir); err != nil {
		return err
	}
	return o.syncDir(filepath.Dir(dir))
}

func (o *writeOrder) syncDir(dir string) error {
	if !o.Durable {
		return nil
	}
	return fsyncPath(dir)
}

func fsyncPath(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}
