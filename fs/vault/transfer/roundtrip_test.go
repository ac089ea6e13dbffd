package transfer

import (
	"encoding/binary"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
	"pgregory.net/rapid"

	"encfsrun/fs/vault/disk"
)

func TestRoundTrip(t *testing.T) {
	w := newWorkshop(t)
	w.one()
	s := newSafe(t)
	want := onDisk(t, w.top)
	r := s.mustPack(w.top, ImportOptions{})
	size := uint64(30 + 450_000 + 4 + 5<<20 + 100_000 + 10)
	if len(r.Notes) != 0 || r.Files != 9 || r.Dirs != 5 || r.Symlinks != 3 || r.Other != 1 || r.Added != 19 || r.Bytes != size {
		t.Errorf("report %+v", r)
	}
	dst, out := s.export()
	if len(out.Notes) != 0 || out.Files != r.Files || out.Dirs != r.Dirs || out.Symlinks != r.Symlinks || out.Other != r.Other || out.Bytes != size {
		t.Errorf("report of the export %+v", out)
	}
	mustEqual(t, "the export", want, onDisk(t, dst))
}

// The same, as an ordinary user and on a real disk.
func TestRoundTripOrdinaryUser(t *testing.T) {
	if !asOrdinaryUser(t) {
		return
	}
	w := newWorkshop(t)
	w.one()
	w.file("locked/file", "in a directory that is closed to its owner after it was written")
	w.link("locked/hard", "main.py")
	w.link("z-hard", "locked/file")
	s := newSafeAt(t, disk.OS(), t.TempDir()+"/app.vault")
	s.mustPack(w.top, ImportOptions{})
	want := onDisk(t, w.top)
	w.mode("locked", 0)
	if _, err := s.update(w.top, ImportOptions{}); err == nil || !strings.Contains(err.Error(), "locked: permission denied") {
		t.Errorf("an unreadable directory: %v", err)
	}
	w.mode("locked", 0o755)
	w.mode("setuid", 0)
	if _, err := s.update(w.top, ImportOptions{}); err == nil || !strings.Contains(err.Error(), "setuid: permission denied") {
		t.Errorf("an unreadable file: %v", err)
	}
	dst, r := s.export() // neither failure committed anything
	if len(r.Notes) != 0 {
		t.Errorf("notes %v", r.Notes)
	}
	mustEqual(t, "the export", want, onDisk(t, dst))
}

// A directory that its mode closes is exported all the same, with a hard link from elsewhere to a file in it.
func TestExportClosedDirectory(t *testing.T) {
	if !asOrdinaryUser(t) {
		return
	}
	w := newWorkshop(t)
	w.file("closed/file", "contents")
	w.dir("later")
	w.link("later/link", "closed/file")
	s := newSafe(t)
	s.mustPack(w.top, ImportOptions{})
	want := onDisk(t, w.top)
	s.putMode("closed", unix.S_IFDIR)
	dst, _ := s.export()
	var st unix.Stat_t
	if err := unix.Stat(dst+"/closed", &st); err != nil || st.Mode&0o7777 != 0 {
		t.Errorf("mode %o, %v", st.Mode, err)
	}
	w.do(unix.Chmod(dst+"/closed", 0o755))
	mustEqual(t, "the export", want, onDisk(t, dst))
}

// What only root can make, and what is left out.
func TestRoundTripRoot(t *testing.T) {
	needRoot(t)
	w := newWorkshop(t)
	w.file("owned", "x")
	w.file("acl", "x")
	w.file("capable", "x")
	w.dir("acls")
	w.symlink("link", "owned")
	w.do(os.Lchown(w.at("owned"), 1234, 2345))
	w.do(os.Lchown(w.at("link"), 12, 23))
	w.mode("owned", 0o6755)
	w.xattr("link", "trusted.link", "t")
	w.xattr("owned", "trusted.file", "t")
	w.xattr("capable", "security.capability", string(capability()))
	w.xattr("acl", "system.posix_acl_access", string(acl()))
	w.xattr("acls", "system.posix_acl_default", string(acl()))
	w.node("null", unix.S_IFCHR)
	w.node("block", unix.S_IFBLK)
	w.node("socket", unix.S_IFSOCK)
	want := onDisk(t, w.top)
	s := newSafe(t)
	r := s.mustPack(w.top, ImportOptions{})
	left := []Note{{NoteDevice, "block", ""}, {NoteDevice, "null", ""}, {NoteSocket, "socket", ""}}
	if !slices.Equal(r.Notes, left) {
		t.Errorf("notes %v, want %v", r.Notes, left)
	}
	for _, n := range left {
		delete(want, n.Path)
	}
	dst, _ := s.export()
	mustEqual(t, "the export", want, onDisk(t, dst))
}

