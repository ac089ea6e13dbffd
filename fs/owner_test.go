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

// TestNoSetIDOfOthers: who is shown as the owner of what is stored as another's leaves nothing that is setuid to that other, neither
// made so nor changed through a mapping; and a sandbox leaves nothing that is setuid at all.
func TestNoSetIDOfOthers(t *testing.T) {
	for _, sandbox := range []bool{false, true} {
		v := newVolume(t)
		m := v.mount(t, volumeOptions{others: true})
		must(t, os.Mkdir(m.path("d"), 0o755))
		create(t, m.path("packed"), actor{}, 0o6755, "x")
		create(t, m.path("kept"), actor{}, 0o6755, "x")
		create(t, m.path("own"), alice, 0o755, "x")
		m.unmount(t)

		options := Options{Owner: &Owner{UID: uint32(alice.uid), GID: uint32(alice.gid)}, RefuseOutsiders: sandbox}
		m = v.mount(t, volumeOptions{Options: options, others: true})
		letThrough(t, m.dir)
		alice.do(t, func() {
			must(t, with(m.path("d", "made"), unix.O_WRONLY|unix.O_CREAT, func(fd int) error { return unix.Fchmod(fd, 0o6755) }))
			must(t, unix.Mknod(m.path("d", "mknod"), unix.S_IFREG|0o6755, 0))
			must(t, unix.Chmod(m.path("own"), 0o6755))
			must(t, with(m.path("packed"), unix.O_RDWR, func(fd int) error {
				b, err := unix.Mmap(fd, 0, 1, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
				if err != nil {
					return err
				}
				b[0] = 'y'
				return errors.Join(unix.Msync(b, unix.MS_SYNC), unix.Munmap(b))
			}))
		})
		m.unmount(t)

		m = v.mount(t, volumeOptions{})
		for name, want := range map[string]bool{"d/made": false, "d/mknod": false, "packed": false, "kept": true, "own": !sandbox} {
			if mode := stat(t, m.path(name)).Mode; (mode&(unix.S_ISUID|unix.S_ISGID) != 0) != want {
				t.Errorf("sandbox %v: %s is stored with mode %o", sandbox, name, mode)
			}
		}
		m.unmount(t)
	}
}
