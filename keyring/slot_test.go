package keyring

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"encfsrun/fs/guarded"
)

// cheap is the least cost that Argon2id has.
var cheap = Params{MemoryKiB: 8, Time: 1, Parallelism: 1}

// secret makes a guarded buffer that the test destroys.
func secret(t testing.TB, b []byte) *guarded.Buffer {
	t.Helper()
	buf, err := copyGuarded(b)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(buf.Destroy)
	return buf
}

func passphraseSlot(t testing.TB, vaultID [16]byte, master []byte, passphrase string, p Params) Slot {
	t.Helper()
	s, err := NewPassphraseSlot(vaultID, master, secret(t, []byte(passphrase)), p, InProcessKDF)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func machineSlot(t testing.TB, vaultID [16]byte, master, key []byte) Slot {
	t.Helper()
	s, err := NewMachineSlot(vaultID, master, secret(t, key))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func typed(t testing.TB, passphrase string) *Passkey {
	t.Helper()
	p, err := NewPassphrase([]byte(passphrase))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Destroy)
	return p
}

func content(t testing.TB, b []byte) *Passkey {
	t.Helper()
	p, err := contentPasskey(b, "the test")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Destroy)
	return p
}

var (
	testVault   = [16]byte{1, 2, 3}
	testMaster  = bytes.Repeat([]byte{0xA5}, MasterKeySize)
	testMachine = bytes.Repeat([]byte{0x00, 0x5A}, MachineKeySize/2) // not a passphrase: it has NULs
)

// TestSlotRoundTrip makes slots of any passkey and parameters, through JSON.
func TestSlotRoundTrip(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		vaultID := [16]byte(rapid.SliceOfN(rapid.Byte(), 16, 16).Draw(rt, "vault"))
		master := rapid.SliceOfN(rapid.Byte(), MasterKeySize, MasterKeySize).Draw(rt, "master")
		var s Slot
		var passkey *Passkey
		if rapid.Bool().Draw(rt, "machine") {
			key := rapid.SliceOfN(rapid.Byte(), MachineKeySize, MachineKeySize).Draw(rt, "key")
			s, passkey = machineSlot(t, vaultID, master, key), content(t, key)
		} else {
			phrase := rapid.StringMatching(`[^\x00\r\n]{1,100}`).Draw(rt, "passphrase")
			lanes := rapid.Uint32Range(1, 4).Draw(rt, "lanes")
			p := Params{rapid.Uint32Range(8*lanes, 100).Draw(rt, "memory"), rapid.Uint32Range(1, 3).Draw(rt, "time"), lanes}
			s, passkey = passphraseSlot(t, vaultID, master, phrase, p), typed(t, phrase)
		}
		text, err := json.Marshal(s)
		if err != nil {
			rt.Fatal(err)
		}
		var back Slot
		if err := json.Unmarshal(text, &back); err != nil {
			rt.Fatal(err)
		}
		if back != s {
			rt.Fatalf("%+v came back as %+v", s, back)
		}
		got, id, err := Unlock(vaultID, []Slot{back}, passkey, InProcessKDF)
		if err != nil {
			rt.Fatal(err)
		}
		defer got.Destroy()
		if !bytes.Equal(got.Bytes(), master) || id != s.ID {
			rt.Fatalf("%x of slot %v", got.Bytes(), id)
		}
	})
}

// TestSlotsDiffer: two slots of the same passkey share nothing.
func TestSlotsDiffer(t *testing.T) {
	a := machineSlot(t, testVault, testMaster, testMachine)
	b := machineSlot(t, testVault, testMaster, testMachine)
	if a.ID == b.ID || a.Salt == b.Salt || a.Commitment == b.Commitment || a.WrappedKey == b.WrappedKey {
		t.Fatalf("%+v and %+v", a, b)
	}
}

// TestSlotBitFlips flips every bit of every field. The commitment notices what
// changes the input key; all else is noticed by the wrapped key's tag.
func TestSlotBitFlips(t *testing.T) {
	passkeys := map[Kind]*Passkey{KindPassphrase: typed(t, "a passphrase"), KindMachine: content(t, testMachine)}
	for _, good := range []Slot{
		passphraseSlot(t, testVault, testMaster, "a passphrase", Params{64, 2, 2}),
		machineSlot(t, testVault, testMaster, testMachine),
	} {
		for _, f := range []struct {
			name  string
			field func(*Slot) []byte
			want  string
		}{
			{"id", func(s *Slot) []byte { return s.ID[:] }, "damaged"},
			{"salt", func(s *Slot) []byte { return s.Salt[:] }, "wrong"},
			{"commitment", func(s *Slot) []byte { return s.Commitment[:] }, "wrong"},
			{"wrapped key", func(s *Slot) []byte { return s.WrappedKey[:] }, "damaged"},
		} {
			for bit := range 8 * len(f.field(&good)) {
				s := good
				f.field(&s)[bit/8] ^= 1 << (bit % 8)
				expectClass(t, fmt.Sprintf("%v slot, %s, bit %d", s.Kind, f.name, bit), s, passkeys[s.Kind], f.want)
			}
		}
		vaultID := testVault
		for bit := range 8 * len(vaultID) {
			vaultID[bit/8] ^= 1 << (bit % 8)
			if _, _, err := Unlock(vaultID, []Slot{good}, passkeys[good.Kind], InProcessKDF); classOf(err) != "damaged" {
				t.Errorf("%v slot in another vault (bit %d): %v", good.Kind, bit, err)
			}
			vaultID = testVault
		}
	}
}

