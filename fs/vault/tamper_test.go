package vault

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"

	"encfsrun/fs/guarded"
	"encfsrun/fs/vault/disk"
	"encfsrun/fs/vault/disk/memdisk"
	"encfsrun/fs/vault/seal"
	"encfsrun/fs/vault/tree"
	"encfsrun/keyring"
)

// The tests of tamper_*_test.go are the adversary who holds the disk: they alter a vault in every way that they know and judge
// what is served then. Each alteration is opened once with the machine's pin and once without.
//
// What must never happen is that anything wrong is served: a byte, a name, a mode, a file that lacks. A vault may be refused as
// a whole, or a file's contents when they are read. Without the pin it may also be what it was after an earlier commit, where
// the log's end was lost; with the pin never.

// seen is one name of a tree: all that a mount would serve of it.
type seen struct {
	path string
	meta string
	body string // the contents, or bodyRefused
}

const bodyRefused = "refused"

// survey lists a tree with its contents. Contents that are refused as damaged are noted as that; any other error ends it.
func survey(v *Vault) ([]seen, error) {
	s := &surveyor{v: v, known: map[Ino]string{}, blocks: map[uint64][]byte{}}
	err := s.visit("/", tree.Root)
	return s.all, err
}

type surveyor struct {
	v      *Vault
	all    []seen
	known  map[Ino]string
	blocks map[uint64][]byte // as the cache over them would hold; nil is refused
}

func (s *surveyor) visit(path string, ino Ino) error {
	a, err := s.v.Attr(ino)
	if err != nil {
		return err
	}
	if first, ok := s.known[ino]; ok {
		s.all = append(s.all, seen{path: path, meta: "is " + first})
		return nil
	}
	s.known[ino] = path
	one := seen{path: path, meta: fmt.Sprint(a.Mode, a.UID, a.GID, a.Rdev, a.Size, a.Nlink, a.Mtime, a.Ctime)}
	names, err := s.v.ListXattr(ino)
	if err != nil {
		return err
	}
	slices.Sort(names)
	for _, name := range names {
		value, err := s.v.GetXattr(ino, name)
		if err != nil {
			return err
		}
		one.meta += fmt.Sprintf(" %q=%q", name, value)
	}
	switch a.Mode & typeMask {
	case 0o100000:
		one.body, err = s.content(ino, int(a.Size))
	case 0o120000:
		one.body, err = s.v.Readlink(ino)
	}
	if err != nil {
		return err
	}
	s.all = append(s.all, one)
	if a.Mode&typeMask != typeDir {
		return nil
	}
	children := map[string]Ino{}
	if err := s.v.ReadDir(ino, 0, func(e tree.Entry) bool { children[e.Name] = e.Ino; return true }); err != nil {
		return err
	}
	for _, name := range slices.Sorted(maps.Keys(children)) {
		if err := s.visit(path+name+"/", children[name]); err != nil {
			return err
		}
	}
	return nil
}

func (s *surveyor) content(ino Ino, size int) (string, error) {
	spans, err := s.v.Spans(ino, 0, size, nil)
	if err != nil {
		return "", err
	}
	var content strings.Builder
	content.Grow(size)
	for _, p := range spans {
		if p.Hole {
			content.Write(make([]byte, p.Len))
			continue
		}
		plain, err := s.block(p.Block)
		if err != nil {
			return "", err
		}
		if plain == nil {
			return bodyRefused, nil
		}
		content.Write(plain[p.At : p.At+p.Len])
	}
	if content.Len() != size {
		return "", fmt.Errorf("%d bytes of %d", content.Len(), size)
	}
	return content.String(), nil
}

func (s *surveyor) block(number uint64) ([]byte, error) {
	plain, ok := s.blocks[number]
	if ok {
		return plain, nil
	}
	plain = bytes.Repeat([]byte{0xAA}, PlainSize) // not zeros, so that a hole is seen where bytes should be
	_, err := s.v.LoadBlock(number, plain)
	if isIntegrity(err) {
		if !bytes.Equal(plain, make([]byte, PlainSize)) {
			return nil, fmt.Errorf("a refused block left bytes behind: %w", err)
		}
		plain, err = nil, nil
	}
	s.blocks[number] = plain
	return plain, err
}

// agrees says whether what was served is part of a state: the same but for refused contents, of which it returns the number.
func agrees(state, served []seen) (refused int, ok bool) {
	if len(state) != len(served) {
		return 0, false
	}
	for i, s := range served {
		if s == state[i] {
			continue
		}
		if s.path != state[i].path || s.meta != state[i].meta || s.body != bodyRefused {
			return 0, false
		}
		refused++
	}
	return refused, true
}

// verdict is what became of an altered vault.
type verdict string

const (
	same       verdict = "same"       // served as it is
	partly     verdict = "partly"     // served as it is, and contents refused
	refusal    verdict = "refused"    // *IntegrityError or *RollbackError
	earlier    verdict = "earlier"    // served as it was after an earlier commit
	headerless verdict = "headerless" // no header can be used: not a vault, too new, wrong passkey
)

// fate is what becomes of a vault without and with the pin.
type fate struct{ bare, pinned verdict }

