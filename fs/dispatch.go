package fs

import (
	"bytes"
	"unsafe"

	"github.com/hanwen/go-fuse/v2/fuse"

	"encfsrun/fs/guarded"
)

// Numbers of requests, out of linux/fuse.h.
const (
	opLookup      = 1
	opForget      = 2
	opGetattr     = 3
	opSetattr     = 4
	opReadlink    = 5
	opSymlink     = 6
	opMknod       = 8
	opMkdir       = 9
	opUnlink      = 10
	opRmdir       = 11
	opRename      = 12
	opLink        = 13
	opOpen        = 14
	opRead        = 15
	opWrite       = 16
	opStatfs      = 17
	opRelease     = 18
	opFsync       = 20
	opSetxattr    = 21
	opGetxattr    = 22
	opListxattr   = 23
	opRemovexattr = 24
	opFlush       = 25
	opInit        = 26
	opOpendir     = 27
	opReaddir     = 28
	opReleasedir  = 29
	opFsyncdir    = 30
	opGetlk       = 31
	opSetlk       = 32
	opSetlkw      = 33
	opAccess      = 34
	opCreate      = 35
	opInterrupt   = 36
	opBmap        = 37
	opDestroy     = 38
	opIoctl       = 39
	opPoll        = 40
	opNotifyReply = 41
	opBatchForget = 42
	opFallocate   = 43
	opReaddirplus = 44
	opRename2     = 45
	opLseek       = 46
	opCopyRange   = 47
	opSyncfs      = 50
	opTmpfile     = 51
	opStatx       = 52
	opCopyRange64 = 53
)

// operation is how one kind of request is answered: by do, or without it by go-fuse's ProtocolServer. A request that is too short never
// comes so far: go-fuse would put all of it into a log.
type operation struct {
	in   int  // the least length of a request in bytes
	long bool // it waits for the disk as a rule: somebody else is to read the next request before it is begun
	do   func(w *worker)
}

