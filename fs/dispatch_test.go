package fs

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"encfsrun/fs/vault/tree"
)

// wire is a worker without a mount: its requests are made by tests, its replies come out of a pipe.
type wire struct {
	*worker
	replies int // the pipe's end
}

func newWire(t testing.TB, f fuse.RawFileSystem) *wire {
	t.Helper()
	var ends [2]int
	if err := unix.Pipe2(ends[:], unix.O_CLOEXEC|unix.O_NONBLOCK); err != nil {
		t.Fatal(err)
	}
	if _, err := unix.FcntlInt(uintptr(ends[0]), unix.F_SETPIPE_SZ, 1<<20); err != nil {
		t.Fatal(err)
	}
	l := &loop{dev: &device{fd: ends[1]}, fs: f, maxWrite: maxWrite, protocol: fuse.NewProtocolServer(f, protocolOptions(maxWrite, 0))}
	w, err := newWorker(l)
	if err != nil {
		t.Fatal(err)
	}
	l.workers = append(l.workers, w)
	t.Cleanup(func() {
		w.memory.Destroy()
		unix.Close(ends[0])
		unix.Close(ends[1])
	})
	return &wire{w, ends[0]}
}

// send lets the worker answer a request of a structure and what follows it, and returns the reply, whole.
func (w *wire) send(t testing.TB, parts ...[]byte) []byte {
	t.Helper()
	n := 0
	for _, p := range parts {
		n += copy(w.buf[n:], p)
	}
	w.take(n)
	w.serve()
	w.wipe()
	w.loop.all.Wait() // for who answers without the worker
	if !isZero(w.buf) {
		t.Fatalf("opcode %d: the buffer was not wiped", at[fuse.InHeader](parts[0]).Opcode)
	}
	reply := make([]byte, 1<<20)
	n, err := unix.Read(w.replies, reply)
	if err == unix.EAGAIN {
		return nil
	}
	if err != nil {
		t.Fatal(err)
	}
	return reply[:n]
}

func header(op uint32, ino tree.Ino) fuse.InHeader {
	return fuse.InHeader{Opcode: op, NodeId: uint64(ino), Unique: 42, Caller: fuse.Caller{Pid: 1}}
}

// hotRequests are what programs wait for all the time.
func hotRequests(dir, file tree.Ino) map[string][]byte {
	return map[string][]byte{
		"lookup":  append(bytes.Clone(bytesOf(new(header(opLookup, dir)))), "large\x00"...),
		"missing": append(bytes.Clone(bytesOf(new(header(opLookup, dir)))), "missing\x00"...),
		"forget":  bytesOf(&fuse.ForgetIn{InHeader: header(opForget, file), Nlookup: 1}),
		"forgets": append(bytes.Clone(bytesOf(&forgetsIn{InHeader: header(opBatchForget, 0), Count: 1})), bytesOf(&forget{uint64(file), 1})...),
		"getattr": bytesOf(&fuse.GetAttrIn{InHeader: header(opGetattr, file)}),
		"open":    bytesOf(&fuse.OpenIn{InHeader: header(opOpen, file)}),
		"read":    bytesOf(&fuse.ReadIn{InHeader: header(opRead, file), Size: 128 << 10, Offset: 100_000, ReadFlags: fuse.READ_LOCKOWNER}),
		"end":     bytesOf(&fuse.ReadIn{InHeader: header(opRead, file), Size: 4096, Offset: 1 << 20, ReadFlags: fuse.READ_LOCKOWNER}),
		"ioctl":   bytesOf(&fuse.IoctlIn{InHeader: header(opIoctl, file), Cmd: unix.TCGETS}),
		"lseek":   bytesOf(&fuse.LseekIn{InHeader: header(opLseek, file), Whence: seekData}),
		"flush":   bytesOf(&fuse.FlushIn{InHeader: header(opFlush, file)}),
		"xattr":   append(bytes.Clone(bytesOf(&fuse.GetXAttrIn{InHeader: header(opGetxattr, file), Size: 100})), "user.x\x00"...),
		"release": bytesOf(&fuse.ReleaseIn{InHeader: header(opRelease, file)}),
		"opendir": bytesOf(&fuse.OpenIn{InHeader: header(opOpendir, dir)}),
		"closed":  bytesOf(&fuse.ReleaseIn{InHeader: header(opReleasedir, dir)}),
	}
}

