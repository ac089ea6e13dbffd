package vault

import (
	"errors"
	"fmt"
	"io/fs"
	"path"

	"encfsrun/fs/vault/disk"
	"encfsrun/fs/vault/seal"
	"encfsrun/keyring"
)

// ExistsError says that there is something where a new vault was to be made.
type ExistsError struct {
	Path    string
	Symlink bool
}

func (e *ExistsError) Error() string {
	if e.Symlink {
		return fmt.Sprintf("%s is a symbolic link, and a new vault is not made through one", e.Path)
	}
	return fmt.Sprintf("%s exists already", e.Path)
}

// CheckNew says whether a vault can be made at path, before anybody is asked for a passkey: an *ExistsError if not.
func CheckNew(fsys disk.FS, vault string) error {
	info, err := fsys.Lstat(vault)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("make %s: %w", vault, bare(err))
	}
	return &ExistsError{vault, info.Kind == disk.KindSymlink}
}

// Create makes a vault whose first commit is what fill writes, and returns its root. It is built in a folder beside, .NAME.partial,
// and renamed when all of it is durable, so that at path there is a whole vault or nothing (W5). The folder of a Create that was
// killed is found unlocked and used again; that of one still at work is a *BusyError.
func Create(fsys disk.FS, vault string, keys *seal.Keys, slots []keyring.Slot, o Options, fill func(*Session) error) (Root, error) {
	vault = path.Clean(vault)
	if err := CheckNew(fsys, vault); err != nil {
		return Root{}, err
	}
	partial := path.Join(path.Dir(vault), "."+path.Base(vault)+".partial")
	lock, err := claimPartial(fsys, partial)
	if err != nil {
		var busy *BusyError
		if errors.As(err, &busy) {
			busy.Path = vault
		}
		return Root{}, err
	}
	h := &Header{VaultID: keys.Vault(), Generation: 1, Slots: slots}
	pins := o.Pins
	o.Pins = nil // until the vault has its name
	v := &Vault{path: partial, fsys: fsys, keys: keys, header: h, options: o, lock: lock, state: newState()}
	defer v.Close()
	if err := v.build(fill); err != nil {
		return Root{}, errors.Join(err, clearPartial(fsys, partial))
	}
	if err := fsys.RenameNoReplace(partial, vault); err != nil {
		if errors.Is(err, fs.ErrExist) {
			err = &ExistsError{Path: vault}
		} else {
			err = fmt.Errorf("name the new vault %s: %w", vault, bare(err))
		}
		return Root{}, errors.Join(err, clearPartial(fsys, partial))
	}
	v.path = vault
	if err := fsys.SyncDir(path.Dir(vault)); err != nil {
		return Root{}, fmt.Errorf("sync the folder of %s: %w", vault, bare(err))
	}
	v.options.Pins = pins
	v.savePin(false)
	return v.Root(), nil
}

// build writes header and log; the pin waits until the vault has its name.
func (v *Vault) build(fill func(*Session) error) error {
	if err := v.fsys.Mkdir(path.Join(v.path, logDir), 0o700); err != nil {
		return fmt.Errorf("make %s: %w", v.path, bare(err))
	}
	if err := writeHeader(v.fsys, v.path, v.header, v.keys); err != nil {
		return err
	}
	s, err := v.Begin()
	if err != nil {
		return err
	}
	err = fill(s)
	if err == nil {
		err = s.Checkpoint()
	}
	if err != nil {
		return errors.Join(err, s.Abort())
	}
	return s.finish()
}

// claimPartial makes the folder that a new vault is built in, or takes over the one that a killed process left, emptied. Somebody
// else may have put something of that name there, in a folder that others write to or in a source tree that is packed where it
// lies: a link, for us to follow, or a folder whose log is one, for us to empty another in its place. So what is taken over is
// ours alone, and holds nothing but what a vault does.
func claimPartial(fsys disk.FS, partial string) (disk.File, error) {
	if err := fsys.Mkdir(partial, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return nil, fmt.Errorf("make %s: %w", partial, bare(err))
	}
	if _, err := partialFiles(fsys, partial); err != nil {
		return nil, err
	}
	lock, err := takeLock(fsys, partial, writerByte)
	if err != nil {
		return nil, err
	}
	if err := emptyPartial(fsys, partial); err != nil {
		lock.Close()
		return nil, fmt.Errorf("empty %s: %w", partial, bare(err))
	}
	return lock, nil
}

// partialFiles returns the names of what a killed process may have left in the folder, but for the lock, in the order in which
// they can be removed. Anything else there is an error.
func partialFiles(fsys disk.FS, partial string) (names []string, err error) {
	foreign := fmt.Errorf("%s is in the way, and not what an interrupted pack leaves: remove it", partial)
	ours := func(name string) bool {
		info, err := fsys.Lstat(name)
		return err == nil && info.Kind == disk.KindDir && info.Own && info.Mode&0o022 == 0
	}
	if !ours(partial) {
		return nil, foreign
	}
	found, err := fsys.List(partial)
	if err != nil {
		return nil, err
	}
	for _, name := range found {
		switch name {
		case lockName:
		case headerName, twinName, tempName:
			names = append(names, path.Join(partial, name))
		case logDir:
			logs := path.Join(partial, logDir)
			if !ours(logs) {
				return nil, foreign
			}
			segments, err := fsys.List(logs)
			if err != nil {
				return nil, err
			}
			for _, s := range segments {
				if parseSegmentName(s) == 0 {
					return nil, foreign
				}
				names = append(names, path.Join(logs, s))
			}
			names = append(names, logs)
		default:
			return nil, foreign
		}
	}
	return names, nil
}

// emptyPartial removes what a vault's folder holds, but for the lock.
func emptyPartial(fsys disk.FS, partial string) error {
	names, err := partialFiles(fsys, partial)
	for _, name := range names {
		if err == nil {
			err = fsys.Remove(name)
		}
	}
	return err
}

// clearPartial takes back the folder of a vault that did not come to be.
func clearPartial(fsys disk.FS, partial string) error {
	err := emptyPartial(fsys, partial)
	for _, name := range []string{path.Join(partial, lockName), partial} {
		if err == nil {
			err = fsys.Remove(name)
		}
	}
	if err != nil {
		return fmt.Errorf("remove %s: %w", partial, bare(err))
	}
	return nil
}
