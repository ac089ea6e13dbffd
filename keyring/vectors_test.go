package keyring

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"os"
	"testing"
)

// vectorFile is what testdata/slots.py writes.
type vectorFile struct {
	VaultID   string `json:"vault_id"`
	MasterKey string `json:"master_key"`
	Vectors   []struct {
		Name    string          `json:"name"`
		Passkey string          `json:"passkey"` // the content of a passkey file
		Slot    json.RawMessage `json:"slot"`
		Outcome string          `json:"outcome"`
	} `json:"vectors"`
}

// TestVectors opens slots that another implementation has made.
func TestVectors(t *testing.T) {
	var f vectorFile
	decodeFile(t, "testdata/slots.json", &f)
	if len(f.Vectors) < 14 {
		t.Fatalf("only %d vectors", len(f.Vectors))
	}
	vaultID := [16]byte(unhex(t, f.VaultID))
	for _, v := range f.Vectors {
		t.Run(v.Name, func(t *testing.T) {
			got, master := openVector(t, vaultID, v.Slot, unhex(t, v.Passkey))
			if got != v.Outcome {
				t.Fatalf("outcome %q, want %q", got, v.Outcome)
			}
			if got == "ok" && !bytes.Equal(master, unhex(t, f.MasterKey)) {
				t.Fatalf("master key %x", master)
			}
		})
	}
}

func openVector(t *testing.T, vaultID [16]byte, slotText []byte, content []byte) (outcome string, master []byte) {
	var s Slot
	if err := json.Unmarshal(slotText, &s); err != nil {
		return classOf(err), nil
	}
	passkey, err := contentPasskey(content, "the vector")
	if err != nil {
		t.Fatal(err)
	}
	defer passkey.Destroy()
	key, id, err := Unlock(vaultID, []Slot{s}, passkey, InProcessKDF)
	if err != nil {
		return classOf(err), nil
	}
	defer key.Destroy()
	if id != s.ID {
		t.Fatalf("slot %v was opened, not %v", id, s.ID)
	}
	return "ok", bytes.Clone(key.Bytes())
}

// classOf names an error's type as the vectors do.
func classOf(err error) string {
	var (
		wrong     *WrongPasskeyError
		damaged   *DamagedSlotError
		parameter *ParameterError
		format    *FormatError
		none      *NoUsableSlotError
	)
	switch {
	case err == nil:
		return "ok"
	case errors.As(err, &wrong):
		return "wrong"
	case errors.As(err, &damaged):
		return "damaged"
	case errors.As(err, &parameter):
		return "parameter"
	case errors.As(err, &format):
		return "format"
	case errors.As(err, &none):
		return "none"
	}
	return "unexpected: " + err.Error()
}

func decodeFile(t *testing.T, name string, v any) {
	t.Helper()
	text, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(text, v); err != nil {
		t.Fatal(err)
	}
}

func unhex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	return b
}