// operations has all requests that a program waits for often, or that carry contents or names, which must not lie about on the
// heap as they do when the ProtocolServer takes requests apart. Handlers get structures, names and payloads where they lie, in
// the worker's guarded buffer, and may keep none of it. Only names that a change brings are copied: the tree keeps those.
var operations = [...]operation{
	opLookup: {in: inHeader + 1, do: lookup},
	opForget: {in: size[fuse.ForgetIn](), do: func(w *worker) {
		w.fs.Forget(w.header().NodeId, at[fuse.ForgetIn](w.in).Nlookup)
	}},
	opBatchForget: {in: size[forgetsIn](), do: batchForget},
	opGetattr: exchange(func(w *worker, in *fuse.GetAttrIn, out *fuse.AttrOut) fuse.Status {
		return w.fs.GetAttr(nil, in, out)
	}),
	opReadlink: {in: inHeader, do: func(w *worker) {
		target, status := w.fs.Readlink(nil, w.header())
		w.pieces[0] = target
		w.replyPieces(status, w.pieces[:])
	}},

	opOpen: exchange(func(w *worker, in *fuse.OpenIn, out *fuse.OpenOut) fuse.Status {
		return w.fs.Open(nil, in, out)
	}),
	opOpendir: exchange(func(w *worker, in *fuse.OpenIn, out *fuse.OpenOut) fuse.Status {
		return w.fs.OpenDir(nil, in, out)
	}),
	opRelease: exchange(func(w *worker, in *fuse.ReleaseIn, _ *struct{}) fuse.Status {
		w.fs.Release(nil, in)
		return fuse.OK
	}),
	opReleasedir: exchange(func(w *worker, in *fuse.ReleaseIn, _ *struct{}) fuse.Status {
		w.fs.ReleaseDir(in)
		return fuse.OK
	}),
	opFlush: long(exchange(func(w *worker, in *fuse.FlushIn, _ *struct{}) fuse.Status {
		return w.fs.Flush(nil, in)
	})),
	opRead:  {in: size[fuse.ReadIn](), do: read},
	opWrite: exchange(write),
	opLseek: exchange(func(w *worker, in *fuse.LseekIn, out *fuse.LseekOut) fuse.Status {
		return w.fs.Lseek(nil, in, out)
	}),
	opIoctl:     {in: size[fuse.IoctlIn](), do: ioctl},
	opGetxattr:  {in: size[fuse.GetXAttrIn](), do: getXattr},
	opListxattr: {in: size[fuse.GetXAttrIn](), do: getXattr},

	opCreate: named(func(w *worker, in *fuse.CreateIn, name string, out *fuse.CreateOut) fuse.Status {
		return w.fs.Create(nil, in, name, out)
	}),
	opTmpfile: exchange(func(w *worker, in *fuse.CreateIn, out *fuse.CreateOut) fuse.Status { // the name behind it means nothing
		return w.fs.Tmpfile(nil, in, out)
	}),
	opMknod: named(func(w *worker, in *fuse.MknodIn, name string, out *fuse.EntryOut) fuse.Status {
		return w.fs.Mknod(nil, in, name, out)
	}),
	opMkdir: named(func(w *worker, in *fuse.MkdirIn, name string, out *fuse.EntryOut) fuse.Status {
		return w.fs.Mkdir(nil, in, name, out)
	}),
	opLink: named(func(w *worker, in *fuse.LinkIn, name string, out *fuse.EntryOut) fuse.Status {
		return w.fs.Link(nil, in, name, out)
	}),
	opUnlink: named(func(w *worker, in *fuse.InHeader, name string, _ *struct{}) fuse.Status {
		return w.fs.Unlink(nil, in, name)
	}),
	opRmdir: named(func(w *worker, in *fuse.InHeader, name string, _ *struct{}) fuse.Status {
		return w.fs.Rmdir(nil, in, name)
	}),
	opRemovexattr: named(func(w *worker, in *fuse.InHeader, name string, _ *struct{}) fuse.Status {
		return w.fs.RemoveXAttr(nil, in, name)
	}),
	opSymlink:  {in: inHeader, do: symlink},
	opRename:   {in: renameIn, do: rename},
	opRename2:  {in: size[fuse.RenameIn](), do: rename},
	opSetxattr: {in: setxattrIn, do: setXattr},

	opInterrupt:   {in: size[fuse.InterruptIn](), do: (*worker).interrupt},
	opNotifyReply: {in: size[fuse.NotifyRetrieveIn](), do: notifyReply},
	opInit:        {do: func(w *worker) { w.reply(fuse.EIO, 0) }}, // was answered before the first worker began
	opReaddir:     {in: size[fuse.ReadIn](), do: listDir},
	opReaddirplus: {in: size[fuse.ReadIn](), do: listDir},

	// go-fuse's.
	opSetattr:     {in: size[fuse.SetAttrIn]()},
	opStatfs:      {in: inHeader},
	opFsync:       {in: size[fuse.FsyncIn](), do: syncing(fuse.RawFileSystem.Fsync)},
	opFsyncdir:    {in: size[fuse.FsyncIn](), do: syncing(fuse.RawFileSystem.FsyncDir)},
	opGetlk:       {in: size[fuse.LkIn]()},
	opSetlk:       {in: size[fuse.LkIn]()},
	opSetlkw:      long(operation{in: size[fuse.LkIn]()}),
	opAccess:      {in: size[fuse.AccessIn]()},
	opBmap:        {in: inHeader + 16},
	opDestroy:     {in: inHeader},
	opPoll:        {in: inHeader + 24},
	opFallocate:   long(operation{in: size[fuse.FallocateIn]()}),
	opCopyRange:   long(operation{in: size[fuse.CopyFileRangeIn]()}),
	opSyncfs:      long(operation{in: inHeader}),
	opStatx:       {in: size[fuse.StatxIn]()},
	opCopyRange64: long(operation{in: size[fuse.CopyFileRangeIn]()}),
}

