package keyring

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os/exec"
	"strings"
	"testing"
	"time"
)

func testKDF(t *testing.T, ctx context.Context, mode string) KDF {
	return HelperKDF(ctx, func() *exec.Cmd {
		cmd := childCommand(t, mode, nil)
		cmd.Stderr = nil
		return cmd
	})
}

// TestHelperKDF: the helper derives what the process itself would.
func TestHelperKDF(t *testing.T) {
	kdf := testKDF(t, t.Context(), "helper")
	salt := bytes.Repeat([]byte{7}, SaltSize)
	for _, phrase := range []string{"x", "a passphrase", strings.Repeat("l", MaxPassphrase)} {
		for _, p := range []Params{cheap, {1024, 2, 4}} {
			got, err := kdf(secret(t, []byte(phrase)), salt, p)
			if err != nil {
				t.Fatal(err)
			}
			want, err := InProcessKDF(secret(t, []byte(phrase)), salt, p)
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(got.Bytes(), want.Bytes()) {
				t.Errorf("%d bytes, %+v: %x, want %x", len(phrase), p, got.Bytes(), want.Bytes())
			}
			got.Destroy()
			want.Destroy()
		}
	}
}

func TestHelperKDFFailures(t *testing.T) {
	for _, c := range []struct {
		mode   string
		killed bool
		text   string
	}{
		{"killed", true, "key derivation was killed: it needs 1 MiB of memory"},
		{"talkative", false, "first line"},
		{"short", false, "5 bytes instead of 32"},
		{"closes", false, "exit status 4"},
	} {
		t.Run(c.mode, func(t *testing.T) {
			ikm, err := testKDF(t, t.Context(), c.mode)(secret(t, []byte("x")), make([]byte, SaltSize), cheap)
			var failed *KDFError
			if !errors.As(err, &failed) || failed.Killed != c.killed || !strings.Contains(err.Error(), c.text) || ikm != nil {
				t.Errorf("%v", err)
			}
			if err != nil && strings.Contains(err.Error(), "second") {
				t.Errorf("more than one line: %v", err)
			}
		})
	}
	_, err := HelperKDF(t.Context(), func() *exec.Cmd { return exec.Command("/nonexistent") })(secret(t, []byte("x")), make([]byte, SaltSize), cheap)
	var failed *KDFError
	if !errors.As(err, &failed) {
		t.Errorf("a helper that is missing: %v", err)
	}
}

// TestHelperKDFContext: the end of the context is the helper's.
func TestHelperKDFContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	time.AfterFunc(100*time.Millisecond, cancel)
	began := time.Now()
	_, err := testKDF(t, ctx, "hangs")(secret(t, []byte("x")), make([]byte, SaltSize), cheap)
	var failed *KDFError
	if !errors.Is(err, context.Canceled) || !errors.As(err, &failed) || failed.Killed {
		t.Errorf("got %v", err)
	}
	if took := time.Since(began); took > 10*time.Second {
		t.Errorf("took %v", took)
	}
}

// TestHelperKDFRefusesParameters: no process is started for them.
func TestHelperKDFRefusesParameters(t *testing.T) {
	kdf := HelperKDF(t.Context(), func() *exec.Cmd {
		t.Error("a helper was started")
		return exec.Command("false")
	})
	if _, err := kdf(secret(t, []byte("x")), make([]byte, SaltSize), Params{MaxMemoryKiB + 1, 1, 1}); classOf(err) != "parameter" {
		t.Errorf("got %v", err)
	}
}

// TestHelperKDFMemory: a derivation for which there is no memory is not begun.
func TestHelperKDFMemory(t *testing.T) {
	const need = 256 << 20
	p := Params{MemoryKiB: need >> 10, Time: 1, Parallelism: 1}
	for _, c := range []struct {
		name      string
		available int64
		err       error
		begun     bool
	}{
		{"none", 0, nil, false},
		{"a byte too little", need - 1, nil, false},
		{"just enough", need, nil, true},
		{"unknown", 0, errors.New("no /proc"), true},
	} {
		t.Run(c.name, func(t *testing.T) {
			begun := false
			kdf := helperKDF(t.Context(), func() *exec.Cmd {
				begun = true
				return exec.Command("/nonexistent")
			}, func() (int64, error) { return c.available, c.err })
			_, err := kdf(secret(t, []byte("x")), make([]byte, SaltSize), p)
			var failed *KDFError
			if !errors.As(err, &failed) || begun != c.begun || failed.Short == c.begun {
				t.Fatalf("begun %v: %v", begun, err)
			}
			if want := fmt.Sprintf("key derivation needs 256 MiB of memory, and only %d MiB are available", c.available>>20); !c.begun && err.Error() != want {
				t.Errorf("%v", err)
			}
		})
	}
}

// TestHelperMainRefuses: the helper trusts its caller as little.
func TestHelperMainRefuses(t *testing.T) {
	request := func(memory, time, lanes, length uint32, rest int) []byte {
		var b []byte
		for _, v := range []uint32{memory, time, lanes, length} {
			b = binary.LittleEndian.AppendUint32(b, v)
		}
		return append(b, make([]byte, rest)...)
	}
	for _, c := range []struct {
		name    string
		request []byte
		text    string
	}{
		{"nothing", nil, "cut off"},
		{"half a header", request(8, 1, 1, 1, 10), "cut off"},
		{"no passphrase", request(8, 1, 1, 4, SaltSize), "cut off"},
		{"half a passphrase", request(8, 1, 1, 4, SaltSize+3), "cut off"},
		{"empty passphrase", request(8, 1, 1, 0, SaltSize), "passphrase of 0 bytes"},
		{"huge passphrase", request(8, 1, 1, 1<<31, SaltSize), "passphrase of 2147483648 bytes"},
		{"huge memory", request(1<<31, 1, 1, 1, SaltSize+1), "memory"},
		{"no passes", request(8, 0, 1, 1, SaltSize+1), "time"},
		{"too many lanes", request(1<<20, 1, 257, 1, SaltSize+1), "parallelism"},
	} {
		t.Run(c.name, func(t *testing.T) {
			cmd := childCommand(t, "helper", nil)
			var out, said bytes.Buffer
			cmd.Stdin, cmd.Stdout, cmd.Stderr = bytes.NewReader(c.request), &out, &said
			if err := cmd.Run(); err == nil || out.Len() > 0 || !strings.Contains(said.String(), c.text) {
				t.Errorf("%v, answered %x, said %q", err, out.Bytes(), said.String())
			}
		})
	}
}
