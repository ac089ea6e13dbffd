package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"encfsrun/fs/vault"
	"encfsrun/fs/vault/disk"
)

// pins returns where this machine remembers vaults, or nil, said aloud, where it can't.
func (a *app) pins() *vault.Pins {
	dir, err := a.statePath()
	if err == nil {
		err = a.makeState(dir)
	}
	if err != nil {
		a.messages.alert("no state directory: %v, so a vault that was rolled back can't be noticed; name one with --state-dir", err)
		return nil
	}
	return vault.NewPins(a.disk, pinsDir(dir))
}

func pinsDir(state string) string { return filepath.Join(state, "pins") }

func (a *app) statePath() (string, error) {
	if a.stateDir != "" {
		return filepath.Abs(a.stateDir)
	}
	if dir := os.Getenv("STATE_DIRECTORY"); filepath.IsAbs(dir) {
		return dir, nil
	}
	if dir := os.Getenv("XDG_STATE_HOME"); filepath.IsAbs(dir) {
		return filepath.Join(dir, "encfsrun"), nil
	}
	home, err := os.UserHomeDir()
	if err != nil {
		return "", errors.New("this user has no $HOME")
	}
	return filepath.Join(home, ".local", "state", "encfsrun"), nil
}

// makeState makes the state directory, and its parents, durably: a power cut after the first use must not turn what was seen
// into a first sight. Once there are pins in it, that was done.
func (a *app) makeState(dir string) error {
	if _, err := a.disk.Lstat(pinsDir(dir)); err == nil {
		return nil
	}
	if err := makeDurable(a.disk, dir); err != nil {
		return fmt.Errorf("%s can't be made (%v)", dir, cause(err))
	}
	return nil
}

// makeDurable is mkdir -p that syncs what it changes, and the name of the directory that was there, which one that was killed
// may have made and not synced.
func makeDurable(fsys disk.FS, dir string) error {
	parent := filepath.Dir(dir)
	err := fsys.Mkdir(dir, 0o700)
	if errors.Is(err, fs.ErrNotExist) && parent != dir {
		if err = makeDurable(fsys, parent); err == nil {
			err = fsys.Mkdir(dir, 0o700)
		}
	}
	switch {
	case errors.Is(err, fs.ErrExist):
		fsys.SyncDir(parent) // of another user's folder it may be refused
		return nil
	case err != nil:
		return err
	}
	return fsys.SyncDir(parent)
}

// cause is what the system said of a path that is named already.
func cause(err error) error {
	var path *fs.PathError
	if errors.As(err, &path) {
		return path.Err
	}
	return err
}
