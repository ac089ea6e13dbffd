package fs

import (
	"fmt"
	"maps"
	"slices"
	"testing"

	"github.com/hanwen/go-fuse/v2/posixtest"
)

// notPosix are tests of posixtest that ext4 fails too.
var notPosix = map[string]string{
	"FcntlFlockLocksFile": "POSIX locks of one process don't conflict",
}

// TestPosix runs go-fuse's own tests of what POSIX wants, each on a mount of its own, with and without the kernel's page cache.
func TestPosix(t *testing.T) {
	for _, pageCache := range []bool{false, true} {
		for _, name := range slices.Sorted(maps.Keys(posixtest.All)) {
			if notPosix[name] != "" {
				continue
			}
			t.Run(fmt.Sprintf("page cache %v/%s", pageCache, name), func(t *testing.T) {
				m := newVolume(t).mount(t, volumeOptions{Options: Options{PageCache: pageCache}})
				posixtest.All[name](t, m.dir)
			})
		}
	}
}
