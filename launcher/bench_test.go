package launcher_test

import (
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"encfsrun/launcher"
)

// BenchmarkStart reports medians of 30 of the whole life of /bin/true in
// milliseconds: executed plainly, and in a sandbox over a file system in this process.
func BenchmarkStart(b *testing.B) {
	plan := build(b, launcher.Options{Command: []string{"/bin/true"}})
	median := func(once func()) float64 {
		var times []time.Duration
		for range 30 {
			began := time.Now()
			once()
			times = append(times, time.Since(began))
		}
		slices.Sort(times)
		return float64(times[15].Microseconds()) / 1000
	}
	for b.Loop() {
		b.ReportMetric(median(func() {
			if err := exec.Command("/bin/true").Run(); err != nil {
				b.Fatal(err)
			}
		}), "plain-ms")
		b.ReportMetric(median(func() {
			if r := launch(b, plan, newMemory(), strings.NewReader(""), launcher.RunOptions{}); r.failure != nil {
				b.Fatal(r.failure)
			}
		}), "sandbox-ms")
	}
}
