package tree

import (
	"hash/maphash"
	"math"
	"strings"
)

// dirent is 20 bytes, beside the 16 of its node in order.
type dirent struct {
	hash  uint32 // of directory and name: to make it anew from the arena takes a quarter of a tree's building
	dir   uint32 // row of the directory that it is in
	inode uint32 // row of what it names
	name  uint32 // place in the arena
	next  uint32 // in its chain of byName
}

// firstCookie leaves 1 and 2 to "." and "..", so that a file system can answer readdir with the cookies as they are.
const firstCookie = 3

func hasNUL(s string) bool { return strings.IndexByte(s, 0) >= 0 }

// checkName refuses what can't be a name in a directory. A slash, a NUL, "." or ".." would let a vault name something
// outside the directory that lists it.
func checkName(name string) error {
	switch {
	case len(name) > MaxName:
		return ErrNameTooLong
	case name == "" || name == "." || name == ".." || hasNUL(name) || strings.IndexByte(name, '/') >= 0:
		return ErrInvalid
	}
	return nil
}

func (t *Tree) hashName(dir uint32, name string) uint64 {
	return uint64(uint32(maphash.String(t.nameSeed, name) ^ mix(uint64(dir))))
}

func (t *Tree) nextName(i uint32) *uint32 { return &t.dirents.at(i).next }

func (t *Tree) hashOfName(i uint32) uint64 { return uint64(t.dirents.at(i).hash) }

// findName returns the entry of a name in the directory of a row, 0 and nil when there is none.
func (t *Tree) findName(dir uint32, name string, hash uint64) (uint32, *dirent) {
	for i := *t.byName.head(hash); i != 0; {
		e := t.dirents.at(i)
		if uint64(e.hash) == hash && e.dir == dir && string(t.bytes.name(e.name)) == name {
			return i, e
		}
		i = e.next
	}
	return 0, nil
}

// Lookup returns what a name in a directory leads to. It allocates nothing.
func (t *Tree) Lookup(dir Ino, name string) (Ino, error) {
	d, _, err := t.findDir(dir)
	if err != nil {
		return 0, err
	}
	if len(name) > MaxName {
		return 0, ErrNameTooLong
	}
	_, e := t.findName(d, name, t.hashName(d, name))
	if e == nil {
		return 0, ErrNotFound
	}
	return t.inodes.at(e.inode).ino, nil
}

// Link gives an inode a name, 1 to MaxName bytes without slash and NUL and neither "." nor "..", in a directory, and
// the name a cookie greater than all that the directory ever gave out. ErrExists: the name is taken; ErrIsDir: the
// inode is a directory that has a name; ErrInvalid: the name, the root, or a directory above dir or dir itself.
//
// It takes O(log n) for a directory of n entries; linking a directory that has subdirectories also climbs from dir to
// the top, to find a cycle.
func (t *Tree) Link(dir Ino, name string, ino Ino) error {
	if err := checkName(name); err != nil {
		return err
	}
	d, dn, err := t.findDir(dir)
	if err != nil {
		return err
	}
	i, n := t.find(ino)
	if n == nil {
		return ErrNotFound
	}
	hash := t.hashName(d, name)
	if _, e := t.findName(d, name, hash); e != nil {
		return ErrExists
	}
	if err := t.checkDirLink(d, i, n); err != nil {
		return err
	}
	if !t.order.slots.room(1) || dn.extra >= math.MaxInt64 {
		return ErrFull
	}
	ref, ok := t.bytes.allocName(name)
	if !ok {
		return ErrFull
	}
	dn.extra = max(dn.extra+1, firstCookie)
	e := t.order.make(dn.extra)
	t.dirents.ensure(e)
	*t.dirents.at(e) = dirent{hash: uint32(hash), dir: d, inode: i, name: ref}
	t.order.insert(&dn.body, e)
	t.byName.add(e, hash, t.nextName, t.hashOfName)
	dn.size++
	if n.isDir() {
		n.up = e
		dn.links++
	} else {
		n.links++
	}
	return nil
}

// checkDirLink refuses a second name for a directory and a directory below itself: both would make the tree a graph
// in which walks don't end.
func (t *Tree) checkDirLink(dir, child uint32, n *inode) error {
	switch {
	case !n.isDir():
		return nil
	case n.ino == Root || dir == child:
		return ErrInvalid
	case n.up != 0:
		return ErrIsDir
	case t.isBelow(dir, child):
		return ErrInvalid
	}
	return nil
}

