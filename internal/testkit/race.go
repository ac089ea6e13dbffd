//go:build race

package testkit

// race says that this process runs under the race detector.
const race = true
