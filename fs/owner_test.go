package fs

import (
	"errors"
	"os"
	"testing"

	"golang.org/x/sys/unix"
)

// TestOwnerOfWritable: with Options.Owner everything is shown as his, also what others make; he can't give anything away; and what is
// stored stays as it was packed.
func TestOwnerOfWritable(t *testing.T) {
	v := newVolume(t)
	m := v.mount(t, volumeOptions{})
	must(t, errors.Join(os.Mkdir(m.path("d"), 0o755), os.WriteFile(m.path("d", "packed"), []byte("x"), 0o4755)))
	must(t, errors.Join(unix.Lchown(m.path("d"), 70000, 70001), unix.Lchown(m.path("d", "packed"), 80000, 80001)))
	m.unmount(t)

	m = v.mount(t, volumeOptions{Options: Options{Owner: &Owner{UID: 1001, GID: 1001}}, others: true})
	letThrough(t, m.dir)
	alice.do(t, func() {
		wantErr(t, "create", os.WriteFile(m.path("d", "new"), []byte("x"), 0o644), nil)
		wantErr(t, "mkdir", os.Mkdir(m.path("d", "sub"), 0o755), nil)
		wantErr(t, "chmod of what another packed", os.Chmod(m.path("d", "packed"), 0o600), nil)
		wantErr(t, "write to it", os.WriteFile(m.path("d", "packed"), []byte("y"), 0), nil)
		wantErr(t, "chown to himself", unix.Lchown(m.path("d", "packed"), 1001, 1001), nil)
		wantErr(t, "chown to another", unix.Lchown(m.path("d", "packed"), 1002, -1), unix.EPERM)
	})
	wantErr(t, "chown by root", unix.Lchown(m.path("d", "packed"), 0, 0), unix.EPERM)
	wantErr(t, "chgrp by root", unix.Lchown(m.path("d", "packed"), -1, 0), unix.EPERM)
	must(t, os.WriteFile(m.path("d", "by root"), nil, 0o644))
	for _, name := range []string{"d", "d/packed", "d/new", "d/sub", "d/by root"} {
		if st := stat(t, m.path(name)); st.Uid != 1001 || st.Gid != 1001 {
			t.Errorf("%s is shown as %d:%d's", name, st.Uid, st.Gid)
		}
	}
	m.unmount(t)

	m = v.mount(t, volumeOptions{})
	for name, want := range map[string][2]uint32{
		"d": {70000, 70001}, "d/packed": {80000, 80001}, "d/new": {70000, 70001}, "d/sub": {70000, 70001}, "d/by root": {70000, 70001},
	} {
		if st := stat(t, m.path(name)); st.Uid != want[0] || st.Gid != want[1] {
			t.Errorf("%s is stored as %d:%d's, want %d:%d", name, st.Uid, st.Gid, want[0], want[1])
		}
	}
}
