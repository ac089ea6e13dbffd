package vault

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"flag"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"encfsrun/fs/guarded"
	"encfsrun/fs/vault/disk"
	"encfsrun/fs/vault/disk/memdisk"
	"encfsrun/fs/vault/seal"
	"encfsrun/fs/vault/tree"
	"encfsrun/internal/testkit/secrets"
	"encfsrun/keyring"
)

var updateVectors = flag.Bool("update-vectors", false, "make tests/vectors anew (their keys and nonces change; the frozen vaults of a released version must not)")

const vectorsDir = "../../tests/vectors"

// vectorEntry is a file of a vector as the manifest describes it.
type vectorEntry struct {
	Path   string `json:"path"`
	Mode   uint32 `json:"mode"`
	Size   uint64 `json:"size"`
	SHA256 string `json:"sha256,omitempty"` // of a regular file
	Target string `json:"target,omitempty"` // of a symlink
}

// vectorCase is one vault of tests/vectors: one fault, and what a reader must make of it.
type vectorCase struct {
	Name   string        `json:"name"`
	Fault  string        `json:"fault"`
	Expect string        `json:"expect"` // ok, not-a-vault, too-new, wrong-key, integrity
	Root   string        `json:"root,omitempty"`
	Closed bool          `json:"closed,omitempty"`
	Tree   []vectorEntry `json:"tree,omitempty"`
}

// vectorRecipe makes a vector's vault.
type vectorRecipe struct {
	name, fault, expect string
	build               func(*crafter) *crafter
}

// TestVectors opens every vector and checks that what it says is what is expected; so the vectors, our reader and, in
// tests/reader, an independent one agree.
func TestVectors(t *testing.T) {
	f := vectorFixture(t)
	if *updateVectors {
		writeVectors(t, f)
	}
	var cases []vectorCase
	b, err := os.ReadFile(filepath.Join(vectorsDir, "vectors.json"))
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(b, &cases); err != nil {
		t.Fatal(err)
	}
	if len(cases) < len(vectorRecipes) {
		t.Fatalf("%d vectors for %d recipes: run go test ./fs/vault -run TestVectors -update-vectors", len(cases), len(vectorRecipes))
	}
	for _, c := range cases {
		t.Run(c.Name, func(t *testing.T) {
			got := readVector(t, f, filepath.Join(vectorsDir, c.Name+".vault"))
			got.Name, got.Fault = c.Name, c.Fault
			have, _ := json.Marshal(got)
			want, _ := json.Marshal(c)
			if !bytes.Equal(have, want) {
				t.Errorf("got  %s\nwant %s", have, want)
			}
		})
	}
}

// vectorFixture has the well-known keys of the vectors.
func vectorFixture(t testing.TB) *fixture {
	var id seal.ID
	copy(id[:], "encfsrun vectors")
	return &fixture{secrets.Of(t, id, 0x11, 0x22)}
}

