package keyring

import (
	"bytes"
	"errors"
	"fmt"
	"testing"

	"encfsrun/fs/guarded"
)

// TestUnlockChoosesSlot: each passkey opens its own slot among many.
func TestUnlockChoosesSlot(t *testing.T) {
	text32 := []byte("exactly thirty-two bytes of text")
	slots := []Slot{
		passphraseSlot(t, testVault, testMaster, "one", Params{64, 1, 1}),
		machineSlot(t, testVault, testMaster, testMachine),
		passphraseSlot(t, testVault, testMaster, "two", cheap),
		passphraseSlot(t, testVault, testMaster, string(text32), cheap),
	}
	for _, c := range []struct {
		name    string
		passkey *Passkey
		want    int // index of the slot; -1 for wrong
	}{
		{"first passphrase", typed(t, "one"), 0},
		{"machine key", content(t, testMachine), 1},
		{"second passphrase", content(t, []byte("two\n")), 2},
		{"32 bytes that are a passphrase", content(t, text32), 3},
		{"32 bytes typed", typed(t, string(text32)), 3},
		{"none", typed(t, "three"), -1},
	} {
		master, id, err := Unlock(testVault, slots, c.passkey, InProcessKDF)
		if c.want < 0 {
			if classOf(err) != "wrong" {
				t.Errorf("%s: %v", c.name, err)
			}
			continue
		}
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
			continue
		}
		if id != slots[c.want].ID || !bytes.Equal(master.Bytes(), testMaster) {
			t.Errorf("%s: opened %v", c.name, id)
		}
		master.Destroy()
	}
}

// TestUnlockText32AsMachineKey: a key file that happens to be text opens the
// machine slot too, and before any waiting.
func TestUnlockText32AsMachineKey(t *testing.T) {
	text32 := []byte("exactly thirty-two bytes of text")
	slots := []Slot{
		passphraseSlot(t, testVault, testMaster, "one", cheap),
		machineSlot(t, testVault, testMaster, text32),
	}
	never := func(*guarded.Buffer, []byte, Params) (*guarded.Buffer, error) {
		return nil, errors.New("the KDF was called")
	}
	master, id, err := Unlock(testVault, slots, content(t, text32), never)
	if err != nil {
		t.Fatal(err)
	}
	master.Destroy()
	if id != slots[1].ID {
		t.Errorf("opened %v", id)
	}
}

func TestUnlockNoUsableSlot(t *testing.T) {
	for _, c := range []struct {
		slot    Slot
		passkey *Passkey
		want    Kind
	}{
		{machineSlot(t, testVault, testMaster, testMachine), typed(t, "a passphrase"), KindPassphrase},
		{passphraseSlot(t, testVault, testMaster, "a passphrase", cheap), content(t, testMachine), KindMachine},
	} {
		_, _, err := Unlock(testVault, []Slot{c.slot}, c.passkey, InProcessKDF)
		var none *NoUsableSlotError
		if !errors.As(err, &none) || none.Kind != c.want {
			t.Errorf("%v for a %v slot", err, c.slot.Kind)
		}
	}
}

// TestUnlockDamagedAndGood: damage in one slot does not lock out a user whose
// passkey opens another.
func TestUnlockDamagedAndGood(t *testing.T) {
	damaged := passphraseSlot(t, testVault, testMaster, "same", cheap)
	damaged.WrappedKey[0] ^= 1
	good := passphraseSlot(t, testVault, testMaster, "same", cheap)
	other := passphraseSlot(t, testVault, testMaster, "other", cheap)
	for i, c := range []struct {
		slots []Slot
		want  string
	}{
		{[]Slot{damaged, good}, "ok"},
		{[]Slot{good, damaged}, "ok"},
		{[]Slot{damaged, other}, "damaged"},
		{[]Slot{other, damaged}, "damaged"},
		{[]Slot{other}, "wrong"},
	} {
		master, _, err := Unlock(testVault, c.slots, typed(t, "same"), InProcessKDF)
		master.Destroy()
		if classOf(err) != c.want {
			t.Errorf("case %d: %v, want %s", i, err, c.want)
		}
	}
}

// TestUnlockBadHeader: one absurd slot stops everything before any work.
func TestUnlockBadHeader(t *testing.T) {
	good := machineSlot(t, testVault, testMaster, testMachine)
	absurd := passphraseSlot(t, testVault, testMaster, "x", cheap)
	absurd.Params.MemoryKiB = MaxMemoryKiB + 1
	var nine []Slot
	for range MaxSlots + 1 {
		nine = append(nine, machineSlot(t, testVault, testMaster, testMachine))
	}
	for _, c := range []struct {
		name  string
		slots []Slot
		want  string
	}{
		{"absurd parameters beside a good slot", []Slot{good, absurd}, "parameter"},
		{"no slots", nil, "format"},
		{"nine slots", nine, "format"},
		{"eight slots", nine[:MaxSlots], "ok"},
		{"the same id twice", []Slot{good, good}, "format"},
	} {
		master, _, err := Unlock(testVault, c.slots, content(t, testMachine), InProcessKDF)
		master.Destroy()
		if classOf(err) != c.want {
			t.Errorf("%s: %v, want %s", c.name, err, c.want)
		}
	}
}

// TestUnlockOrder: the cheapest derivation comes first, and a failing one is
// told.
func TestUnlockOrder(t *testing.T) {
	slots := []Slot{
		passphraseSlot(t, testVault, testMaster, "big", Params{256, 1, 1}),
		passphraseSlot(t, testVault, testMaster, "small", Params{16, 2, 1}),
		passphraseSlot(t, testVault, testMaster, "smaller", Params{16, 1, 1}),
	}
	failure := errors.New("no memory")
	var tried []Params
	kdf := func(passphrase *guarded.Buffer, salt []byte, p Params) (*guarded.Buffer, error) {
		tried = append(tried, p)
		if p.MemoryKiB == 256 {
			return nil, failure
		}
		return InProcessKDF(passphrase, salt, p)
	}
	_, _, err := Unlock(testVault, slots, typed(t, "big"), kdf)
	if !errors.Is(err, failure) {
		t.Errorf("got %v", err)
	}
	if got, want := fmt.Sprint(tried), "[{16 1 1} {16 2 1} {256 1 1}]"; got != want {
		t.Errorf("tried %s, want %s", got, want)
	}
}

func TestNewSlotRefusesSizes(t *testing.T) {
	short := secret(t, testMachine[:31])
	if _, err := NewMachineSlot(testVault, testMaster, short); err == nil {
		t.Error("a machine key of 31 bytes was taken")
	}
	if _, err := NewMachineSlot(testVault, testMaster[:31], secret(t, testMachine)); err == nil {
		t.Error("a master key of 31 bytes was taken")
	}
	if _, err := NewPassphraseSlot(testVault, testMaster, secret(t, []byte("x")), Params{7, 1, 1}, InProcessKDF); classOf(err) != "parameter" {
		t.Errorf("7 KiB: %v", err)
	}
}
