package disk_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"encfsrun/fs/vault/disk"

	"golang.org/x/sys/unix"
)

// TestMain lets the tests start this binary again as the other process that they need.
func TestMain(m *testing.M) {
	if role := os.Getenv("DISK_TEST_ROLE"); role != "" {
		if err := roles[role](os.Getenv("DISK_TEST_PATH")); err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

var roles = map[string]func(path string) error{
	"lock":      holdLock,
	"full disk": fillDisk,
	"ENOSYS":    func(path string) error { return renameWithout(path, syscall.ENOSYS) },
	"EINVAL":    func(path string) error { return renameWithout(path, syscall.EINVAL) },
}

func command(role, path string) *exec.Cmd {
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), "DISK_TEST_ROLE="+role, "DISK_TEST_PATH="+path)
	return cmd
}

// within fails the test when f does not return: an open that waits on a FIFO.
func within(t *testing.T, f func()) {
	t.Helper()
	done := make(chan struct{})
	go func() {
		defer close(done)
		f()
	}()
	select {
	case <-done:
	case <-time.After(10 * time.Second):
		t.Fatal("still waiting after 10 s")
	}
}

// TestHostileNames: what the owner of the folder may put in place of a file.
func TestHostileNames(t *testing.T) {
	dir := t.TempDir()
	target := filepath.Join(dir, "target")
	if err := os.WriteFile(target, []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	at := func(name string) string { return filepath.Join(dir, name) }
	for _, err := range []error{
		os.Symlink(target, at("symlink")),
		os.Symlink(at("nowhere"), at("dangling")),
		os.Symlink(at("loop"), at("loop")),
		unix.Mkfifo(at("fifo"), 0o600),
		os.Symlink(at("fifo"), at("to a fifo")),
		os.Mkdir(at("dir"), 0o700),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	socket, err := net.Listen("unix", at("socket"))
	if err != nil {
		t.Fatal(err)
	}
	defer socket.Close()

	fsys := disk.OS()
	names := []string{"symlink", "dangling", "loop", "fifo", "to a fifo", "dir", "socket"}
	for _, name := range names {
		t.Run(name, func(t *testing.T) {
			within(t, func() {
				if _, err := fsys.Open(at(name)); !errors.Is(err, disk.ErrNotRegular) {
					t.Errorf("open: %v", err)
				}
				if _, err := fsys.OpenWrite(at(name)); !errors.Is(err, disk.ErrNotRegular) {
					t.Errorf("open for writing: %v", err)
				}
				if _, err := fsys.Create(at(name), 0o600); !errors.Is(err, fs.ErrExist) {
					t.Errorf("create: %v", err)
				}
				if name == "dir" {
					return
				}
				if _, err := fsys.List(at(name)); err == nil {
					t.Error("list: no error")
				}
				if err := fsys.SyncDir(at(name)); err == nil {
					t.Error("sync of a directory: no error")
				}
			})
		})
	}
	if _, err := os.Lstat(at("nowhere")); !errors.Is(err, fs.ErrNotExist) {
		t.Error("a dangling link was followed by create")
	}
	if data, _ := os.ReadFile(target); string(data) != "precious" {
		t.Errorf("the target holds %q", data)
	}
	// A device that lets itself be opened, so that only the check after it refuses.
	for _, open := range []func(string) (disk.File, error){fsys.Open, fsys.OpenWrite} {
		if _, err := open("/dev/null"); !errors.Is(err, disk.ErrNotRegular) {
			t.Errorf("open of a device: %v", err)
		}
	}
	for name, want := range map[string]disk.Kind{
		"symlink": disk.KindSymlink, "fifo": disk.KindOther, "socket": disk.KindOther, "dir": disk.KindDir,
	} {
		if info, err := fsys.Lstat(at(name)); err != nil || info.Kind != want || info.Size != 0 {
			t.Errorf("%s is %+v, %v", name, info, err)
		}
	}
}

// TestDirectoryThroughLink: a vault may be named through a symbolic link.
func TestDirectoryThroughLink(t *testing.T) {
	dir := t.TempDir()
	if err := errors.Join(os.Mkdir(dir+"/d", 0o700), os.WriteFile(dir+"/d/a", nil, 0o600), os.Symlink("d", dir+"/link")); err != nil {
		t.Fatal(err)
	}
	names, err := disk.OS().List(dir + "/link")
	if err != nil || len(names) != 1 || names[0] != "a" {
		t.Errorf("list: %q, %v", names, err)
	}
	if err := disk.OS().SyncDir(dir + "/link"); err != nil {
		t.Error(err)
	}
}

// TestDescriptors: what is started inherits none.
func TestDescriptors(t *testing.T) {
	f, err := disk.OS().Create(filepath.Join(t.TempDir(), "inherit-me-not"), 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	out, err := exec.Command("ls", "-l", "/proc/self/fd").CombinedOutput()
	if err != nil {
		t.Fatal(err)
	}
	if bytes.Contains(out, []byte("inherit-me-not")) {
		t.Errorf("a child inherited the descriptor:\n%s", out)
	}
}

// holdLock takes byte 3, says so, and keeps it until its standard input ends.
func holdLock(path string) error {
	f, err := disk.OS().OpenWrite(path)
	if err != nil {
		return err
	}
	if err := f.Lock(3); err != nil {
		return err
	}
	fmt.Println("locked")
	_, err = io.Copy(io.Discard, os.Stdin)
	return err
}

func TestLockBetweenProcesses(t *testing.T) {
	name := filepath.Join(t.TempDir(), "lock")
	f, err := disk.OS().Create(name, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()

	other := command("lock", name)
	stdin, err := other.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := other.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := other.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { other.Process.Kill(); other.Wait() }()
	said := make([]byte, len("locked"))
	if _, err := io.ReadFull(stdout, said); err != nil || string(said) != "locked" {
		t.Fatalf("the other process said %q, %v", said, err)
	}

	if err := f.Lock(3); !errors.Is(err, disk.ErrLocked) {
		t.Errorf("a byte that another process holds: %v", err)
	}
	if err := f.Lock(4); err != nil {
		t.Errorf("the byte beside it: %v", err)
	}
	stdin.Close()
	if err := other.Wait(); err != nil {
		t.Fatal(err)
	}
	if err := f.Lock(3); err != nil {
		t.Errorf("after the holder ended: %v", err)
	}
	if out, err := command("lock", name).CombinedOutput(); err == nil || !strings.Contains(string(out), disk.ErrLocked.Error()) {
		t.Errorf("the other process, while we hold it: %v, %s", err, out)
	}
}

// fillDisk runs in a mount namespace of its own, which ends with it.
func fillDisk(dir string) error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("making the mounts private: %w", err)
	}
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=64k"); err != nil {
		return fmt.Errorf("mounting a small tmpfs: %w", err)
	}
	fsys := disk.OS()
	f, err := fsys.Create(filepath.Join(dir, "a"), 0o600)
	if err != nil {
		return err
	}
	n, err := f.WriteAt(make([]byte, 128<<10), 0)
	if !errors.Is(err, syscall.ENOSPC) {
		return fmt.Errorf("writing to a full disk: %v", err)
	}
	size, err := f.Size()
	if err != nil || int64(n) > size || size > 64<<10 {
		return fmt.Errorf("%d bytes said to be written, size %d, %v", n, size, err)
	}
	if _, err := f.ReadAt(make([]byte, size), 0); err != nil {
		return fmt.Errorf("reading what was written: %w", err)
	}
	return errors.Join(f.Close(), fsys.Remove(filepath.Join(dir, "a")))
}

func TestFullDisk(t *testing.T) {
	cmd := command("full disk", t.TempDir())
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNS}
	if os.Geteuid() != 0 {
		cmd.SysProcAttr.Cloneflags |= syscall.CLONE_NEWUSER
		cmd.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Geteuid(), Size: 1}}
		cmd.SysProcAttr.GidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getegid(), Size: 1}}
	}
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("%v: %s", err, out)
	}
}