// isBelow says whether a directory is another one or somewhere below it.
func (t *Tree) isBelow(dir, top uint32) bool {
	if dir == top {
		return true
	}
	if t.inodes.at(top).links == 0 {
		return false // nothing can be below it: building a deep tree downwards climbs nowhere
	}
	for up := t.inodes.at(dir).up; up != 0; up = t.inodes.at(t.dirents.at(up).dir).up {
		if t.dirents.at(up).dir == top {
			return true
		}
	}
	return false
}

// Unlink takes a name out of a directory; what it named stays, as an orphan when this was its last name. ErrNotEmpty:
// it names a directory that has entries.
func (t *Tree) Unlink(dir Ino, name string) error {
	d, dn, err := t.findDir(dir)
	if err != nil {
		return err
	}
	if len(name) > MaxName {
		return ErrNameTooLong
	}
	hash := t.hashName(d, name)
	i, e := t.findName(d, name, hash)
	if e == nil {
		return ErrNotFound
	}
	n := t.inodes.at(e.inode)
	if n.isDir() {
		if n.body != 0 {
			return ErrNotEmpty
		}
		n.up = 0
		dn.links--
	} else {
		n.links--
	}
	dn.size--
	t.byName.remove(i, hash, t.nextName)
	t.order.remove(&dn.body, t.order.nodes.at(i).key)
	t.bytes.releaseName(e.name)
	*e = dirent{}
	t.order.slots.give(i)
	return nil
}

// Rename takes a name out of a directory and gives what it named a new one, which is not taken; a directory goes with all
// below it. Errors are those of Unlink and Link, but that a directory may have entries; ErrInvalid: it would be below itself.
// Afterwards the name has a new cookie, as if it had been linked last.
func (t *Tree) Rename(dir Ino, name string, newDir Ino, newName string) error {
	if err := checkName(newName); err != nil {
		return err
	}
	d, dn, err := t.findDir(dir)
	if err != nil {
		return err
	}
	to, ton, err := t.findDir(newDir)
	if err != nil {
		return err
	}
	if len(name) > MaxName {
		return ErrNameTooLong
	}
	oldHash, newHash := t.hashName(d, name), t.hashName(to, newName)
	i, e := t.findName(d, name, oldHash)
	if e == nil {
		return ErrNotFound
	}
	if _, taken := t.findName(to, newName, newHash); taken != nil {
		return ErrExists
	}
	isDir := t.inodes.at(e.inode).isDir()
	if isDir && t.isBelow(to, e.inode) {
		return ErrInvalid
	}
	if ton.extra >= math.MaxInt64 {
		return ErrFull
	}
	ref, ok := t.bytes.allocName(newName)
	if !ok {
		return ErrFull
	}
	t.byName.remove(i, oldHash, t.nextName)
	t.order.remove(&dn.body, t.order.nodes.at(i).key)
	t.bytes.releaseName(e.name)
	dn.size--
	ton.size++
	if isDir {
		dn.links--
		ton.links++
	}
	ton.extra = max(ton.extra+1, firstCookie)
	*t.order.nodes.at(i) = node{key: ton.extra}
	*e = dirent{hash: uint32(newHash), dir: to, inode: e.inode, name: ref}
	t.order.insert(&ton.body, i)
	t.byName.add(i, newHash, t.nextName, t.hashOfName)
	return nil
}

// Entries yields the entries of a directory whose cookies are greater than after, in the order of cookies, until
// yield says false; "." and ".." are not among them. Cookies are at least 3, grow with each Link, are less than 1<<63
// and are not used twice while the directory lives: an entry that stays is met exactly once by a listing that goes
// on from cookie to cookie, whatever comes and goes meanwhile, and one that is new is met at the end. The place after
// a cookie is found in O(log n), also when its own entry is gone.
func (t *Tree) Entries(dir Ino, after uint64, yield func(Entry) bool) error {
	_, dn, err := t.findDir(dir)
	if err != nil || after == math.MaxUint64 {
		return err
	}
	t.order.walk(dn.body, after+1, func(i uint32) bool {
		e := t.dirents.at(i)
		n := t.inodes.at(e.inode)
		return yield(Entry{
			Name: string(t.bytes.name(e.name)), Ino: n.ino, Mode: uint32(n.mode), Cookie: t.order.nodes.at(i).key,
		})
	})
	return nil
}

// Parent returns the directory that a directory is in, the root's being itself. ErrNotFound: no name leads to it.
func (t *Tree) Parent(dir Ino) (Ino, error) {
	_, n, err := t.findDir(dir)
	switch {
	case err != nil:
		return 0, err
	case n.ino == Root:
		return Root, nil
	case n.up == 0:
		return 0, ErrNotFound
	}
	return t.inodes.at(t.dirents.at(n.up).dir).ino, nil
}
