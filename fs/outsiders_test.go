package fs

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"encfsrun/fs/vault/tree"
)

// sandboxSocket is the descriptor that a sandbox child speaks to the test through.
const sandboxSocket = 3

func sendDescriptors(socket int, fds ...int) error {
	return unix.Sendmsg(socket, []byte("f"), unix.UnixRights(fds...), nil, 0)
}

// receiveDescriptors waits for n descriptors; it fails when the other side ends.
func receiveDescriptors(socket, n int) ([]int, error) {
	control := make([]byte, unix.CmsgSpace(4*n))
	k, oobn, _, _, err := unix.Recvmsg(socket, make([]byte, 1), control, unix.MSG_CMSG_CLOEXEC)
	if err != nil || k == 0 {
		return nil, fmt.Errorf("nothing received: %w", err)
	}
	messages, err := unix.ParseSocketControlMessage(control[:oobn])
	if err != nil || len(messages) != 1 {
		return nil, fmt.Errorf("%d control messages: %w", len(messages), err)
	}
	return unix.ParseUnixRights(&messages[0])
}

// childSandbox is a process in new user, pid and mount namespaces. It mounts at args[0], hands the descriptor out, uses the tree,
// hands out what it has opened, and stays until the test closes the socket.
func childSandbox(args []string) error {
	dir := args[0]
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("making mounts private: %w", err)
	}
	dev, err := openMount(dir, maxRead, restricted|unix.MS_RDONLY, "")
	if err != nil {
		return err
	}
	if err := sendDescriptors(sandboxSocket, int(dev.Fd())); err != nil {
		return err
	}
	dev.Close()
	if err := insideWorks(dir); err != nil {
		return err
	}
	var fds []int
	for _, path := range []string{dir + "/d/f", dir + "/d"} {
		fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err != nil {
			return err
		}
		fds = append(fds, fd)
	}
	if err := sendDescriptors(sandboxSocket, fds...); err != nil {
		return err
	}
	for _, fd := range fds {
		unix.Close(fd)
	}
	unix.Read(sandboxSocket, make([]byte, 1))
	return nil
}

// insideWorks uses the tree as a program does.
func insideWorks(dir string) error {
	if got, err := os.ReadFile(dir + "/d/f"); err != nil || string(got) != "content" {
		return fmt.Errorf("reading: %q, %w", got, err)
	}
	if _, err := os.ReadDir(dir + "/d"); err != nil {
		return err
	}
	if _, err := os.Readlink(dir + "/l"); err != nil {
		return err
	}
	if _, err := unix.Getxattr(dir+"/d/f", "user.a", nil); err != nil {
		return fmt.Errorf("getxattr: %w", err)
	}
	if err := childMmap([]string{"private", dir + "/large"}); err != nil {
		return err
	}
	// Pages come by read-ahead and by faults of a process that the mount has not seen before.
	cmd := exec.Command(dir+"/program", "x")
	cmd.Env = append(os.Environ(), childVariable+"=hello")
	if out, err := cmd.CombinedOutput(); err != nil || string(out) != "hello x\n" {
		return fmt.Errorf("executing: %q, %w", out, err)
	}
	return nil
}

// TestOutsidersAreRefused comes to a sandbox's mount as root does from the host: through /proc/PID/root and with descriptors that
// were opened inside.
func TestOutsidersAreRefused(t *testing.T) {
	program, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	m := newModel()
	d := m.dir(tree.Root, "d")
	m.nodes[m.file(d, "f", []byte("content"))].xattrs = map[string][]byte{"user.a": []byte("b")}
	m.file(d, "unseen", nil)
	m.symlink(tree.Root, "l", "d/f")
	m.file(tree.Root, "large", m.random(1<<20, false))
	m.file(tree.Root, "program", program)
	f, cache, _ := newFS(t, m, mountOptions{Options: Options{RefuseOutsiders: true, Owner: &Owner{}}})
	defer cache.Close()

	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	cmd := child("sandbox", dir)
	cmd.Stderr = os.Stderr
	theirs := os.NewFile(uintptr(pair[1]), "socket")
	cmd.ExtraFiles = []*os.File{theirs}
	cmd.SysProcAttr.Cloneflags = syscall.CLONE_NEWUSER | syscall.CLONE_NEWPID | syscall.CLONE_NEWNS
	cmd.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{HostID: os.Geteuid(), Size: 1}}
	cmd.SysProcAttr.GidMappings = []syscall.SysProcIDMap{{HostID: os.Getegid(), Size: 1}}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	theirs.Close()
	dev, err := receiveDescriptors(pair[0], 1)
	if err != nil {
		t.Fatal(err)
	}
	server, err := NewServer(os.NewFile(uintptr(dev[0]), "/dev/fuse"), f, maxRead)
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan struct{})
	go func() { defer close(served); server.Serve() }()
	fds, err := receiveDescriptors(pair[0], 2)
	if err != nil {
		t.Fatalf("the sandbox itself: %v", err)
	}
	if n := f.Stats().Refused; n != 0 {
		t.Errorf("%d requests of the sandbox itself were refused", n)
	}

	outside := filepath.Join(fmt.Sprintf("/proc/%d/root", cmd.Process.Pid), dir)
	open := func(dir int, path string) error {
		fd, err := unix.Openat(dir, path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err == nil {
			unix.Close(fd)
		}
		return err
	}
	list := func(fd int) error { _, err := unix.Getdents(fd, make([]byte, 4096)); return err }
	buf := make([]byte, 10)
	for _, try := range []struct {
		call string
		do   func() error
	}{
		{"open of the root", func() error { return open(unix.AT_FDCWD, outside) }},
		{"open of a file that the program has used", func() error { return open(unix.AT_FDCWD, outside+"/d/f") }},
		{"open of a directory that the program has used", func() error { return open(unix.AT_FDCWD, outside+"/d") }},
		{"look-up", func() error { return unix.Lstat(outside+"/d/missing", &unix.Stat_t{}) }},
		{"readlink", func() error { _, err := unix.Readlink(outside+"/l", buf); return err }},
		{"getxattr", func() error { _, err := unix.Getxattr(outside+"/d/f", "user.a", buf); return err }},
		{"listxattr", func() error { _, err := unix.Listxattr(outside+"/d/f", buf); return err }},
		{"statfs", func() error { return unix.Statfs(outside, &unix.Statfs_t{}) }},
		{"read of an open file", func() error { _, err := unix.Pread(fds[0], buf, 0); return err }},
		{"seek in an open file", func() error { _, err := unix.Seek(fds[0], 0, unix.SEEK_DATA); return err }},
		{"listing an open directory", func() error { return list(fds[1]) }},
		{"open through an open directory", func() error { return open(fds[1], "f") }},
		{"open of an open file again", func() error { return open(unix.AT_FDCWD, fmt.Sprintf("/proc/self/fd/%d", fds[0])) }},
	} {
		before := f.Stats().Refused
		if err := try.do(); err != unix.EACCES {
			t.Errorf("%s from outside: %v, want EACCES", try.call, err)
		}
		if f.Stats().Refused == before {
			t.Errorf("%s from outside was refused by another than the file system", try.call)
		}
	}
	unix.Close(fds[0])
	unix.Close(fds[1])
	unix.Close(pair[0])
	if err := cmd.Wait(); err != nil {
		t.Errorf("the sandbox: %v", err)
	}
	<-served
	if s := f.Stats(); s.OpenFiles != 0 || s.OpenDirs != 0 {
		t.Errorf("at the end: %+v", s)
	}
}

