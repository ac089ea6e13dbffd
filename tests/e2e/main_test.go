// Package e2e uses the built product as people do: from a shell, on a terminal, as root and as an ordinary user, on disks that are
// full or read-only, and with everything killed at the worst moment.
//
// Each test has a world of its own: a folder with its copy of the binary, a home, a state directory and a passkey. When a test
// ends, whatever of that world is left on the machine (a process, a mount, a socket, a temporary file, a half-made vault) is a
// failure, and is then removed.
//
// A test that runs as root runs as an ordinary user too. Without root the tests are those of the user who runs them.
package e2e

import (
	"flag"
	"os"
	"strconv"
	"testing"

	"encfsrun/internal/testkit"
)

// built is the product, built once; each world links it.
var built string

func TestMain(m *testing.M) {
	flag.Parse()
	flag.Set("test.parallel", "4") // much of the time is waiting for disks and for other processes
	testkit.OwnMounts()
	testkit.DefaultSignals()
	os.Exit(testkit.RunWithProduct(m, &built))
}

// rounds is how often something random is tried: n times, more where a soak asks for it (ENCFSRUN_SOAK, ENCFSRUN_ROUNDS).
func rounds(n int) int {
	if os.Getenv("ENCFSRUN_SOAK") == "1" {
		n *= 10
	}
	if more, err := strconv.Atoi(os.Getenv("ENCFSRUN_ROUNDS")); err == nil && more > 0 {
		n *= more
	}
	return n
}
