package launcher

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	fusefs "github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"

	"encfsrun/internal/testkit"
)

// testHelper in the environment makes this test binary one of the processes
// that the mount tests need beside themselves.
const testHelper = "LAUNCHER_MOUNT_TEST_HELPER"

func init() {
	testkit.QuickExits()
	if len(os.Args) > 1 && os.Args[1] == ProbeCommand {
		os.Exit(ProbeMain(os.Args[2:]))
	}
	switch os.Getenv(testHelper) {
	case "serve":
		os.Exit(serveHelper())
	case "hold": // keeps its working directory and descriptors until standard input ends
		os.Stdout.WriteString("ready\n")
		os.Stdin.Read(make([]byte, 1))
		os.Exit(0)
	case "machine":
		os.Exit(machineHelper())
	}
}

const (
	testContent = "served from a test\n"
	testMaxRead = 128 << 10
)

// serveHelper serves a tree of one file on descriptor 3 until it is unmounted.
func serveHelper() int {
	root := &fusefs.Inode{}
	options := &fusefs.Options{OnAdd: func(ctx context.Context) {
		file := root.NewPersistentInode(ctx, &fusefs.MemRegularFile{Data: []byte(testContent), Attr: fuse.Attr{Mode: 0o444}}, fusefs.StableAttr{})
		root.AddChild("file", file, false)
		sub := root.NewPersistentInode(ctx, &fusefs.Inode{}, fusefs.StableAttr{Mode: fuse.S_IFDIR})
		root.AddChild("sub", sub, false)
	}}
	options.UID, options.GID = uint32(os.Getuid()), uint32(os.Getgid())
	server, err := fuse.NewServer(fusefs.NewNodeFS(root, options), "/dev/fd/3", &fuse.MountOptions{MaxWrite: testMaxRead})
	if err != nil {
		fmt.Println(err)
		return 1
	}
	fmt.Println("ready")
	server.Serve()
	return 0
}

// helper is a running helper process.
type helper struct {
	*exec.Cmd
	stop  func() // closes its standard input
	ended chan struct{}
}

// startHelper starts this binary as the helper kind and waits until it is ready.
func startHelper(t *testing.T, kind, dir string, file *os.File) *helper {
	t.Helper()
	cmd := exec.Command("/proc/self/exe")
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), testHelper+"="+kind)
	cmd.Stderr = os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL} // a stopped daemon must not outlive its test
	if file != nil {
		cmd.ExtraFiles = []*os.File{file}
	}
	stdin, err := cmd.StdinPipe()
	must(t, err)
	stdout, err := cmd.StdoutPipe()
	must(t, err)
	must(t, cmd.Start())
	h := &helper{Cmd: cmd, stop: func() { stdin.Close() }, ended: make(chan struct{})}
	line, _ := bufio.NewReader(stdout).ReadString('\n')
	go func() { cmd.Wait(); close(h.ended) }()
	t.Cleanup(h.kill)
	if line != "ready\n" {
		t.Fatalf("helper %s says %q", kind, line)
	}
	return h
}

func (h *helper) signal(s syscall.Signal) { h.Process.Signal(s) }

func (h *helper) kill() {
	h.Process.Kill()
	h.waitEnd()
}

// waitEnd returns whether the process ended by itself within twenty seconds.
func (h *helper) waitEnd() bool {
	select {
	case <-h.ended:
		return true
	case <-time.After(20 * time.Second):
		return false
	}
}

// mountpoint makes an empty directory. At the end of the test, whatever its
// outcome, nothing of ours is mounted at or below it.
func mountpoint(t *testing.T) string {
	t.Helper()
	base := realTempDir(t)
	dir := filepath.Join(base, "mnt")
	must(t, os.Mkdir(dir, 0o755))
	t.Cleanup(func() {
		for range 20 {
			mounts, err := Mounts()
			must(t, err)
			last := ""
			for _, m := range mounts {
				if strings.HasPrefix(m.Mountpoint, base+"/") {
					last = m.Mountpoint
				}
			}
			if last == "" {
				return
			}
			t.Logf("left behind: %s", last)
			detach(last)
		}
		t.Errorf("could not clear %s", base)
	})
	return dir
}

// serve mounts at dir and serves it from another process.
func serve(t *testing.T, dir string, opts MountOptions) *helper {
	t.Helper()
	opts.MaxRead = testMaxRead
	file, err := Mount(dir, opts)
	must(t, err)
	defer file.Close()
	return startHelper(t, "serve", "/", file)
}

// hold has another process keep the file open: the test itself must not,
// for in a child that it starts the close at exec would ask a hung daemon.
func hold(t *testing.T, dir string) *helper {
	t.Helper()
	file, err := os.Open(filepath.Join(dir, "file"))
	must(t, err)
	defer file.Close()
	return startHelper(t, "hold", "/", file)
}
