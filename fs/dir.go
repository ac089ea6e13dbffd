package fs

import (
	"syscall"

	"github.com/hanwen/go-fuse/v2/fuse"

	"encfsrun/fs/vault/tree"
)

// The cookies of the entries that every directory has; those of the tree begin after them.
const (
	dotCookie    = 1
	dotDotCookie = 2
)

// OpenDir lets a directory be listed. There is no state: a position is a cookie of the tree. The kernel may keep the listing,
// unless outsiders are refused: what it keeps it gives to everybody who has the directory open.
func (f *FS) OpenDir(_ <-chan struct{}, in *fuse.OpenIn, out *fuse.OpenOut) fuse.Status {
	if !f.admit(&in.InHeader) {
		return fuse.EACCES
	}
	a, err := f.src.Attr(tree.Ino(in.NodeId))
	if err != nil {
		return inodeErrno(err)
	}
	if a.Mode&syscall.S_IFMT != syscall.S_IFDIR {
		return fuse.ENOTDIR
	}
	f.dirs.Add(1)
	if !f.opts.RefuseOutsiders {
		out.OpenFlags |= fuse.FOPEN_CACHE_DIR | fuse.FOPEN_KEEP_CACHE
	}
	return fuse.OK
}

// ReleaseDir ends what OpenDir began.
func (f *FS) ReleaseDir(*fuse.ReleaseIn) {
	f.dirs.Add(-1)
}

// ReadDir lists names. The kernel uses it where it does not know READDIRPLUS.
func (f *FS) ReadDir(_ <-chan struct{}, in *fuse.ReadIn, out *fuse.DirEntryList) fuse.Status {
	if !f.admit(&in.InHeader) {
		return fuse.EACCES
	}
	f.noteAccess(tree.Ino(in.NodeId), in.Flags)
	f.mu.RLock()
	defer f.mu.RUnlock()
	return f.list(tree.Ino(in.NodeId), in.Offset, func(e fuse.DirEntry) bool { return out.AddDirEntry(e) })
}

// plusEntry is an entry of a READDIRPLUS reply whose attributes are still to be filled in.
type plusEntry struct {
	ino tree.Ino
	out *fuse.EntryOut
}

// ReadDirPlus lists names with their attributes, and counts a look-up for each that went into the reply, but not for "." and
// "..", which have no node id in it: the kernel takes these for names alone. Attributes are filled in afterwards, since the
// Source may hold a lock while it lists.
func (f *FS) ReadDirPlus(_ <-chan struct{}, in *fuse.ReadIn, out *fuse.DirEntryList) fuse.Status {
	if !f.admit(&in.InHeader) {
		return fuse.EACCES
	}
	f.noteAccess(tree.Ino(in.NodeId), in.Flags)
	f.mu.RLock()
	defer f.mu.RUnlock()
	buffer := f.plus.Get().(*[]plusEntry)
	defer f.plus.Put(buffer)
	added := (*buffer)[:0]
	status := f.list(tree.Ino(in.NodeId), in.Offset, func(e fuse.DirEntry) bool {
		entry := out.AddDirLookupEntry(e)
		if entry == nil {
			return false
		}
		if e.Off > dotDotCookie {
			added = append(added, plusEntry{tree.Ino(e.Ino), entry})
		}
		return true
	})
	*buffer = added
	if !status.Ok() {
		return status
	}
	for _, e := range added {
		// An entry that can't be told stays a name without attributes; its own LOOKUP will say what is wrong.
		f.tell(e.ino, e.out)
	}
	clear(added) // the reply's buffer belongs to go-fuse again
	return fuse.OK
}

// list adds "." and "..", where the position is before them, and the entries of the tree until add refuses one. An empty reply
// would mean the end, so a buffer that does not hold even one entry is an error.
func (f *FS) list(dir tree.Ino, after uint64, add func(fuse.DirEntry) bool) fuse.Status {
	n := 0
	try := func(e fuse.DirEntry) bool {
		if !add(e) {
			return false
		}
		n++
		return true
	}
	full := false
	if after < dotCookie {
		full = !try(fuse.DirEntry{Name: ".", Ino: uint64(dir), Mode: syscall.S_IFDIR, Off: dotCookie})
	}
	if after < dotDotCookie && !full {
		parent, err := f.src.Parent(dir)
		if err != nil {
			return inodeErrno(err)
		}
		full = !try(fuse.DirEntry{Name: "..", Ino: uint64(parent), Mode: syscall.S_IFDIR, Off: dotDotCookie})
	}
	if !full {
		err := f.src.ReadDir(dir, max(after, dotDotCookie), func(e tree.Entry) bool {
			full = !try(fuse.DirEntry{Name: e.Name, Ino: uint64(e.Ino), Mode: e.Mode, Off: e.Cookie})
			return !full
		})
		if err != nil {
			return inodeErrno(err)
		}
	}
	if full && n == 0 {
		return fuse.EINVAL
	}
	return fuse.OK
}
