package vault

import (
	"errors"
	"fmt"
	"syscall"
	"testing"

	"encfsrun/fs/vault/disk/memdisk"
)

// faultsOf are the ways in which an operation is made to fail.
func faultsOf(op memdisk.Op, choose memdisk.Choose) []error {
	switch op.Kind {
	case memdisk.OpWrite:
		return []error{syscall.EIO, &memdisk.ShortWrite{N: op.Len / 2, Err: syscall.ENOSPC}}
	case memdisk.OpCreate, memdisk.OpMkdir:
		return []error{syscall.ENOSPC}
	case memdisk.OpSync:
		return []error{syscall.EIO, &memdisk.PartialSync{Reached: choose, Err: syscall.EIO}}
	}
	return []error{syscall.EIO}
}

// TestFaults lets every operation of every tale fail, once or from then on. The tale reports an error or has truly succeeded; it
// leaves no file open and no lock taken; and whatever was promised is there, also after a power cut.
func TestFaults(t *testing.T) {
	p := &prover{f: newFixture(t), luck: newLuck(t)}
	t.Cleanup(func() { t.Logf("tried: %v", p.counts) })
	for _, tl := range tales() {
		t.Run(tl.name, func(t *testing.T) {
			t.Parallel()
			if err := p.faults(tl, tl.prepare(t, p.f, newMemory(t), "pins beside")); err != nil {
				t.Error(err)
			}
		})
	}
}

func (p *prover) faults(tl tale, start *story) error {
	s, err := tl.tell(start)
	if err != nil {
		return err
	}
	var ops []memdisk.Op
	counted := s.again(start.machine.kill(), start.told)
	counted.known = true
	counted.machine.vault.Hook = func(op memdisk.Op) error { ops = append(ops, op); return nil }
	if err := tl.act(counted); err != nil {
		return err
	}
	r := p.luck.of(tl.name + "faults")
	for _, op := range ops {
		for _, fault := range faultsOf(op, memdisk.Random(r)) {
			if p.luck.rounds == 1 && r.IntN(3) > 0 || p.luck.skip(r) {
				continue
			}
			for _, lasting := range []bool{false, true} {
				if err := p.fault(tl, start, s, op, fault, lasting); err != nil {
					return fmt.Errorf("%v fails with %v (and all that follows: %v): %w", op, fault, lasting, err)
				}
			}
		}
	}
	return nil
}

// fault tells a tale in which one operation fails, or where it lasts, every one from there on that changes the disk.
func (p *prover) fault(tl tale, start, told *story, at memdisk.Op, fault error, lasting bool) error {
	p.count("faults", 1)
	s := told.again(start.machine.kill(), start.told)
	s.known = true
	s.through = newSyncs("")
	s.fsys = behind(s.machine.vault, s.through)
	s.machine.vault.Hook = func(op memdisk.Op) error {
		if op.Index == at.Index || lasting && op.Index > at.Index && op.Kind.Changes() {
			return fault
		}
		return nil
	}
	err := tl.act(s)
	s.machine.vault.Hook = nil
	if n := s.through.open; n != 0 {
		return fmt.Errorf("%d files are still open", n)
	}
	if wrong := blamesVault(err); wrong != nil {
		return wrong
	}
	if err == nil && (s.told.sequence != told.told.sequence || s.told.generation != told.told.generation) {
		return errors.New("it says that all is done, and it is not")
	}
	left := s.machine.kill()
	if _, err := s.check(left, s.told); err != nil {
		return fmt.Errorf("opened again: %w", err)
	}
	for _, choose := range []memdisk.Choose{memdisk.Lose, memdisk.Keep} {
		left := s.machine.after(func(d *memdisk.Disk) *memdisk.Disk { return d.Crash(choose, 0) })
		if _, err := s.check(left, s.told); err != nil {
			return fmt.Errorf("after a power cut: %w", err)
		}
	}
	return s.usable()
}

// usable says whether the live disk, with whatever was left open and locked on it, takes another session.
func (s *story) usable() error {
	next := s.again(s.machine, s.told)
	var err error
	if _, missing := s.machine.vault.Lstat(testVault); missing != nil {
		err = next.create(seedTree)
	} else {
		err = next.session(adds("afterwards", 50))
	}
	if err != nil {
		return fmt.Errorf("used afterwards: %w", err)
	}
	_, err = next.check(next.machine.after(func(d *memdisk.Disk) *memdisk.Disk { return d.Crash(memdisk.Lose, 0) }), next.told)
	return err
}

// TestFaultsOfReading lets every operation of a reader fail, on what crashes leave. The disk is blamed, never the vault.
func TestFaultsOfReading(t *testing.T) {
	p := &prover{f: newFixture(t), luck: newLuck(t)}
	t.Cleanup(func() { t.Logf("tried: %v", p.counts) })
	for _, tl := range tales() {
		t.Run(tl.name, func(t *testing.T) {
			t.Parallel()
			s, err := tl.tell(tl.prepare(t, p.f, newMemory(t), "pins apart"))
			if err != nil {
				t.Fatal(err)
			}
			r := p.luck.of(tl.name + "reading")
			for _, at := range s.album {
				if p.luck.rounds == 1 && r.IntN(3) > 0 || p.luck.skip(r) {
					continue
				}
				left := at.after(func(d *memdisk.Disk) *memdisk.Disk { return d.Crash(memdisk.Keep, 0) })
				if err := p.readingFails(s, left, at.promise); err != nil {
					t.Fatalf("what is left of a power cut before %s: %v", at.before, err)
				}
			}
		})
	}
}

func (p *prover) readingFails(s *story, left machine, told promise) error {
	if _, err := s.check(left, told); err != nil { // from here on the state is pinned
		return err
	}
	for _, lasting := range []bool{false, true} { // a bad sector fails again
		for k, failed := 0, true; failed; k++ {
			failed = false
			var at memdisk.Op
			m := left.kill()
			m.vault.Hook = func(op memdisk.Op) error {
				switch {
				case op.Index == k:
					at, failed = op, true
					return syscall.EIO
				case lasting && failed && op.Kind == at.Kind && op.Name == at.Name:
					return syscall.EIO
				}
				return nil
			}
			p.count("faults", 1)
			_, err := s.check(m, told)
			if err != nil && (!errors.Is(err, syscall.EIO) || isIntegrity(err)) {
				return fmt.Errorf("%v fails (always: %v): %w", at, lasting, err)
			}
		}
	}
	return nil
}
