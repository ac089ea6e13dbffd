package vault

import (
	"errors"
	"fmt"
	"hash/fnv"
	"io/fs"
	"math/rand/v2"
	"os"
	"reflect"
	"strconv"
	"testing"
	"time"

	"encfsrun/fs/vault/disk"
	"encfsrun/fs/vault/disk/memdisk"
	"encfsrun/keyring"
)

// The crash tests act out stories (crash_stories_test.go) on a disk in memory, take a picture of the machine before every
// operation that changes something, and open what a crash would have left of each picture: a power cut, of which every unsynced
// page, length and name survives or not; a killed process, after which the page cache goes on; both in a row; a sync that failed.
// A vault has to open as it was after some commit, and never before the last that was reported durable; a machine that has
// pinned a state must not take what is left for a rollback.
//
// ENCFSRUN_SOAK=1 tries twenty times as many crashes, ENCFSRUN_ROUNDS=n (`make soak`) n times as many; both from a random seed.
// ENCFSRUN_SEED repeats one. -short, for the race detector, tries one instant in eight.

// luck is where the random choices of a test come from.
type luck struct {
	rounds int
	seed   uint64
	short  bool
}

// skip says whether an instant is left out.
func (l luck) skip(r *rand.Rand) bool { return l.short && r.IntN(8) > 0 }

func newLuck(t testing.TB) luck {
	l := luck{rounds: 1, seed: 1, short: testing.Short()}
	if os.Getenv("ENCFSRUN_SOAK") == "1" {
		l.rounds = 20
	}
	if n, err := strconv.Atoi(os.Getenv("ENCFSRUN_ROUNDS")); err == nil {
		l.rounds = max(n, 1)
	}
	if l.rounds > 1 {
		l.seed = rand.Uint64()
	}
	if n, err := strconv.ParseUint(os.Getenv("ENCFSRUN_SEED"), 10, 64); err == nil {
		l.seed = n
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("ENCFSRUN_SEED=%d repeats this", l.seed)
		}
	})
	return l
}

// of gives the choices of one thing, whatever else is tried before it.
func (l luck) of(what string) *rand.Rand {
	h := fnv.New64a()
	h.Write([]byte(what))
	return rand.New(rand.NewPCG(l.seed, h.Sum64()))
}

// machine is what a power cut takes down: the disk with the vault, and the one with the pins.
type machine struct {
	vault *memdisk.Disk
	pins  *memdisk.Disk // vault itself, or another one that every crash leaves whole, or nil: nothing is pinned
}

func (m machine) pinsAt(through *syncs) *Pins {
	if m.pins == nil {
		return nil
	}
	return NewPins(behind(m.pins, through), testPins)
}

func behind(d *memdisk.Disk, through *syncs) disk.FS {
	if through == nil {
		return d
	}
	return syncsFS{d, through}
}

// options pins, and takes a pin that can't be used for a fault: no crash may tear one. That a failure was mended is none.
func (m machine) options(through *syncs, warned *error) Options {
	return Options{Pins: m.pinsAt(through), Warn: func(err error) {
		if rescued := (*RescueError)(nil); !errors.As(err, &rescued) {
			*warned = errors.Join(*warned, err)
		}
	}}
}

func (m machine) after(crash func(*memdisk.Disk) *memdisk.Disk) machine {
	left := machine{vault: crash(m.vault)}
	switch m.pins {
	case nil:
	case m.vault:
		left.pins = left.vault
	default:
		left.pins = m.pins.Crash(memdisk.Keep, 0)
	}
	return left
}

// kill is the end of the process: what it wrote is in the page cache, what it locked is free.
func (m machine) kill() machine { return m.after((*memdisk.Disk).Clone) }

// promise is what a story has been told is durable.
type promise struct {
	sequence   uint64 // of the last commit; where this and the generation are 0 there need be no vault
	generation uint64 // of the header
	pinned     bool   // what this machine has seen is remembered
}

// picture is a machine at an instant.
type picture struct {
	machine
	promise
	before string // the operation to come
	syncs  bool   // it is one that makes something durable: much is in the air
}

