package transfer

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"encfsrun/fs/vault"
	"encfsrun/fs/vault/disk"
)

// manyFiles makes files of size bytes, perDir in each directory.
func manyFiles(t testing.TB, files, perDir, size int) string {
	t.Helper()
	top := filepath.Join(t.TempDir(), "src")
	content := []byte(strings.Repeat("x", size))
	for i := range files {
		dir := filepath.Join(top, fmt.Sprint(i/perDir))
		if i%perDir == 0 {
			if err := os.MkdirAll(dir, 0o755); err != nil {
				t.Fatal(err)
			}
		}
		if err := os.WriteFile(filepath.Join(dir, fmt.Sprint("module_", i, ".py")), content, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return top
}

// heap samples what the heap holds until stop is called, which returns the most.
func heap() (stop func() uint64) {
	done, most := make(chan struct{}), make(chan uint64)
	go func() {
		var peak uint64
		tick := time.NewTicker(10 * time.Millisecond)
		defer tick.Stop()
		for {
			var m runtime.MemStats
			runtime.ReadMemStats(&m)
			peak = max(peak, m.HeapInuse)
			select {
			case <-done:
				most <- peak
				return
			case <-tick.C:
			}
		}
	}()
	return func() uint64 {
		close(done)
		return <-most
	}
}

// Packing takes little more memory than the tree: 100 MB for a million files are allowed, so a tenth of it for a tenth of them, and
// the 16 MiB of ciphertext that are kept until they are durable, whatever is packed.
func TestMemoryOfManyFiles(t *testing.T) {
	files := 100_000
	if testing.Short() {
		files /= 10
	}
	for name, perDir := range map[string]int{"in one directory": files, "in many directories": 100} {
		t.Run(name, func(t *testing.T) {
			top := manyFiles(t, files, perDir, 500)
			s := newSafeAt(t, disk.OS(), t.TempDir()+"/app.vault")
			runtime.GC()
			var before runtime.MemStats
			runtime.ReadMemStats(&before)
			stop := heap()
			start := time.Now()
			r := s.mustPack(top, ImportOptions{})
			took := time.Since(start)
			peak := stop() - before.HeapInuse
			var ofTree uint64
			s.read(func(v *vault.Vault) { ofTree = v.Stats().Memory })
			t.Logf("%d files in %v; at most %d KiB of heap, the tree among them with %d KiB", r.Files, took, peak>>10, ofTree>>10)
			if r.Files != uint64(files) || peak > ofTree+(30+16)<<20 {
				t.Errorf("packed %d files with %d KiB beside the tree", r.Files, (peak-ofTree)>>10)
			}
		})
	}
}

func BenchmarkImport(b *testing.B) {
	for _, c := range []struct{ files, size int }{{10_000, 500}, {5_000, 20_000}, {1, 256 << 20}} {
		b.Run(fmt.Sprintf("%d_files_of_%d", c.files, c.size), func(b *testing.B) {
			top := manyFiles(b, c.files, 50, c.size)
			b.SetBytes(int64(c.files * c.size))
			for b.Loop() {
				dir, err := os.MkdirTemp(b.TempDir(), "")
				if err != nil {
					b.Fatal(err)
				}
				s := newSafeAt(b, disk.OS(), dir+"/app.vault")
				s.mustPack(top, ImportOptions{})
				b.StopTimer()
				os.RemoveAll(dir)
				b.StartTimer()
			}
			b.ReportMetric(float64(c.files)*float64(b.N)/b.Elapsed().Seconds(), "files/s")
		})
	}
}

func BenchmarkUpdateWithoutChange(b *testing.B) {
	top := manyFiles(b, 5_000, 50, 20_000)
	s := newSafeAt(b, disk.OS(), b.TempDir()+"/app.vault")
	s.mustPack(top, ImportOptions{})
	b.SetBytes(5_000 * 20_000)
	for b.Loop() {
		s.mustUpdate(top, ImportOptions{})
	}
}

func BenchmarkExport(b *testing.B) {
	for _, c := range []struct{ files, size int }{{10_000, 500}, {1, 256 << 20}} {
		b.Run(fmt.Sprintf("%d_files_of_%d", c.files, c.size), func(b *testing.B) {
			top := manyFiles(b, c.files, 50, c.size)
			s := newSafeAt(b, disk.OS(), b.TempDir()+"/app.vault")
			s.mustPack(top, ImportOptions{})
			b.SetBytes(int64(c.files * c.size))
			s.read(func(v *vault.Vault) {
				for b.Loop() {
					dst := b.TempDir() + "/out"
					if _, err := Export(context.Background(), v, "", dst, ExportOptions{}); err != nil {
						b.Fatal(err)
					}
					b.StopTimer()
					os.RemoveAll(dst)
					b.StartTimer()
				}
			})
		})
	}
}
