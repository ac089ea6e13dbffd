package vault

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"reflect"
	"slices"
	"syscall"

	"encfsrun/fs/guarded"
	"encfsrun/fs/vault/disk"
	"encfsrun/fs/vault/seal"
	"encfsrun/keyring"
)

// Names in a vault's folder. On disk.
const (
	headerName = "vault.json"
	twinName   = "vault.json.bak"
	tempName   = "vault.json.new"
	lockName   = "lock"
	logDir     = "log"

	formatName    = "encfsrun vault"
	maxHeaderSize = 64 << 10  // bytes of vault.json: eight slots take a tenth of it
	maxGeneration = 1<<53 - 1 // the greatest integer that every reader of JSON holds exactly
)

// Header is the public header of a vault, vault.json.
type Header struct {
	VaultID    seal.ID
	Generation uint64 // grows by one with each change of the header
	Slots      []keyring.Slot

	mac  seal.Hash
	name string // which of the twins it was read from

	// unread is why the disk did not give the other twin, which may be the newer one. It is blamed before anybody is taken for
	// having put back an old header, and the keys are not changed on top of one.
	unread error
}

// headerJSON is vault.json field by field. On disk: the order and the names are the canonical encoding.
type headerJSON struct {
	Format     string         `json:"format"`
	Version    int            `json:"version"`
	VaultID    string         `json:"vault_id"`
	Generation uint64         `json:"generation"`
	Slots      []keyring.Slot `json:"slots"`
	MAC        string         `json:"mac"`
}

// encode returns the canonical encoding with the given MAC: JSON in the order of the fields, indented by two spaces, one
// newline at the end. The MAC is computed over the same text with an empty mac.
func (h *Header) encode(mac string) ([]byte, error) {
	b, err := json.MarshalIndent(headerJSON{formatName, seal.Version, hex.EncodeToString(h.VaultID[:]), h.Generation, h.Slots, mac}, "", "  ")
	if err != nil {
		return nil, fmt.Errorf("encode %s: %w", headerName, err)
	}
	return append(b, '\n'), nil
}

func parseHeader(vault, name string, b []byte) (*Header, error) {
	var version struct {
		Format  string `json:"format"`
		Version int    `json:"version"`
	}
	if err := json.Unmarshal(b, &version); err != nil || version.Format != formatName || version.Version < 1 {
		return nil, &NotVaultError{vault, fmt.Errorf("%s is damaged or not a vault's", name)}
	}
	if version.Version > seal.Version {
		return nil, &TooNewError{vault, version.Version}
	}
	var j headerJSON
	if err := json.Unmarshal(b, &j); err != nil {
		var parameters *keyring.ParameterError
		if errors.As(err, &parameters) {
			return nil, &NotVaultError{vault, fmt.Errorf("%s: %w", name, parameters)}
		}
		return nil, &NotVaultError{vault, fmt.Errorf("%s is damaged: %w", name, err)}
	}
	h := &Header{Generation: j.Generation, Slots: j.Slots, name: name}
	id, err1 := hex.DecodeString(j.VaultID)
	mac, err2 := hex.DecodeString(j.MAC)
	if err1 != nil || err2 != nil || len(id) != len(h.VaultID) || len(mac) != len(h.mac) || j.Generation < 1 || j.Generation > maxGeneration {
		return nil, &NotVaultError{vault, fmt.Errorf("%s is damaged", name)}
	}
	copy(h.VaultID[:], id)
	copy(h.mac[:], mac)
	if err := keyring.ValidateSlots(h.Slots); err != nil {
		return nil, &NotVaultError{vault, fmt.Errorf("%s: %w", name, err)}
	}
	// Any text that is not the canonical one is refused, so that every flipped bit of it is noticed.
	if canonical, err := h.encode(hex.EncodeToString(h.mac[:])); err != nil || !bytes.Equal(canonical, b) {
		return nil, &NotVaultError{vault, fmt.Errorf("%s is damaged: it is not in its canonical form", name)}
	}
	return h, nil
}

func (h *Header) authentic(keys *seal.Keys) bool {
	text, err := h.encode("")
	if err != nil {
		return false
	}
	mac := keys.HeaderMAC(text)
	return subtle.ConstantTimeCompare(mac[:], h.mac[:]) == 1
}

// parseTwins returns those of the twins that can be parsed, the higher generation first, and what is wrong with the others.
func parseTwins(fsys disk.FS, vault string) (found []*Header, errs []error) {
	for _, name := range []string{headerName, twinName} {
		b, err := readSmall(fsys, path.Join(vault, name))
		if err != nil {
			errs = append(errs, &NotVaultError{vault, fmt.Errorf("read %s: %w", name, bare(err))})
			continue
		}
		h, err := parseHeader(vault, name, b)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		found = append(found, h)
	}
	slices.SortStableFunc(found, func(a, b *Header) int { return cmp.Compare(b.Generation, a.Generation) })
	return found, errs
}

// readHeaders is parseTwins for those who need one of them: without any, the error is that of vault.json, or where that is
// simply not there, its twin's.
func readHeaders(fsys disk.FS, vault string) ([]*Header, error) {
	found, errs := parseTwins(fsys, vault)
	if len(found) > 0 {
		for _, err := range errs {
			if errors.Is(err, syscall.EIO) {
				found[0].unread = fmt.Errorf("open %s: %w", vault, errors.Unwrap(err))
			}
		}
		return found, nil
	}
	if errors.Is(errs[0], fs.ErrNotExist) && !errors.Is(errs[1], fs.ErrNotExist) {
		return nil, errs[1]
	}
	return nil, errs[0]
}

