//go:build !nowipe

package guarded

import "runtime"

// wiping says whether this build wipes at all; see the package comment.
const wiping = true

// Wipe overwrites b with zeros. The compiler can't leave it out, even when b is
// never read again.
//
//go:noinline
func Wipe(b []byte) {
	clear(b)
	runtime.KeepAlive(b)
}
