package floor

import (
	"syscall"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// directory is what a directory holds. A position in its listing is an index; what was removed leaves a gap.
type directory struct {
	parent *node
	index  map[string]int
	list   []entry
}

type entry struct {
	name string
	node *node // nil in a gap
}

// Positions 1 and 2 are those after "." and "..".
const firstEntry = 2

func newDirectory(parent *node) *directory {
	return &directory{parent: parent, index: map[string]int{}}
}

func (d *directory) get(name string) *node {
	if i, ok := d.index[name]; ok {
		return d.list[i].node
	}
	return nil
}

func (d *directory) put(name string, n *node) {
	if i, ok := d.index[name]; ok {
		d.list[i].node = n
		return
	}
	d.index[name] = len(d.list)
	d.list = append(d.list, entry{name, n})
}

func (d *directory) remove(name string) {
	d.list[d.index[name]] = entry{}
	delete(d.index, name)
	if len(d.index) == 0 {
		d.list = nil
	}
}

// Lookup implements fuse.RawFileSystem. A name that is missing is kept too.
func (f *FS) Lookup(_ <-chan struct{}, h *fuse.InHeader, name string, out *fuse.EntryOut) fuse.Status {
	if len(name) > 255 {
		return fuse.Status(syscall.ENAMETOOLONG)
	}
	f.mu.RLock()
	defer f.mu.RUnlock()
	dir := f.nodes[h.NodeId]
	if dir.entries == nil {
		return fuse.ENOTDIR
	}
	n := dir.entries.get(name)
	if n == nil {
		out.EntryValid = validSeconds
		return fuse.OK
	}
	n.tell(out)
	return fuse.OK
}

// creation is what a new inode is.
type creation struct {
	mode, rdev uint32
	target     string
}

// add makes an inode with a name.
func (f *FS) add(h *fuse.InHeader, name string, c creation, out *fuse.EntryOut) (*node, fuse.Status) {
	if len(name) > 255 {
		return nil, fuse.Status(syscall.ENAMETOOLONG)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	dir := f.nodes[h.NodeId]
	if dir.links() == 0 {
		return nil, fuse.ENOENT
	}
	if dir.entries.get(name) != nil {
		return nil, fuse.Status(syscall.EEXIST)
	}
	gid := h.Gid
	if dir.mode&syscall.S_ISGID != 0 {
		gid = dir.gid
	}
	n := f.newNode(c.mode, h.Uid, gid)
	n.rdev, n.target = c.rdev, c.target
	links := 0
	if c.mode&syscall.S_IFMT == syscall.S_IFDIR {
		n.mode |= dir.mode & syscall.S_ISGID
		n.nlink, n.entries = 2, newDirectory(dir)
		links = 1
	}
	dir.entries.put(name, n)
	dir.changed(links)
	n.tell(out)
	return n, fuse.OK
}

// Mknod implements fuse.RawFileSystem.
func (f *FS) Mknod(_ <-chan struct{}, in *fuse.MknodIn, name string, out *fuse.EntryOut) fuse.Status {
	_, status := f.add(&in.InHeader, name, creation{mode: in.Mode, rdev: in.Rdev}, out)
	return status
}

// Mkdir implements fuse.RawFileSystem.
func (f *FS) Mkdir(_ <-chan struct{}, in *fuse.MkdirIn, name string, out *fuse.EntryOut) fuse.Status {
	_, status := f.add(&in.InHeader, name, creation{mode: syscall.S_IFDIR | in.Mode&0o7777}, out)
	return status
}

// Symlink implements fuse.RawFileSystem.
func (f *FS) Symlink(_ <-chan struct{}, h *fuse.InHeader, target, name string, out *fuse.EntryOut) fuse.Status {
	_, status := f.add(h, name, creation{mode: syscall.S_IFLNK | 0o777, target: target}, out)
	return status
}

// Readlink implements fuse.RawFileSystem.
func (f *FS) Readlink(_ <-chan struct{}, h *fuse.InHeader) ([]byte, fuse.Status) {
	return []byte(f.node(h.NodeId).target), fuse.OK
}

// Link implements fuse.RawFileSystem.
func (f *FS) Link(_ <-chan struct{}, in *fuse.LinkIn, name string, out *fuse.EntryOut) fuse.Status {
	f.mu.Lock()
	defer f.mu.Unlock()
	dir, n := f.nodes[in.NodeId], f.nodes[in.Oldnodeid]
	if dir.entries.get(name) != nil {
		return fuse.Status(syscall.EEXIST)
	}
	dir.entries.put(name, n)
	dir.changed(0)
	n.linked(1)
	n.tell(out)
	return fuse.OK
}

// Unlink implements fuse.RawFileSystem.
func (f *FS) Unlink(_ <-chan struct{}, h *fuse.InHeader, name string) fuse.Status {
	f.mu.Lock()
	defer f.mu.Unlock()
	dir := f.nodes[h.NodeId]
	n := dir.entries.get(name)
	if n == nil {
		return fuse.ENOENT
	}
	dir.entries.remove(name)
	f.drop(dir, n)
	return fuse.OK
}

// Rmdir implements fuse.RawFileSystem.
func (f *FS) Rmdir(cancel <-chan struct{}, h *fuse.InHeader, name string) fuse.Status {
	if n := f.child(h.NodeId, name); n != nil && len(n.entries.index) > 0 {
		return fuse.Status(syscall.ENOTEMPTY)
	}
	return f.Unlink(cancel, h, name)
}

func (f *FS) child(dir uint64, name string) *node {
	f.mu.RLock()
	defer f.mu.RUnlock()
	return f.nodes[dir].entries.get(name)
}

// drop takes a link to n out of dir. f.mu is held.
func (f *FS) drop(dir, n *node) {
	if n.entries != nil {
		dir.changed(-1)
		n.linked(-int(n.links()))
	} else {
		dir.changed(0)
		n.linked(-1)
	}
	f.reap(n)
}

// Rename implements fuse.RawFileSystem.
func (f *FS) Rename(_ <-chan struct{}, in *fuse.RenameIn, oldName, newName string) fuse.Status {
	f.mu.Lock()
	defer f.mu.Unlock()
	from, to := f.nodes[in.NodeId], f.nodes[in.Newdir]
	n, target := from.entries.get(oldName), to.entries.get(newName)
	switch {
	case n == nil:
		return fuse.ENOENT
	case in.Flags&unix.RENAME_NOREPLACE != 0 && target != nil:
		return fuse.Status(syscall.EEXIST)
	case in.Flags&unix.RENAME_EXCHANGE != 0:
		return fuse.EINVAL
	case n == target:
		return fuse.OK
	case target != nil && target.entries != nil && len(target.entries.index) > 0:
		return fuse.Status(syscall.ENOTEMPTY)
	}
	if target != nil {
		f.drop(to, target)
	}
	to.entries.put(newName, n)
	from.entries.remove(oldName)
	links := 0
	if n.entries != nil {
		n.entries.parent = to
		links = 1
	}
	from.changed(-links)
	to.changed(links)
	n.linked(0)
	return fuse.OK
}

// OpenDir implements fuse.RawFileSystem.
func (f *FS) OpenDir(_ <-chan struct{}, _ *fuse.OpenIn, out *fuse.OpenOut) fuse.Status {
	out.OpenFlags |= fuse.FOPEN_CACHE_DIR | fuse.FOPEN_KEEP_CACHE
	return fuse.OK
}

// FsyncDir implements fuse.RawFileSystem.
func (f *FS) FsyncDir(<-chan struct{}, *fuse.FsyncIn) fuse.Status { return fuse.OK }

// ReadDir implements fuse.RawFileSystem.
func (f *FS) ReadDir(_ <-chan struct{}, in *fuse.ReadIn, out *fuse.DirEntryList) fuse.Status {
	return f.listing(in, func(e fuse.DirEntry, _ *node) bool { return out.AddDirEntry(e) })
}

// ReadDirPlus implements fuse.RawFileSystem.
func (f *FS) ReadDirPlus(_ <-chan struct{}, in *fuse.ReadIn, out *fuse.DirEntryList) fuse.Status {
	return f.listing(in, func(e fuse.DirEntry, n *node) bool {
		entry := out.AddDirLookupEntry(e)
		if entry != nil && e.Off > firstEntry {
			n.tell(entry)
		}
		return entry != nil
	})
}

func (f *FS) listing(in *fuse.ReadIn, add func(fuse.DirEntry, *node) bool) fuse.Status {
	f.mu.RLock()
	defer f.mu.RUnlock()
	dir := f.nodes[in.NodeId]
	after := in.Offset
	for i, dots := range []entry{{".", dir}, {"..", dir.entries.parent}} {
		if after == uint64(i) {
			if after++; !add(fuse.DirEntry{Name: dots.name, Ino: dots.node.id, Mode: syscall.S_IFDIR, Off: after}, dots.node) {
				return fuse.OK
			}
		}
	}
	for ; after-firstEntry < uint64(len(dir.entries.list)); after++ {
		e := dir.entries.list[after-firstEntry]
		if e.node != nil && !add(fuse.DirEntry{Name: e.name, Ino: e.node.id, Mode: e.node.mode, Off: after + 1}, e.node) {
			break
		}
	}
	return fuse.OK
}
