package fs

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"testing"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"encfsrun/fs/vault"
	"encfsrun/fs/vault/disk/memdisk"
	"encfsrun/fs/vault/tree"
)

// TestPowerCut does random things with a file system whose vault lies on a disk in memory, cuts the power at every operation of the
// disk that changes something, and looks at several of the states that each cut may leave: each must be the tree as it was at one
// instant, and none before the last sync that succeeded. No kernel is in between. `make soak` tries more.
func TestPowerCut(t *testing.T) {
	rounds, seed := 6, uint64(1)
	if n, err := strconv.Atoi(os.Getenv("ENCFSRUN_ROUNDS")); err == nil {
		rounds, seed = rounds*n, rand.Uint64()
	}
	for i := range uint64(rounds) {
		t.Run(fmt.Sprintf("seed %d", seed+i), func(t *testing.T) {
			ops := tellStory(t, seed+i, -1, nil)
			cuts := 0
			for at := range ops {
				if !ops[at].Kind.Changes() {
					continue
				}
				cuts++
				tellStory(t, seed+i, at, func(d *memdisk.Disk, s *story) {
					r := rand.New(rand.NewPCG(seed+i, uint64(at)))
					for _, choose := range []memdisk.Choose{memdisk.Lose, memdisk.Keep, memdisk.Random(r), memdisk.Random(r)} {
						s.check(t, fmt.Sprintf("after a cut at %v", ops[at]), d.Crash(choose, 0))
					}
				})
			}
			if cuts < 20 {
				t.Errorf("the power was cut at %d operations only", cuts)
			}
		})
	}
}

// tellStory runs the story of a seed, with a power cut at one operation of the disk or, where at is negative, to its end, and
// returns the operations.
func tellStory(t *testing.T, seed uint64, at int, after func(d *memdisk.Disk, s *story)) (ops []memdisk.Op) {
	t.Helper()
	d := memdisk.New()
	must(t, d.Mkdir("/v", 0o755))
	must(t, d.SyncDir("/"))
	v, err := makeVolume(d, "/v")
	must(t, err)
	defer v.master.Destroy()
	first := d.Ops()
	d.Hook = func(op memdisk.Op) error {
		if op.Index -= first; op.Index == at {
			return memdisk.ErrPowerCut
		}
		ops = append(ops, op)
		return nil
	}
	s := &story{volume: v, r: rand.New(rand.NewPCG(seed, 0))}
	s.nodes = map[string]*modelNode{"": {mode: unix.S_IFDIR | 0o755, ino: tree.Root}}
	s.note()
	o := volumeOptions{budget: 2 << 20, dirty: 600 << 10, store: func(real Store) Store { return checkpointing{real.(*vault.Session)} }}
	f, _, finish, err := v.serve(&o)
	if err == nil {
		s.fs = f
		for range 80 {
			if err = s.step(); err != nil {
				break
			}
		}
		closeErr := finish()
		if err == nil && closeErr == nil {
			s.durable = len(s.states) - 1
		}
		err = errors.Join(err, closeErr)
	}
	if at < 0 {
		must(t, err)
		s.check(t, "at the end", d.Clone())
	} else {
		after(d, s) // also where nobody noticed: not everything that fails at the very end matters
	}
	return ops
}

// checkpointing is a session whose housekeeping is always due.
type checkpointing struct{ *vault.Session }

func (c checkpointing) Maintain() error { return c.Checkpoint() }

// story is random work on a file system, and what the tree is after each step.
type story struct {
	volume  *volume
	fs      *FS
	r       *rand.Rand
	nodes   map[string]*modelNode // by path
	open    []*modelNode          // without a name, and open
	states  []string
	durable int // index in states of what the last sync made durable
}

type modelNode struct {
	ino     tree.Ino
	mode    uint32
	content []byte
	xattr   string
}

// note remembers the present state.
func (s *story) note() { s.states = append(s.states, s.describe()) }

func (s *story) describe() string {
	all := map[string]*entry{}
	for path, n := range s.nodes {
		e := &entry{Mode: n.mode, Nlink: 1}
		switch {
		case isDir(n.mode):
			e.Nlink = 2 + uint32(len(s.children(path, unix.S_IFDIR)))
		default:
			e.Size, e.Content = int64(len(n.content)), squeeze(n.content)
		}
		if n.xattr != "" {
			e.Xattrs = map[string]string{"user.x": fmt.Sprintf("%x", n.xattr)}
		}
		all[path] = e
	}
	return describeTree(all)
}

func describeTree(all map[string]*entry) string {
	var b bytes.Buffer
	for _, path := range slices.Sorted(maps.Keys(all)) {
		e := all[path]
		fmt.Fprintf(&b, "%q mode %o links %d size %d %s%v\n", path, e.Mode, e.Nlink, e.Size, e.Content, e.Xattrs)
	}
	return b.String()
}

