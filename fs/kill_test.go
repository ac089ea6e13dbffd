package fs

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"runtime"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// serveVolume serves a volume in a process of its own, and returns how to kill that.
func serveVolume(t *testing.T, dir, vaultDir string) (kill func()) {
	t.Helper()
	runtime.LockOSThread() // Pdeathsig is sent when the thread ends
	t.Cleanup(runtime.UnlockOSThread)
	cmd := child("volume", dir, vaultDir, "off")
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	must(t, err)
	must(t, cmd.Start())
	over := false
	kill = func() {
		if over {
			return
		}
		over = true
		cmd.Process.Kill()
		cmd.Wait()
		must(t, unix.Unmount(dir, unix.MNT_DETACH))
	}
	t.Cleanup(kill)
	if line, err := bufio.NewReader(out).ReadString('\n'); line != "serving\n" {
		t.Fatalf("the volume's process says %q, %v", line, err)
	}
	return kill
}

// TestKill kills the process that serves: what was synced is there, what was not is whole or not there at all, and what had no name is
// gone.
func TestKill(t *testing.T) {
	dir, vaultDir := t.TempDir(), t.TempDir()
	kill := serveVolume(t, dir, vaultDir)
	path := func(name string) string { return dir + "/" + name }
	orphan, err := os.Create(path("orphan"))
	must(t, err)
	defer orphan.Close()
	_, err = orphan.Write([]byte("nobody will find this"))
	must(t, errors.Join(err, os.Remove(path("orphan"))))
	tmp, err := unix.Open(dir, unix.O_TMPFILE|unix.O_RDWR|unix.O_CLOEXEC, 0o600)
	must(t, err)
	defer unix.Close(tmp)
	for i := range 50 {
		must(t, os.WriteFile(path(fmt.Sprint("synced", i)), []byte(strings.Repeat("s", 1000*i)), 0o644))
	}
	must(t, with(dir, unix.O_RDONLY|unix.O_DIRECTORY, unix.Fsync))
	for i := range 50 {
		must(t, os.WriteFile(path(fmt.Sprint("unsynced", i)), []byte(strings.Repeat("u", 1000)), 0o644))
	}
	kill()
	serveVolume(t, dir, vaultDir)
	for i := range 50 {
		if b, err := os.ReadFile(path(fmt.Sprint("synced", i))); err != nil || string(b) != strings.Repeat("s", 1000*i) {
			t.Errorf("synced file %d: %d bytes, %v", i, len(b), err)
		}
	}
	var st unix.Statfs_t
	must(t, unix.Statfs(dir, &st))
	entries, err := os.ReadDir(dir)
	must(t, err)
	if inodes := st.Files - st.Ffree; inodes != uint64(len(entries)+1) {
		t.Errorf("%d inodes for %d names and the root", inodes, len(entries))
	}
}

// childRecords writes records to files in args[0] for ever, and prints the number of each after fsync.
func childRecords(args []string) error {
	for n := 0; ; n++ {
		f, err := os.OpenFile(fmt.Sprintf("%s/r%d", args[0], n%7), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
		if err != nil {
			return err
		}
		_, err = fmt.Fprintf(f, "record %d %s\n", n, strings.Repeat("x", n%3000))
		if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
			return err
		}
		fmt.Println(n)
	}
}

// TestKillUnderLoad kills it again and again while somebody writes and syncs: no record is lost, none is torn.
func TestKillUnderLoad(t *testing.T) {
	dir, vaultDir := t.TempDir(), t.TempDir()
	for round := range 5 {
		kill := serveVolume(t, dir, vaultDir)
		sub := fmt.Sprintf("%s/round%d", dir, round)
		must(t, os.Mkdir(sub, 0o755))
		writer := child("records", sub)
		out, err := writer.StdoutPipe()
		must(t, err)
		must(t, writer.Start())
		last := -1
		lines := bufio.NewScanner(out)
		for lines.Scan() {
			fmt.Sscan(lines.Text(), &last)
			if last == 150+31*round {
				kill()
			}
		}
		writer.Wait()
		if last < 150+31*round {
			t.Fatalf("the writer ended after record %d", last)
		}
		kill = serveVolume(t, dir, vaultDir)
		found := map[int]bool{}
		for i := range 7 {
			b, err := os.ReadFile(fmt.Sprintf("%s/r%d", sub, i))
			must(t, err)
			for line := range strings.Lines(string(b)) {
				var n int
				fmt.Sscanf(line, "record %d", &n)
				if line != fmt.Sprintf("record %d %s\n", n, strings.Repeat("x", n%3000)) {
					t.Errorf("round %d: record %d is torn: %d bytes", round, n, len(line))
				}
				found[n] = true
			}
		}
		for n := range last + 1 {
			if !found[n] {
				t.Errorf("round %d: record %d of %d is lost", round, n, last)
			}
		}
		kill()
	}
}
