package fs

import (
	"bytes"
	"os"
	"testing"

	"golang.org/x/sys/unix"
)

// TestWriteAndRemount makes a small tree, and finds it again on another mount.
func TestWriteAndRemount(t *testing.T) {
	v := newVolume(t)
	m := v.mount(t, volumeOptions{})
	big := bytes.Repeat([]byte("0123456789abcdef"), 300_000)
	do := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	do(os.Mkdir(m.path("d"), 0o755))
	do(os.WriteFile(m.path("d", "small"), []byte("hello"), 0o644))
	do(os.WriteFile(m.path("d", "big"), big, 0o600))
	do(os.WriteFile(m.path("gone"), big, 0o600))
	do(os.Remove(m.path("gone")))
	do(os.Rename(m.path("d", "small"), m.path("renamed")))
	do(os.Link(m.path("renamed"), m.path("d", "again")))
	do(os.Symlink("d/big", m.path("link")))
	do(unix.Setxattr(m.path("renamed"), "user.note", []byte("value"), 0))
	check := func() {
		t.Helper()
		for name, want := range map[string]string{"renamed": "hello", "d/again": "hello", "d/big": string(big), "link": string(big)} {
			if got, err := os.ReadFile(m.path(name)); err != nil || string(got) != want {
				t.Errorf("%s holds %d bytes (%v), want %d", name, len(got), err, len(want))
			}
		}
		buf := make([]byte, 100)
		if n, err := unix.Getxattr(m.path("renamed"), "user.note", buf); err != nil || string(buf[:n]) != "value" {
			t.Errorf("the attribute is %q, %v", buf[:max(n, 0)], err)
		}
		if _, err := os.Lstat(m.path("gone")); !os.IsNotExist(err) {
			t.Errorf("what was removed: %v", err)
		}
	}
	check()
	m.unmount(t)
	m = v.mount(t, volumeOptions{})
	check()
}
