package launcher

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func wantContent(t *testing.T, dir string) {
	t.Helper()
	if got, err := os.ReadFile(filepath.Join(dir, "file")); err != nil || string(got) != testContent {
		t.Errorf("read %q, %v", got, err)
	}
}

func wantGone(t *testing.T, dir string) {
	t.Helper()
	if m, err := FindMount(dir); !errors.Is(err, ErrNotMounted) {
		t.Errorf("still there: %+v, %v", m, err)
	}
}

// within fails the test when f takes longer than the limit.
func within(t *testing.T, limit time.Duration, what string, f func()) {
	t.Helper()
	start := time.Now()
	f()
	if took := time.Since(start); took > limit {
		t.Errorf("%s took %v", what, took)
	}
}

func fileCount(t *testing.T) int {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	must(t, err)
	return len(entries)
}

// asEveryUser lists the tests that run as root and as an ordinary user.
var asEveryUser = []struct {
	name string
	run  func(*testing.T)
}{
	{"life", testLife}, {"source", testSource}, {"busy", testBusy}, {"dead", testDead}, {"dead and busy", testDeadAndBusy},
	{"hung", testHung}, {"mounted already", testMountedAlready}, {"bad mount points", testBadMountpoints}, {"bad options", testBadOptions},
}

func TestMount(t *testing.T) {
	for _, test := range asEveryUser {
		t.Run(test.name, test.run)
	}
}

// nobody is an unprivileged user that every machine has.
const nobody = 65534

func TestMountAsOrdinaryUser(t *testing.T) {
	if os.Geteuid() != 0 {
		return // TestMount was it
	}
	cmd := exec.Command("/proc/self/exe", "-test.run=^TestMount$", "-test.v", "-test.count=1")
	cmd.Dir = "/"
	cmd.Env = []string{"HOME=/nonexistent", "TMPDIR=/tmp", "PATH=/usr/bin:/bin"}
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}}
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	for _, test := range asEveryUser {
		if want := "--- PASS: TestMount/" + strings.ReplaceAll(test.name, " ", "_"); !bytes.Contains(out, []byte(want)) {
			t.Errorf("no %q in\n%s", want, out)
		}
	}
}

func testLife(t *testing.T) {
	before := fileCount(t)
	for _, readOnly := range []bool{true, false} {
		dir := mountpoint(t)
		resolved, err := PrepareMountpoint(dir)
		must(t, err)
		daemon := serve(t, resolved, MountOptions{ReadOnly: readOnly, FSName: "/vaults/app.vault"})
		wantContent(t, dir)
		m, err := FindMount(dir)
		must(t, err)
		access := "rw"
		if readOnly {
			access = "ro"
		}
		for _, option := range []string{access, "nosuid", "nodev"} {
			if !strings.Contains(","+m.Options+",", ","+option+",") {
				t.Errorf("options %q lack %s", m.Options, option)
			}
		}
		for _, option := range []string{"default_permissions", fmt.Sprintf("user_id=%d", os.Getuid()), fmt.Sprintf("max_read=%d", testMaxRead)} {
			if !strings.Contains(","+m.SuperOptions+",", ","+option+",") {
				t.Errorf("options %q lack %s", m.SuperOptions, option)
			}
		}
		if strings.Contains(m.SuperOptions, "allow_other") || m.Type != FilesystemType || m.Source != "/vaults/app.vault" {
			t.Errorf("mounted as %+v", m)
		}
		must(t, Unmount(dir))
		wantGone(t, dir)
		if !daemon.waitEnd() || daemon.ProcessState.ExitCode() != 0 {
			t.Errorf("the daemon did not end by itself: %v", daemon.ProcessState)
		}
		daemon.stop()
		if err := Unmount(dir); !errors.Is(err, ErrNotMounted) {
			t.Errorf("second unmount: %v", err)
		}
	}
	if after := fileCount(t); after > before {
		t.Errorf("%d open descriptors before, %d after", before, after)
	}
}

