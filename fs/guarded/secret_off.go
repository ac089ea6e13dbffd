//go:build !goexperiment.runtimesecret

package guarded

// Do calls f. In a build with GOEXPERIMENT=runtimesecret it also erases what f
// leaves in registers, on the stack and on the heap.
func Do(f func()) { f() }
