package launcher

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// needRoot fails, rather than skips, where the test can't be made: the tests
// of this file need bind mounts and other users.
func needRoot(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Fatal("this test needs root")
	}
}

func bind(t *testing.T, from, to string) {
	t.Helper()
	must(t, os.Mkdir(to, 0o755))
	must(t, unix.Mount(from, to, "", unix.MS_BIND, ""))
}

func TestCopiesOfALiveMountStay(t *testing.T) {
	needRoot(t)
	dir := mountpoint(t)
	daemon := serve(t, dir, MountOptions{})
	second, third := dir+"-whole", dir+"-sub"
	bind(t, dir, second)
	bind(t, filepath.Join(dir, "sub"), third)
	must(t, Unmount(dir))
	wantGone(t, dir)
	wantContent(t, second)
	must(t, Unmount(third))
	if m, err := FindMount(second); err != nil || m.Root != "/" {
		t.Errorf("the copy: %+v, %v", m, err)
	}
	must(t, Unmount(second))
	if !daemon.waitEnd() {
		t.Error("the daemon serves on without a mount")
	}
}

func TestCopiesOfADeadMountGo(t *testing.T) {
	needRoot(t)
	for what, clear := range map[string]func(dir string) error{
		"umount": Unmount,
		"mount":  func(dir string) error { _, err := PrepareMountpoint(dir); return err },
	} {
		for _, held := range []bool{false, true} {
			dir := mountpoint(t)
			daemon := serve(t, dir, MountOptions{})
			bind(t, dir, dir+"-whole")
			bind(t, filepath.Join(dir, "sub"), dir+"-sub")
			must(t, unix.Mount("tmpfs", filepath.Join(dir, "sub"), "tmpfs", 0, ""))
			if held {
				hold(t, dir)
			}
			daemon.kill()
			must(t, clear(dir))
			for _, gone := range []string{dir, dir + "-whole", dir + "-sub"} {
				if m, err := FindMount(gone); !errors.Is(err, ErrNotMounted) {
					t.Errorf("%s, held %v: %s: %+v, %v", what, held, gone, m, err)
				}
			}
		}
	}
}

func TestNestedMountIsBusy(t *testing.T) {
	needRoot(t)
	dir := mountpoint(t)
	serve(t, dir, MountOptions{})
	must(t, unix.Mount("tmpfs", filepath.Join(dir, "sub"), "tmpfs", 0, ""))
	var busy *BusyError
	if err := Unmount(dir); !errors.As(err, &busy) {
		t.Errorf("got %v, want BusyError", err)
	}
	if err := Unmount(filepath.Join(dir, "sub")); !errors.Is(err, ErrNotMounted) {
		t.Errorf("somebody else's mount: %v", err)
	}
	must(t, unix.Unmount(filepath.Join(dir, "sub"), 0))
	must(t, Unmount(dir))
}

func TestHiddenMountIsNotFound(t *testing.T) {
	needRoot(t)
	dir := mountpoint(t)
	serve(t, dir, MountOptions{})
	must(t, unix.Mount("tmpfs", dir, "tmpfs", 0, ""))
	if err := Unmount(dir); !errors.Is(err, ErrNotMounted) {
		t.Errorf("what lies over it: %v", err)
	}
	must(t, unix.Unmount(dir, 0))
	must(t, Unmount(dir))
}

// TestHungParentDoesNotHang asks for a mount point inside a hung mount.
func TestHungParentDoesNotHang(t *testing.T) {
	needRoot(t)
	dir := mountpoint(t)
	daemon := serve(t, dir, MountOptions{})
	t.Chdir(dir)
	daemon.signal(syscall.SIGSTOP)
	defer daemon.signal(syscall.SIGCONT)
	within(t, time.Second, "finding a mount there", func() {
		for _, path := range []string{dir + "/sub", "sub", "sub/../file"} {
			if _, err := FindMount(path); !errors.Is(err, ErrNotMounted) {
				t.Errorf("%s: %v", path, err)
			}
		}
		if _, err := FindMount("."); err != nil {
			t.Errorf("the working directory: %v", err)
		}
	})
}

// TestRootAndAnothersMount: root unmounts what an ordinary user mounted, also
// when it is dead and held, although the kernel answers root no request there.
func TestRootAndAnothersMount(t *testing.T) {
	needRoot(t)
	for _, dead := range []bool{false, true} {
		dir := mountpoint(t)
		for _, p := range []string{dir, filepath.Dir(dir), filepath.Dir(filepath.Dir(dir))} {
			must(t, os.Chmod(p, 0o755))
		}
		must(t, os.Chown(dir, nobody, nobody))
		daemon := mountAsNobody(t, dir)
		m, err := FindMount(dir)
		must(t, err)
		if state := probe(&m); state != mountAnswers {
			t.Errorf("live, probed as %d", state)
		}
		if dead {
			hold, err := unix.Open(dir, unix.O_PATH, 0)
			must(t, err)
			defer unix.Close(hold)
			daemon.kill()
			if state := probe(&m); state != mountDead {
				t.Errorf("dead, probed as %d", state)
			}
		}
		must(t, Unmount(dir))
		wantGone(t, dir)
	}
}

