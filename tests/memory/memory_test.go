// Package memory proves where plaintext, passkey and keys are while a vault is mounted, and after: every mapping of the daemon is
// searched. The searches are shown to find what they search for: in builds with one protection taken out they fail.
package memory

import (
	"bytes"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"encfsrun/fs/guarded"
	"encfsrun/fs/vault"
	"encfsrun/fs/vault/disk"
	"encfsrun/fs/vault/seal"
	"encfsrun/internal/testkit"
	"encfsrun/keyring"
)

const canaries = 500

// canaryPrefix is at the head of all canaries. It is made at run time, so that no binary holds it.
var canaryPrefix = strings.ToUpper(fmt.Sprintf("%x", os.Getpid()^0x5a5a5a5a))[:prefixSize]

// world is a packed tree of canaries, and the secrets to search for.
type world struct {
	binary, dir, vault, passkey, mount string
	names                              []string
	canary                             [][]byte // of the file of the same index
	keys                               [][]byte // passphrase, master key, derived keys
}

func TestNothingOutsideOfGuardedMemory(t *testing.T) {
	w := newWorld(t, build(t))
	pid := w.mountAll(t)
	contents := scan(t, pid, w.canary)
	t.Logf("%d MiB searched, %d hits in guarded memory", contents.scanned>>20, contents.guarded)
	if contents.guarded < canaries*9/10 { // a few lie across the border of two blocks
		t.Errorf("the search found %d canaries in guarded memory, which holds all %d files: it proves nothing", contents.guarded, canaries)
	}
	for _, hit := range contents.outside {
		t.Errorf("plaintext outside of guarded memory: %s", hit)
	}
	keys := w.scanIdle(t, pid)
	for _, hit := range keys.outside {
		t.Errorf("a secret outside of guarded memory: %s", hit)
	}
	if keys.guarded > 0 {
		t.Errorf("the passkey or the master key is still in guarded memory, where a mount needs neither")
	}
	var left hits
	atExit(t, pid, func() { w.umount(t) }, func() { left = scan(t, pid, slices.Concat(w.canary, w.keys)) })
	if left.guarded > 0 || len(left.outside) > 0 {
		t.Errorf("at the end %d secrets are left in guarded memory, and outside: %v", left.guarded, left.outside)
	}
	if status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid)); err == nil && !bytes.Contains(status, []byte("State:\tZ")) { // a zombie is init's to reap
		t.Errorf("the daemon is still there after umount:\n%s", status)
	}
}

// scanIdle searches for keys until none is found, as long as a daemon may take to notice that it is idle, many times over.
func (w *world) scanIdle(t *testing.T, pid int) (h hits) {
	for range 40 {
		if h = scan(t, pid, w.keys); len(h.outside) == 0 {
			return h
		}
		time.Sleep(500 * time.Millisecond)
	}
	return h
}

// TestWithoutWiping shows that the search at the end would find what was not wiped.
func TestWithoutWiping(t *testing.T) {
	overlay := spoil(t,
		spoiling{"../../fs/guarded/wipe.go", "\tclear(b)\n", ""},
		spoiling{"../../fs/guarded/slab.go", "\ts.buffer.Destroy()\n", ""}, // memguard wipes too, and unmaps
	)
	w := newWorld(t, build(t, "-overlay", overlay))
	pid := w.mountAll(t)
	var left hits
	atExit(t, pid, func() { w.umount(t) }, func() { left = scan(t, pid, w.canary) })
	if left.guarded+len(left.outside) == 0 {
		t.Error("a daemon that wipes nothing left nothing to find: the search at the end proves nothing")
	}
}

// TestReplyThroughTheHeap shows that the search would find a reply that was copied to the heap.
func TestReplyThroughTheHeap(t *testing.T) {
	overlay := spoil(t, spoiling{"../../fs/read.go",
		"func (r *reply) Slices() ([][]byte, fuse.Status) { return r.slices, fuse.OK }",
		"func (r *reply) Slices() ([][]byte, fuse.Status) {\n\tfor i := range r.slices {\n\t\tr.slices[i] = append([]byte(nil), r.slices[i]...)\n\t}\n\treturn r.slices, fuse.OK\n}",
	})
	w := newWorld(t, build(t, "-overlay", overlay))
	pid := w.mountAll(t)
	if h := scan(t, pid, w.canary); len(h.outside) == 0 {
		t.Error("a daemon that replies out of the heap left nothing there to find: the search proves nothing")
	}
	w.umount(t)
}

// TestKeysOnTheHeap shows that the search would find a key that was copied to the heap.
func TestKeysOnTheHeap(t *testing.T) {
	const file = "../../fs/vault/seal/seal.go"
	overlay := spoil(t,
		spoiling{file, "	k := &Keys{vault: vault, buf: buf}\n", "	k := &Keys{vault: vault, buf: buf}\n	leaked = append([]byte(nil), master...)\n"},
		spoiling{file, "\ntype Keys struct {", "\nvar leaked []byte\n\ntype Keys struct {"},
	)
	w := newWorld(t, build(t, "-overlay", overlay))
	pid := w.mountAll(t)
	if h := scan(t, pid, w.keys); len(h.outside) == 0 {
		t.Error("a daemon with its master key on the heap left nothing there to find: the search proves nothing")
	}
	w.umount(t)
}

// build builds the product as it ships, or with one change.
func build(t *testing.T, flags ...string) string {
	t.Helper()
	binary, err := testkit.Build(t.TempDir(), flags...)
	if err != nil {
		t.Fatal(err)
	}
	return binary
}

