package fs

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// TestXattrRules sets attributes with each flag and in each namespace.
func TestXattrRules(t *testing.T) {
	onMounts(t, func(t *testing.T, v *volume, m *mounted) {
		path := m.path("f")
		create(t, path, alice, 0o644, "content")
		set := func(name string, n, flags int) error {
			return unix.Setxattr(path, name, bytes.Repeat([]byte("v"), n), flags)
		}
		long := strings.Repeat("n", 255-len("user."))
		for _, c := range []struct {
			what string
			got  error
			want error
		}{
			{"replace what is not there", set("user.a", 1, unix.XATTR_REPLACE), unix.ENODATA},
			{"create", set("user.a", 1, unix.XATTR_CREATE), nil},
			{"create what is there", set("user.a", 1, unix.XATTR_CREATE), unix.EEXIST},
			{"replace", set("user.a", 2, unix.XATTR_REPLACE), nil},
			{"an empty value", set("user.empty", 0, 0), nil},
			{"the longest value", set("user.b", 64<<10, 0), nil},
			{"a longer value", set("user.c", 64<<10+1, 0), unix.E2BIG},
			{"the longest name", set("user."+long, 1, 0), nil},
			{"a longer name", set("user."+long+"n", 1, 0), unix.ERANGE},
			{"trusted", set("trusted.a", 1, 0), nil},
			{"security", set("security.a", 1, 0), nil},
			{"no namespace", set("a", 1, 0), unix.EOPNOTSUPP},
			{"another namespace", set("other.a", 1, 0), unix.EOPNOTSUPP},
			{"a namespace alone", set("user.", 1, 0), unix.EINVAL},
			{"system", set("system.a", 1, 0), unix.EOPNOTSUPP},
			{"remove what is not there", unix.Removexattr(path, "user.zzz"), unix.ENODATA},
		} {
			wantErr(t, c.what, c.got, c.want)
		}
		must(t, os.Symlink("f", m.path("link")))
		wantErr(t, "user on a symlink", unix.Lsetxattr(m.path("link"), "user.a", nil, 0), unix.EPERM)
		wantErr(t, "trusted on a symlink", unix.Lsetxattr(m.path("link"), "trusted.a", nil, 0), nil)
		want := []string{"security.a", "trusted.a", "user.a", "user.b", "user.empty", "user." + long}
		if got := xattrNames(t, path); !slices.Equal(got, want) {
			t.Errorf("names %q, want %q", got, want)
		}
		alice.do(t, func() {
			if got := xattrNames(t, path); slices.Contains(got, "trusted.a") {
				t.Errorf("a user sees %q", got)
			}
			_, err := unix.Getxattr(path, "trusted.a", make([]byte, 10))
			wantErr(t, "trusted by a user", err, unix.ENODATA)
			wantErr(t, "setting trusted as a user", set("trusted.b", 1, 0), unix.EPERM)
		})
		m.unmount(t)
		m = v.mount(t, volumeOptions{})
		path = m.path("f")
		if got := xattrNames(t, path); !slices.Equal(got, want) {
			t.Errorf("names %q after a remount, want %q", got, want)
		}
		value := make([]byte, 64<<10)
		if n, err := unix.Getxattr(path, "user.b", value); err != nil || n != 64<<10 || !slices.Equal(value, bytes.Repeat([]byte("v"), n)) {
			t.Errorf("the longest value has %d bytes after a remount, %v", n, err)
		}
		must(t, unix.Removexattr(path, "user.b"))
		if _, err := unix.Getxattr(path, "user.b", nil); err != unix.ENODATA {
			t.Errorf("after its removal: %v", err)
		}
	})
}

func xattrNames(t testing.TB, path string) []string {
	t.Helper()
	buf := make([]byte, 64<<10)
	n, err := unix.Llistxattr(path, buf)
	must(t, err)
	names := strings.Split(strings.TrimSuffix(string(buf[:n]), "\x00"), "\x00")
	slices.Sort(names)
	return names
}

// TestXattrListLimit fills the list of one file: what listxattr(2) could not answer is refused.
func TestXattrListLimit(t *testing.T) {
	m := newVolume(t).mount(t, volumeOptions{})
	must(t, os.WriteFile(m.path("f"), nil, 0o644))
	var err error
	n := 0
	for ; err == nil; n++ {
		err = unix.Setxattr(m.path("f"), fmt.Sprintf("user.%03d%s", n, strings.Repeat("x", 240)), []byte("v"), 0)
	}
	if !errors.Is(err, unix.ENOSPC) || n-1 != 65536/249 {
		t.Errorf("after %d names of 248 bytes: %v, want ENOSPC after %d", n-1, err, 65536/249)
	}
	if got := len(xattrNames(t, m.path("f"))); got != n-1 {
		t.Errorf("%d names are listed, want %d", got, n-1)
	}
}