// TestRequestsDoNotAllocate answers what programs wait for all the time, from the bytes of the request to those of the reply.
func TestRequestsDoNotAllocate(t *testing.T) {
	f, m, dir := benchTree(t)
	large := m.nodes[dir].names["large"]
	w := newWire(t, f)
	null, err := unix.Open("/dev/null", unix.O_WRONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(null)
	w.loop.dev.fd = null
	f.known.add(uint64(large)) // held, as an open file is
	f.known.add(uint64(large))
	f.files.acquire(large, false)
	for name, request := range hotRequests(dir, large) {
		do := func() {
			w.take(copy(w.buf, request))
			w.serve()
			w.wipe()
			f.known.add(uint64(large))
			f.files.acquire(large, false)
		}
		if n := testing.AllocsPerRun(200, do); n >= 1 {
			t.Errorf("%s: %v allocations", name, n)
		}
	}
}

// TestMalformedRequests sends requests of every kind that are too short, and such with random bytes behind the header: each gets an
// error or an answer, and the process lives.
func TestMalformedRequests(t *testing.T) {
	f, m, dir := benchTree(t)
	w := newWire(t, f)
	rng := rand.New(rand.NewPCG(7, 7))
	silent := map[uint32]bool{opForget: true, opBatchForget: true, opNotifyReply: true, opInterrupt: true}
	for op := range uint32(60) {
		for n := inHeader; n < 200; n += 3 {
			request := make([]byte, n)
			for i := range request {
				request[i] = byte(rng.Uint32())
			}
			*at[fuse.InHeader](request) = header(op, []tree.Ino{dir, m.nodes[dir].names["large"], 12345}[rng.IntN(3)])
			reply := w.send(t, request)
			if len(reply) == 0 && silent[op] {
				continue
			}
			if len(reply) < outHeader {
				t.Fatalf("opcode %d with %d bytes: no reply", op, n)
			}
			head := at[fuse.OutHeader](reply)
			if head.Unique != 42 || int(head.Length) != len(reply) || head.Status > 0 || head.Status != 0 && len(reply) != outHeader {
				t.Errorf("opcode %d with %d bytes: reply %+v of %d bytes", op, n, *head, len(reply))
			}
		}
	}
}

// changeRecorder is a file system that notes what it is asked to change, and agrees.
type changeRecorder struct {
	*FS
	mu   sync.Mutex
	list []string
	last tree.Ino
}

func (c *changeRecorder) note(format string, args ...any) fuse.Status {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.list = append(c.list, fmt.Sprintf(format, args...))
	return fuse.OK
}

func (c *changeRecorder) entry(mode uint32, out *fuse.EntryOut) {
	c.last++
	out.NodeId = uint64(c.last)
	out.EntryValid, out.AttrValid = validSeconds, validSeconds
	out.Attr = fuse.Attr{Ino: out.NodeId, Mode: mode, Nlink: 1}
}

func (c *changeRecorder) Create(_ <-chan struct{}, in *fuse.CreateIn, name string, out *fuse.CreateOut) fuse.Status {
	c.entry(in.Mode, &out.EntryOut)
	out.OpenFlags = fuse.FOPEN_DIRECT_IO
	return c.note("create %d %s %o", in.NodeId, name, in.Mode)
}

func (c *changeRecorder) Mknod(_ <-chan struct{}, in *fuse.MknodIn, name string, out *fuse.EntryOut) fuse.Status {
	c.entry(in.Mode, out)
	return c.note("mknod %d %s %o %d", in.NodeId, name, in.Mode, in.Rdev)
}

func (c *changeRecorder) Mkdir(_ <-chan struct{}, in *fuse.MkdirIn, name string, out *fuse.EntryOut) fuse.Status {
	c.entry(syscall.S_IFDIR|in.Mode, out)
	return c.note("mkdir %d %s %o", in.NodeId, name, in.Mode)
}

func (c *changeRecorder) Link(_ <-chan struct{}, in *fuse.LinkIn, name string, out *fuse.EntryOut) fuse.Status {
	out.NodeId, out.EntryValid, out.AttrValid = in.Oldnodeid, validSeconds, validSeconds
	out.Attr = fuse.Attr{Ino: in.Oldnodeid, Mode: syscall.S_IFREG | 0o755, Nlink: 2}
	return c.note("link %d %d %s", in.Oldnodeid, in.NodeId, name)
}

func (c *changeRecorder) Symlink(_ <-chan struct{}, h *fuse.InHeader, target, name string, out *fuse.EntryOut) fuse.Status {
	c.entry(syscall.S_IFLNK|0o777, out)
	return c.note("symlink %d %s %d %s", h.NodeId, name, len(target), target[:1])
}

func (c *changeRecorder) Unlink(_ <-chan struct{}, h *fuse.InHeader, name string) fuse.Status {
	return c.note("unlink %d %s", h.NodeId, name)
}

func (c *changeRecorder) Rmdir(_ <-chan struct{}, h *fuse.InHeader, name string) fuse.Status {
	return c.note("rmdir %d %s", h.NodeId, name)
}

func (c *changeRecorder) Rename(_ <-chan struct{}, in *fuse.RenameIn, from, to string) fuse.Status {
	return c.note("rename %d %s %d %s %d", in.NodeId, from, in.Newdir, to, in.Flags)
}

func (c *changeRecorder) SetXAttr(_ <-chan struct{}, in *fuse.SetXAttrIn, name string, value []byte) fuse.Status {
	return c.note("setxattr %d %s %d %q %d", in.NodeId, name, len(value), value[:min(len(value), 3)], in.Flags)
}

func (c *changeRecorder) RemoveXAttr(_ <-chan struct{}, h *fuse.InHeader, name string) fuse.Status {
	return c.note("removexattr %d %s", h.NodeId, name)
}

func (c *changeRecorder) Open(_ <-chan struct{}, in *fuse.OpenIn, out *fuse.OpenOut) fuse.Status {
	out.OpenFlags = fuse.FOPEN_DIRECT_IO
	return fuse.OK
}

func (c *changeRecorder) Writev(_ <-chan struct{}, in *fuse.WriteIn, data [][]byte) (uint32, fuse.Status) {
	sum := 0
	for _, b := range data[0] {
		sum += int(b)
	}
	return in.Size, c.note("write %d %d %d %d", in.NodeId, in.Offset, len(data[0]), sum)
}

// TestChangesArrive makes changes through a mount, and compares what the file system was asked for.
func TestChangesArrive(t *testing.T) {
	m := newModel()
	f := m.file(tree.Root, "f", []byte("content"))
	d := m.dir(tree.Root, "d")
	c := &changeRecorder{last: 1000}
	mnt := mount(t, m, mountOptions{wrap: func(f *FS) fuse.RawFileSystem { c.FS = f; return c }})
	long := strings.Repeat("n", 255)
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Error(err)
		}
	}
	umask := unix.Umask(0)
	defer unix.Umask(umask)
	fd, err := unix.Open(mnt.path("d", "new"), unix.O_CREAT|unix.O_WRONLY|unix.O_CLOEXEC, 0o640)
	must(err)
	big := bytes.Repeat([]byte{1}, maxWrite+100)
	for _, b := range [][]byte{[]byte("a"), big} {
		if n, err := unix.Pwrite(fd, b, 5); n != len(b) || err != nil {
			t.Errorf("wrote %d bytes, %v", n, err)
		}
	}
	must(unix.Close(fd))
	must(unix.Mknod(mnt.path("fifo"), unix.S_IFIFO|0o600, 0))
	must(unix.Mkdir(mnt.path("d", long), 0o700))
	must(unix.Link(mnt.path("f"), mnt.path("d", "hard")))
	must(unix.Symlink(strings.Repeat("t", 4095), mnt.path("soft")))
	must(unix.Rename(mnt.path("f"), mnt.path("d", "moved")))
	must(unix.Setxattr(mnt.path("d"), "user.a", nil, 0))
	must(unix.Setxattr(mnt.path("d"), "user.big", bytes.Repeat([]byte("v"), maxXattr), unix.XATTR_CREATE))
	must(unix.Removexattr(mnt.path("d"), "user.b"))
	must(unix.Renameat2(unix.AT_FDCWD, mnt.path("d"), unix.AT_FDCWD, mnt.path("fifo"), unix.RENAME_EXCHANGE))
	must(unix.Unlink(mnt.path("d")))
	must(unix.Rmdir(mnt.path("fifo")))

	want := []string{
		fmt.Sprintf("create %d new 100640", d),
		"write 1001 5 1 97",
		fmt.Sprintf("write 1001 5 %d %d", maxWrite, maxWrite),
		fmt.Sprintf("write 1001 %d 100 100", 5+maxWrite),
		"mknod 1 fifo 10600 0",
		fmt.Sprintf("mkdir %d %s 700", d, long),
		fmt.Sprintf("link %d %d hard", f, d),
		"symlink 1 soft 4095 t",
		fmt.Sprintf("rename 1 f %d moved 0", d),
		fmt.Sprintf(`setxattr %d user.a 0 "" 0`, d),
		fmt.Sprintf(`setxattr %d user.big 65536 "vvv" 1`, d),
		fmt.Sprintf("removexattr %d user.b", d),
		"rename 1 d 1 fifo 2",
		"unlink 1 d",
		"rmdir 1 fifo",
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if diff := cmp.Diff(want, c.list); diff != "" {
		t.Error(diff)
	}
}