// check opens a disk and looks whether its vault holds one of the states that it may.
func (s *story) check(t *testing.T, when string, d *memdisk.Disk) {
	t.Helper()
	v := *s.volume
	v.disk = d
	all, err := v.durable("")
	if err != nil {
		t.Fatalf("%s: %v", when, err)
	}
	got := describeTree(all)
	if !slices.Contains(s.states[s.durable:], got) {
		t.Fatalf("%s the vault holds\n%swhich is none of the %d states since the last sync; that was\n%sand the last\n%s",
			when, got, len(s.states)-s.durable, s.states[s.durable], s.states[len(s.states)-1])
	}
}

// children returns the paths in a directory of a kind, in order.
func (s *story) children(dir string, kind uint32) (paths []string) {
	for _, path := range slices.Sorted(maps.Keys(s.nodes)) {
		if i := len(dir) + 1; len(path) > i && path[:i] == dir+"/" && !bytes.Contains([]byte(path[i:]), []byte("/")) && s.nodes[path].mode&unix.S_IFMT == kind {
			paths = append(paths, path)
		}
	}
	return paths
}

// any returns one of the paths of a kind, or false.
func (s *story) any(kind uint32) (string, bool) {
	var paths []string
	for _, path := range slices.Sorted(maps.Keys(s.nodes)) {
		if s.nodes[path].mode&unix.S_IFMT == kind && path != "" {
			paths = append(paths, path)
		}
	}
	if len(paths) == 0 {
		return "", false
	}
	return paths[s.r.IntN(len(paths))], true
}

func headerOf(ino tree.Ino) fuse.InHeader { return fuse.InHeader{NodeId: uint64(ino)} }

// failure is the error of a status.
func failure(status fuse.Status) error {
	if status.Ok() {
		return nil
	}
	return unix.Errno(status)
}

// step does something and notes what the tree is then.
func (s *story) step() error {
	steps := []func() error{
		s.create, s.create, s.create, s.write, s.write, s.write, s.write, s.overwrite, s.truncate, s.punch, s.mkdir,
		s.rename, s.rename, s.unlink, s.rmdir, s.chmod, s.setxattr, s.sync, s.sync, s.sync, s.maintain, s.maintain, s.closeOne, s.exchange,
	}
	return steps[s.r.IntN(len(steps))]()
}

// done notes the state after a change that was accepted.
func (s *story) done(status fuse.Status) error {
	if status.Ok() {
		s.note()
	}
	return failure(status)
}

// place draws a directory and a name in it.
func (s *story) place() (dir tree.Ino, name, path string) {
	dirs := append([]string{""}, s.children("", unix.S_IFDIR)...)
	parent := dirs[s.r.IntN(len(dirs))]
	name = string(rune('a' + s.r.IntN(6)))
	return s.nodes[parent].ino, name, parent + "/" + name
}

func (s *story) create() error {
	dir, name, path := s.place()
	if s.nodes[path] != nil {
		return nil
	}
	var out fuse.CreateOut
	status := s.fs.Create(nil, &fuse.CreateIn{InHeader: headerOf(dir), Flags: unix.O_RDWR, Mode: 0o640}, name, &out)
	if !status.Ok() {
		return failure(status)
	}
	s.nodes[path] = &modelNode{ino: tree.Ino(out.NodeId), mode: unix.S_IFREG | 0o640}
	s.note()
	s.fs.Release(nil, &fuse.ReleaseIn{InHeader: headerOf(tree.Ino(out.NodeId)), Flags: unix.O_RDWR})
	return nil
}

func (s *story) put(n *modelNode, off, length int) error {
	data := bytes.Repeat([]byte{byte(1 + s.r.IntN(255))}, length)
	_, status := s.fs.Writev(nil, &fuse.WriteIn{InHeader: headerOf(n.ino), Offset: uint64(off)}, [][]byte{bytes.Clone(data)})
	if status.Ok() {
		n.content = append(n.content, make([]byte, max(0, off+length-len(n.content)))...)
		copy(n.content[off:], data)
	}
	return s.done(status)
}

func (s *story) write() error {
	path, ok := s.any(unix.S_IFREG)
	if !ok {
		return nil
	}
	return s.put(s.nodes[path], s.r.IntN(100_000), 1+s.r.IntN(60_000))
}

// overwrite writes to a file that has no name any more, if there is one.
func (s *story) overwrite() error {
	if len(s.open) == 0 {
		return nil
	}
	return s.put(s.open[s.r.IntN(len(s.open))], s.r.IntN(100_000), 1+s.r.IntN(60_000))
}

func (s *story) truncate() error {
	path, ok := s.any(unix.S_IFREG)
	if !ok {
		return nil
	}
	n, size := s.nodes[path], s.r.IntN(120_000)
	in := &fuse.SetAttrIn{SetAttrInCommon: fuse.SetAttrInCommon{InHeader: headerOf(n.ino), Valid: fuse.FATTR_SIZE, Size: uint64(size)}}
	status := s.fs.SetAttr(nil, in, new(fuse.AttrOut))
	if status.Ok() {
		n.content = append(n.content, make([]byte, max(0, size-len(n.content)))...)[:size:size]
	}
	return s.done(status)
}

