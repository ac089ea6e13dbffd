package fs

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"encfsrun/fs/guarded"
	"encfsrun/fs/vault"
	"encfsrun/fs/vault/disk"
	"encfsrun/fs/vault/seal"
	"encfsrun/fs/vault/tree"
	"encfsrun/keyring"
)

// volume is a real vault in a folder of the test, which can be mounted again and again.
type volume struct {
	path   string
	master *guarded.Buffer
}

// newVolume makes an empty vault whose root belongs to who runs the tests.
func newVolume(t testing.TB) *volume {
	t.Helper()
	v, err := makeVolume(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(v.master.Destroy)
	return v
}

func makeVolume(dir string) (*volume, error) {
	master, err := secretOf(1)
	if err != nil {
		return nil, err
	}
	v := &volume{path: filepath.Join(dir, "app.vault"), master: master}
	if _, err := os.Lstat(v.path); err == nil {
		return v, nil
	}
	machine, err := secretOf(2)
	if err != nil {
		return nil, err
	}
	defer machine.Destroy()
	id := seal.NewID()
	slot, err := keyring.NewMachineSlot(id, v.master.Bytes(), machine)
	if err != nil {
		return nil, err
	}
	keys, err := seal.NewKeys(id, v.master.Bytes())
	if err != nil {
		return nil, err
	}
	defer keys.Destroy()
	root := tree.Attr{Ino: tree.Root, Mode: syscall.S_IFDIR | 0o755, UID: uint32(unix.Geteuid()), GID: uint32(unix.Getegid())}
	_, err = vault.Create(disk.OS(), v.path, keys, []keyring.Slot{slot}, vault.Options{}, func(s *vault.Session) error {
		root.Ino = s.NewIno()
		return s.Put(root)
	})
	return v, err
}

func secretOf(fill byte) (*guarded.Buffer, error) {
	b, err := guarded.NewBuffer(32)
	if err == nil {
		copy(b.Bytes(), bytes.Repeat([]byte{fill}, 32))
	}
	return b, err
}

func (v *volume) unlock() (*vault.Unlocked, error) {
	return vault.Unlock(disk.OS(), v.path, func(seal.ID, []keyring.Slot) (*guarded.Buffer, error) {
		return secretOf(1)
	})
}

// open opens the vault for writing. What close returns is the error of the last commit.
func (v *volume) open(stale func(uint64)) (*vault.Vault, *vault.Session, func() error, error) {
	unlocked, err := v.unlock()
	if err != nil {
		return nil, nil, nil, err
	}
	opened, err := unlocked.OpenWriter(disk.OS(), vault.Options{Stale: stale})
	if err != nil {
		unlocked.Close()
		return nil, nil, nil, err
	}
	session, err := opened.Begin()
	if err != nil {
		opened.Close()
		unlocked.Close()
		return nil, nil, nil, err
	}
	return opened, session, func() error {
		err := session.Close()
		opened.Close()
		unlocked.Close()
		return err
	}, nil
}

// volumeOptions say how a test mounts a volume.
type volumeOptions struct {
	Options
	budget int64 // of guarded memory, in bytes; 16 MiB unless set
	dirty  int64 // of that for what is written; a quarter unless set
	flags  uintptr
	others bool // other users may use the mount, and setuid and devices work
	store  func(Store) Store
}

// mount mounts the volume for writing until the test ends, or until unmount is called.
func (v *volume) mount(t testing.TB, o volumeOptions) *mounted {
	t.Helper()
	m, err := v.attach(t.TempDir(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { m.unmount(t) })
	m.forgoPoll(t)
	return m
}

func (v *volume) attach(dir string, o volumeOptions) (*mounted, error) {
	if o.budget == 0 {
		o.budget = 16 << 20
		if unix.Geteuid() != 0 {
			o.budget = 2 << 20 // of the 8 MiB that a user may lock
		}
	}
	if o.dirty == 0 {
		o.dirty = o.budget / 4
	}
	var cache *guarded.Cache
	opened, session, closeVault, err := v.open(func(block uint64) { cache.Drop([]uint64{block}) })
	if err != nil {
		return nil, err
	}
	pool, err := guarded.NewPool(vault.PlainSize, o.budget-o.dirty)
	if err != nil {
		return nil, err
	}
	dirty, err := guarded.NewPool(ChunkSize, o.dirty)
	if err != nil {
		return nil, err
	}
	cache = guarded.NewCache(pool, opened.LoadBlock)
	o.Store, o.Dirty = session, dirty
	if o.store != nil {
		o.Store = o.store(o.Store)
	}
	f := New(opened, cache, o.Options)
	m := &mounted{dir: dir, fs: f, cache: cache, ended: make(chan struct{}), pages: make(chan []byte)}
	m.finish = func() error {
		err := f.Close()
		cache.Close()
		if closeErr := closeVault(); err == nil {
			err = closeErr
		}
		return errors.Join(err, dirty.Close(), pool.Close())
	}
	flags, extra := restricted|o.flags, ""
	if o.others {
		flags, extra = o.flags, ",allow_other"
	}
	dev, err := openMount(dir, MaxRead(o.budget-o.dirty), flags, extra)
	if err != nil {
		return nil, err
	}
	if m.serve, err = newServer(dev, pollable{f}, MaxRead(o.budget-o.dirty), f.capabilities()); err != nil {
		unix.Unmount(dir, unix.MNT_DETACH)
		return nil, err
	}
	go func() {
		defer close(m.ended)
		m.serve.Serve()
	}()
	return m, nil
}

// childVolume serves the vault in the folder args[1], made when it is missing, at args[0]: with the page cache where args[2] says
// "on". SIGTERM unmounts it.
func childVolume(args []string) error {
	v, err := makeVolume(args[1])
	if err != nil {
		return err
	}
	unix.Umask(0)
	m, err := v.attach(args[0], volumeOptions{Options: Options{PageCache: args[2] == "on"}, others: true, budget: 64 << 20})
	if err != nil {
		return err
	}
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, syscall.SIGTERM)
	go func() {
		for range stop {
			unix.Unmount(args[0], unix.MNT_DETACH)
		}
	}()
	fmt.Println("serving")
	<-m.ended
	return m.finish()
}