// TestSlotParameterBitFlips: a flip gives another key, or is out of range.
func TestSlotParameterBitFlips(t *testing.T) {
	good := passphraseSlot(t, testVault, testMaster, "a passphrase", Params{64, 2, 2})
	passkey := typed(t, "a passphrase")
	refused := 0
	for i, field := range []func(*Params) *uint32{
		func(p *Params) *uint32 { return &p.MemoryKiB },
		func(p *Params) *uint32 { return &p.Time },
		func(p *Params) *uint32 { return &p.Parallelism },
	} {
		for bit := range 32 {
			s := good
			*field(&s.Params) ^= 1 << bit
			want := "wrong"
			if s.Params.Validate() != nil {
				want = "parameter"
				refused++
			} else if s.Params.MemoryKiB > 1<<16 {
				continue // accepted, and expensive: TestParamsRange has the limit itself
			}
			expectClass(t, fmt.Sprintf("parameter %d, bit %d", i, bit), s, passkey, want)
		}
	}
	if refused < 60 {
		t.Errorf("only %d flips were out of range", refused)
	}
	s := good
	s.Kind = KindMachine
	expectClass(t, "passphrase slot as a machine slot", s, content(t, testMachine), "format")
	s.Kind = 3
	expectClass(t, "unknown kind", s, passkey, "format")
}

func expectClass(t *testing.T, what string, s Slot, passkey *Passkey, want string) {
	t.Helper()
	master, _, err := Unlock(testVault, []Slot{s}, passkey, InProcessKDF)
	master.Destroy()
	if got := classOf(err); got != want {
		t.Errorf("%s: %s, want %s", what, got, want)
	}
}

// TestSlotTextBitFlips flips every bit of the text: it is refused, or it is
// another slot, of which TestSlotBitFlips says that it does not open.
func TestSlotTextBitFlips(t *testing.T) {
	for _, good := range []Slot{
		passphraseSlot(t, testVault, testMaster, "a passphrase", cheap),
		machineSlot(t, testVault, testMaster, testMachine),
	} {
		text, err := json.Marshal(good)
		if err != nil {
			t.Fatal(err)
		}
		for bit := range 8 * len(text) {
			flipped := bytes.Clone(text)
			flipped[bit/8] ^= 1 << (bit % 8)
			var s Slot
			if err := json.Unmarshal(flipped, &s); err == nil && s == good {
				t.Errorf("bit %d makes no difference: %s", bit, flipped)
			}
		}
	}
}

// TestSlotRefused has one fault in each text.
func TestSlotRefused(t *testing.T) {
	passphrase := marshal(t, passphraseSlot(t, testVault, testMaster, "a passphrase", cheap))
	machine := marshal(t, machineSlot(t, testVault, testMaster, testMachine))
	replace := func(text, from, to string) string {
		if !strings.Contains(text, from) {
			t.Fatalf("no %s in %s", from, text)
		}
		return strings.Replace(text, from, to, 1)
	}
	salt := `"salt":"`
	for _, c := range []struct{ name, text, want string }{
		{"null", `null`, "format"},
		{"nothing in it", `{}`, "format"},
		{"a list", `[]`, "format"},
		{"unknown field", replace(machine, `{"id"`, `{"x":1,"id"`), "format"},
		{"unknown field in the kdf", replace(machine, `"kdf":{`, `"kdf":{"x":1,`), "format"},
		{"upper-case field", replace(machine, `"commitment"`, `"Commitment"`), "format"},
		{"field twice", replace(machine, `"type":"machine"`, `"type":"machine","type":"machine"`), "format"},
		{"another order", replace(replace(machine, `"type":"machine",`, ``), `"wrapped_key"`, `"type":"machine","wrapped_key"`), "format"},
		{"an escape", replace(machine, `"machine"`, `"\u006dachine"`), "format"},
		{"upper-case digits", upperSalt(machine), "format"},
		{"salt too long", replace(machine, salt, salt+"00"), "format"},
		{"odd digits", replace(machine, salt, salt+"0"), "format"},
		{"not hexadecimal", strings.Replace(machine, salt+machine[strings.Index(machine, salt)+len(salt):][:1], salt+"g", 1), "format"},
		{"unknown type", replace(machine, `"machine"`, `"token"`), "format"},
		{"type of the other", replace(machine, `"machine"`, `"passphrase"`), "format"},
		{"type of the other, again", replace(passphrase, `"passphrase"`, `"machine"`), "format"},
		{"parameters in a machine slot", replace(machine, `"hkdf-sha256",`, `"hkdf-sha256","time":1,`), "format"},
		{"a parameter missing", replace(passphrase, `"time":1,`, ``), "format"},
		{"a negative parameter", replace(passphrase, `"time":1`, `"time":-1`), "format"},
		{"a fraction", replace(passphrase, `"time":1`, `"time":1.0`), "format"},
		{"an exponent", replace(passphrase, `"memory_kib":8`, `"memory_kib":8e0`), "format"},
		{"a text as a number", replace(passphrase, `"time":1`, `"time":"1"`), "format"},
		{"no passes", replace(passphrase, `"time":1`, `"time":0`), "parameter"},
		{"too many passes", replace(passphrase, `"time":1`, `"time":65`), "parameter"},
		{"too little memory", replace(passphrase, `"memory_kib":8`, `"memory_kib":7`), "parameter"},
		{"too much memory", replace(passphrase, `"memory_kib":8`, `"memory_kib":4194305`), "parameter"},
		{"memory beyond 32 bits", replace(passphrase, `"memory_kib":8`, `"memory_kib":4294967304`), "parameter"},
		{"no lanes", replace(passphrase, `"parallelism":1`, `"parallelism":0`), "parameter"},
		{"too many lanes", replace(passphrase, `"parallelism":1`, `"parallelism":17`), "parameter"},
		{"more lanes than memory", replace(passphrase, `"parallelism":1`, `"parallelism":2`), "parameter"},
	} {
		t.Run(c.name, func(t *testing.T) {
			var s Slot
			err := json.Unmarshal([]byte(c.text), &s)
			if got := classOf(err); got != c.want {
				t.Errorf("%s (%v), want %s: %s", got, err, c.want, c.text)
			}
			if s != (Slot{}) {
				t.Errorf("a refused slot left %+v", s)
			}
		})
	}
}

