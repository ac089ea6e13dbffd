package tree

// inode is 96 bytes. What a field holds depends on the type where two things are named.
type inode struct {
	ino   Ino    // 0 in a row that is free
	size  uint64 // regular file, symlink: bytes; directory: entries
	extra uint64 // regular file: bytes mapped by extents; directory: the last cookie given out
	sec   [3]int64
	nsec  [3]uint32 // of access, modification, change, as sec
	uid   uint32
	gid   uint32
	links uint32 // directory: subdirectories in it; all else: names
	body  uint32 // regular file: root of its extents; directory: root of its entries; symlink: its target's place
	up    uint32 // directory: the entry that names it; device: its number
	xattr uint32 // first of its extended attributes
	next  uint32 // in its chain of byIno
	mode  uint16
}

// File types as in st_mode; the package must build and behave alike everywhere, so it does not ask the system.
const (
	typeMask   = 0o170000
	typeSocket = 0o140000
	typeLink   = 0o120000
	typeFile   = 0o100000
	typeBlock  = 0o060000
	typeDir    = 0o040000
	typeChar   = 0o020000
	typeFIFO   = 0o010000
)

func (n *inode) kind() uint16 { return n.mode & typeMask }
func (n *inode) isDir() bool  { return n.kind() == typeDir }
func (n *inode) isFile() bool { return n.kind() == typeFile }

func isDevice(mode uint32) bool {
	return mode&typeMask == typeChar || mode&typeMask == typeBlock
}

// linked reports whether a name leads to the inode; the root needs none.
func (n *inode) linked() bool {
	if n.isDir() {
		return n.up != 0 || n.ino == Root
	}
	return n.links != 0
}

// hashIno spreads numbers in runs of 16 that share a cache line of buckets, because neighbours are asked for together.
// Numbers chosen to fall on one sixteenth of the buckets make chains 16 times as long, and no worse.
func (t *Tree) hashIno(ino Ino) uint64 {
	return mix(uint64(ino)>>4^t.seed)<<4 | uint64(ino)&15
}

func (t *Tree) nextIno(i uint32) *uint32  { return &t.inodes.at(i).next }
func (t *Tree) hashOfIno(i uint32) uint64 { return t.hashIno(t.inodes.at(i).ino) }

// find returns the row of an inode, 0 and nil when there is none.
func (t *Tree) find(ino Ino) (uint32, *inode) {
	for i := *t.byIno.head(t.hashIno(ino)); i != 0; {
		n := t.inodes.at(i)
		if n.ino == ino && ino != 0 {
			return i, n
		}
		i = n.next
	}
	return 0, nil
}

// findDir returns the row of a directory.
func (t *Tree) findDir(ino Ino) (uint32, *inode, error) {
	i, n := t.find(ino)
	if n == nil {
		return 0, nil, ErrNotFound
	}
	if !n.isDir() {
		return 0, nil, ErrNotDir
	}
	return i, n, nil
}

// findFile returns a regular file.
func (t *Tree) findFile(ino Ino) (*inode, error) {
	_, n := t.find(ino)
	switch {
	case n == nil:
		return nil, ErrNotFound
	case n.isDir():
		return nil, ErrIsDir
	case !n.isFile():
		return nil, ErrInvalid
	}
	return n, nil
}

// valid checks what a decoder may have made of an inode.
func (a *Attr) valid() bool {
	switch a.Mode & typeMask {
	case typeSocket, typeLink, typeFile, typeBlock, typeDir, typeChar, typeFIFO:
	default:
		return false
	}
	return a.Ino != 0 && a.Ino <= MaxInoValue && a.Mode <= 0xffff && a.Size <= MaxSize &&
		(a.Ino != Root || a.Mode&typeMask == typeDir) &&
		a.Atime.Nsec < 1e9 && a.Mtime.Nsec < 1e9 && a.Ctime.Nsec < 1e9
}