// story is one life of a vault, acted out and watched.
type story struct {
	f       *fixture
	machine machine
	fsys    disk.FS       // machine.vault, maybe behind through
	through *syncs        // sees the syncs, or nil
	limit   uint64        // blocks that a segment takes
	tick    time.Duration // by which the clock moves on each time a session looks at it
	told    promise
	states  map[uint64]string         // the tree after each commit, by sequence
	slots   map[uint64][]keyring.Slot // by generation
	album   []picture
	known   bool       // the states are: they need not be read again
	memory  *workspace // to open vaults in: making one for each takes longer than all else
}

func newStory(f *fixture, m machine) *story {
	return &story{f: f, machine: m, fsys: m.vault, limit: 3, states: map[uint64]string{}, slots: map[uint64][]keyring.Slot{1: {f.Slot}}}
}

// watch takes pictures from now on.
func (s *story) watch() {
	s.machine.vault.Hook = func(op memdisk.Op) error {
		if op.Kind.Changes() {
			s.snap(op.String(), op.Kind == memdisk.OpSync || op.Kind == memdisk.OpSyncDir)
		}
		return nil
	}
}

func (s *story) snap(before string, syncs bool) {
	s.album = append(s.album, picture{s.machine.kill(), s.told, before, syncs})
}

// crashes calls found with what may be left of a machine after a power cut: nothing of what was not synced, all of it, and a
// choice of it; or everything that can be, where that is little.
func crashes(m machine, r *rand.Rand, rounds int, found func(how string, left machine) error) error {
	var tried []*memdisk.Disk
	try := func(how string, choose memdisk.Choose, mode memdisk.Mode) error {
		left := m.after(func(d *memdisk.Disk) *memdisk.Disk { return d.Crash(choose, mode) })
		for _, d := range tried {
			if d.Equal(left.vault) {
				return nil
			}
		}
		tried = append(tried, left.vault.Clone())
		if err := found(how, left); err != nil {
			return fmt.Errorf("%s: %w", how, err)
		}
		return nil
	}
	if err := try("all unsynced is lost", memdisk.Lose, 0); err != nil {
		return err
	}
	if err := try("all unsynced is kept", memdisk.Keep, 0); err != nil {
		return err
	}
	for i := range 6 * rounds {
		mode := memdisk.Mode(i) % (memdisk.TornPages | memdisk.SplitRenames + 1)
		if err := try(fmt.Sprintf("crash %d, mode %d", i, mode), memdisk.Random(r), mode); err != nil {
			return err
		}
	}
	return nil
}

// check opens what is left for reading, compares it with what was promised, and says what it is: nothing where there
// is no vault.
func (s *story) check(m machine, p promise) (found promise, err error) {
	if _, err := m.vault.Clone().Lstat(testVault); errors.Is(err, fs.ErrNotExist) && p == (promise{}) {
		return found, nil
	}
	fsys := behind(m.vault, s.through)
	h, err := currentHeader(fsys, testVault, s.f.Keys, s.f.ID)
	if err != nil {
		return found, err
	}
	g := h.Generation
	if g < p.generation || !reflect.DeepEqual(h.Slots, s.slots[g]) {
		return found, fmt.Errorf("the header has generation %d and slots %v; generation %d was durable", g, h.Slots, p.generation)
	}
	var warned error
	v := &Vault{path: testVault, fsys: fsys, keys: s.f.Keys, header: h, options: m.options(s.through, &warned)}
	defer v.Close()
	if err := v.loadWith(s.memory, false); err != nil {
		return found, err
	}
	tree, err := dump(v)
	if err = errors.Join(err, warned); err != nil {
		return found, err
	}
	n := v.Sequence()
	if want, known := s.states[n]; !known || tree != want {
		return found, fmt.Errorf("after commit %d the tree should be\n%s\nand is\n%s", n, want, tree)
	}
	if n < p.sequence {
		return found, fmt.Errorf("commit %d was reported durable, and the vault ends with commit %d", p.sequence, n)
	}
	return promise{sequence: n, generation: g}, nil
}

// remembers says whether the pins that are left tell the vault as it was before from the one that was promised.
func (s *story) remembers(pins, before machine) error {
	v, err := s.f.open(before.vault.Clone(), Options{Pins: pins.pinsAt(nil)})
	if err == nil {
		v.keys.Destroy()
		v.Close()
	}
	var rollback *RollbackError
	if !errors.As(err, &rollback) {
		return fmt.Errorf("the pin is lost: an older vault opens with %v", err)
	}
	return nil
}
