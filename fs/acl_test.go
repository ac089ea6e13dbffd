package fs

import (
	"fmt"
	"os"
	"testing"

	"golang.org/x/sys/unix"
)

// none stands for the id of an entry that has none.
func none() uint32 { return ^uint32(0) }

func entryOf(tag, perm uint16, id uint32) aclEntry { return aclEntry{tag, perm, id} }

// grant is an ACL that gives a user something beside what a mode says.
func grant(user, group, mask, other uint16, named uint32, perm uint16) acl {
	return acl{
		entryOf(aclUserObj, user, none()), entryOf(aclUser, perm, named), entryOf(aclGroupObj, group, none()),
		entryOf(aclMask, mask, none()), entryOf(aclOther, other, none()),
	}
}

func getACL(t testing.TB, path, name string) acl {
	t.Helper()
	buf := make([]byte, 1000)
	n, err := unix.Lgetxattr(path, name, buf)
	if err == unix.ENODATA {
		return nil
	}
	must(t, err)
	list, err := parseACL(buf[:n])
	must(t, err)
	return list
}

// TestACLDecides: the kernel obeys an ACL; the mask bounds it, and chmod changes the mask.
func TestACLDecides(t *testing.T) {
	onMounts(t, func(t *testing.T, _ *volume, m *mounted) {
		path := m.path("f")
		create(t, path, alice, 0o600, "content")
		open := func() error { return with(path, unix.O_RDWR, func(int) error { return nil }) }
		may := func(when string, want error) {
			t.Helper()
			bob.do(t, func() { wantErr(t, when, open(), want) })
		}
		may("without an ACL", unix.EACCES)
		must(t, unix.Setxattr(path, accessACL, grant(6, 0, 6, 0, 1002, 6).encode(), 0))
		may("with one", nil)
		if mode := stat(t, path).Mode & 0o7777; mode != 0o660 {
			t.Errorf("the mode is %o: its group bits are to be the mask, 660", mode)
		}
		must(t, unix.Chmod(path, 0o640))
		may("with a mask of r", unix.EACCES)
		if list := getACL(t, path, accessACL); list.find(aclMask).perm != 4 || list.find(aclUser).perm != 6 {
			t.Errorf("after chmod 640 the ACL is %v", list)
		}
		must(t, unix.Chmod(path, 0o660))
		may("with the mask back", nil)
		must(t, unix.Removexattr(path, accessACL))
		may("after the ACL was removed", unix.EACCES)
		if mode := stat(t, path).Mode & 0o7777; mode != 0o660 {
			t.Errorf("the mode is %o after the ACL was removed, want 660 as before", mode)
		}
		must(t, unix.Setxattr(path, accessACL, acl{{aclUserObj, 6, none()}, {aclGroupObj, 4, none()}, {aclOther, 0, none()}}.encode(), 0))
		if getACL(t, path, accessACL) != nil || stat(t, path).Mode&0o7777 != 0o640 {
			t.Errorf("an ACL that says no more than a mode: mode %o, and it is kept: %v", stat(t, path).Mode, getACL(t, path, accessACL))
		}
	})
}

// TestDefaultACL: what is made in a directory gets its default ACL, cut down to the mode that was asked for, and no umask.
func TestDefaultACL(t *testing.T) {
	onMounts(t, func(t *testing.T, v *volume, m *mounted) {
		must(t, os.Mkdir(m.path("d"), 0o755))
		standard := grant(7, 5, 7, 0, 1002, 7)
		must(t, unix.Setxattr(m.path("d"), defaultACL, standard.encode(), 0))
		unix.Umask(0o77)
		defer unix.Umask(0)
		must(t, os.Mkdir(m.path("d", "dir"), 0o777))
		must(t, with(m.path("d", "file"), unix.O_CREAT|unix.O_WRONLY, func(int) error { return nil }))
		must(t, unix.Mknod(m.path("d", "fifo"), unix.S_IFIFO|0o640, 0))
		must(t, unix.Symlink("x", m.path("d", "link")))
		must(t, os.Mkdir(m.path("plain"), 0o777))
		for name, want := range map[string]struct {
			mode     uint32
			access   acl
			standard acl
		}{
			"d/dir":  {0o770, grant(7, 5, 7, 0, 1002, 7), standard},
			"d/file": {0o660, grant(6, 5, 6, 0, 1002, 7), nil},
			"d/fifo": {0o640, grant(6, 5, 4, 0, 1002, 7), nil},
			"d/link": {0o777, nil, nil},
			"plain":  {0o700, nil, nil},
		} {
			path := m.path(name)
			if mode := stat(t, path).Mode & 0o7777; mode != want.mode {
				t.Errorf("%s: mode %o, want %o", name, mode, want.mode)
			}
			if name == "d/link" {
				continue
			}
			if got := getACL(t, path, accessACL); fmt.Sprint(got) != fmt.Sprint(want.access) {
				t.Errorf("%s: access ACL %v, want %v", name, got, want.access)
			}
			if got := getACL(t, path, defaultACL); fmt.Sprint(got) != fmt.Sprint(want.standard) {
				t.Errorf("%s: default ACL %v, want %v", name, got, want.standard)
			}
		}
		if err := unix.Setxattr(m.path("d", "file"), defaultACL, standard.encode(), 0); err != unix.EACCES {
			t.Errorf("a default ACL for a file: %v, want EACCES", err)
		}
	})
}

// TestSettingACLClearsSetgid: by who is not in the file's group.
func TestSettingACLClearsSetgid(t *testing.T) {
	onMounts(t, func(t *testing.T, _ *volume, m *mounted) {
		path := m.path("f")
		must(t, os.WriteFile(path, nil, 0o600))
		must(t, unix.Lchown(path, 1001, 4711))
		for _, c := range []struct {
			who  actor
			want uint32
		}{{alice, 0o770}, {actor{uid: 1001, gid: 1001, groups: []int{4711}}, 0o2770}, {actor{}, 0o2770}} {
			must(t, unix.Chmod(path, 0o2770))
			c.who.do(t, func() {
				wantErr(t, "setxattr", unix.Setxattr(path, accessACL, grant(7, 7, 7, 0, 1002, 7).encode(), 0), nil)
			})
			if got := stat(t, path).Mode & 0o7777; got != c.want {
				t.Errorf("user %d with groups %v: mode 2770 becomes %o, want %o", c.who.uid, c.who.groups, got, c.want)
			}
		}
	})
}

// TestParseACL refuses what is no ACL.
func TestParseACL(t *testing.T) {
	valid := grant(6, 4, 6, 0, 1002, 6).encode()
	if _, err := parseACL(valid); err != nil {
		t.Fatal(err)
	}
	for name, b := range map[string][]byte{
		"nothing":           nil,
		"cut":               valid[:len(valid)-1],
		"no entries":        valid[:4],
		"another version":   append([]byte{3}, valid[1:]...),
		"an unknown tag":    append(append([]byte{}, valid...), 0x40, 0, 0, 0, 0, 0, 0, 0),
		"permissions of 15": append(append([]byte{}, valid[:6]...), append([]byte{15}, valid[7:]...)...),
		"no other":          valid[:len(valid)-8],
	} {
		if list, err := parseACL(b); err == nil {
			t.Errorf("%s is taken for %v", name, list)
		}
	}
}
