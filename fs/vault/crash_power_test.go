package vault

import (
	"errors"
	"fmt"
	"sync"
	"syscall"
	"testing"

	"encfsrun/fs/vault/disk/memdisk"
)

// prover tries what can befall a tale.
type prover struct {
	f    *fixture
	luck luck
	rare int // of the recoveries, one in so many is watched

	mu     sync.Mutex
	counts map[string]int
}

func (p *prover) count(what string, n int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.counts == nil {
		p.counts = map[string]int{}
	}
	p.counts[what] += n
}

// fates are the ends that a process can come to, each tried at every operation of a tale.
var fates = []struct {
	name string
	try  func(p *prover, tl tale, start *story) error
}{
	{"power cut", (*prover).powerCut},
	{"killed", (*prover).killed},
	{"sync fails", (*prover).syncFails},
}

// TestCrash is all tales, with the pins at each place, with each fate.
func TestCrash(t *testing.T) {
	p := &prover{f: newFixture(t), luck: newLuck(t), rare: 4}
	t.Cleanup(func() { t.Logf("tried: %v", p.counts) })
	for _, tl := range tales() {
		for _, place := range pinPlaces {
			for _, fate := range fates {
				if place == "no pins" && fate.name != "power cut" {
					continue // as with pins, and less
				}
				t.Run(tl.name+", "+place+", "+fate.name, func(t *testing.T) {
					t.Parallel()
					if err := fate.try(p, tl, tl.prepare(t, p.f, newMemory(t), place)); err != nil {
						t.Error(err)
					}
				})
			}
		}
	}
}

// powerCut cuts the power before every operation, then again before every one of the recovery.
func (p *prover) powerCut(tl tale, start *story) error {
	s, err := tl.tell(start)
	if err != nil {
		return err
	}
	r := p.luck.of(tl.name + "power")
	p.count("power cuts", len(s.album))
	for i, at := range s.album {
		if p.luck.skip(r) {
			continue
		}
		second := 1 + r.IntN(8*p.rare)
		err := crashes(at.machine, r, p.luck.rounds, func(_ string, left machine) error {
			p.count("crashed disks opened", 1)
			if second--; second == 0 {
				second = -1
				return p.recovered(s, left, at.promise, i)
			}
			if at.pinned && at.promise != start.told && start.told.sequence > 0 {
				if err := s.remembers(left.kill(), start.machine); err != nil {
					return err
				}
			}
			_, err := s.check(left, at.promise)
			return err
		})
		if err != nil {
			return fmt.Errorf("the power was cut before %s; %w", at.before, err)
		}
	}
	return nil
}

// recovered checks what is left, uses the vault, and cuts the power before every operation of that.
func (p *prover) recovered(s *story, left machine, told promise, variant int) error {
	found, err := s.check(left.kill(), told)
	if err != nil {
		return err
	}
	return p.usedAfter(s, left, found, variant)
}

// usedAfter goes on with what a crash or a kill has left. Told is what is durable of it.
func (p *prover) usedAfter(s *story, left machine, told promise, variant int) error {
	act := func(s *story) error { return s.session(adds("recovered", 50)) }
	_, missing := left.vault.Lstat(testVault)
	switch {
	case missing != nil:
		act = func(s *story) error { return s.create(seedTree) }
	case variant%4 == 1:
		act = func(s *story) error { return s.session((*Session).Checkpoint, adds("recovered", 50)) }
	case variant%4 == 2:
		act = func(s *story) error { return s.rekey(1) }
	case variant%4 == 3:
		act = func(s *story) error { return s.session(segmentsOf("recovered")) }
	}
	start := left.kill()
	next, err := tale{name: "recovery", act: act}.tell(s.again(left, told))
	if err != nil {
		return err
	}
	r := p.luck.of(fmt.Sprint("recovery", variant))
	for _, at := range next.album {
		if p.luck.rounds == 1 && !at.syncs && r.IntN(6) > 0 {
			continue
		}
		p.count("power cuts in a recovery", 1)
		for i, choose := range []memdisk.Choose{memdisk.Lose, memdisk.Random(r), memdisk.Random(r)} {
			mode := memdisk.Mode(r.IntN(4))
			left := at.after(func(d *memdisk.Disk) *memdisk.Disk { return d.Crash(choose, mode) })
			p.count("crashed disks opened", 1)
			_, err := next.check(left.kill(), at.promise)
			if err == nil && at.pinned && missing == nil {
				err = next.remembers(left, start)
			}
			if err != nil {
				return fmt.Errorf("then the power was cut before %s, crash %d, mode %d: %w", at.before, i, mode, err)
			}
		}
	}
	return nil
}