// testSource mounts vaults whose names try to be options or table fields.
func testSource(t *testing.T) {
	for _, name := range []string{
		"/v/a,b", "/v/x,suid,dev", `/v/back\slash`, `/v/end\`, "/v/sp ace\ttab", "/v/new\nline 1 2 0:1 / / rw - ext4 x rw",
		"/v/é€", "/v/\xff\xfe", "/v/a=b#c", "-o,allow_other", "", "/v/" + strings.Repeat("n", 250),
	} {
		dir := mountpoint(t)
		serve(t, dir, MountOptions{ReadOnly: true, FSName: name})
		m, err := FindMount(dir)
		must(t, err)
		if name == "" {
			name = "encfsrun"
		}
		if m.Source != name || !strings.Contains(m.Options, "nosuid") || !strings.Contains(m.Options, "nodev") || strings.Contains(m.SuperOptions, "allow_other") {
			t.Errorf("%q: mounted as %+v", name, m)
		}
		must(t, Unmount(dir))
	}
}

func testBusy(t *testing.T) {
	dir := mountpoint(t)
	serve(t, dir, MountOptions{})
	for what, hold := range map[string]func() (release func()){
		"an open file": func() func() {
			file, err := os.Open(filepath.Join(dir, "file"))
			must(t, err)
			return func() { file.Close() }
		},
		"a working directory": func() func() {
			holder := startHelper(t, "hold", dir, nil)
			return func() { holder.stop(); holder.waitEnd() }
		},
	} {
		release := hold()
		var busy *BusyError
		if err := Unmount(dir); !errors.As(err, &busy) || busy.Dir != dir {
			t.Errorf("%s: %v, want BusyError", what, err)
		}
		wantContent(t, dir) // the refusal did no harm
		release()
	}
	must(t, Unmount(dir))
	wantGone(t, dir)
}

func testDead(t *testing.T) {
	dir := mountpoint(t)
	for _, clear := range []func() error{
		func() error { return Unmount(dir) },
		func() error { _, err := PrepareMountpoint(dir); return err },
	} {
		serve(t, dir, MountOptions{}).kill()
		if _, err := os.Stat(dir); !errors.Is(err, unix.ENOTCONN) {
			t.Fatalf("the mount is not dead: %v", err)
		}
		m, err := FindMount(dir)
		must(t, err)
		if state := probe(&m); state != mountDead {
			t.Errorf("probed as %d", state)
		}
		must(t, clear())
		wantGone(t, dir)
	}
	serve(t, dir, MountOptions{})
	wantContent(t, dir)
	must(t, Unmount(dir))
}

func testDeadAndBusy(t *testing.T) {
	dir := mountpoint(t)
	daemon := serve(t, dir, MountOptions{})
	hold(t, dir)
	daemon.kill()
	must(t, Unmount(dir))
	wantGone(t, dir)
}

func testHung(t *testing.T) {
	dir := mountpoint(t)
	daemon := serve(t, dir, MountOptions{})
	holder := hold(t, dir)
	daemon.signal(syscall.SIGSTOP)
	defer daemon.signal(syscall.SIGCONT)
	within(t, time.Second, "finding a hung mount", func() {
		_, err := FindMount(dir)
		must(t, err)
	})
	within(t, 2*probeTimeout, "preparing its mount point", func() {
		wantProblem(t, dir, MountpointMounted)
	})
	within(t, 2*probeTimeout, "unmounting it while busy", func() {
		var busy *BusyError
		if err := Unmount(dir); !errors.As(err, &busy) {
			t.Errorf("got %v, want BusyError", err)
		}
	})
	daemon.signal(syscall.SIGCONT)
	wantContent(t, dir) // it was neither detached nor aborted
	holder.stop()
	holder.waitEnd()
	time.Sleep(50 * time.Millisecond) // RELEASE is asynchronous
	daemon.signal(syscall.SIGSTOP)
	within(t, probeTimeout, "unmounting it when idle", func() { must(t, Unmount(dir)) })
	wantGone(t, dir)
	daemon.signal(syscall.SIGCONT)
	if !daemon.waitEnd() {
		t.Error("the daemon did not end once it went on")
	}
}

func testMountedAlready(t *testing.T) {
	dir := mountpoint(t)
	serve(t, dir, MountOptions{})
	wantProblem(t, dir, MountpointMounted)
	link := dir + "-link"
	must(t, os.Symlink(dir, link))
	wantProblem(t, link, MountpointMounted)
	wantProblem(t, filepath.Join(link, "..", "mnt"), MountpointMounted)
	t.Chdir(filepath.Dir(dir))
	must(t, Unmount("mnt-link"))
	wantGone(t, dir)
}

func wantProblem(t *testing.T, dir string, want MountpointProblem) {
	t.Helper()
	var problem *MountpointError
	if _, err := PrepareMountpoint(dir); !errors.As(err, &problem) || problem.Problem != want {
		t.Errorf("%s: got %v, want problem %d", dir, err, want)
	}
}

func testBadMountpoints(t *testing.T) {
	base := realTempDir(t)
	must(t, os.WriteFile(filepath.Join(base, "file"), nil, 0o644))
	must(t, os.Symlink("file", filepath.Join(base, "link")))
	must(t, os.MkdirAll(filepath.Join(base, "full", ".hidden"), 0o755))
	for name, want := range map[string]MountpointProblem{
		"file": MountpointNotDirectory, "link": MountpointNotDirectory, "file/x": MountpointNotDirectory,
		"none": MountpointAbsent, "none/x": MountpointAbsent, "full": MountpointNotEmpty,
	} {
		wantProblem(t, filepath.Join(base, name), want)
	}
	wantProblem(t, "", MountpointAbsent)
	if os.Geteuid() != 0 {
		wantProblem(t, "/usr", MountpointNotYours)
		wantProblem(t, "/tmp", MountpointNotYours) // writable, but sticky and another's
	}
	var problem *MountpointError
	if _, err := PrepareMountpoint("/does not/exist"); !errors.As(err, &problem) || problem.Mend != "mkdir -p '/does not/exist'" {
		t.Errorf("%v", err)
	}
}

func testBadOptions(t *testing.T) {
	dir := mountpoint(t)
	for _, opts := range []MountOptions{{}, {MaxRead: -1}, {MaxRead: testMaxRead, FSName: "a\x00b"}} {
		if file, err := Mount(dir, opts); err == nil {
			file.Close()
			t.Errorf("%+v was taken", opts)
		}
	}
	if _, err := Mount("mnt", MountOptions{MaxRead: testMaxRead}); err == nil {
		t.Error("a relative path was taken")
	}
	if _, err := Mount(filepath.Join(dir, "none"), MountOptions{MaxRead: testMaxRead}); err == nil {
		t.Error("mounted on nothing")
	}
	wantGone(t, dir)
}

func TestShellQuote(t *testing.T) {
	for _, path := range []string{"/plain/path-1_2.x", "/with space", "/it's", "", "-rf", "/$HOME/`id`", "/new\nline"} {
		out, err := exec.Command("/bin/sh", "-c", "printf %s "+shellQuote(path)).Output()
		if path == "-rf" { // printf takes it after --
			out, err = exec.Command("/bin/sh", "-c", "printf %s -- "+shellQuote(path)).Output()
			out = bytes.TrimPrefix(out, []byte("--"))
		}
		if err != nil || string(out) != path {
			t.Errorf("%q became %q, %v", path, out, err)
		}
	}
}
