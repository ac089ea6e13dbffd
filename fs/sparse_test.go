package fs

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"testing"

	"golang.org/x/sys/unix"
)

// TestHugeSparseFile writes at both ends of the largest file there can be, and finds data and holes.
func TestHugeSparseFile(t *testing.T) {
	onMounts(t, func(t *testing.T, v *volume, m *mounted) {
		const end = 1<<63 - 1 - 4096 // the page cache can't hold more
		f, err := os.Create(m.path("f"))
		must(t, err)
		places := []int64{0, 1 << 40, end - 5}
		for _, off := range places {
			_, err := f.WriteAt([]byte("data!"), off)
			must(t, err)
		}
		look := func(f *os.File) {
			t.Helper()
			info, err := f.Stat()
			must(t, err)
			if info.Size() != end {
				t.Errorf("size %d, want %d", info.Size(), int64(end))
			}
			at := int64(0)
			for _, off := range places {
				data, err := unix.Seek(int(f.Fd()), at, unix.SEEK_DATA)
				if err != nil || data != off {
					t.Errorf("data at %d, %v; want %d", data, err, off)
				}
				hole, err := unix.Seek(int(f.Fd()), data, unix.SEEK_HOLE)
				if err != nil || hole != off+5 {
					t.Errorf("a hole at %d, %v; want %d", hole, err, off+5)
				}
				b := make([]byte, 7)
				if n, err := f.ReadAt(b, off); off+7 <= end && (err != nil || string(b[:n]) != "data!\x00\x00") {
					t.Errorf("read %q, %v", b[:n], err)
				}
				at = hole
			}
			if _, err := unix.Seek(int(f.Fd()), end, unix.SEEK_DATA); err != unix.ENXIO {
				t.Errorf("data behind the end: %v, want ENXIO", err)
			}
		}
		look(f)
		must(t, f.Close())
		m.unmount(t)
		m = v.mount(t, volumeOptions{})
		f, err = os.OpenFile(m.path("f"), os.O_RDWR, 0)
		must(t, err)
		defer f.Close()
		look(f)
		_, err = f.WriteAt([]byte("x"), 1<<63-1)
		if !errors.Is(err, unix.EFBIG) && !errors.Is(err, unix.EINVAL) {
			t.Errorf("a write at the greatest offset: %v, want EFBIG", err)
		}
		must(t, f.Truncate(1))
		if n := stat(t, m.path("f")).Blocks; n != 1 {
			t.Errorf("cut to one byte it has %d blocks", n)
		}
	})
}

// TestHolesAreZeros: what lies between writes, behind a cut, and where something was punched reads as zeros: out of the log, where each
// step is synced or read, and out of what waits in memory.
func TestHolesAreZeros(t *testing.T) {
	onMounts(t, func(t *testing.T, _ *volume, m *mounted) {
		for _, after := range []string{"sync", "read", "nothing"} {
			f, err := os.Create(m.path("f"))
			must(t, err)
			step := func(what string, err error, want []byte) {
				t.Helper()
				must(t, err)
				switch after {
				case "sync":
					must(t, f.Sync())
				case "nothing":
					if what != "allocate" { // the last step
						return
					}
				}
				got := make([]byte, len(want)+10)
				n, err := f.ReadAt(got, 0)
				if err != io.EOF || !bytes.Equal(got[:n], want) {
					t.Errorf("%s, and %s: %s, %v; want %s", what, after, squeeze(got[:n]), err, squeeze(want))
				}
			}
			want := bytes.Repeat([]byte("a"), 100_000)
			_, err = f.WriteAt(want, 0)
			step("write", err, want)
			err = f.Truncate(50_001)
			step("cut", err, want[:50_001])
			clear(want[50_001:])
			err = f.Truncate(100_000)
			step("grow", err, want)
			_, err = f.WriteAt([]byte("b"), 99_999)
			want[99_999] = 'b'
			step("write at the end", err, want)
			err = unix.Fallocate(int(f.Fd()), unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, 10, 33_000)
			clear(want[10:33_010])
			step("punch", err, want)
			err = unix.Fallocate(int(f.Fd()), unix.FALLOC_FL_ZERO_RANGE, 90_000, 20_000)
			want = append(want[:90_000], make([]byte, 20_000)...)
			step("zero", err, want)
			err = unix.Fallocate(int(f.Fd()), unix.FALLOC_FL_ZERO_RANGE|unix.FALLOC_FL_KEEP_SIZE, 109_000, 20_000)
			step("zero with the same size", err, want)
			err = unix.Fallocate(int(f.Fd()), unix.FALLOC_FL_KEEP_SIZE, 0, 500_000)
			step("allocate with the same size", err, want)
			err = unix.Fallocate(int(f.Fd()), 0, 0, 120_000)
			want = append(want, make([]byte, 10_000)...)
			step("allocate", err, want)
			for _, mode := range []uint32{unix.FALLOC_FL_COLLAPSE_RANGE, unix.FALLOC_FL_INSERT_RANGE, unix.FALLOC_FL_PUNCH_HOLE} {
				wantErr(t, fmt.Sprint("fallocate mode ", mode), unix.Fallocate(int(f.Fd()), mode, 0, 4096), unix.EOPNOTSUPP)
			}
			must(t, f.Close())
			must(t, os.Remove(m.path("f")))
		}
	})
}

// TestManySmallPieces: a file that was made durable with each of its small pieces is read in one piece.
func TestManySmallPieces(t *testing.T) {
	v := newVolume(t)
	m := v.mount(t, volumeOptions{budget: 4 << 20})
	f, err := os.Create(m.path("f"))
	must(t, err)
	var want []byte
	for i := range 300 {
		line := bytes.Repeat([]byte{byte(i)}, 50+i)
		_, err := f.Write(line)
		must(t, errors.Join(err, f.Sync()))
		want = append(want, line...)
	}
	must(t, f.Close())
	for range 2 {
		if got, err := os.ReadFile(m.path("f")); err != nil || !bytes.Equal(got, want) {
			t.Errorf("read %d bytes, %v; want %d", len(got), err, len(want))
		}
		m.unmount(t)
		m = v.mount(t, volumeOptions{budget: 4 << 20})
	}
}

// TestLittleMemory writes far more than the dirty memory holds, to many files at once.
func TestLittleMemory(t *testing.T) {
	v := newVolume(t)
	m := v.mount(t, volumeOptions{budget: 4 << 20, dirty: 600 << 10})
	var files []*os.File
	for i := range 40 {
		f, err := os.Create(m.path(fmt.Sprint(i)))
		must(t, err)
		files = append(files, f)
	}
	for round := range 20 {
		for i, f := range files {
			_, err := f.WriteAt([]byte(fmt.Sprintf("%d in %d.", round, i)), int64(round*40_000+i))
			must(t, err)
		}
	}
	for i, f := range files {
		for round := range 20 {
			want := fmt.Sprintf("%d in %d.", round, i)
			got := make([]byte, len(want))
			if _, err := f.ReadAt(got, int64(round*40_000+i)); err != nil || string(got) != want {
				t.Errorf("file %d: %q, %v; want %q", i, got, err, want)
			}
		}
		must(t, f.Close())
	}
}
