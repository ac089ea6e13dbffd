// Package memdisk is a disk in memory on which power fails: the test double of
// package disk for code that must survive a crash at any instant.
//
// # The model
//
// A [Disk] has what a machine has: a medium, and in front of it a page cache.
//
//   - A file's bytes are kept in pages of 4 KiB. Each write leaves a new version of
//     the pages that it touches in the cache; until a Sync any of them, or none, may
//     have reached the medium, each page on its own.
//   - A file's length is a piece of its own. Until a Sync the medium may know any
//     length that the file had since the last, also in the middle of a large write.
//   - A directory's medium has entries, and changes wait in front of it (create,
//     mkdir, rename, remove) until a SyncDir. Each may have arrived without the
//     others. A rename is one change, of both its names.
//
// Sync says nothing about the file's name, SyncDir nothing about the contents of
// what it names: a file that was synced but whose directory was not may be gone.
//
// # Crashing
//
// [Disk.Crash] gives a new Disk as the machine would find it after the power came
// back: for each thing in the air a [Choose] says what arrived. The old Disk is
// not changed, so that many crashes can be made from one instant. Where the length
// survived but a page did not, the file reads as zeros; a page behind the surviving
// length is lost; a file whose entry was lost is gone.
//
// # Faults
//
// Every operation is counted and shown to [Disk.Hook] before it is carried out.
// The error that the hook returns is the operation's: syscall.EIO, syscall.ENOSPC,
// a [ShortWrite], a [PartialSync]. [ErrPowerCut] ends this Disk: that operation and
// every later one fail with it. To cut the power everywhere, run once and count
// with Ops, then once for each number below, and crash. Cutting inside an operation
// needs no more than that: what it had done by then is among what the cut after it
// can leave.
//
// A Sync that is made to fail does what Linux does: the pages count as clean, reads
// show them, the next Sync says nothing, and they are not on the medium. DropCache
// and reading again shows what is.
//
// # Speed and sharing
//
// Pages are never written twice, so that a Crash or a Clone copies tables, not
// contents: about a microsecond per file. All methods are safe for concurrent use.
package memdisk

import (
	"sync"
	"syscall"

	"encfsrun/fs/vault/disk"
)

// Disk is one disk between two power cuts. It implements disk.FS. Permission bits
// are kept and not enforced; there are no symbolic links. Names are taken relative
// to the root, which always exists.
type Disk struct {
	// Hook sees each operation before it is carried out, without any lock held: it
	// may call the Disk. Set it while no operation runs.
	Hook func(op Op) error

	// Capacity, unless 0, is how many bytes fit: a write beyond it, or a reservation, fails with ENOSPC. A file takes whole
	// pages, up to its length or to what is reserved for it; names take nothing. It may be changed while no operation runs.
	Capacity int64

	mu   sync.Mutex
	ops  int  // operations so far
	dead bool // the power was cut
	root *node
}

var _ disk.FS = (*Disk)(nil)

// New gives an empty disk.
func New() *Disk {
	return &Disk{root: newDir(0o755)}
}

// used gives the bytes that files take.
func (d *Disk) used() (n int64) {
	seen := map[*node]bool{}
	var walk func(*node)
	walk = func(x *node) {
		switch {
		case seen[x]:
		case x.dir == nil:
			n += x.allocated()
		default:
			for _, child := range x.dir.entries {
				walk(child)
			}
		}
		seen[x] = true
	}
	walk(d.root)
	return n
}

// grow says whether there is room for a file to take up to end bytes.
func (d *Disk) grow(x *node, end int64) error {
	if d.Capacity > 0 && roundUp(end) > x.allocated() && d.used()-x.allocated()+roundUp(end) > d.Capacity {
		return syscall.ENOSPC
	}
	return nil
}

func roundUp(n int64) int64 { return (n + pageSize - 1) / pageSize * pageSize }

// Space implements disk.FS.
func (d *Disk) Space(dir string) (disk.Space, error) {
	if _, err := d.startDir(Op{Kind: OpSpace, Name: dir}); err != nil {
		d.mu.Unlock()
		return disk.Space{}, err
	}
	defer d.mu.Unlock()
	total := d.Capacity
	if total == 0 {
		total = 1 << 40
	}
	return disk.Space{Total: uint64(total), Free: uint64(max(0, total-d.used()))}, nil
}

// Ops gives the number of operations so far: the Index of the next.
func (d *Disk) Ops() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.ops
}

// start counts an operation and asks the hook. It returns with d.mu held in every
// case, and with the error that the operation must fail with.
func (d *Disk) start(op Op) error {
	d.mu.Lock()
	if d.dead {
		return ErrPowerCut
	}
	op.Index = d.ops
	d.ops++
	if d.Hook == nil {
		return nil
	}
	d.mu.Unlock()
	err := d.Hook(op)
	d.mu.Lock()
	if d.dead || isPowerCut(err) {
		d.dead = true
		return ErrPowerCut
	}
	return err
}