// Sizes in bytes of structures that the protocol has in two versions; go-fuse's are the longer ones.
const (
	inHeader   = int(unsafe.Sizeof(fuse.InHeader{}))
	renameIn   = inHeader + 8 // RENAME; RENAME2 has flags
	setxattrIn = inHeader + 8 // without fuse.CAP_SETXATTR_EXT
)

// forgetsIn is what BATCH_FORGET begins with; forget is one of Count that follow.
type (
	forgetsIn struct {
		fuse.InHeader
		Count, Dummy uint32
	}
	forget struct{ NodeID, Nlookup uint64 }
)

func size[T any]() int { return int(unsafe.Sizeof(*new(T))) }

// long marks an operation.
func long(o operation) operation {
	o.long = true
	return o
}

// exchange makes an operation of a structure that comes and one that goes.
func exchange[In, Out any](do func(w *worker, in *In, out *Out) fuse.Status) operation {
	return operation{in: size[In](), do: func(w *worker) {
		w.reply(do(w, at[In](w.in), at[Out](w.out())), size[Out]())
	}}
}

// syncing makes an operation of FSYNC or FSYNCDIR. It waits for the disk, and many wait for the same commit: with a worker for each,
// sixteen programs that sync would leave nobody to answer others. So it waits in a goroutine, without a worker and its memory.
func syncing(sync func(f fuse.RawFileSystem, cancel <-chan struct{}, in *fuse.FsyncIn) fuse.Status) func(w *worker) {
	return func(w *worker) {
		l, in := w.loop, *at[fuse.FsyncIn](w.in)
		l.all.Go(func() { // the descriptor stays open until it is answered
			status := sync(l.fs, nil, &in)
			head := fuse.OutHeader{Length: uint32(outHeader), Status: -int32(status), Unique: in.Unique}
			l.dev.write(bytesOf(&head)) // a kernel that has let go wants no answer
		})
	}
}

// named makes an operation of a structure and a name that come, and a structure that goes.
func named[In, Out any](do func(w *worker, in *In, name string, out *Out) fuse.Status) operation {
	return operation{in: size[In](), do: func(w *worker) {
		name, _, ok := bytes.Cut(w.in[size[In]():], nul)
		if !ok {
			w.reply(fuse.EIO, 0)
			return
		}
		w.reply(do(w, at[In](w.in), string(name), at[Out](w.out())), size[Out]())
	}}
}

var nul = []byte{0}

// alias makes a string of bytes without copying them: it must not outlive the request.
func alias(b []byte) string { return unsafe.String(unsafe.SliceData(b), len(b)) }

func lookup(w *worker) {
	name, _, ok := bytes.Cut(w.in[inHeader:], nul)
	if !ok {
		w.reply(fuse.EIO, 0)
		return
	}
	w.reply(w.fs.Lookup(nil, w.header(), alias(name), at[fuse.EntryOut](w.out())), size[fuse.EntryOut]())
}

func batchForget(w *worker) {
	list := w.in[size[forgetsIn]():]
	for range min(int(at[forgetsIn](w.in).Count), len(list)/size[forget]()) {
		one := at[forget](list)
		w.fs.Forget(one.NodeID, one.Nlookup)
		list = list[size[forget]():]
	}
}

// read replies straight out of where the contents are.
func read(w *worker) {
	result, status := w.fs.Read(nil, at[fuse.ReadIn](w.in), nil)
	if !status.Ok() {
		w.reply(status, 0)
		return
	}
	defer result.Done()
	sliced, ok := result.(interface {
		Slices() ([][]byte, fuse.Status)
	})
	if !ok {
		w.reply(fuse.EIO, 0) // it would have to be copied to the heap
		return
	}
	pieces, status := sliced.Slices()
	w.replyPieces(status, pieces)
}

// write wipes the contents that it brought as soon as the file system has them, before the program goes on.
func write(w *worker, in *fuse.WriteIn, out *fuse.WriteOut) (status fuse.Status) {
	w.pieces[0] = w.in[size[fuse.WriteIn]():]
	if len(w.pieces[0]) != int(in.Size) {
		return fuse.EIO
	}
	out.Size, status = w.fs.Writev(nil, in, w.pieces[:])
	guarded.Wipe(w.pieces[0])
	w.in = w.in[:size[fuse.WriteIn]()] // the rest is wiped
	return status
}

