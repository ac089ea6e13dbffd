package vault

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"syscall"
	"time"

	"encfsrun/fs/vault/disk"
	"encfsrun/fs/vault/record"
	"encfsrun/fs/vault/seal"
)

// Pin is what a machine remembers of the newest state of a vault that it has seen.
type Pin struct {
	VaultID    seal.ID
	Generation uint64
	Session    seal.ID
	Sequence   uint64 // 0: no commit was seen, only the header
	Chain      Root
}

// Pins keeps one pin for each vault in a folder of the machine's state directory. It protects against whoever gives the
// machine an older vault, and not against whoever holds the folder too.
type Pins struct {
	fsys disk.FS
	dir  string
}

// NewPins keeps pins in dir, which is made when the first is written; its parent has to exist.
func NewPins(fsys disk.FS, dir string) *Pins { return &Pins{fsys, dir} }

// pinJSON is a pin's file, in the canonical form of vault.json. Sum is the SHA-256 of the same text with an empty sum: it
// tells a torn file, and is no protection.
type pinJSON struct {
	VaultID    string `json:"vault_id"`
	Generation uint64 `json:"generation"`
	Session    string `json:"session"`
	Sequence   uint64 `json:"sequence"`
	Chain      string `json:"chain"`
	Sum        string `json:"sum"`
}

func (p *Pin) encode() []byte {
	j := pinJSON{hex.EncodeToString(p.VaultID[:]), p.Generation, hex.EncodeToString(p.Session[:]), p.Sequence, hex.EncodeToString(p.Chain[:]), ""}
	text := func() []byte {
		b, _ := json.MarshalIndent(j, "", "  ") // strings and numbers only: it can't fail
		return append(b, '\n')
	}
	h := hashOf(text())
	j.Sum = hex.EncodeToString(h[:])
	return text()
}

func decodePin(b []byte) (*Pin, error) {
	var j pinJSON
	if err := json.Unmarshal(b, &j); err != nil {
		return nil, err
	}
	p := &Pin{Generation: j.Generation, Sequence: j.Sequence}
	for _, f := range []struct {
		dst []byte
		src string
	}{{p.VaultID[:], j.VaultID}, {p.Session[:], j.Session}, {p.Chain[:], j.Chain}} {
		if d, err := hex.DecodeString(f.src); err != nil || copy(f.dst, d) != len(f.dst) || len(d) != len(f.dst) {
			return nil, errors.New("it has a field that makes no sense")
		}
	}
	if !bytes.Equal(p.encode(), b) {
		return nil, errors.New("it was torn or altered")
	}
	return p, nil
}

func (s *Pins) name(id seal.ID) string { return hex.EncodeToString(id[:]) + ".json" }

// load returns the vault's pin, nil where there is none.
func (s *Pins) load(id seal.ID) (*Pin, error) {
	b, err := readSmall(s.fsys, path.Join(s.dir, s.name(id)))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	var p *Pin
	if err == nil {
		if p, err = decodePin(b); err == nil && p.VaultID != id {
			err = errors.New("it is another vault's")
		}
	}
	if err != nil {
		return nil, fmt.Errorf("the pin of this vault in %s can't be used (%w), so a rollback can't be noticed this time", s.dir, bare(err))
	}
	return p, nil
}

// save replaces the vault's pin; of a newer one that was saved meanwhile, what is newer stays, unless force is set.
func (s *Pins) save(p Pin, force bool) error {
	err := s.trySave(p, force)
	if err != nil {
		return fmt.Errorf("pin the vault in %s: %w; a rollback to before this run can't be noticed", s.dir, bare(err))
	}
	return nil
}

