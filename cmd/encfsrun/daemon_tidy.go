package main

import (
	"runtime"
	"time"

	"encfsrun/fs/guarded"
)

// idleTime is how long no block is decrypted before the daemon counts as idle.
const idleTime = time.Second

// tidyWhenIdle collects garbage once after each burst of decryption. The standard library's AES copies a key into the heap for
// each block that is opened; what guarded.Do allocated is erased by the collector when it is unreachable, and without work there
// would be no collection: the copies would lie there for as long as nobody reads, for whoever gets at the memory or the swap.
func tidyWhenIdle(cache *guarded.Cache, done <-chan struct{}) {
	const never = ^uint64(0)
	seen, tidied := never, never // loads of blocks; opening the vault has decrypted some too
	tick := time.NewTicker(idleTime)
	defer tick.Stop()
	for {
		select {
		case <-done:
			return
		case <-tick.C:
		}
		loads := cache.Stats().Misses
		if loads == seen && loads != tidied {
			runtime.GC()
			tidied = loads
		}
		seen = loads
	}
}
