package guarded

import "runtime"

// Wipe overwrites b with zeros. The compiler can't leave it out, even when b is
// never read again.
//
//go:noinline
func Wipe(b []byte) {
	clear(b)
	runtime.KeepAlive(b)
}
