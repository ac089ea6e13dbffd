package floor

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/hanwen/go-fuse/v2/posixtest"
	"golang.org/x/sys/unix"
)

// serveVariable makes the test binary serve a mount at the directory that it names: a process must not wait for itself.
const serveVariable = "ENCFSRUN_FLOOR_SERVES"

func TestMain(m *testing.M) {
	if dir := os.Getenv(serveVariable); dir != "" {
		os.Exit(serveAt(dir))
	}
	os.Exit(m.Run())
}

func serveAt(dir string) int {
	unix.Umask(0)
	dev, err := Mount(dir)
	if err == nil {
		fmt.Println("mounted")
		err = Serve(dev, New(os.Getenv("CACHED") != ""))
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

// mount mounts for a test.
func mount(t *testing.T, cached bool) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "mnt")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), serveVariable+"="+dir)
	if cached {
		cmd.Env = append(cmd.Env, "CACHED=1")
	}
	cmd.Stderr = os.Stderr
	said, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, 0); err != nil {
			t.Errorf("unmounting: %v", err)
			unix.Unmount(dir, unix.MNT_DETACH)
			cmd.Process.Kill()
		}
		if err := cmd.Wait(); err != nil {
			t.Errorf("serving: %v", err)
		}
	})
	if _, err := said.Read(make([]byte, 8)); err != nil {
		t.Fatalf("it does not mount: %v", err)
	}
	return dir
}

// What is measured has to be right as far as it goes. It has no extended attributes; with the kernel's own locks a process does
// not exclude itself, on ext4 neither.
func TestPosix(t *testing.T) {
	absent := map[string]bool{"XAttr": true, "XAttrLarge": true, "FcntlFlockLocksFile": true}
	for _, cached := range []bool{false, true} {
		for name, test := range posixtest.All {
			if !absent[name] {
				t.Run(fmt.Sprintf("%s, cached %v", name, cached), func(t *testing.T) { test(t, mount(t, cached)) })
			}
		}
	}
}

// TestContents writes, truncates and reads at random, beside a model in memory.
func TestContents(t *testing.T) {
	for _, cached := range []bool{false, true} {
		dir := mount(t, cached)
		for seed := range 20 {
			r := rand.New(rand.NewPCG(1, uint64(seed)))
			f, err := os.Create(filepath.Join(dir, fmt.Sprint("file", seed)))
			if err != nil {
				t.Fatal(err)
			}
			var model []byte
			for range 60 {
				offset := r.IntN(3 * chunkSize)
				switch r.IntN(4) {
				case 0:
					if err := f.Truncate(int64(offset)); err != nil {
						t.Fatal(err)
					}
					model = append(model, make([]byte, max(0, offset-len(model)))...)[:offset]
				default:
					data := bytes.Repeat([]byte{byte(r.IntN(255) + 1)}, r.IntN(2*chunkSize))
					if _, err := f.WriteAt(data, int64(offset)); err != nil {
						t.Fatal(err)
					}
					model = append(model, make([]byte, max(0, offset+len(data)-len(model)))...)
					copy(model[offset:], data)
				}
				found, err := os.ReadFile(f.Name())
				if err != nil || !bytes.Equal(found, model) {
					t.Fatalf("seed %d: %d bytes, want %d, that differ: %v", seed, len(found), len(model), err)
				}
			}
			f.Close()
		}
	}
}
