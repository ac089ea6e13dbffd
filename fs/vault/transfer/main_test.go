package transfer

import (
	"os"
	"os/exec"
	"syscall"
	"testing"
)

// asNobody names, for a test binary that was started again, the one test that it is to run as an ordinary user.
const asNobody = "TRANSFER_TEST_AS_NOBODY"

// nobody is an ordinary user's id.
const nobody = 65534

// asOrdinaryUser runs the test that calls it a second time, in a process of an ordinary user, when the tests run as root, and
// says whether this is that process: a test calls it first, and does its work where it says true.
func asOrdinaryUser(t *testing.T) bool {
	t.Helper()
	if os.Geteuid() != 0 {
		return true
	}
	dir, err := os.MkdirTemp("", "transfer") // t.TempDir's is closed to others
	if err == nil {
		err = os.Chmod(dir, 0o777)
	}
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	cmd := exec.Command("/proc/self/exe", "-test.run=^"+t.Name()+"$", "-test.v") // a path that works for any user
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "TMPDIR="+dir, asNobody+"="+t.Name())
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}, Pdeathsig: syscall.SIGKILL}
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("as an ordinary user: %v\n%s", err, out)
	}
	return false
}
