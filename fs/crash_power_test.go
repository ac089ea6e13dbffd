package fs

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"

	"encfsrun/fs/vault"
	"encfsrun/fs/vault/disk/memdisk"
)

const (
	workload   = 200 // requests
	fewRounds  = 5   // workloads where nobody asks for more
	manyRounds = 20  // workloads for each round that is asked for
)

// TestCrashPower cuts the power before every operation on the disk of random workloads, and again while what is left is used.
func TestCrashPower(t *testing.T) {
	w, l := newWorld(t), newLuck(t)
	n := fewRounds
	if l.rounds > 1 {
		n = manyRounds * l.rounds
	}
	var counts counter
	t.Cleanup(func() { t.Logf("tried: %v", counts.n) })
	for i := range n {
		t.Run(fmt.Sprint(i), func(t *testing.T) {
			t.Parallel()
			limitTime(t, t.Name())
			p := &cutter{w: w, r: l.of(fmt.Sprint("cut", i)), counts: &counts, thorough: l.rounds > 1}
			if err := p.workload(l.of(fmt.Sprint("workload", i)), i); err != nil {
				t.Error(err)
			}
		})
	}
}

// counter counts what was tried, for the log.
type counter struct {
	mu sync.Mutex
	n  map[string]int
}

func (c *counter) add(what string, n int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.n == nil {
		c.n = map[string]int{}
	}
	c.n[what] += n
}

// cutter cuts the power of one workload.
type cutter struct {
	w        *world
	r        *rand.Rand
	counts   *counter
	thorough bool
}

// start begins a workload on a disk, or on an empty one. Every other one is small, so that segments are.
func (w *world) start(d *memdisk.Disk, r *rand.Rand, variant int) (*client, error) {
	if d == nil {
		d = w.empty.Clone()
	}
	if variant%2 == 1 {
		d.Capacity = 48 << 20
	}
	g, err := w.serve(d, 3+variant%4*3)
	if err != nil {
		return nil, err
	}
	return newClient(g, r)
}

// workload acts one out, and tries what a power cut leaves of each of its instants.
func (p *cutter) workload(r *rand.Rand, variant int) error {
	c, err := p.w.start(nil, r, variant)
	if err != nil {
		return err
	}
	c.watch()
	if err := p.actOut(c, workload); err != nil {
		return err
	}
	p.counts.add("power cuts", len(c.album))
	p.counts.add("versions", len(c.versions))
	for i, at := range c.album {
		for _, crash := range p.crashes() {
			left := crash.of(at.disk)
			v, err := p.w.check(left.Clone(), c.versions, at, i%16 == 0)
			if err != nil {
				return fmt.Errorf("%s before %s: %w", crash.how, at.before, err)
			}
			p.counts.add("disks opened", 1)
			if p.r.IntN(24) == 0 {
				if err := p.goOn(left, c.versions[v:v+1], variant+1); err != nil {
					return fmt.Errorf("%s before %s, then: %w", crash.how, at.before, err)
				}
			}
		}
		if p.r.IntN(24) == 0 { // killed, without a power cut: what was in the air still is
			if err := p.goOn(at.disk.Clone(), c.versions[at.durable:min(at.newest+1, len(c.versions))], variant+1); err != nil {
				return fmt.Errorf("killed before %s, then: %w", at.before, err)
			}
		}
	}
	return nil
}

// actOut makes requests and unmounts, and checks what is there then.
func (p *cutter) actOut(c *client, n int) error {
	err := c.run(n)
	if c.readAll(); err == nil {
		err = c.run(0)
	}
	end := c.unmount()
	c.disk.Hook = nil
	if err != nil {
		return err
	}
	if end != nil {
		return fmt.Errorf("the unmount fails: %w", end)
	}
	newest := len(c.versions) - 1
	at := picture{disk: c.disk, durable: newest, newest: newest}
	if _, err := p.w.check(c.disk.Crash(memdisk.Lose, 0), c.versions, at, true); err != nil {
		return fmt.Errorf("unmounted, then a power cut: %w", err)
	}
	return nil
}

type crash struct {
	how string
	of  func(*memdisk.Disk) *memdisk.Disk
}

// crashes chooses what is tried of an instant.
func (p *cutter) crashes() (all []crash) {
	cut := func(how string, choose memdisk.Choose, mode memdisk.Mode) {
		all = append(all, crash{how, func(d *memdisk.Disk) *memdisk.Disk { return d.Crash(choose, mode) }})
	}
	cut("all unsynced is lost", memdisk.Lose, 0)
	if p.thorough {
		cut("all unsynced is kept", memdisk.Keep, 0)
	}
	mode := memdisk.Mode(p.r.IntN(4))
	cut(fmt.Sprintf("a power cut (mode %d)", mode), memdisk.Random(p.r), mode)
	return all
}

// goOn uses what is left, which is one of some versions, and cuts the power during that.
func (p *cutter) goOn(left *memdisk.Disk, versions []string, variant int) error {
	p.counts.add("second sessions", 1)
	used := left.Clone()
	var opening []picture
	used.Hook = func(op memdisk.Op) error {
		if op.Kind.Changes() {
			opening = append(opening, picture{used.Clone(), 0, len(versions) - 1, op.String()})
		}
		return nil
	}
	c, err := p.w.start(used, p.r, variant)
	if err != nil {
		return err
	}
	found := slices.Index(versions, c.versions[0])
	if found < 0 {
		c.unmount()
		return fmt.Errorf("opened for writing, the tree is none that it may be: %s", difference(versions[0], c.versions[0]))
	}
	c.versions = slices.Clone(versions[:found+1])
	c.album = opening
	c.watch()
	if err := p.actOut(c, 12); err != nil {
		return err
	}
	for i, at := range c.album {
		if !p.thorough && p.r.IntN(2) > 0 {
			continue
		}
		for _, crash := range p.crashes() {
			p.counts.add("disks opened", 1)
			known := c.versions
			if i < len(opening) {
				known = versions
			}
			if _, err := p.w.check(crash.of(at.disk), known, at, i%16 == 0); err != nil {
				return fmt.Errorf("%s before %s: %w", crash.how, at.before, err)
			}
		}
	}
	return nil
}

// check opens what is left and returns which version it is.
func (w *world) check(d *memdisk.Disk, versions []string, at picture, whole bool) (int, error) {
	v, err := w.unlocked.Open(d, vault.Options{})
	if err != nil {
		return 0, err
	}
	defer v.Close()
	if whole {
		report, err := v.Check(context.Background(), nil)
		if err != nil || len(report.Damage) > 0 {
			return 0, fmt.Errorf("check finds %v, %w", report.Damage, err)
		}
	}
	s, err := shadowOf(v)
	if err != nil {
		return 0, err
	}
	dump := s.dump()
	newest := min(at.newest, len(versions)-1)
	for i := newest; i >= at.durable; i-- {
		if versions[i] == dump {
			return i, nil
		}
	}
	if i := slices.Index(versions, dump); i >= 0 {
		return 0, fmt.Errorf("the tree is version %d; %d was durable, and %d the newest", i, at.durable, newest)
	}
	return 0, fmt.Errorf("the tree is no version of %d to %d; the nearest differs in\n%s", at.durable, newest, closest(versions[at.durable:newest+1], dump))
}

// closest shows the difference to the version that is most alike.
func closest(versions []string, dump string) (best string) {
	for i, v := range versions {
		if d := difference(v, dump); i == 0 || len(d) < len(best) {
			best = d
		}
	}
	return best
}