// killed ends the process before every operation, without a power cut. What others then see of the vault in the page cache, and
// pin and build upon, has to outlive a power cut.
func (p *prover) killed(tl tale, start *story) error {
	s, err := tl.tell(start)
	if err != nil {
		return err
	}
	r := p.luck.of(tl.name + "kill")
	p.count("kills", len(s.album))
	for i, at := range s.album {
		if p.luck.skip(r) {
			continue
		}
		if err := p.wentOn(s, at.machine, at.promise, i, at.syncs && r.IntN(p.rare) == 0); err != nil {
			return fmt.Errorf("killed before %s; %w", at.before, err)
		}
	}
	return nil
}

// wentOn reads, then pulls the plug; and where thorough uses the vault, and pulls the plug at every moment of that.
func (p *prover) wentOn(s *story, m machine, told promise, variant int, thorough bool) error {
	reader := m.kill()
	if _, err := s.check(reader, told); err != nil {
		return fmt.Errorf("read: %w", err)
	}
	r := p.luck.of(fmt.Sprint("went on", variant))
	for _, choose := range []memdisk.Choose{memdisk.Lose, memdisk.Random(r)} {
		p.count("crashed disks opened", 1)
		left := reader.after(func(d *memdisk.Disk) *memdisk.Disk { return d.Crash(choose, 0) })
		if _, err := s.check(left, told); err != nil {
			return fmt.Errorf("read, and the power was cut: %w", err)
		}
	}
	variants := []int{variant}
	if _, missing := m.vault.Clone().Lstat(testVault); missing == nil && told.sequence == 0 {
		variants = []int{0, 1, 2, 3} // it got its name, and nobody said so yet: whoever uses it makes the name durable
	} else if !thorough && p.luck.rounds == 1 {
		return nil
	}
	for _, variant := range variants {
		if err := p.usedAfter(s, m.kill(), told, variant); err != nil {
			return fmt.Errorf("used: %w", err)
		}
	}
	return nil
}

// syncFails lets each sync fail as Linux does: what it should have written is in the page cache alone, and passes for written. The
// process is killed at once, or goes on as it likes.
func (p *prover) syncFails(tl tale, start *story) error {
	s, err := tl.tell(start)
	if err != nil {
		return err
	}
	r := p.luck.of(tl.name + "sync")
	for k := 1; ; k++ {
		for _, killed := range []bool{true, false} {
			failing := s.again(start.machine.kill(), start.told)
			failing.known = true
			at := failSync(failing.machine.vault, k, killed)
			err := tl.act(failing)
			if *at == "" {
				return nil
			}
			if p.luck.skip(r) {
				continue
			}
			p.count("failed syncs", 1)
			if wrong := blamesVault(err); wrong != nil {
				return fmt.Errorf("%s failed; %w", *at, wrong)
			}
			if err := p.wentOn(failing, failing.machine.kill(), failing.told, k, r.IntN(p.rare) == 0); err != nil {
				return fmt.Errorf("%s failed (killed: %v); %w", *at, killed, err)
			}
		}
	}
}

// failSync makes the k-th sync of a file fail, and where killed is set all that follows. It says which one that was.
func failSync(d *memdisk.Disk, k int, killed bool) *string {
	failed := new(string)
	d.Hook = func(op memdisk.Op) error {
		switch {
		case *failed != "" && killed:
			return memdisk.ErrPowerCut
		case op.Kind == memdisk.OpSync:
			if k--; k == 0 {
				*failed = op.String()
				return syscall.EIO
			}
		}
		return nil
	}
	return failed
}

// blamesVault returns the error that takes a failing disk for somebody's deed.
func blamesVault(err error) error {
	var integrity *IntegrityError
	var rollback *RollbackError
	var none *NotVaultError
	if errors.As(err, &integrity) || errors.As(err, &rollback) || errors.As(err, &none) {
		return fmt.Errorf("the disk failed, and the vault was blamed: %w", err)
	}
	return nil
}