// ReadHeader returns the newest header of the vault that can be parsed, without a key: nothing of it is authenticated.
func ReadHeader(fsys disk.FS, vault string) (*Header, error) {
	found, err := readHeaders(fsys, vault)
	if err != nil {
		return nil, err
	}
	return found[0], nil
}

// Unlocked is a vault whose header opened and authenticated: what Open and the key commands start from.
type Unlocked struct {
	Path   string
	Header *Header
	Keys   *seal.Keys
	Master *guarded.Buffer // for new slots; whoever needs none destroys it at once
}

// Close wipes the keys and the master key.
func (u *Unlocked) Close() {
	u.Keys.Destroy()
	u.Master.Destroy()
}

// Unlock opens the header of the vault at path: open turns its slots into the master key. Of the twins, the one with the
// higher generation that authenticates counts. Errors are *NotVaultError, *TooNewError, open's own, and *IntegrityError where
// the passkey is right but no twin authenticates.
func Unlock(fsys disk.FS, path string, open func(id seal.ID, slots []keyring.Slot) (*guarded.Buffer, error)) (*Unlocked, error) {
	candidates, err := readHeaders(fsys, path)
	if err != nil {
		return nil, err
	}
	var firstErr error
	for i, h := range candidates {
		if i > 0 && h.VaultID == candidates[0].VaultID && reflect.DeepEqual(h.Slots, candidates[0].Slots) && !isIntegrity(firstErr) {
			continue // the same slots would cost the same second of derivation and say the same
		}
		master, err := open(h.VaultID, h.Slots)
		if err == nil {
			var u *Unlocked
			if u, err = authenticate(path, h, master); err == nil {
				return u, nil
			}
			master.Destroy()
		}
		if firstErr == nil || isIntegrity(err) {
			firstErr = err
		}
	}
	return nil, firstErr
}

func authenticate(path string, h *Header, master *guarded.Buffer) (*Unlocked, error) {
	keys, err := seal.NewKeys(h.VaultID, master.Bytes())
	if err != nil {
		return nil, err
	}
	if !h.authentic(keys) {
		keys.Destroy()
		return nil, &IntegrityError{fmt.Sprintf("%s of %s", h.name, path), "was altered: it does not authenticate"}
	}
	return &Unlocked{Path: path, Header: h, Keys: keys, Master: master}, nil
}

func isIntegrity(err error) bool {
	var e *IntegrityError
	return errors.As(err, &e)
}

// writeHeader puts h in place of vault.json and then of its twin. The commit point is the first rename; a crash between the
// two leaves twins of two generations, of which the higher counts.
func writeHeader(fsys disk.FS, vault string, h *Header, keys *seal.Keys) error {
	text, err := h.encode("")
	if err != nil {
		return err
	}
	mac := keys.HeaderMAC(text)
	if text, err = h.encode(hex.EncodeToString(mac[:])); err != nil {
		return err
	}
	for _, name := range []string{headerName, twinName} {
		if err := replaceFile(fsys, vault, name, tempName, text); err != nil {
			return fmt.Errorf("write %s of %s: %w", name, vault, err)
		}
	}
	h.mac = mac
	return nil
}

// freshHeader takes the header as it is now: the keys may have been changed while somebody typed the passkey. A writer names its
// generation in the log, so that it has to be durable first, and the vault's own name with it: whoever put them there may have
// been killed before.
func (v *Vault) freshHeader(writer bool) (err error) {
	if v.header, err = currentHeader(v.fsys, v.path, v.keys, v.header.VaultID); err != nil || !writer {
		return err
	}
	if err := v.fsys.SyncDir(v.path); err != nil {
		return fmt.Errorf("sync the folder %s: %w", v.path, bare(err))
	}
	return syncName(v.fsys, v.path)
}

// syncName makes durable that the vault is where it is.
func syncName(fsys disk.FS, vault string) error {
	parent := vault + "/.." // not path.Dir: the vault may be reached through a symlink
	if err := fsys.SyncDir(parent); err != nil {
		return fmt.Errorf("sync the folder %s: %w", parent, bare(err))
	}
	return nil
}

// replaceFile writes a file under a temporary name, syncs it, renames it and syncs the folder.
func replaceFile(fsys disk.FS, dir, name, temp string, content []byte) error {
	temp = path.Join(dir, temp)
	if err := fsys.Remove(temp); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	file, err := fsys.Create(temp, 0o600)
	if err != nil {
		return err
	}
	_, err = file.WriteAt(content, 0)
	if err == nil {
		err = file.Sync()
	}
	if e := file.Close(); err == nil {
		err = e
	}
	if err == nil {
		err = fsys.Rename(temp, path.Join(dir, name))
	}
	if err != nil {
		fsys.Remove(temp)
		return err
	}
	return fsys.SyncDir(dir)
}

// readSmall reads a whole file of at most maxHeaderSize bytes.
func readSmall(fsys disk.FS, name string) ([]byte, error) {
	file, err := fsys.Open(name)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	b := make([]byte, maxHeaderSize+1)
	n, err := file.ReadAt(b, 0)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	if n > maxHeaderSize {
		return nil, fmt.Errorf("%s has more than %d bytes", name, maxHeaderSize)
	}
	return b[:n], nil
}

// bare takes the path off a disk error whose sentence names the object already.
func bare(err error) error {
	var p *fs.PathError
	if errors.As(err, &p) {
		return p.Err
	}
	return err
}

func hashOf(b []byte) seal.Hash { return sha256.Sum256(b) }