func (s *story) punch() error {
	path, ok := s.any(unix.S_IFREG)
	if !ok {
		return nil
	}
	n, off, length := s.nodes[path], s.r.IntN(100_000), 1+s.r.IntN(50_000)
	in := &fuse.FallocateIn{InHeader: headerOf(n.ino), Offset: uint64(off), Length: uint64(length), Mode: fallocPunchHole | fallocKeepSize}
	status := s.fs.Fallocate(nil, in)
	if status.Ok() && off < len(n.content) {
		clear(n.content[off:min(off+length, len(n.content))])
	}
	return s.done(status)
}

func (s *story) mkdir() error {
	name := string(rune('p' + s.r.IntN(3)))
	if s.nodes["/"+name] != nil {
		return nil
	}
	var out fuse.EntryOut
	status := s.fs.Mkdir(nil, &fuse.MkdirIn{InHeader: headerOf(tree.Root), Mode: 0o700}, name, &out)
	if status.Ok() {
		s.nodes["/"+name] = &modelNode{ino: tree.Ino(out.NodeId), mode: unix.S_IFDIR | 0o700}
	}
	return s.done(status)
}

// split returns the directory and the name of a path.
func (s *story) split(path string) (tree.Ino, string) {
	i := bytes.LastIndexByte([]byte(path), '/')
	return s.nodes[path[:i]].ino, path[i+1:]
}

// rename moves a file, perhaps over another.
func (s *story) rename() error {
	path, ok := s.any(unix.S_IFREG)
	newDir, newName, newPath := s.place()
	if !ok || path == newPath || s.nodes[newPath] != nil && isDir(s.nodes[newPath].mode) {
		return nil
	}
	dir, name := s.split(path)
	status := s.fs.Rename(nil, &fuse.RenameIn{InHeader: headerOf(dir), Newdir: uint64(newDir)}, name, newName)
	if status.Ok() {
		s.forget(newPath)
		s.nodes[newPath] = s.nodes[path]
		delete(s.nodes, path)
	}
	return s.done(status)
}

// exchange swaps two files.
func (s *story) exchange() error {
	a, ok := s.any(unix.S_IFREG)
	b, _ := s.any(unix.S_IFREG)
	if !ok || a == b {
		return nil
	}
	dirA, nameA := s.split(a)
	dirB, nameB := s.split(b)
	status := s.fs.Rename(nil, &fuse.RenameIn{InHeader: headerOf(dirA), Newdir: uint64(dirB), Flags: renameExchange}, nameA, nameB)
	if status.Ok() {
		s.nodes[a], s.nodes[b] = s.nodes[b], s.nodes[a]
	}
	return s.done(status)
}

// forget takes a name from the model. The kernel still knows the inode.
func (s *story) forget(path string) {
	if n := s.nodes[path]; n != nil {
		s.open = append(s.open, n)
		delete(s.nodes, path)
	}
}

func (s *story) unlink() error {
	path, ok := s.any(unix.S_IFREG)
	if !ok {
		return nil
	}
	dir, name := s.split(path)
	h := headerOf(dir)
	status := s.fs.Unlink(nil, &h, name)
	if status.Ok() {
		s.forget(path)
	}
	return s.done(status)
}

// closeOne lets the kernel forget a file without a name.
func (s *story) closeOne() error {
	if len(s.open) > 0 {
		s.fs.Forget(uint64(s.open[0].ino), 1)
		s.open = s.open[1:]
	}
	return nil
}

func (s *story) rmdir() error {
	path, ok := s.any(unix.S_IFDIR)
	if !ok || len(s.children(path, unix.S_IFREG)) > 0 {
		return nil
	}
	h := headerOf(tree.Root)
	status := s.fs.Rmdir(nil, &h, path[1:])
	if status.Ok() {
		s.fs.Forget(uint64(s.nodes[path].ino), 1)
		delete(s.nodes, path)
	}
	return s.done(status)
}

func (s *story) chmod() error {
	path, ok := s.any(unix.S_IFREG)
	if !ok {
		return nil
	}
	n, mode := s.nodes[path], uint32(s.r.IntN(0o1000))
	in := &fuse.SetAttrIn{SetAttrInCommon: fuse.SetAttrInCommon{InHeader: headerOf(n.ino), Valid: fuse.FATTR_MODE, Mode: mode}}
	status := s.fs.SetAttr(nil, in, new(fuse.AttrOut))
	if status.Ok() {
		n.mode = unix.S_IFREG | mode
	}
	return s.done(status)
}

func (s *story) setxattr() error {
	path, ok := s.any(unix.S_IFREG)
	if !ok {
		return nil
	}
	n, value := s.nodes[path], fmt.Sprint(s.r.IntN(1000))
	status := s.fs.SetXAttr(nil, &fuse.SetXAttrIn{InHeader: headerOf(n.ino)}, "user.x", []byte(value))
	if status.Ok() {
		n.xattr = value
	}
	return s.done(status)
}

func (s *story) sync() error {
	status := s.fs.Fsync(nil, &fuse.FsyncIn{})
	if status.Ok() {
		s.durable = len(s.states) - 1
	}
	return failure(status)
}

func (s *story) maintain() error {
	if s.r.IntN(3) > 0 {
		return nil
	}
	return s.fs.maintain()
}