// renameWithout renames where renameat2 fails as on an old kernel or on NFS: a
// seccomp filter answers for them.
func renameWithout(dir string, errno syscall.Errno) error {
	filter := []unix.SockFilter{
		{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: 0}, // the number of the call
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: unix.SYS_RENAMEAT2, Jf: 1},
		{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ERRNO | uint32(errno)},
		{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ALLOW},
	}
	program := unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}
	runtime.LockOSThread()
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return err
	}
	if err := unix.Prctl(unix.PR_SET_SECCOMP, unix.SECCOMP_MODE_FILTER, uintptr(unsafe.Pointer(&program)), 0, 0); err != nil {
		return err
	}
	at := func(name string) string { return filepath.Join(dir, name) }
	if err := unix.Renameat2(unix.AT_FDCWD, at("a"), unix.AT_FDCWD, at("z"), 0); err != errno {
		return fmt.Errorf("the filter does not work: %v", err)
	}
	fsys := disk.OS()
	if err := fsys.RenameNoReplace(at("a"), at("b")); !errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("onto another file: %v", err)
	}
	if err := fsys.RenameNoReplace(at("d"), at("e")); !errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("onto another directory: %v", err)
	}
	return errors.Join(fsys.RenameNoReplace(at("a"), at("c")), fsys.RenameNoReplace(at("d"), at("f")))
}

