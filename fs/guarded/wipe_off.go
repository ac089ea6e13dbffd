//go:build nowipe

package guarded

// wiping says whether this build wipes at all; see the package comment.
const wiping = false

// Wipe does nothing in this build, so that tests which search the memory for
// secrets can show that they would find them.
//
//go:noinline
func Wipe(b []byte) {}