// mountAsNobody mounts dir as a user with mount(2) and serves it as that user.
func mountAsNobody(t *testing.T, dir string) *helper {
	t.Helper()
	device, err := openDevice()
	must(t, err)
	defer device.Close()
	must(t, unix.Mount("/v", dir, FilesystemType, unix.MS_NOSUID|unix.MS_NODEV, fuseOptions(int(device.Fd()), nobody, nobody, testMaxRead)))
	return startHelper(t, "serve", "/", device)
}

// TestSwappedMountpoint puts a symlink where the checked directory was.
func TestSwappedMountpoint(t *testing.T) {
	needRoot(t)
	dir := mountpoint(t)
	resolved, err := PrepareMountpoint(dir)
	must(t, err)
	other := dir + "-other"
	must(t, os.Mkdir(other, 0o755))
	must(t, os.Remove(dir))
	must(t, os.Symlink(other, dir))
	if file, err := Mount(resolved, MountOptions{MaxRead: testMaxRead}); !errors.Is(err, unix.ELOOP) {
		file.Close()
		t.Errorf("got %v, want ELOOP", err)
	}
	wantGone(t, other)
	serve(t, other, MountOptions{})
	if err := unmountAt(filepath.Join(dir, "sub"), 0); !errors.Is(err, unix.ELOOP) {
		t.Errorf("unmount below a link: %v, want ELOOP", err)
	}
	if err := unmountAt(dir, 0); err == nil {
		t.Error("unmounted through a link")
	}
	wantContent(t, other)
	must(t, Unmount(other))
}

// TestProbeGivesNothingAway: root asks a user's hung mount, so that the user has
// time to look at the process that asks.
func TestProbeGivesNothingAway(t *testing.T) {
	needRoot(t)
	dir := mountpoint(t)
	for _, p := range []string{dir, filepath.Dir(dir), filepath.Dir(filepath.Dir(dir))} {
		must(t, os.Chmod(p, 0o755))
	}
	must(t, os.Chown(dir, nobody, nobody))
	daemon := mountAsNobody(t, dir)
	m, err := FindMount(dir)
	must(t, err)
	daemon.signal(syscall.SIGSTOP)
	leak, err := unix.Open("/etc/shadow", unix.O_RDONLY, 0) // inheritable
	must(t, err)
	defer unix.Close(leak)
	ended := make(chan mountState, 1)
	go func() { ended <- probe(&m) }()
	pid := 0
	for pid == 0 {
		names, _ := filepath.Glob("/proc/[0-9]*/cmdline")
		for _, name := range names {
			command, _ := os.ReadFile(name)
			status, _ := os.ReadFile(filepath.Dir(name) + "/status")
			if strings.Contains(string(command), ProbeCommand+"\x00"+dir) && strings.Contains(string(status), "Uid:\t65534") {
				pid, err = strconv.Atoi(filepath.Base(filepath.Dir(name)))
				must(t, err)
			}
		}
		select {
		case state := <-ended:
			t.Fatalf("it ended with %d before it was looked at", state)
		case <-time.After(5 * time.Millisecond):
		}
	}
	files, err := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", pid))
	must(t, err)
	for _, file := range files {
		if to, _ := os.Readlink(file); strings.HasPrefix(to, "/etc") {
			t.Errorf("it inherited %s", to)
		}
	}
	thief := exec.Command("/bin/cat", fmt.Sprintf("/proc/%d/environ", pid))
	thief.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}}
	if out, err := thief.CombinedOutput(); err == nil || !strings.Contains(string(out), "Permission denied") {
		t.Errorf("its user may look into it: %s, %v", out, err)
	}
	if state := <-ended; state != mountUnknown {
		t.Errorf("a hung mount was probed as %d", state)
	}
	daemon.kill()
}

// TestClearDeadSparesOthers: what was not in the first table is not detached,
// also where it has the device number of the dead mount.
func TestClearDeadSparesOthers(t *testing.T) {
	dead := MountInfo{ID: 30, Device: "0:50", Type: FilesystemType, Mountpoint: "/a"}
	table := []MountInfo{dead, {ID: 31, Device: "0:50", Type: FilesystemType, Mountpoint: "/b"}}
	for _, m := range table {
		if !known(table, &m) {
			t.Errorf("%+v is not known", m)
		}
	}
	for _, m := range []MountInfo{
		{ID: 32, Device: "0:50", Type: FilesystemType, Mountpoint: "/a"}, // the number again
		{ID: 30, Device: "0:50", Type: FilesystemType, Mountpoint: "/c"}, // and the id
		{ID: 30, Device: "0:51", Type: FilesystemType, Mountpoint: "/a"},
	} {
		if known(table, &m) {
			t.Errorf("%+v would be detached", m)
		}
	}
}

