package durability

import "testing"

const (
	// crashesPerDisk is how many crashes in a row a disk sees: what one left has to survive the next, too.
	crashesPerDisk = 3
	// How often CI cuts the power of each subject, and kills its daemon; a soak does both many times as often.
	cuts  = 12
	kills = 15
	// mostCareless bounds what a writer that does not fsync writes.
	mostCareless = 200
)

// TestPowerCut cuts the power of the disk that each subject lies on, under its writers.
func TestPowerCut(t *testing.T) {
	for _, s := range append([]subject{ext4}, peers()...) {
		t.Run(s.name, func(t *testing.T) { crashes(t, s, powerCut, rounds(cuts)) })
	}
}

// TestKill kills the daemon under its writers; the mount point then takes the next mount.
func TestKill(t *testing.T) {
	for _, s := range peers() {
		t.Run(s.name, func(t *testing.T) { crashes(t, s, daemonKilled, rounds(kills)) })
	}
}

// TestPowerCutAfterSync lets writers write without fsync, and cuts the power when everything was synced, or unmounted.
func TestPowerCutAfterSync(t *testing.T) {
	for _, s := range append([]subject{ext4}, peers()...) {
		for how, settle := range map[string]func(filesystem) error{"sync": filesystem.sync, "unmount": filesystem.unmount} {
			t.Run(s.name+" "+how, func(t *testing.T) {
				sum := &tally{}
				tr := newTrial(t, s, newExt4(t, ext4Size), sum)
				for range rounds(2) {
					if !tr.crashSettled(settle) {
						break
					}
				}
				t.Logf("%s: %v", s.name, sum)
			})
		}
	}
}

// crashes lets a disaster happen n times.
func crashes(t *testing.T, s subject, d disaster, n int) {
	sum := &tally{}
	for sum.crashes < n {
		// A disk is gone with its subtest.
		t.Run("disk", func(t *testing.T) {
			tr := newTrial(t, s, newExt4(t, ext4Size), sum)
			for range min(crashesPerDisk, n-sum.crashes) {
				if !tr.crash(d, manner{}) {
					return
				}
			}
			tr.end()
		})
		if t.Failed() {
			break
		}
	}
	t.Logf("%s: %v", s.name, sum)
}

// TestTheHarnessSeesLosses is the control: writers that do not fsync before they report, on ext4 itself.
func TestTheHarnessSeesLosses(t *testing.T) {
	careless := subject{name: "ext4 without fsync", make: newPlain}
	for _, k := range kinds {
		t.Run(k.name, func(t *testing.T) {
			sum := &tally{}
			tr := newTrial(t, careless, newExt4(t, ext4Size), sum)
			tr.crash(powerCut, manner{careless: []string{k.name}, mostCareless: mostCareless})
			if f := sum.of(k.name); f.Lost == 0 {
				t.Errorf("records of %s were reported unsynced, and none was lost: the power cut is none", k.name)
			}
			for _, other := range kinds {
				if f := sum.of(other.name); other.name != k.name && f.Lost+f.Torn > 0 {
					t.Errorf("records of %s were synced, and lost: %v", other.name, sum)
				}
			}
			t.Log(sum)
		})
	}
}