// What an ordinary user can't make is noted, and what is another's is not setuid for the wrong one.
func TestExportRefused(t *testing.T) {
	if !asOrdinaryUser(t) {
		return
	}
	w := newWorkshop(t)
	w.file("a", "x")
	s := newSafe(t)
	s.mustPack(w.top, ImportOptions{})
	s.putMode("a", unix.S_IFREG|0o6755)
	s.putOwner("a", 0, 0)
	s.putXattr("a", "trusted.x", "v")
	dst, r := s.export()
	want := []Note{{NoteSetID, "a", ""}, {NoteXattr, "a", "trusted.x"}}
	if !slices.Equal(r.Notes, want) {
		t.Errorf("notes %v, want %v", r.Notes, want)
	}
	var st unix.Stat_t
	if err := unix.Stat(dst+"/a", &st); err != nil || st.Mode&0o7777 != 0o755 || int(st.Uid) != os.Geteuid() {
		t.Errorf("mode %o owner %d, %v", st.Mode, st.Uid, err)
	}
}

func needRoot(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Fatal("this test makes device nodes and files of others: run it as root")
	}
}

// acl is a POSIX ACL as the kernel has it: version 2; user, user 7, group, mask, other.
func acl() []byte {
	b := binary.LittleEndian.AppendUint32(nil, 2)
	for _, e := range [][3]uint32{{0x01, 6, 1<<32 - 1}, {0x02, 4, 7}, {0x04, 4, 1<<32 - 1}, {0x10, 4, 1<<32 - 1}, {0x20, 0, 1<<32 - 1}} {
		b = binary.LittleEndian.AppendUint16(b, uint16(e[0]))
		b = binary.LittleEndian.AppendUint16(b, uint16(e[1]))
		b = binary.LittleEndian.AppendUint32(b, e[2])
	}
	return b
}

// capability is a struct vfs_cap_data of revision 2 with CAP_NET_BIND_SERVICE.
func capability() []byte {
	b := binary.LittleEndian.AppendUint32(nil, 0x02000001)
	b = binary.LittleEndian.AppendUint32(b, 1<<10)
	return append(b, make([]byte, 12)...)
}

func TestTimesOfLastAccess(t *testing.T) {
	w := newWorkshop(t)
	w.file("file", "x")
	w.symlink("link", "file")
	w.dir("dir")
	for _, name := range []string{"file", "link", "dir"} {
		w.times(name, 1_600_000_000, 987_654_321)
	}
	s := newSafe(t)
	s.mustPack(w.top, ImportOptions{})
	dst, _ := s.export()
	for _, name := range []string{"file", "link", "dir"} {
		for _, top := range []string{w.top, dst} { // packing has left the source's alone, too
			var st unix.Stat_t
			w.do(unix.Lstat(top+"/"+name, &st))
			if top == w.top && name == "link" {
				continue // readlink has no way not to
			}
			if st.Atim.Sec != 1_600_000_001 || st.Atim.Nsec != 987_654_321 {
				t.Errorf("%s/%s was last accessed at %v", top, name, st.Atim)
			}
		}
	}
}

func TestNamesOfAnyBytes(t *testing.T) {
	w := newWorkshop(t)
	for c := 1; c < 256; c++ {
		if c != '/' && c != '.' {
			w.file(string([]byte{byte(c)}), string([]byte{byte(c)}))
			w.file("x"+string([]byte{byte(c)})+"/y", "")
		}
	}
	w.file("...", "")
	w.file(strings.Repeat("n", 255), "")
	w.symlink("target", strings.Repeat("t", 4000)+"\xff\n")
	s := newSafe(t)
	s.mustPack(w.top, ImportOptions{})
	dst, _ := s.export()
	mustEqual(t, "the export", onDisk(t, w.top), onDisk(t, dst))
}

// A directory of more entries than a batch, on both sides.
func TestLargeDirectory(t *testing.T) {
	w := newWorkshop(t)
	for i := range 2*batchSize + 10 {
		w.file(numbered(i), numbered(i))
	}
	s := newSafe(t)
	s.mustPack(w.top, ImportOptions{})
	dst, _ := s.export()
	mustEqual(t, "the export", onDisk(t, w.top), onDisk(t, dst))
	for i := range batchSize + 5 {
		w.remove(numbered(2 * i))
	}
	if r := s.mustUpdate(w.top, ImportOptions{}); r.Removed != batchSize+5 || r.Added != 0 {
		t.Errorf("report %+v", r)
	}
	dst, _ = s.export()
	mustEqual(t, "the export after the update", onDisk(t, w.top), onDisk(t, dst))
}

func numbered(i int) string { return fmt.Sprintf("f%07d", i) }

func TestRandomTrees(t *testing.T) {
	rapid.Check(t, func(r *rapid.T) {
		g := newGrower(t, r, 40)
		defer os.RemoveAll(g.top)
		for range 20 {
			g.change()
		}
		s := newSafe(t)
		s.mustPack(g.top, ImportOptions{})
		dst, _ := s.export()
		defer os.RemoveAll(dst)
		mustEqual(t, "the export", onDisk(t, g.top), onDisk(t, dst))
	})
}
