package testkit

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// Build builds the product into a folder, as it ships but for what flags of go build change, and returns its path.
func Build(dir string, flags ...string) (string, error) {
	binary := filepath.Join(dir, "encfsrun")
	args := append([]string{"build", "-o", binary}, flags...)
	cmd := exec.Command("go", append(args, "encfsrun/cmd/encfsrun")...)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOEXPERIMENT=runtimesecret")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build encfsrun %v: %w\n%s", flags, err, out)
	}
	return binary, nil
}

// RunWithProduct is for a TestMain: it builds the product where every user may execute it, puts its path into binary, and runs
// the tests. It returns the exit code.
func RunWithProduct(m *testing.M, binary *string) int {
	dir, err := os.MkdirTemp("", "encfsrun-product-")
	if err == nil {
		defer os.RemoveAll(dir)
		err = os.Chmod(dir, 0o755)
	}
	if err == nil {
		*binary, err = Build(dir)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return m.Run()
}