// halfway is a file system that fails when a part of the reply is there.
type halfway struct{ *FS }

func (halfway) ReadDir(_ <-chan struct{}, _ *fuse.ReadIn, out *fuse.DirEntryList) fuse.Status {
	out.AddDirEntry(fuse.DirEntry{Name: strings.Repeat("secret", 40), Ino: 7})
	return fuse.EIO
}

func (halfway) GetXAttr(_ <-chan struct{}, _ *fuse.InHeader, _ string, dest []byte) (uint32, fuse.Status) {
	copy(dest, "secret")
	return 0, fuse.EIO
}

func (halfway) GetAttr(_ <-chan struct{}, _ *fuse.GetAttrIn, out *fuse.AttrOut) fuse.Status {
	out.Size = 7
	return fuse.EIO
}

// TestContentsAreWiped lets a handler see what a WRITE brings, and looks that it is gone when the reply is there.
func TestContentsAreWiped(t *testing.T) {
	f, _, dir := benchTree(t)
	c := &changeRecorder{FS: f}
	w := newWire(t, c)
	contents := bytes.Repeat([]byte{3}, maxWrite)
	in := fuse.WriteIn{InHeader: header(opWrite, dir), Size: maxWrite}
	n := copy(w.buf, bytesOf(&in))
	w.take(n + copy(w.buf[n:], contents))
	w.serve()
	if !isZero(w.buf[n : n+maxWrite]) {
		t.Error("the contents are still there after the reply")
	}
	w.wipe()
	if reply := w.send(t, bytesOf(&in), contents); len(reply) != 2*(outHeader+size[fuse.WriteOut]()) || at[fuse.WriteOut](reply[outHeader:]).Size != maxWrite {
		t.Errorf("replies %q", reply)
	}
	if want := fmt.Sprintf("write %d 0 %d %d", dir, maxWrite, 3*maxWrite); len(c.list) != 2 || c.list[0] != want || c.list[1] != want {
		t.Errorf("the file system got %q, want twice %q", c.list, want)
	}
}

// TestFailuresAreWiped lets handlers fail when a part of the reply is there: it is not sent, and wiped as well.
func TestFailuresAreWiped(t *testing.T) {
	f, _, dir := benchTree(t)
	w := newWire(t, halfway{f})
	for name, request := range map[string][]byte{
		"readdir":  bytesOf(&fuse.ReadIn{InHeader: header(opReaddir, dir), Size: 32 << 10}),
		"getxattr": hotRequests(dir, dir)["xattr"],
		"getattr":  hotRequests(dir, dir)["getattr"],
	} {
		reply := w.send(t, request)
		if want := (fuse.OutHeader{Length: uint32(outHeader), Status: -int32(fuse.EIO), Unique: 42}); !bytes.Equal(reply, bytesOf(&want)) {
			t.Errorf("%s: reply %q", name, reply)
		}
	}
}