// TestProbeMain: only an answer and ENOTCONN have exit codes of their own.
func TestProbeMain(t *testing.T) {
	if got := ProbeMain([]string{"/"}); got != probeAnswers {
		t.Errorf("/: %d", got)
	}
	for _, args := range [][]string{nil, {"/none"}, {"/", "/"}} {
		if got := ProbeMain(args); got == probeAnswers || got == probeDead {
			t.Errorf("%q: %d", args, got)
		}
	}
}

// TestMissing takes away what a mount needs, each in a mount namespace of its own.
func TestMissing(t *testing.T) {
	needRoot(t)
	for _, test := range []struct {
		machine, what, mend string
		uid                 int
	}{
		{"no device", "/dev/fuse", "modprobe fuse", 0},
		{"no device", "/dev/fuse", "modprobe fuse", nobody},
		{"no helper", "fusermount3 is not installed", "apt-get install fuse3", nobody},
		{"helper not setuid", "not setuid", "chmod u+s", nobody},
		{"no capability", "may not mount", "--cap-add SYS_ADMIN", 0},
	} {
		dir := mountpoint(t)
		for _, p := range []string{dir, filepath.Dir(dir), filepath.Dir(filepath.Dir(dir))} {
			must(t, os.Chmod(p, 0o755))
		}
		must(t, os.Chown(dir, test.uid, test.uid))
		cmd := exec.Command("/proc/self/exe")
		cmd.Dir = "/"
		cmd.Env = []string{testHelper + "=machine", "MACHINE=" + test.machine, "MOUNTPOINT=" + dir, "PATH=/usr/bin:/bin"}
		if test.uid != 0 {
			cmd.Env = append(cmd.Env, "ORDINARY=1")
		}
		cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNS}
		out, err := cmd.CombinedOutput()
		if err != nil || !strings.Contains(string(out), test.what) || !strings.Contains(string(out), test.mend) {
			t.Errorf("%s, uid %d: %v: %s", test.machine, test.uid, err, out)
		}
	}
}

// machineHelper lacks what $MACHINE says and prints the MissingError of a mount.
func machineHelper() int {
	fail := func(err error) int { os.Stdout.WriteString(err.Error()); return 1 }
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fail(err)
	}
	var err error
	switch os.Getenv("MACHINE") {
	case "no device":
		err = unix.Mount("tmpfs", "/dev", "tmpfs", 0, "")
	case "no helper":
		for _, name := range []string{"fusermount3", "fusermount"} {
			err = errors.Join(err, unix.Mount("/dev/null", "/usr/bin/"+name, "", unix.MS_BIND, ""))
		}
	case "helper not setuid":
		err = replaceHelper()
	case "no capability":
		err = dropSysAdmin()
	}
	if err != nil {
		return fail(err)
	}
	if os.Getenv("ORDINARY") != "" {
		if err := syscall.Setgid(nobody); err != nil {
			return fail(err)
		}
		if err := syscall.Setuid(nobody); err != nil {
			return fail(err)
		}
	}
	_, err = Mount(os.Getenv("MOUNTPOINT"), MountOptions{MaxRead: testMaxRead})
	var missing *MissingError
	if !errors.As(err, &missing) {
		os.Stdout.WriteString("not a MissingError: ")
		return fail(err)
	}
	os.Stdout.WriteString(missing.What + ": " + missing.Mend)
	return 0
}

// replaceHelper covers fusermount3 by a copy of it without the setuid bit.
func replaceHelper() error {
	body, err := os.ReadFile("/usr/bin/fusermount3")
	if err != nil {
		return err
	}
	if err := unix.Mount("tmpfs", "/mnt", "tmpfs", 0, ""); err != nil {
		return err
	}
	if err := os.WriteFile("/mnt/fusermount3", body, 0o755); err != nil {
		return err
	}
	return unix.Mount("/mnt/fusermount3", "/usr/bin/fusermount3", "", unix.MS_BIND, "")
}

// dropSysAdmin takes CAP_SYS_ADMIN from this thread, to which init is locked.
func dropSysAdmin() error {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var sets [2]unix.CapUserData
	if err := unix.Capget(&header, &sets[0]); err != nil {
		return err
	}
	sets[0].Effective &^= 1 << unix.CAP_SYS_ADMIN
	sets[0].Permitted &^= 1 << unix.CAP_SYS_ADMIN
	return unix.Capset(&header, &sets[0])
}