// TestOutsidersPerOperation gives each operation a request from pid 0, and from a process inside.
func TestOutsidersPerOperation(t *testing.T) {
	m := newModel()
	file := m.file(tree.Root, "f", []byte("content"))
	m.nodes[file].xattrs = map[string][]byte{"user.a": nil}
	link := m.symlink(tree.Root, "l", "x")
	f, cache, _ := newFS(t, m, mountOptions{Options: Options{RefuseOutsiders: true}})
	defer cache.Close()
	for _, op := range []struct {
		name string
		node tree.Ino
		call func(h fuse.InHeader) fuse.Status
	}{
		{"LOOKUP", tree.Root, func(h fuse.InHeader) fuse.Status { return f.Lookup(nil, &h, "f", &fuse.EntryOut{}) }},
		{"GETATTR", file, func(h fuse.InHeader) fuse.Status {
			return f.GetAttr(nil, &fuse.GetAttrIn{InHeader: h}, &fuse.AttrOut{})
		}},
		{"READLINK", link, func(h fuse.InHeader) fuse.Status { _, s := f.Readlink(nil, &h); return s }},
		{"OPEN", file, func(h fuse.InHeader) fuse.Status { return f.Open(nil, &fuse.OpenIn{InHeader: h}, &fuse.OpenOut{}) }},
		{"READ", file, func(h fuse.InHeader) fuse.Status {
			r, s := f.Read(nil, &fuse.ReadIn{InHeader: h, Size: 10}, nil)
			if r != nil {
				r.Done()
			}
			return s
		}},
		{"LSEEK", file, func(h fuse.InHeader) fuse.Status {
			return f.Lseek(nil, &fuse.LseekIn{InHeader: h, Whence: seekHole}, &fuse.LseekOut{})
		}},
		{"OPENDIR", tree.Root, func(h fuse.InHeader) fuse.Status { return f.OpenDir(nil, &fuse.OpenIn{InHeader: h}, &fuse.OpenOut{}) }},
		{"READDIR", tree.Root, func(h fuse.InHeader) fuse.Status {
			return f.ReadDir(nil, &fuse.ReadIn{InHeader: h}, fuse.NewDirEntryList(make([]byte, 4096), 0))
		}},
		{"READDIRPLUS", tree.Root, func(h fuse.InHeader) fuse.Status {
			return f.ReadDirPlus(nil, &fuse.ReadIn{InHeader: h}, fuse.NewDirEntryList(make([]byte, 4096), 0))
		}},
		{"GETXATTR", file, func(h fuse.InHeader) fuse.Status { _, s := f.GetXAttr(nil, &h, "user.a", nil); return s }},
		{"LISTXATTR", file, func(h fuse.InHeader) fuse.Status { _, s := f.ListXAttr(nil, &h, nil); return s }},
		{"STATFS", tree.Root, func(h fuse.InHeader) fuse.Status { return f.StatFs(nil, &h, &fuse.StatfsOut{}) }},
	} {
		h := fuse.InHeader{NodeId: uint64(op.node)}
		if s := op.call(h); s != fuse.EACCES {
			t.Errorf("%s from pid 0: %v, want EACCES", op.name, s)
		}
		h.Pid = 7
		if s := op.call(h); s != fuse.OK {
			t.Errorf("%s from pid 7: %v, want OK", op.name, s)
		}
	}
	// What lets go is accepted from pid 0: the kernel sends it so.
	f.Forget(uint64(file), 1)
	f.Release(nil, &fuse.ReleaseIn{InHeader: fuse.InHeader{NodeId: uint64(file)}})
	f.ReleaseDir(&fuse.ReleaseIn{})
	if s := f.Stats(); s.OpenFiles != 0 || s.OpenDirs != 0 || s.Refused != 12 {
		t.Errorf("at the end: %+v", s)
	}
}
