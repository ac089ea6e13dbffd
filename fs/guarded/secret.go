//go:build goexperiment.runtimesecret

package guarded

import "runtime/secret"

// Do calls f and then erases the registers and the stack that f used; what f
// allocated is erased when it is collected. Make key schedules and derived keys
// inside it. In a build without GOEXPERIMENT=runtimesecret it only calls f.
func Do(f func()) { secret.Do(f) }
