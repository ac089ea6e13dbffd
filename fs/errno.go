package fs

import (
	"errors"
	"sync"
	"syscall"

	"github.com/hanwen/go-fuse/v2/fuse"

	"encfsrun/fs/vault"
	"encfsrun/fs/vault/tree"
)

// The statuses that go-fuse has no name for.
const (
	eexist       = fuse.Status(syscall.EEXIST)
	efbig        = fuse.Status(syscall.EFBIG)
	enametoolong = fuse.Status(syscall.ENAMETOOLONG)
	enospc       = fuse.Status(syscall.ENOSPC)
	enotempty    = fuse.Status(syscall.ENOTEMPTY)
	enotsup      = fuse.Status(syscall.ENOTSUP)
	enotty       = fuse.Status(syscall.ENOTTY)
	enxio        = fuse.Status(syscall.ENXIO)
	estale       = fuse.Status(syscall.ESTALE)
)

// Refusals of this package.
var (
	errNotPermitted = errors.New("not permitted")
	errNotSupported = errors.New("not supported")
	errTooLarge     = errors.New("beyond the greatest size of a file")
)

// errno is the one place where errors become what a program sees. What is not listed, failures of the disk and damage among
// them, is EIO.
func errno(err error) fuse.Status {
	switch {
	case err == nil:
		return fuse.OK
	case errors.Is(err, tree.ErrNotFound):
		return fuse.ENOENT
	case errors.Is(err, tree.ErrNotDir):
		return fuse.ENOTDIR
	case errors.Is(err, tree.ErrIsDir):
		return fuse.EISDIR
	case errors.Is(err, tree.ErrNoXattr):
		return fuse.ENODATA
	case errors.Is(err, tree.ErrNoData):
		return enxio
	case errors.Is(err, tree.ErrNameTooLong):
		return enametoolong
	case errors.Is(err, tree.ErrInvalid):
		return fuse.EINVAL
	case errors.Is(err, tree.ErrExists):
		return eexist
	case errors.Is(err, tree.ErrNotEmpty):
		return enotempty
	case errors.Is(err, tree.ErrFull), errors.Is(err, tree.ErrTooBig), errors.Is(err, vault.ErrNoSpace):
		return enospc
	case errors.Is(err, errNotPermitted):
		return fuse.EPERM
	case errors.Is(err, errNotSupported):
		return enotsup
	case errors.Is(err, errTooLarge):
		return efbig
	}
	return fuse.EIO
}

// inodeErrno is errno for calls that name no name: an inode number that the tree does not have is a stale one.
func inodeErrno(err error) fuse.Status {
	if errors.Is(err, tree.ErrNotFound) {
		return estale
	}
	return errno(err)
}

// damagedFiles remembers which files were reported, so that a program that reads one again and again fills no log.
type damagedFiles struct {
	mu   sync.Mutex
	inos map[tree.Ino]struct{}
}

func (d *damagedFiles) add(ino tree.Ino) (first bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if _, found := d.inos[ino]; found {
		return false
	}
	if d.inos == nil {
		d.inos = make(map[tree.Ino]struct{})
	}
	d.inos[ino] = struct{}{}
	return true
}

func (d *damagedFiles) len() int64 {
	d.mu.Lock()
	defer d.mu.Unlock()
	return int64(len(d.inos))
}

// readErrno is errno for contents: it reports damage.
func (f *FS) readErrno(ino tree.Ino, err error) fuse.Status {
	if damage, ok := errors.AsType[*vault.IntegrityError](err); ok && f.damaged.add(ino) && f.opts.OnIntegrity != nil {
		f.opts.OnIntegrity(ino, damage)
	}
	return inodeErrno(err)
}
