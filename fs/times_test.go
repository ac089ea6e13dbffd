package fs

import (
	"errors"
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func setTimes(t testing.TB, path string, atime, mtime unix.Timespec) {
	t.Helper()
	must(t, unix.UtimesNanoAt(unix.AT_FDCWD, path, []unix.Timespec{atime, mtime}, unix.AT_SYMLINK_NOFOLLOW))
}

// TestTimesAreExact sets times from before 1970 to far ahead, to the nanosecond, and finds them again after a remount.
func TestTimesAreExact(t *testing.T) {
	v := newVolume(t)
	m := v.mount(t, volumeOptions{})
	must(t, errors.Join(os.WriteFile(m.path("f"), nil, 0o644), os.Mkdir(m.path("d"), 0o755), os.Symlink("x", m.path("l"))))
	atime, mtime := unix.Timespec{Sec: -123456789012, Nsec: 1}, unix.Timespec{Sec: 1 << 35, Nsec: 999999999}
	look := func() {
		t.Helper()
		for _, name := range []string{"f", "d", "l"} {
			if st := stat(t, m.path(name)); st.Atim != atime || st.Mtim != mtime || time.Since(time.Unix(st.Ctim.Unix())).Abs() > time.Hour {
				t.Errorf("%s: %v, %v, %v", name, st.Atim, st.Mtim, st.Ctim)
			}
		}
	}
	for _, name := range []string{"f", "d", "l"} {
		setTimes(t, m.path(name), atime, mtime)
	}
	look()
	setTimes(t, m.path("f"), unix.Timespec{Nsec: unix.UTIME_OMIT}, unix.Timespec{Nsec: unix.UTIME_NOW})
	if st := stat(t, m.path("f")); st.Atim != atime || time.Since(time.Unix(st.Mtim.Unix())).Abs() > time.Hour {
		t.Errorf("with UTIME_OMIT and UTIME_NOW: %v, %v", st.Atim, st.Mtim)
	}
	setTimes(t, m.path("f"), unix.Timespec{Nsec: unix.UTIME_OMIT}, mtime)
	m.unmount(t)
	m = v.mount(t, volumeOptions{})
	look()
}

// TestAccessTime follows the rules of relatime: a read sets it where it is not after the last change, or a day old.
func TestAccessTime(t *testing.T) {
	m := newVolume(t).mount(t, volumeOptions{})
	must(t, errors.Join(os.WriteFile(m.path("f"), []byte("x"), 0o644), os.Mkdir(m.path("d"), 0o755)))
	now := time.Now().Unix()
	read := map[string]func(flags int) error{
		"f": func(flags int) error {
			return with(m.path("f"), unix.O_RDONLY|flags, func(fd int) error { _, err := unix.Read(fd, make([]byte, 1)); return err })
		},
		"d": func(flags int) error {
			return with(m.path("d"), unix.O_RDONLY|unix.O_DIRECTORY|flags, func(fd int) error { _, err := unix.Getdents(fd, make([]byte, 4096)); return err })
		},
	}
	for name, read := range read {
		for _, c := range []struct {
			what         string
			atime, mtime int64
			flags        int
			changes      bool
		}{
			{"older than the modification", now - 100, now - 50, 0, true},
			{"the same as the modification", now - 50, now - 50, 0, true},
			{"newer than all", now + 50, now - 100, 0, false},
			{"a day old", now - 86400 - 5, now - 86400 - 10, 0, true},
			{"with O_NOATIME", now - 100, now - 50, unix.O_NOATIME, false},
		} {
			if name == "d" && c.flags != 0 {
				continue // READDIR comes without it
			}
			setTimes(t, m.path(name), unix.Timespec{Sec: c.atime, Nsec: 5}, unix.Timespec{Sec: c.mtime, Nsec: 5})
			must(t, read(c.flags))
			if st := stat(t, m.path(name)); (st.Atim.Sec != c.atime) != c.changes {
				t.Errorf("%s: an access time %s: changed %v", name, c.what, !c.changes)
			}
		}
	}
}

// TestBlocksAfterFlush: st_blocks counts what is not in the log yet, perhaps one too many beside what is; and after a flush, of which
// the kernel knows nothing, stat shows the true number.
func TestBlocksAfterFlush(t *testing.T) {
	m := newVolume(t).mount(t, volumeOptions{})
	f, err := os.Create(m.path("f"))
	must(t, err)
	defer f.Close()
	for i, step := range []struct {
		off    int64
		n      int
		blocks int64
	}{{0, 1000, 2}, {1000, 24, 2}, {500, 100, 2}, {1 << 20, 1024, 4}, {1024, 1, 5}} {
		_, err := f.WriteAt(make([]byte, step.n), step.off)
		must(t, err)
		before := stat(t, m.path("f")).Blocks
		must(t, f.Sync())
		if after := stat(t, m.path("f")).Blocks; before < step.blocks || before > step.blocks+1 || after != step.blocks {
			t.Errorf("write %d: %d blocks, and %d in the log, want %d", i, before, after, step.blocks)
		}
	}
}
