package tree

// xattr is 16 bytes. The extended attributes of an inode are chained in the order in which they came; finding one
// looks at each, and MaxXattrList bounds how many there are.
type xattr struct {
	next  uint32
	name  uint32 // place in the arena
	value uint32 // place in the arena, 0 when empty
	size  uint32 // of the value, bytes
}

// findXattr returns the link to the attribute of a name, or the link at the chain's end, and the sum that
// MaxXattrList bounds over those looked at.
func (t *Tree) findXattr(n *inode, name string) (link *uint32, list int) {
	for link = &n.xattr; *link != 0; {
		x := t.xattrs.at(*link)
		b := t.bytes.name(x.name)
		if string(b) == name {
			break
		}
		list += len(b) + 1
		link = &x.next
	}
	return link, list
}

// SetXattr sets an extended attribute: a name of 1 to MaxName bytes without NUL, a value of at most MaxXattrValue
// bytes, which is copied.
func (t *Tree) SetXattr(ino Ino, name string, value []byte) error {
	_, n := t.find(ino)
	switch {
	case n == nil:
		return ErrNotFound
	case len(name) > MaxName:
		return ErrNameTooLong
	case name == "" || hasNUL(name):
		return ErrInvalid
	case len(value) > MaxXattrValue:
		return ErrTooBig
	}
	link, list := t.findXattr(n, name)
	if *link == 0 && list+len(name)+1 > MaxXattrList {
		return ErrTooBig
	}
	if *link == 0 && !t.xslots.room(1) {
		return ErrFull
	}
	var ref uint32
	if len(value) > 0 {
		var ok bool
		if ref, ok = t.bytes.alloc(len(value)); !ok {
			return ErrFull
		}
		copy(t.bytes.at(ref, len(value)), value)
	}
	if *link != 0 {
		x := t.xattrs.at(*link)
		t.dropValue(x)
		x.value, x.size = ref, uint32(len(value))
		return nil
	}
	nameRef, ok := t.bytes.allocName(name)
	if !ok {
		t.dropValue(&xattr{value: ref, size: uint32(len(value))})
		return ErrFull
	}
	i := t.xslots.take()
	t.xattrs.ensure(i)
	*t.xattrs.at(i) = xattr{name: nameRef, value: ref, size: uint32(len(value))}
	*link = i
	return nil
}

func (t *Tree) dropValue(x *xattr) {
	if x.value != 0 {
		t.bytes.release(x.value, int(x.size))
	}
}

// RemoveXattr removes an extended attribute. ErrNoXattr: there is none of that name.
func (t *Tree) RemoveXattr(ino Ino, name string) error {
	_, n := t.find(ino)
	if n == nil {
		return ErrNotFound
	}
	link, _ := t.findXattr(n, name)
	if *link == 0 {
		return ErrNoXattr
	}
	t.dropXattr(link)
	return nil
}

// dropXattr takes the attribute that a link leads to out of its chain.
func (t *Tree) dropXattr(link *uint32) {
	i := *link
	x := t.xattrs.at(i)
	*link = x.next
	t.dropValue(x)
	t.bytes.releaseName(x.name)
	*x = xattr{}
	t.xslots.give(i)
}

func (t *Tree) dropXattrs(n *inode) {
	for n.xattr != 0 {
		t.dropXattr(&n.xattr)
	}
}

// Xattr returns a copy of an extended attribute's value, empty but not nil when it is empty. ErrNoXattr: there is none
// of that name.
func (t *Tree) Xattr(ino Ino, name string) ([]byte, error) {
	_, n := t.find(ino)
	if n == nil {
		return nil, ErrNotFound
	}
	link, _ := t.findXattr(n, name)
	if *link == 0 {
		return nil, ErrNoXattr
	}
	x := t.xattrs.at(*link)
	value := make([]byte, x.size)
	if x.value != 0 {
		copy(value, t.bytes.at(x.value, int(x.size)))
	}
	return value, nil
}

// Xattrs returns the names of an inode's extended attributes in the order in which they were first set.
func (t *Tree) Xattrs(ino Ino) ([]string, error) {
	_, n := t.find(ino)
	if n == nil {
		return nil, ErrNotFound
	}
	var names []string
	for i := n.xattr; i != 0; i = t.xattrs.at(i).next {
		names = append(names, string(t.bytes.name(t.xattrs.at(i).name)))
	}
	return names, nil
}
