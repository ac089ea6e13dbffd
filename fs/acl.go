package fs

import (
	"encoding/binary"
	"errors"
	"syscall"

	"encfsrun/fs/vault/tree"
)

// POSIX ACLs are stored as the kernel gives and takes them, in extended attributes: a u32 version, then for each entry
// {u16 tag, u16 permissions, u32 id}, by rising tags (include/uapi/linux/posix_acl_xattr.h). The kernel validates them, keeps
// them and decides by them. What is left to a file system is that they and the mode's bits agree.
const (
	accessACL  = "system.posix_acl_access"
	defaultACL = "system.posix_acl_default"

	aclVersion   = 2
	aclHeader    = 4
	aclEntrySize = 8
)

// Tags of entries.
const (
	aclUserObj  = 0x01
	aclUser     = 0x02
	aclGroupObj = 0x04
	aclGroup    = 0x08
	aclMask     = 0x10
	aclOther    = 0x20
)

type aclEntry struct {
	tag, perm uint16
	id        uint32
}

type acl []aclEntry

func parseACL(b []byte) (acl, error) {
	if len(b) < aclHeader || (len(b)-aclHeader)%aclEntrySize != 0 || binary.LittleEndian.Uint32(b) != aclVersion {
		return nil, tree.ErrInvalid
	}
	var list acl
	for b = b[aclHeader:]; len(b) > 0; b = b[aclEntrySize:] {
		e := aclEntry{binary.LittleEndian.Uint16(b), binary.LittleEndian.Uint16(b[2:]), binary.LittleEndian.Uint32(b[4:])}
		switch e.tag {
		case aclUserObj, aclUser, aclGroupObj, aclGroup, aclMask, aclOther:
		default:
			return nil, tree.ErrInvalid
		}
		if e.perm&^7 != 0 {
			return nil, tree.ErrInvalid
		}
		list = append(list, e)
	}
	if list.find(aclUserObj) == nil || list.find(aclGroupObj) == nil || list.find(aclOther) == nil {
		return nil, tree.ErrInvalid
	}
	return list, nil
}

func (l acl) encode() []byte {
	b := binary.LittleEndian.AppendUint32(nil, aclVersion)
	for _, e := range l {
		b = binary.LittleEndian.AppendUint16(b, e.tag)
		b = binary.LittleEndian.AppendUint16(b, e.perm)
		b = binary.LittleEndian.AppendUint32(b, e.id)
	}
	return b
}

func (l acl) find(tag uint16) *aclEntry {
	for i := range l {
		if l[i].tag == tag {
			return &l[i]
		}
	}
	return nil
}

// group returns the entry that the mode's group bits stand for: the mask where there is one.
func (l acl) group() *aclEntry {
	if mask := l.find(aclMask); mask != nil {
		return mask
	}
	return l.find(aclGroupObj)
}

// mode returns the permission bits of a mode that agrees with the ACL.
func (l acl) mode() uint32 {
	return uint32(l.find(aclUserObj).perm)<<6 | uint32(l.group().perm)<<3 | uint32(l.find(aclOther).perm)
}

// minimal says whether the ACL says no more than a mode can.
func (l acl) minimal() bool { return len(l) == 3 }

// restrict takes from the ACL, and from the mode, what is not in both: how a default ACL becomes the access ACL of a new inode.
func (l acl) restrict(mode uint32) uint32 {
	for _, e := range []struct {
		entry *aclEntry
		shift uint
	}{{l.find(aclUserObj), 6}, {l.group(), 3}, {l.find(aclOther), 0}} {
		e.entry.perm &= uint16(mode>>e.shift) & 7
	}
	return mode&^0o777 | l.mode()
}

// chmod makes the ACL agree with a mode.
func (l acl) chmod(mode uint32) {
	l.find(aclUserObj).perm = uint16(mode>>6) & 7
	l.group().perm = uint16(mode>>3) & 7
	l.find(aclOther).perm = uint16(mode) & 7
}

// aclOf returns an ACL of an inode, nil where it has none.
func (f *FS) aclOf(ino tree.Ino, name string) (acl, error) {
	value, err := f.src.GetXattr(ino, name)
	if errors.Is(err, tree.ErrNoXattr) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return parseACL(value)
}

// aclSize returns the length of an inode's access ACL in bytes.
func (f *FS) aclSize(ino tree.Ino) int {
	if f.src.Stats().Xattrs == 0 {
		return 0
	}
	value, _ := f.src.GetXattr(ino, accessACL) // an error says that there is none
	return len(value)
}

// inherited are the ACLs of a new inode.
type inherited struct{ access, standard []byte }

func (i inherited) size() int { return len(i.access) + len(i.standard) }

func (i inherited) set(s Store, ino tree.Ino) error {
	if i.access != nil {
		if err := s.SetXattr(ino, accessACL, i.access); err != nil {
			return err
		}
	}
	if i.standard != nil {
		return s.SetXattr(ino, defaultACL, i.standard)
	}
	return nil
}

// inherit gives a new inode its permissions: by the directory's default ACL, or where it has none, by the umask.
func (f *FS) inherit(a, dir *tree.Attr, umask uint32) (i inherited, err error) {
	if a.Mode&syscall.S_IFMT == syscall.S_IFLNK {
		return i, nil
	}
	list, err := f.aclOf(dir.Ino, defaultACL)
	if err != nil {
		return i, err
	}
	if list == nil {
		a.Mode &^= umask & 0o777
		return i, nil
	}
	if isDir(a.Mode) {
		i.standard = list.encode()
	}
	a.Mode = list.restrict(a.Mode)
	if !list.minimal() {
		i.access = list.encode()
	}
	return i, nil
}

// chmodACL makes the access ACL of an inode agree with its new mode.
func (f *FS) chmodACL(a *tree.Attr) error {
	list, err := f.aclOf(a.Ino, accessACL)
	if err != nil || list == nil {
		return err
	}
	list.chmod(a.Mode)
	return f.store.SetXattr(a.Ino, accessACL, list.encode())
}

// setAccessACL makes the mode of an inode agree with a new access ACL, and says whether there is more in it to be stored.
func (f *FS) setAccessACL(a *tree.Attr, value []byte, dropSetGID bool) (store bool, err error) {
	list, err := parseACL(value)
	if err != nil {
		return false, err
	}
	a.Mode = a.Mode&^0o777 | list.mode()
	if dropSetGID {
		a.Mode &^= syscall.S_ISGID
	}
	return !list.minimal(), nil
}
