package fs

import (
	"syscall"
	"testing"

	"github.com/hanwen/go-fuse/v2/fuse"

	"encfsrun/fs/vault/tree"
)

// TestOutsidersChangeNothing sends every request that changes something without a caller, as the kernel sends those of outsiders.
func TestOutsidersChangeNothing(t *testing.T) {
	m := newVolume(t).mount(t, volumeOptions{Options: Options{RefuseOutsiders: true}})
	root := fuse.InHeader{NodeId: uint64(tree.Root)}
	inside := root
	inside.Pid = 1
	var file fuse.CreateOut
	if status := m.fs.Create(nil, &fuse.CreateIn{InHeader: inside, Flags: syscall.O_RDWR, Mode: 0o644}, "f", &file); !status.Ok() {
		t.Fatal(status)
	}
	h := fuse.InHeader{NodeId: file.NodeId}
	var entry fuse.EntryOut
	write := func(h fuse.InHeader, flags uint32) fuse.Status {
		_, status := m.fs.Writev(nil, &fuse.WriteIn{InHeader: h, WriteFlags: flags}, [][]byte{[]byte("x")})
		return status
	}
	for name, status := range map[string]fuse.Status{
		"create":      m.fs.Create(nil, &fuse.CreateIn{InHeader: root, Mode: 0o644}, "g", new(fuse.CreateOut)),
		"tmpfile":     m.fs.Tmpfile(nil, &fuse.CreateIn{InHeader: root, Mode: 0o644}, new(fuse.CreateOut)),
		"mknod":       m.fs.Mknod(nil, &fuse.MknodIn{InHeader: root, Mode: syscall.S_IFIFO}, "g", &entry),
		"mkdir":       m.fs.Mkdir(nil, &fuse.MkdirIn{InHeader: root}, "g", &entry),
		"symlink":     m.fs.Symlink(nil, &root, "x", "g", &entry),
		"link":        m.fs.Link(nil, &fuse.LinkIn{InHeader: root, Oldnodeid: file.NodeId}, "g", &entry),
		"unlink":      m.fs.Unlink(nil, &root, "f"),
		"rmdir":       m.fs.Rmdir(nil, &root, "f"),
		"rename":      m.fs.Rename(nil, &fuse.RenameIn{InHeader: root, Newdir: root.NodeId}, "f", "g"),
		"setattr":     m.fs.SetAttr(nil, &fuse.SetAttrIn{SetAttrInCommon: fuse.SetAttrInCommon{InHeader: h, Valid: fuse.FATTR_SIZE}}, new(fuse.AttrOut)),
		"setxattr":    m.fs.SetXAttr(nil, &fuse.SetXAttrIn{InHeader: h}, "user.a", nil),
		"removexattr": m.fs.RemoveXAttr(nil, &h, "user.a"),
		"open":        m.fs.Open(nil, &fuse.OpenIn{InHeader: h, Flags: syscall.O_RDWR | syscall.O_TRUNC}, new(fuse.OpenOut)),
		"write":       write(h, 0),
		"fallocate":   m.fs.Fallocate(nil, &fuse.FallocateIn{InHeader: h, Length: 1}),
		"copy": func() fuse.Status {
			_, status := m.fs.CopyFileRange(nil, &fuse.CopyFileRangeIn{InHeader: h, NodeIdOut: file.NodeId, Len: 1})
			return status
		}(),
	} {
		if status != fuse.EACCES {
			t.Errorf("%s: %v, want EACCES", name, status)
		}
	}
	if s := m.fs.Stats(); s.Refused != 16 || s.DirtyBytes != 0 {
		t.Errorf("%d requests were refused, %d bytes written; want 16 and none", s.Refused, s.DirtyBytes)
	}
	if status := write(h, fuse.WRITE_CACHE); !status.Ok() {
		t.Errorf("a page of a mapping, which comes from nobody: %v", status)
	}
	m.fs.Release(nil, &fuse.ReleaseIn{InHeader: h, Flags: syscall.O_RDWR})
}
