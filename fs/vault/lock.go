package vault

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"strings"

	"encfsrun/fs/vault/disk"
)

// The bytes of the lock file that stand for something. On disk.
const (
	writerByte = 0 // the log's one writer
	headerByte = 1 // a change of vault.json
)

// noteSize is the room in bytes for the note that the writer leaves in the lock file, for others to say who holds it.
const noteSize = 256

// takeLock locks one byte of the vault's lock file until the returned file is closed. Open-file-description locks go with the
// process that holds them, whatever kills it, and work on NFS.
func takeLock(fsys disk.FS, vault string, offset int64) (disk.File, error) {
	name := path.Join(vault, lockName)
	file, err := fsys.OpenWrite(name)
	if errors.Is(err, fs.ErrNotExist) { // lost in a copy: it holds nothing but locks
		file, err = fsys.Create(name, 0o600)
		if errors.Is(err, fs.ErrExist) { // somebody else was quicker
			file, err = fsys.OpenWrite(name)
		}
	}
	if err != nil {
		return nil, fmt.Errorf("lock %s: %w", vault, bare(err))
	}
	if err := file.Lock(offset); err != nil {
		note := make([]byte, noteSize)
		n, readErr := file.ReadAt(note, offset*noteSize)
		file.Close()
		if !errors.Is(err, disk.ErrLocked) {
			return nil, fmt.Errorf("lock %s: %w", vault, bare(err))
		}
		if readErr != nil && !errors.Is(readErr, io.EOF) {
			n = 0
		}
		return nil, &BusyError{vault, printable(note[:n])}
	}
	host, _ := os.Hostname()
	note := make([]byte, noteSize)
	copy(note, fmt.Sprintf("pid %d on %s", os.Getpid(), host))
	file.WriteAt(note, offset*noteSize) // only a help for who is refused; a full disk must not refuse the lock
	return file, nil
}

// printable is what of a note may be shown on a terminal: whoever writes to the vault's folder writes this file.
func printable(note []byte) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r > '~' {
			return -1
		}
		return r
	}, string(note))
}