// upperSalt writes the salt's digits in upper case.
func upperSalt(text string) string {
	i := strings.Index(text, `"salt":"`) + len(`"salt":"`)
	j := i + 2*SaltSize
	return text[:i] + "ABCDEF" + strings.ToUpper(text[i+6:j]) + text[j:]
}

func marshal(t testing.TB, s Slot) string {
	t.Helper()
	text, err := json.Marshal(s)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// TestSlotCanonicalText pins the text of a slot, also when it is indented in a
// larger one.
func TestSlotCanonicalText(t *testing.T) {
	s := Slot{Kind: KindPassphrase, Params: Params{262144, 8, 4}}
	want := `{"id":"` + zeros(16) + `","type":"passphrase","kdf":{"algorithm":"argon2id","memory_kib":262144,"time":8,"parallelism":4,"salt":"` +
		zeros(32) + `"},"commitment":"` + zeros(32) + `","wrapped_key":"` + zeros(48) + `"}`
	if got := marshal(t, s); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	s = Slot{Kind: KindMachine}
	want = `{"id":"` + zeros(16) + `","type":"machine","kdf":{"algorithm":"hkdf-sha256","salt":"` +
		zeros(32) + `"},"commitment":"` + zeros(32) + `","wrapped_key":"` + zeros(48) + `"}`
	if got := marshal(t, s); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	indented, err := json.MarshalIndent([]Slot{s}, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	var back []Slot
	if err := json.Unmarshal(indented, &back); err != nil || len(back) != 1 || back[0] != s {
		t.Errorf("%v, %+v from %s", err, back, indented)
	}
}

func zeros(n int) string { return strings.Repeat("00", n) }

func TestMarshalRefusesInvalid(t *testing.T) {
	for _, s := range []Slot{{}, {Kind: KindPassphrase}, {Kind: KindMachine, Params: cheap}} {
		if text, err := json.Marshal(s); err == nil {
			t.Errorf("%+v was written as %s", s, text)
		}
	}
}

// FuzzSlot: what is accepted is valid and is its own canonical encoding.
func FuzzSlot(f *testing.F) {
	passphrase := marshal(f, passphraseSlot(f, testVault, testMaster, "a passphrase", cheap))
	machine := marshal(f, machineSlot(f, testVault, testMaster, testMachine))
	for _, seed := range []string{
		passphrase, machine, "null", "{}", "[]", `{"kdf":{"memory_kib":0}}`,
		strings.ToUpper(machine), strings.Replace(passphrase, ":8", ":4194304", 1),
		strings.Replace(machine, ",", ", ", 1), machine[:len(machine)-1],
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		var s Slot
		if err := json.Unmarshal(text, &s); err != nil {
			return
		}
		if err := s.Validate(); err != nil {
			t.Fatalf("accepted and invalid: %v", err)
		}
		var compact bytes.Buffer
		if err := json.Compact(&compact, text); err != nil {
			t.Fatal(err)
		}
		if again := marshal(t, s); again != compact.String() {
			t.Fatalf("%s is also written %s", compact.String(), again)
		}
	})
}
