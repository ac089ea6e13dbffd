package fs

import (
	"bufio"
	"bytes"
	"errors"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"encfsrun/fs/vault"
)

// TestPanicEndsTheProcess serves in a process of its own and lets a handler panic: the process must be gone, and not answer EIO
// and go on.
func TestPanicEndsTheProcess(t *testing.T) {
	dir := t.TempDir()
	cmd := child("serve", dir)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer unix.Unmount(dir, unix.MNT_DETACH)
	if line, err := bufio.NewReader(stdout).ReadString('\n'); line != "serving\n" {
		t.Fatalf("%q, %v: %s", line, err, &stderr)
	}
	if err := unix.Lstat(dir+"/missing", &unix.Stat_t{}); err != unix.ENOENT {
		t.Fatalf("before the panic: %v, want ENOENT", err)
	}
	if err := unix.Lstat(dir+"/panic", &unix.Stat_t{}); err != unix.ECONNABORTED && err != unix.ENOTCONN {
		t.Errorf("the call whose handler panicked: %v, want ECONNABORTED", err)
	}
	defer time.AfterFunc(10*time.Second, func() { cmd.Process.Kill() }).Stop()
	err = cmd.Wait()
	exit, ok := errors.AsType[*exec.ExitError](err)
	if !ok || exit.ExitCode() != 2 {
		t.Errorf("the process ended with %v, want status 2", err)
	}
	if !strings.Contains(stderr.String(), "the handler fails") || !strings.Contains(stderr.String(), "(*FS).Lookup") {
		t.Errorf("the trace does not show where it began:\n%s", &stderr)
	}
	if err := unix.Lstat(dir+"/another", &unix.Stat_t{}); err != unix.ENOTCONN {
		t.Errorf("after the panic: %v, want ENOTCONN", err)
	}
}

// TestNoMount gives NewServer what is no mount: it must fail, and keep no descriptor.
func TestNoMount(t *testing.T) {
	before := descriptors(t)
	dev, err := os.OpenFile("/dev/fuse", os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	f, cache, _ := newFS(t, newModel(), mountOptions{})
	defer cache.Close()
	if _, err := NewServer(dev, f, maxRead); err == nil {
		t.Error("a descriptor without a mount is served")
	}
	if _, err := NewServer(dev, f, maxRead); err == nil {
		t.Error("a closed descriptor is served")
	}
	if after := descriptors(t); after > before {
		t.Errorf("%d descriptors before, %d after", before, after)
	}
}

func descriptors(t *testing.T) int {
	t.Helper()
	list, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(list)
}

// TestServerKeepsNoDescriptor mounts and unmounts several times.
func TestServerKeepsNoDescriptor(t *testing.T) {
	cycle := func() { t.Run("mount", func(t *testing.T) { mount(t, newModel(), mountOptions{}) }) }
	cycle()
	before := descriptors(t)
	for range 5 {
		cycle()
	}
	if after := descriptors(t); after > before {
		t.Errorf("%d descriptors before, %d after", before, after)
	}
}

// TestMaxRead checks that a request of that size finds room, wherever in a file it begins.
func TestMaxRead(t *testing.T) {
	for _, budget := range []int64{1 << 20, 2 << 20, 3 << 20, 4 << 20, 5<<20 + 12345, 8 << 20, 64 << 20} {
		m := newModel()
		f, cache, _ := newFS(t, m, mountOptions{budget: budget})
		ino := m.file(1, "f", m.random(2<<20, false))
		n := MaxRead(budget)
		worst := 0
		for off := int64(0); off < 64<<10; off++ {
			spans, err := m.Spans(ino, off, n, nil)
			if err != nil {
				t.Fatal(err)
			}
			blocks := map[uint64]bool{}
			for _, s := range spans {
				blocks[s.Block] = true
			}
			worst = max(worst, len(blocks))
		}
		if worst > f.blocks.MaxRequest() && n > minRead {
			t.Errorf("budget %d: a read of %d bytes can need %d blocks, %d are allowed", budget, n, worst, f.blocks.MaxRequest())
		}
		cache.Close()
	}
	for budget, want := range map[int64]int{
		64 << 20: 1 << 20, 32 << 20: 1 << 20, 4 << 20: 128 << 10, 2 << 20: 64 << 10, 512 << 10: minRead, 0: minRead,
	} {
		if got := MaxRead(budget); got != want {
			t.Errorf("MaxRead(%d) = %d, want %d", budget, got, want)
		}
	}
	if maxRead/vault.BlockSize < 1 {
		t.Error("a read is less than a block")
	}
}
