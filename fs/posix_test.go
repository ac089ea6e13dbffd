package fs

import (
	"fmt"
	"maps"
	"slices"
	"testing"

	"github.com/hanwen/go-fuse/v2/posixtest"
)

// TestPosix runs go-fuse's own tests of what POSIX wants, each on a mount of its own, with and without the kernel's page cache.
func TestPosix(t *testing.T) {
	for _, pageCache := range []bool{false, true} {
		for _, name := range slices.Sorted(maps.Keys(posixtest.All)) {
			t.Run(fmt.Sprintf("page cache %v/%s", pageCache, name), func(t *testing.T) {
				m := newVolume(t).mount(t, volumeOptions{Options: Options{PageCache: pageCache}})
				posixtest.All[name](t, m.dir)
			})
		}
	}
}