// readVector opens a vault with the machine key as a reader would, verifies all of it and describes it.
func readVector(t *testing.T, f *fixture, dir string) (c vectorCase) {
	classOf := func(err error) string {
		var tooNew *TooNewError
		var notVault *NotVaultError
		var wrong *keyring.WrongPasskeyError
		var damaged *keyring.DamagedSlotError
		switch {
		case errors.As(err, &tooNew):
			return "too-new"
		case errors.As(err, &notVault):
			return "not-a-vault"
		case errors.As(err, &wrong):
			return "wrong-key"
		case isIntegrity(err), errors.As(err, &damaged):
			return "integrity"
		}
		t.Fatalf("unclassified: %v", err)
		return ""
	}
	passkey, err := keyring.ReadMachineKey(t.Context(), copyKey(t), "")
	if err != nil {
		t.Fatal(err)
	}
	defer passkey.Destroy()
	u, err := Unlock(disk.OS(), dir, func(id seal.ID, slots []keyring.Slot) (*guarded.Buffer, error) {
		master, _, err := keyring.Unlock(id, slots, passkey, keyring.InProcessKDF)
		return master, err
	})
	if err != nil {
		return vectorCase{Expect: classOf(err)}
	}
	defer u.Close()
	v, err := u.Open(disk.OS(), Options{})
	if err != nil {
		return vectorCase{Expect: classOf(err)}
	}
	defer v.Close()
	report, err := v.Check(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range report.Damage {
		if !strings.Contains(d.Detail, "twin") && !strings.Contains(d.Detail, twinName) && !strings.Contains(d.Detail, headerName) {
			return vectorCase{Expect: "integrity"}
		}
	}
	root := v.Root()
	c = vectorCase{Expect: "ok", Root: hex.EncodeToString(root[:]), Closed: v.Closed()}
	if c.Tree, err = vectorTree(v, tree.Root, "/"); err != nil {
		return vectorCase{Expect: classOf(err)}
	}
	return c
}

// copyKey puts the vectors' key where its mode is one that a passkey file must have, which a checkout does not keep.
func copyKey(t *testing.T) string {
	b, err := os.ReadFile(filepath.Join(vectorsDir, "machine.key"))
	if err != nil {
		t.Fatal(err)
	}
	name := filepath.Join(t.TempDir(), "machine.key")
	if err := os.WriteFile(name, b, 0o600); err != nil {
		t.Fatal(err)
	}
	return name
}

func vectorTree(v *Vault, ino Ino, name string) ([]vectorEntry, error) {
	a, err := v.Attr(ino)
	if err != nil {
		return nil, err
	}
	e := vectorEntry{Path: name, Mode: a.Mode}
	switch a.Mode & typeMask {
	case 0o100000:
		content, err := readFile(v, ino, int(a.Size))
		if err != nil {
			return nil, err
		}
		h := hashOf(content)
		e.Size, e.SHA256 = a.Size, hex.EncodeToString(h[:])
	case 0o120000:
		if e.Target, err = v.Readlink(ino); err != nil {
			return nil, err
		}
	}
	entries := []vectorEntry{e}
	if a.Mode&typeMask != typeDir {
		return entries, nil
	}
	children := map[string]Ino{}
	v.ReadDir(ino, 0, func(e tree.Entry) bool { children[e.Name] = e.Ino; return true })
	for _, child := range slices.Sorted(maps.Keys(children)) {
		below, err := vectorTree(v, children[child], path.Join(name, child))
		if err != nil {
			return nil, err
		}
		entries = append(entries, below...)
	}
	return entries, nil
}

// writeVectors makes all vectors and their manifest from the recipes. What a vector says is taken from our reader only where
// the recipe expects ok; every rejection is the recipe's own.
func writeVectors(t *testing.T, f *fixture) {
	if err := os.RemoveAll(vectorsDir); err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(vectorsDir, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(vectorsDir, "machine.key"), f.Machine.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	var cases []vectorCase
	for _, r := range vectorRecipes {
		dir := filepath.Join(vectorsDir, r.name+".vault")
		c := r.build(newCrafter(t, f))
		storeVector(t, c.d, dir)
		found := vectorCase{Expect: r.expect}
		if r.expect == "ok" {
			if found = readVector(t, f, dir); found.Expect != "ok" {
				t.Fatalf("%s: our own reader says %s", r.name, found.Expect)
			}
		}
		found.Name, found.Fault = r.name, r.fault
		cases = append(cases, found)
	}
	b, err := json.MarshalIndent(cases, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(vectorsDir, "vectors.json"), append(b, '\n'), 0o644); err != nil {
		t.Fatal(err)
	}
}

// storeVector copies a vault to the disk, without the folder log where it is empty: version control would lose it.
func storeVector(t *testing.T, d *memdisk.Disk, dir string) {
	for _, name := range d.Files() {
		rest, ok := strings.CutPrefix(name, testVault+"/")
		if !ok {
			continue
		}
		b, err := d.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		target := filepath.Join(dir, rest)
		if err := os.MkdirAll(filepath.Dir(target), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(target, b, 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// Small changes of a crafted vault's files.

func (c *crafter) file(name string) []byte {
	b, err := c.d.ReadFile(path.Join(testVault, name))
	c.must(err)
	return b
}

func (c *crafter) put(name string, b []byte) *crafter {
	c.must(c.d.WriteFile(path.Join(testVault, name), b))
	return c
}

func (c *crafter) remove(names ...string) *crafter {
	for _, name := range names {
		c.must(c.d.Delete(path.Join(testVault, name)))
	}
	return c
}

func (c *crafter) flip(name string, at int) *crafter {
	b := slices.Clone(c.file(name))
	b[at] ^= 1
	return c.put(name, b)
}

// headers replaces a text in both twins.
func (c *crafter) headers(from, to string) *crafter {
	for _, name := range []string{headerName, twinName} {
		b := c.file(name)
		if !bytes.Contains(b, []byte(from)) {
			c.t.Fatalf("%s holds no %q", name, from)
		}
		c.put(name, bytes.Replace(b, []byte(from), []byte(to), 1))
	}
	return c
}

func seg(n uint64) string { return path.Join(logDir, segmentName(n)) }
