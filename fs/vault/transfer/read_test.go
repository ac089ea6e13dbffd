package transfer

import (
	"bytes"
	"os"
	"testing"

	"golang.org/x/sys/unix"

	"encfsrun/fs/guarded"
)

// A file system that reads into our pages by itself is refused secret memory; what O_DIRECT does on a disk, FUSE and network
// file systems do on their own.
func TestReadDirect(t *testing.T) {
	w := newWorkshop(t)
	want := bytes.Repeat([]byte("0123456789abcdef"), 3*directSize/16)
	w.file("file", string(want))
	fd, err := unix.Open(w.at("file"), unix.O_RDONLY|unix.O_DIRECT|unix.O_CLOEXEC, 0)
	w.do(err)
	defer unix.Close(fd)
	b, err := guarded.NewBuffer(len(want))
	w.do(err)
	defer b.Destroy()
	d := &descriptor{fd: fd}
	if n, err := d.readDirect(b.Bytes()); err != nil || n != directSize || !bytes.Equal(b.Bytes()[:n], want[:n]) {
		t.Fatalf("read %d bytes, %v", n, err)
	}
	// This takes the way above by itself where the kernel has secret memory.
	guarded.Wipe(b.Bytes())
	m := &importer{source: &source{}}
	if err := m.readFull(d, &entry{}, b.Bytes()); err != nil || !bytes.Equal(b.Bytes(), want) {
		t.Fatalf("read wrong bytes, or %v", err)
	}
	if n, err := d.Read(make([]byte, 1)); n != 0 || err == nil {
		t.Errorf("at the end: %d, %v", n, err)
	}
}

func TestNextData(t *testing.T) {
	w := newWorkshop(t)
	w.sparse("sparse")
	f, err := os.Open(w.at("sparse"))
	w.do(err)
	defer f.Close()
	const mib = 1 << 20
	for _, c := range []struct {
		off, size int64
		want      span
	}{
		{0, 5 * mib, span{mib, mib + 8192}},
		{mib + 10, 5 * mib, span{mib + 10, mib + 8192}},
		{mib + 8192, 5 * mib, span{3 * mib, 3*mib + 8192}},
		{3*mib + 8192, 5 * mib, span{5 * mib, 5 * mib}},
		{0, mib + 5, span{mib, mib + 5}}, // what stat said decides, whatever came later
		{0, mib, span{mib, mib}},
		{0, 0, span{0, 0}},
		{0, 9 * mib, span{mib, mib + 8192}},
		{6 * mib, 9 * mib, span{9 * mib, 9 * mib}},
	} {
		if got, err := nextData(int(f.Fd()), c.off, c.size); err != nil || got != c.want {
			t.Errorf("%d of %d: %v, %v; want %v", c.off, c.size, got, err, c.want)
		}
	}
}
