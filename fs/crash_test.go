package fs

import (
	"errors"
	"fmt"
	"hash/fnv"
	"math/rand/v2"
	"os"
	"strconv"
	"syscall"
	"testing"
	"time"

	"encfsrun/fs/guarded"
	"encfsrun/fs/vault"
	"encfsrun/fs/vault/disk/memdisk"
	"encfsrun/fs/vault/seal"
	"encfsrun/fs/vault/tree"
	"encfsrun/keyring"
)

// The crash tests let a client (crash_client_test.go) do what a kernel asks of a file system, which lies in a vault on a disk in
// memory: about 200 random requests (crash_ops_test.go), each checked against a model of the tree (crash_shadow_test.go). A
// request that was accepted makes a new version of the model; a sync that succeeds makes durable the version at its call. What a
// crash leaves has to be one version as a whole, and none from before the last durable one.
//
// Power is cut before every operation that changes the disk (crash_power_test.go), every operation fails (crash_faults_test.go),
// the disk is full (crash_full_test.go), and several clients ask at once (crash_beside_test.go).
//
// ENCFSRUN_SOAK=1 tries twenty times as many workloads, ENCFSRUN_ROUNDS=n (`make soak`) n times as many, from a random seed.
// ENCFSRUN_SEED repeats one: but for the goroutine that seals full batches of blocks, nothing else decides what happens.

// luck is where the random choices of a test come from.
type luck struct {
	rounds int
	seed   uint64
}

func newLuck(t testing.TB) luck {
	l := luck{rounds: 1, seed: 1}
	if os.Getenv("ENCFSRUN_SOAK") == "1" {
		l.rounds = 20
	}
	if n, err := strconv.Atoi(os.Getenv("ENCFSRUN_ROUNDS")); err == nil {
		l.rounds = max(n, 1)
	}
	if l.rounds > 1 {
		l.seed = rand.Uint64()
	}
	if n, err := strconv.ParseUint(os.Getenv("ENCFSRUN_SEED"), 10, 64); err == nil {
		l.seed = n
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("ENCFSRUN_SEED=%d repeats this", l.seed)
		}
	})
	return l
}

// of gives the choices of one thing, whatever else is tried before it.
func (l luck) of(what string) *rand.Rand {
	h := fnv.New64a()
	h.Write([]byte(what))
	return rand.New(rand.NewPCG(l.seed, h.Sum64()))
}

// world is a vault with an empty root on a disk in memory, and its keys.
type world struct {
	unlocked *vault.Unlocked
	empty    *memdisk.Disk
}

const worldVault = "/v/app.vault"

func newWorld(t testing.TB) *world {
	t.Helper()
	w, err := makeWorld()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.unlocked.Close)
	return w
}

func makeWorld() (*world, error) {
	d := memdisk.New()
	if err := errors.Join(d.Mkdir("/v", 0o755), d.SyncDir("/")); err != nil {
		return nil, err
	}
	master, err := secretOf(1)
	if err != nil {
		return nil, err
	}
	defer master.Destroy()
	machine, err := secretOf(2)
	if err != nil {
		return nil, err
	}
	defer machine.Destroy()
	id := seal.NewID()
	slot, err := keyring.NewMachineSlot(id, master.Bytes(), machine)
	if err != nil {
		return nil, err
	}
	keys, err := seal.NewKeys(id, master.Bytes())
	if err != nil {
		return nil, err
	}
	defer keys.Destroy()
	_, err = vault.Create(d, worldVault, keys, []keyring.Slot{slot}, vault.Options{}, func(s *vault.Session) error {
		t := now()
		return s.Put(tree.Attr{Ino: s.NewIno(), Mode: syscall.S_IFDIR | 0o755, Atime: t, Mtime: t, Ctime: t})
	})
	if err != nil {
		return nil, err
	}
	u, err := vault.Unlock(d, worldVault, func(seal.ID, []keyring.Slot) (*guarded.Buffer, error) { return secretOf(1) })
	return &world{u, d}, err
}

// rig is a file system that is served to nobody: tests call its methods. Commits come with requests alone.
type rig struct {
	fs      *FS
	disk    *memdisk.Disk
	vault   *vault.Vault
	session *vault.Session
	pool    *guarded.Pool
	cache   *guarded.Cache
	chunks  *heapChunks
}

// serve opens the vault on a disk for writing. chunks is how much dirty memory there is.
func (w *world) serve(d *memdisk.Disk, chunks int) (r *rig, err error) {
	r = &rig{disk: d, chunks: &heapChunks{left: chunks}}
	stale := func(block uint64) { r.cache.Drop([]uint64{block}) }
	if r.vault, err = w.unlocked.OpenWriter(d, vault.Options{Stale: stale}); err != nil {
		return nil, err
	}
	if r.session, err = r.vault.Begin(); err != nil {
		r.vault.Close()
		return nil, err
	}
	if r.pool, err = guarded.NewPool(vault.PlainSize, 17*vault.BlockSize); err != nil {
		return nil, errors.Join(err, r.session.Abort())
	}
	r.cache = guarded.NewCache(r.pool, r.vault.LoadBlock)
	r.fs = New(r.vault, r.cache, Options{Store: r.session, Dirty: r.chunks})
	return r, nil
}

// unmount is the end of a mount. What it returns is that of the last sync.
func (r *rig) unmount() error {
	r.fs.OnUnmount()
	err := r.fs.Close()
	r.cache.Close()
	err = errors.Join(err, r.session.Close())
	r.vault.Close()
	if poolErr := r.pool.Close(); poolErr != nil {
		return errors.Join(err, poolErr)
	}
	if err == nil && r.chunks.out > 0 {
		return fmt.Errorf("%d dirty chunks are left", r.chunks.out)
	}
	return err
}

// heapChunks is dirty memory that costs nothing to make and soon runs out.
type heapChunks struct{ left, out int }

func (h *heapChunks) BlockSize() int { return ChunkSize }

func (h *heapChunks) Get() ([]byte, error) {
	if h.left == 0 {
		return nil, errNoChunk
	}
	h.left, h.out = h.left-1, h.out+1
	return make([]byte, ChunkSize), nil
}

func (h *heapChunks) Put([]byte) { h.left, h.out = h.left+1, h.out-1 }

// limitTime ends the process, with the stacks of all goroutines, where something hangs.
func limitTime(t testing.TB, what string) {
	timer := time.AfterFunc(5*time.Minute, func() { panic(what + " hangs") })
	t.Cleanup(func() { timer.Stop() })
}