func TestRenameWithoutKernel(t *testing.T) {
	for _, errno := range []string{"ENOSYS", "EINVAL"} {
		t.Run(errno, func(t *testing.T) {
			dir := t.TempDir()
			err := errors.Join(
				os.WriteFile(dir+"/a", []byte("a"), 0o600), os.WriteFile(dir+"/b", []byte("b"), 0o600),
				os.Mkdir(dir+"/d", 0o700), os.Mkdir(dir+"/e", 0o700))
			if err != nil {
				t.Fatal(err)
			}
			if out, err := command(errno, dir).CombinedOutput(); err != nil {
				t.Fatalf("%v: %s", err, out)
			}
			if names, err := disk.OS().List(dir); err != nil || strings.Join(names, " ") != "b c e f" {
				t.Errorf("the directory holds %q, %v", names, err)
			}
		})
	}
}

// TestDropCacheDrops asks the kernel which pages it holds. In memory alone (a tmpfs
// for temporary files) there is nothing to drop, and all must still be there.
func TestDropCacheDrops(t *testing.T) {
	const pages = 64
	dir := t.TempDir()
	name := filepath.Join(dir, "a")
	f, err := disk.OS().Create(name, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	data := bytes.Repeat([]byte("x"), pages*os.Getpagesize()-1)
	if _, err := f.WriteAt(data, 0); err != nil {
		t.Fatal(err)
	}
	if got := resident(t, name); got != pages {
		t.Fatalf("%d pages cached after a write, want %d", got, pages)
	}
	if err := f.Sync(); err != nil {
		t.Fatal(err)
	}
	if err := f.DropCache(); err != nil {
		t.Fatal(err)
	}
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		t.Fatal(err)
	}
	want := 0
	if st.Type == unix.TMPFS_MAGIC || st.Type == unix.RAMFS_MAGIC {
		want = pages
	}
	if got := resident(t, name); got != want {
		t.Errorf("%d pages cached, want %d", got, want)
	}
	got := make([]byte, len(data))
	if _, err := f.ReadAt(got, 0); err != nil || !bytes.Equal(got, data) {
		t.Errorf("read back differently, %v", err)
	}
}

// resident counts the pages of a file in the page cache.
func resident(t *testing.T, name string) int {
	t.Helper()
	f, err := os.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		t.Fatal(err)
	}
	mapped, err := unix.Mmap(int(f.Fd()), 0, int(info.Size()), unix.PROT_READ, unix.MAP_SHARED)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Munmap(mapped)
	flags, err := mincore(mapped)
	if err != nil {
		t.Fatal(err)
	}
	count := 0
	for _, flag := range flags {
		count += int(flag & 1)
	}
	return count
}