// Put makes an inode, without a name yet, or changes one. Nlink and Blocks are ignored, being counted here; so are
// Size where it is not a regular file's, and Rdev where it is not a device's. A smaller Size cuts the file's extents.
// ErrInvalid: a number or size out of range, an unknown or a changed file type, a root that is no directory.
func (t *Tree) Put(a Attr) error {
	if !a.valid() {
		return ErrInvalid
	}
	_, n := t.find(a.Ino)
	if n == nil {
		if !t.inodeSlots.room(1) {
			return ErrFull
		}
		i := t.inodeSlots.take()
		t.inodes.ensure(i)
		n = t.inodes.at(i)
		*n = inode{ino: a.Ino, mode: uint16(a.Mode)}
		t.byIno.add(i, t.hashIno(a.Ino), t.nextIno, t.hashOfIno)
		t.maxIno = max(t.maxIno, a.Ino)
	} else if n.kind() != uint16(a.Mode&typeMask) {
		return ErrInvalid
	}
	if n.isFile() {
		if a.Size < n.size {
			t.carve(n, a.Size, n.size)
		}
		n.size = a.Size
	}
	if isDevice(a.Mode) {
		n.up = a.Rdev
	}
	n.mode, n.uid, n.gid = uint16(a.Mode), a.UID, a.GID
	n.sec = [3]int64{a.Atime.Sec, a.Mtime.Sec, a.Ctime.Sec}
	n.nsec = [3]uint32{a.Atime.Nsec, a.Mtime.Nsec, a.Ctime.Nsec}
	return nil
}

// Attr returns the attributes of an inode. A directory's Nlink is 2 and one for each subdirectory, or 0 when no name
// leads to it.
func (t *Tree) Attr(ino Ino) (Attr, error) {
	_, n := t.find(ino)
	if n == nil {
		return Attr{}, ErrNotFound
	}
	return n.attr(), nil
}

func (n *inode) attr() Attr {
	a := Attr{
		Ino: n.ino, Mode: uint32(n.mode), UID: n.uid, GID: n.gid, Nlink: n.links, Size: n.size,
		Atime: Time{n.sec[0], n.nsec[0]}, Mtime: Time{n.sec[1], n.nsec[1]}, Ctime: Time{n.sec[2], n.nsec[2]},
	}
	switch {
	case n.isFile():
		a.Blocks = n.extra/512 + min(n.extra%512, 1)
	case n.isDir() && n.linked():
		a.Nlink = 2 + n.links
	case n.isDir():
		a.Nlink = 0
	case isDevice(a.Mode):
		a.Rdev = n.up
	}
	return a
}

// SetTarget gives a symlink its target, 1 to MaxTarget bytes without NUL, in place of the one it had. ErrInvalid: not
// a symlink, or not such a target.
func (t *Tree) SetTarget(ino Ino, target string) error {
	_, n := t.find(ino)
	if n == nil {
		return ErrNotFound
	}
	if n.kind() != typeLink || len(target) == 0 || len(target) > MaxTarget || hasNUL(target) {
		return ErrInvalid
	}
	ref, ok := t.bytes.alloc(len(target))
	if !ok {
		return ErrFull
	}
	t.dropTarget(n)
	copy(t.bytes.at(ref, len(target)), target)
	n.body, n.size = ref, uint64(len(target))
	return nil
}

func (t *Tree) dropTarget(n *inode) {
	if n.body != 0 {
		t.bytes.release(n.body, int(n.size))
		n.body, n.size = 0, 0
	}
}

// Target returns the target of a symlink, "" while it was given none. ErrInvalid: not a symlink.
func (t *Tree) Target(ino Ino) (string, error) {
	_, n := t.find(ino)
	if n == nil {
		return "", ErrNotFound
	}
	if n.kind() != typeLink {
		return "", ErrInvalid
	}
	if n.body == 0 {
		return "", nil
	}
	return string(t.bytes.at(n.body, int(n.size))), nil
}

// Free forgets an inode to which no name leads, with all it holds. Its number must not be used again. ErrInvalid: it
// has a name, or is the root; ErrNotEmpty: a directory with entries.
func (t *Tree) Free(ino Ino) error {
	i, n := t.find(ino)
	switch {
	case n == nil:
		return ErrNotFound
	case n.linked():
		return ErrInvalid
	case n.isDir() && n.body != 0:
		return ErrNotEmpty
	case n.isFile():
		t.carve(n, 0, n.size)
	case n.kind() == typeLink:
		t.dropTarget(n)
	}
	t.dropXattrs(n)
	t.byIno.remove(i, t.hashIno(ino), t.nextIno)
	*n = inode{}
	t.inodeSlots.give(i)
	return nil
}