// place is where an altered byte stands: in which segment, and in which of its blocks; -1 is the header.
type place struct {
	segment, block int
}

func placeOf(segment, at int) place {
	if at < headerSize {
		return place{segment, -1}
	}
	return place{segment, (at - headerSize) / BlockSize}
}

// target is a vault that is altered, and what is known of it.
type target struct {
	f       *fixture
	passkey *keyring.Passkey
	good    still
	states  [][]seen // after each commit, the newest last
	root    Root     // the newest
	pin     []byte   // the file of the pin of the newest state
	pinned  string   // its name
}

// pinDisk gives a state directory of its own, with the pin of the newest state.
func (g *target) pinDisk(t testing.TB) *memdisk.Disk {
	t.Helper()
	d := memdisk.New()
	mkdirs(t, d)
	if err := d.WriteFile(g.pinned, g.pin); err != nil {
		t.Fatal(err)
	}
	return d
}

// judge opens a vault with the real key slots and says what is served. An error is something that must not be.
func (g *target) judge(fsys disk.FS, o Options) (verdict, error) {
	u, err := g.unlock(fsys)
	if err != nil {
		return classed(err)
	}
	defer u.Close()
	v, err := u.Open(fsys, o)
	if err != nil {
		return classed(err)
	}
	defer v.Close()
	return g.judgeOpen(v)
}

func (g *target) judgeOpen(v *Vault) (verdict, error) {
	served, err := survey(v)
	if err != nil {
		return "", fmt.Errorf("opened, and then: %w", err)
	}
	for i, state := range slices.Backward(g.states) {
		refused, ok := agrees(state, served)
		if !ok {
			if v.Root() == g.root {
				return "", fmt.Errorf("the newest root stands for something else:\n%+v", served)
			}
			continue
		}
		switch {
		case i < len(g.states)-1:
			return earlier, nil
		case refused > 0:
			return partly, nil
		}
		return same, nil
	}
	return "", fmt.Errorf("served what never was:\n%+v", served)
}

// classed gives the verdict of an error of opening.
func classed(err error) (verdict, error) {
	var (
		rollback *RollbackError
		root     *RootError
		notVault *NotVaultError
		tooNew   *TooNewError
		wrong    *keyring.WrongPasskeyError
		damaged  *keyring.DamagedSlotError
	)
	switch {
	case isIntegrity(err), errors.As(err, &rollback), errors.As(err, &root):
		return refusal, nil
	case errors.As(err, &notVault), errors.As(err, &tooNew), errors.As(err, &wrong), errors.As(err, &damaged):
		return headerless, nil
	}
	return "", fmt.Errorf("neither opened nor refused as damaged: %w", err)
}

// trial is one alteration, and which verdicts it may get.
type trial struct {
	name     string
	fsys     disk.FS
	mayLose  bool // the end of the log is lost, or all of it is an older copy: without a pin an earlier commit may be served
	noHeader bool // neither of the twins can be used
	want     fate // what is not empty of it is the only verdict
}

// try opens an alteration without and with the pin, judges both, and sees that a refused vault changes no pin.
func (g *target) try(t testing.TB, c trial) verdict {
	t.Helper()
	bare, err := g.judge(c.fsys, Options{})
	if err == nil {
		err = c.allows(bare, false)
	}
	if err != nil {
		t.Errorf("%s: without a pin: %v", c.name, err)
	}
	d := g.pinDisk(t)
	warned := func(err error) { t.Errorf("%s: warned: %v", c.name, err) }
	got, err := g.judge(c.fsys, Options{Pins: NewPins(d, testPins), Warn: warned})
	if err == nil {
		err = c.allows(got, true)
	}
	if err != nil {
		t.Errorf("%s: with the pin: %v", c.name, err)
	}
	if pin, err := d.ReadFile(g.pinned); err != nil || !bytes.Equal(pin, g.pin) {
		t.Errorf("%s: the pin is now %s, %v", c.name, pin, err)
	}
	return bare
}

func (c *trial) allows(v verdict, pinned bool) error {
	want := c.want.bare
	if pinned {
		want = c.want.pinned
	}
	switch {
	case want != "" && v != want:
		return fmt.Errorf("%s, want %s", v, want)
	case v == earlier && (pinned || !c.mayLose):
		return errors.New("an earlier commit was served")
	case v == headerless && !c.noHeader:
		return errors.New("the header was given up")
	}
	return nil
}

// unlock unlocks as the command line does: by the machine key, through the header's slots.
func (g *target) unlock(fsys disk.FS) (*Unlocked, error) {
	return Unlock(fsys, testVault, func(id seal.ID, slots []keyring.Slot) (*guarded.Buffer, error) {
		master, _, err := keyring.Unlock(id, slots, g.passkey, keyring.InProcessKDF)
		return master, err
	})
}

// tamperRounds is how often random trials are made: more where a soak asks for it (ENCFSRUN_SOAK, ENCFSRUN_ROUNDS).
func tamperRounds(n int) int {
	if os.Getenv("ENCFSRUN_SOAK") == "1" {
		n *= 20
	}
	if more, err := strconv.Atoi(os.Getenv("ENCFSRUN_ROUNDS")); err == nil && more > 0 {
		n *= more
	}
	return n
}
