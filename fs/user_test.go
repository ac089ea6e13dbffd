package fs

import (
	"os"
	"os/exec"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"
)

// forUsers are the tests of writable mounts that need nobody else's ids.
const forUsers = "^(TestPosix|TestWriteAndRemount|TestUnlinkedButOpen|TestTmpfile|TestMappedWrites|TestHolesAreZeros|TestManySmallPieces|" +
	"TestLittleMemory|TestWhatIsDurable|TestTimesAreExact|TestAccessTime|TestFullDisk|TestRenameOverOpenFile|TestLinks|TestLocks)$"

// TestAsOrdinaryUser runs them again as a user without privileges, in a user namespace and with the locked memory that he has.
func TestAsOrdinaryUser(t *testing.T) {
	const nobody = 65534
	if os.Geteuid() != 0 {
		t.Fatal("only root can become somebody else")
	}
	dir := t.TempDir()
	letThrough(t, dir+"/x")
	must(t, os.Chown(dir, nobody, nobody))
	runtime.LockOSThread() // Pdeathsig is sent when the thread ends
	defer runtime.UnlockOSThread()
	cmd := exec.Command("/proc/self/exe", "-test.run", forUsers, "-test.v", "-test.timeout", "5m")
	cmd.Env = []string{"TMPDIR=" + dir, "PATH=" + os.Getenv("PATH")}
	cmd.Dir = "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Credential: &syscall.Credential{Uid: nobody, Gid: nobody}}
	cmd.WaitDelay = 20 * time.Second
	out, err := cmd.CombinedOutput()
	if n := strings.Count(string(out), "\n--- PASS"); err != nil || n != strings.Count(forUsers, "|")+1 {
		t.Errorf("%d tests passed, %v:\n%s", n, err, out)
	}
}