// ioctl serves restricted ones, whose payloads are of at most 16 KiB each way.
func ioctl(w *worker) {
	in := at[fuse.IoctlIn](w.in)
	payload := w.in[size[fuse.IoctlIn]():]
	out := w.out()
	head, room := size[fuse.IoctlOut](), int(in.OutSize)
	if room > len(out)-head || int(in.InSize) > len(payload) {
		w.reply(fuse.EIO, 0)
		return
	}
	status := w.fs.Ioctl(nil, in, payload[:in.InSize], at[fuse.IoctlOut](out), out[head:head+room])
	w.reply(status, head+room)
}

// getXattr is also LISTXATTR. A size of 0 asks for the size alone.
func getXattr(w *worker) {
	in := at[fuse.GetXAttrIn](w.in)
	if int(in.Size) > len(w.out()) {
		w.reply(fuse.EIO, 0)
		return
	}
	dest := w.out()[:in.Size]
	var n uint32
	var status fuse.Status
	if in.Opcode == opListxattr {
		n, status = w.fs.ListXAttr(nil, &in.InHeader, dest)
	} else {
		name, _, _ := bytes.Cut(w.in[size[fuse.GetXAttrIn]():], nul)
		n, status = w.fs.GetXAttr(nil, &in.InHeader, alias(name), dest)
	}
	switch {
	case !status.Ok():
		n = in.Size // may have been begun
	case in.Size == 0:
		at[fuse.GetXAttrOut](w.out()).Size = n
		n = uint32(size[fuse.GetXAttrOut]())
	}
	w.reply(status, int(n))
}

// symlink has the new name, and then the target.
func symlink(w *worker) {
	name, rest, ok1 := bytes.Cut(w.in[inHeader:], nul)
	target, _, ok2 := bytes.Cut(rest, nul)
	if !ok1 || !ok2 {
		w.reply(fuse.EIO, 0)
		return
	}
	w.reply(w.fs.Symlink(nil, w.header(), string(target), string(name), at[fuse.EntryOut](w.out())), size[fuse.EntryOut]())
}

// rename is also RENAME2.
func rename(w *worker) {
	head := renameIn
	if w.header().Opcode == opRename2 {
		head = size[fuse.RenameIn]()
	}
	from, rest, ok1 := bytes.Cut(w.in[head:], nul)
	to, _, ok2 := bytes.Cut(rest, nul)
	if !ok1 || !ok2 {
		w.reply(fuse.EIO, 0)
		return
	}
	var in fuse.RenameIn
	copy(bytesOf(&in), w.in[:head])
	w.reply(w.fs.Rename(nil, &in, string(from), string(to)), 0)
}

func setXattr(w *worker) {
	head := setxattrIn
	if w.loop.capabilities&fuse.CAP_SETXATTR_EXT != 0 {
		head = size[fuse.SetXAttrIn]()
	}
	if len(w.in) < head {
		w.reply(fuse.EIO, 0)
		return
	}
	var in fuse.SetXAttrIn
	copy(bytesOf(&in), w.in[:head])
	name, value, ok := bytes.Cut(w.in[head:], nul)
	if !ok || len(value) != int(in.Size) {
		w.reply(fuse.EIO, 0)
		return
	}
	w.reply(w.fs.SetXAttr(nil, &in, string(name), value), 0)
}

// notifyReply brings what was asked for with a notification. Only tests ask.
func notifyReply(w *worker) {
	if w.loop.retrieved != nil {
		w.loop.retrieved(at[fuse.NotifyRetrieveIn](w.in), w.in[size[fuse.NotifyRetrieveIn]():])
	}
}

// list is READDIR and READDIRPLUS. The kernel offers as much room as it has; less than that is as good.
func listDir(w *worker) {
	in := at[fuse.ReadIn](w.in)
	in.Size = min(in.Size, uint32(len(w.out())))
	w.pass()
}