func (s *Pins) trySave(p Pin, force bool) error {
	if err := s.fsys.Mkdir(s.dir, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	lock, err := s.lock()
	if err != nil {
		return err
	}
	defer lock.Close()
	old, err := s.load(p.VaultID)
	if err != nil && p.Sequence == 0 {
		return err // a torn pin of a whole state is not replaced by one of the header alone, which would say that no commit was seen
	}
	if err == nil && old != nil && !force {
		// A reader that was slow must not put an older state over the newer one that a writer has pinned since.
		if old.Sequence > p.Sequence {
			p.Session, p.Sequence, p.Chain = old.Session, old.Sequence, old.Chain
		}
		p.Generation = max(p.Generation, old.Generation)
		if *old == p {
			return nil
		}
	}
	return replaceFile(s.fsys, s.dir, s.name(p.VaultID), s.name(p.VaultID)+".new", p.encode())
}

func (s *Pins) lock() (disk.File, error) {
	name := path.Join(s.dir, lockName)
	file, err := s.fsys.OpenWrite(name)
	if errors.Is(err, fs.ErrNotExist) {
		// The folder is new, maybe made by a process that was killed: its name is made durable before there is a lock in it.
		if err = s.fsys.SyncDir(path.Dir(s.dir)); err != nil {
			return nil, err
		}
		if file, err = s.fsys.Create(name, 0o600); errors.Is(err, fs.ErrExist) {
			file, err = s.fsys.OpenWrite(name)
		}
	}
	if err != nil {
		return nil, err
	}
	// The lock is held for the time of two syncs; whoever finds it taken waits a little.
	for range 200 {
		if err = file.Lock(0); !errors.Is(err, disk.ErrLocked) {
			break
		}
		time.Sleep(10 * time.Millisecond)
	}
	if err != nil {
		file.Close()
		return nil, err
	}
	return file, nil
}

// pinned returns what this machine has pinned of the vault, nil where there is nothing.
func (v *Vault) pinned() (*Pin, error) {
	if v.options.Pins == nil {
		return nil, nil
	}
	return v.options.Pins.load(v.header.VaultID)
}

// checkPin is step 6 of opening: what this machine has pinned has to be contained in what was found; then that is pinned, if it
// is durable: what a power cut can take back would look like a rollback afterwards.
func (v *Vault) checkPin(old *Pin, durable bool) error {
	if old != nil && !v.options.AcceptRollback {
		if old.Generation > v.header.Generation && v.header.unread != nil {
			return v.header.unread
		}
		if detail := v.missing(old); detail != "" {
			return &RollbackError{v.path, detail}
		}
	}
	if durable {
		v.savePin(v.options.AcceptRollback)
	}
	return nil
}

// onDisk says of what a reader has found and would pin whether it is durable, or lost already: a writer beside us may not have
// synced it yet, or have been killed before it could, and after a sync that failed the page cache shows what the disk never got.
// Only vault.json and the newest segment are in doubt (W1). Where nothing is to be pinned, or the disk can't tell, it is neither.
func (v *Vault) onDisk(pinned *Pin) (durable, lost bool) {
	if v.options.Pins == nil {
		return false, false
	}
	if pinned != nil && *pinned == v.pin() {
		return true, false
	}
	tip := v.segs[len(v.segs)-1]
	for _, settle := range []func() error{func() error { return v.fsys.SyncDir(v.path) }, tip.file.Sync, tip.file.DropCache} {
		// A read-only file system says so, an image's says EINVAL: nothing of it is in doubt.
		if err := settle(); err != nil && !errors.Is(err, syscall.EROFS) && !errors.Is(err, syscall.EINVAL) {
			v.warnOfPin(fmt.Errorf("what %s holds is not pinned, for it may not be durable: %w", v.path, bare(err)))
			return false, false
		}
	}
	sealed := make([]byte, BlockSize)
	for i := range tip.sums {
		err := readBlock(v.path, tip, uint64(i), sealed)
		if err != nil && !isIntegrity(err) {
			return false, false
		}
		if err != nil || sum(sealed) != tip.sums[i] {
			return false, true
		}
	}
	return true, false
}

// newest is the last commit that was found or written, as it would be pinned if it is durable.
func (v *Vault) newest() Pin {
	return Pin{v.header.VaultID, v.header.Generation, v.state.session, v.state.last.sequence, v.state.last.chain}
}

func (v *Vault) pin() Pin {
	v.mu.RLock()
	defer v.mu.RUnlock()
	return v.durable
}

// missing says what of the pinned state the vault does not contain, or nothing.
func (v *Vault) missing(p *Pin) string {
	if p.Generation > v.header.Generation {
		return fmt.Sprintf("its header has generation %d, and this machine has seen %d", v.header.Generation, p.Generation)
	}
	st := v.state
	if p.Sequence == 0 {
		return ""
	}
	if p.Sequence > st.last.sequence {
		return fmt.Sprintf("it ends with commit %d, and this machine has seen commit %d", st.last.sequence, p.Sequence)
	}
	if i := slices.IndexFunc(st.history, func(c point) bool { return c.sequence == p.Sequence }); i >= 0 {
		if st.history[i].chain == p.Chain {
			return ""
		}
	} else if slices.ContainsFunc(st.epochs, func(e record.EpochRecord) bool { return e.Session == p.Session && e.Sequence >= p.Sequence }) {
		return ""
	}
	return fmt.Sprintf("it went another way before commit %d, which this machine has seen", p.Sequence)
}

func (v *Vault) savePin(force bool) {
	if v.options.Pins == nil {
		return
	}
	if err := v.options.Pins.save(v.pin(), force); err != nil {
		v.warnOfPin(err)
	}
}

// warnOfPin tells the user once that this machine can't remember the vault: a pin that can't be read mostly can't be written either.
func (v *Vault) warnOfPin(err error) {
	if v.options.Warn != nil && !v.warned {
		v.options.Warn(err)
	}
	v.warned = true
}