// spoiling replaces a text of a source file.
type spoiling struct{ file, from, to string }

// spoil returns a -overlay file with which the product is built as if its sources were changed so.
func spoil(t *testing.T, spoilings ...spoiling) string {
	t.Helper()
	dir := t.TempDir()
	replace := map[string]string{} // a source file's absolute path to the path of its spoiled copy
	for i, s := range spoilings {
		path, err := filepath.Abs(s.file)
		if err != nil {
			t.Fatal(err)
		}
		from := path
		if spoiled, again := replace[path]; again {
			from = spoiled
		}
		source, err := os.ReadFile(from)
		if err != nil {
			t.Fatal(err)
		}
		if bytes.Count(source, []byte(s.from)) != 1 {
			t.Fatalf("%s does not hold the text to be spoiled, %q, exactly once: bring this test up to date", s.file, s.from)
		}
		replace[path] = filepath.Join(dir, fmt.Sprintf("spoiled%d.go", i))
		write(t, replace[path], strings.Replace(string(source), s.from, s.to, 1))
	}
	overlay, err := json.Marshal(map[string]map[string]string{"Replace": replace})
	if err != nil {
		t.Fatal(err)
	}
	name := filepath.Join(dir, "overlay.json")
	write(t, name, string(overlay))
	return name
}

func write(t *testing.T, name, content string) {
	t.Helper()
	if err := os.WriteFile(name, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
}

func random(t *testing.T, n int) []byte {
	t.Helper()
	b := make([]byte, n)
	rand.Read(b)
	return []byte(base64.RawURLEncoding.EncodeToString(b))
}

// newWorld packs canaries in files of many sizes and computes the secrets.
func newWorld(t *testing.T, binary string) *world {
	t.Helper()
	dir := t.TempDir()
	w := &world{
		binary: binary, dir: dir, vault: filepath.Join(dir, "v.vault"), passkey: filepath.Join(dir, "passkey"), mount: filepath.Join(dir, "mnt"),
	}
	src := filepath.Join(dir, "src")
	for _, d := range []string{src, w.mount} {
		if err := os.Mkdir(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for i := range canaries {
		name := fmt.Sprintf("file%03d", i)
		c := append([]byte(canaryPrefix), random(t, 48)...)
		w.names, w.canary = append(w.names, name), append(w.canary, c)
		write(t, filepath.Join(src, name), strings.Repeat("x", i*97)+string(c)+strings.Repeat("y", i*13))
	}
	passphrase := random(t, 24)
	write(t, w.passkey, string(passphrase)+"\n")
	w.run(t, "pack", "-q", "--new-passkey-file", w.passkey, "--kdf-memory", "8M", "--kdf-time", "1", src, w.vault)
	w.findKeys(t, passphrase)
	return w
}

// findKeys unlocks the vault in the test, to know what to search for.
func (w *world) findKeys(t *testing.T, passphrase []byte) {
	t.Helper()
	passkey, err := keyring.NewPassphrase(passphrase)
	if err != nil {
		t.Fatal(err)
	}
	defer passkey.Destroy()
	u, err := vault.Unlock(disk.OS(), w.vault, func(id seal.ID, slots []keyring.Slot) (*guarded.Buffer, error) {
		master, _, err := keyring.Unlock(id, slots, passkey, keyring.InProcessKDF)
		return master, err
	})
	if err != nil {
		t.Fatal(err)
	}
	defer u.Close()
	w.keys = append(w.keys, passphrase, bytes.Clone(u.Master.Bytes()))
	for _, label := range []string{"header mac", "segment header", "block data", "block nonce"} { // docs/FORMAT.md, "Keys"
		key, err := hkdf.Key(sha256.New, u.Master.Bytes(), u.Header.VaultID[:], "encfsrun v1 "+label, 32)
		if err != nil {
			t.Fatal(err)
		}
		w.keys = append(w.keys, key)
	}
}

func (w *world) run(t *testing.T, args ...string) string {
	t.Helper()
	cmd := exec.Command(w.binary, append(args, "--state-dir", filepath.Join(w.dir, "state"))...)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("encfsrun %s: %v\n%s", args[0], err, out)
	}
	return string(out)
}

// mountAll mounts the vault, reads every file through it and returns the daemon's pid.
func (w *world) mountAll(t *testing.T) int {
	t.Helper()
	w.run(t, "mount", "-q", "--read-only", "--passkey-file", w.passkey, w.vault, w.mount)
	t.Cleanup(func() { exec.Command("umount", "-l", w.mount).Run() })
	for i, name := range w.names {
		b, err := os.ReadFile(filepath.Join(w.mount, name))
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Contains(b, w.canary[i]) {
			t.Fatalf("%s does not hold its canary", name)
		}
	}
	var status []struct {
		Mountpoint string `json:"mountpoint"`
		PID        int    `json:"pid"`
	}
	if err := json.Unmarshal([]byte(w.run(t, "status", "--json")), &status); err != nil {
		t.Fatal(err)
	}
	for _, s := range status {
		if s.Mountpoint == w.mount {
			return s.PID
		}
	}
	t.Fatalf("status does not show %s: %v", w.mount, status)
	return 0
}

func (w *world) umount(t *testing.T) {
	cmd := exec.Command(w.binary, "umount", w.mount)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("umount: %v\n%s", err, out)
	}
}
