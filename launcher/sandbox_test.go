package launcher_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	fusefs "github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"encfsrun/internal/testkit"
	"encfsrun/launcher"
)

// The test binary is also every other process of these tests: a sandbox's
// PID 1 (launcher.Init), the programs run inside, and a launcher of its own
// that can be killed.
func init() {
	testkit.QuickExits()
	launcher.Init()
	if len(os.Args) > 1 {
		if role, ok := roles[os.Args[1]]; ok {
			os.Exit(role(os.Args[2:]))
		}
	}
}

func TestMain(m *testing.M) {
	testkit.OwnMounts()
	testkit.DefaultSignals()
	os.Exit(m.Run())
}

// roles is what this binary can be when its first argument names one.
var roles = map[string]func([]string) int{
	"role-descriptors": roleDescriptors,
	"role-ignore":      roleIgnore,
	"role-daemons":     roleDaemons,
	"role-serve":       roleServe,
	"role-launch":      roleLaunch,
	"role-keyring":     roleKeyring,
	"role-loopback":    roleLoopback,
	"role-dial":        roleDial,
	"role-trap":        roleTrap,
	"role-stopper":     roleStopper,
}

// self is where this binary is found inside a sandbox.
const self = "/opt/self"

// tree is what the vault of these tests holds.
var tree = map[string]struct {
	mode    uint32
	content string
}{
	"file":          {0o644, "hello from the vault\n"},
	"script":        {0o755, "#!/bin/sh\necho script $1\n"},
	"lost":          {0o755, "#!/no/such/interpreter\n"},
	"closed":        {0o755, "#!/app/file\n"},
	"noexec":        {0o644, "#!/bin/sh\necho never\n"},
	"notaprogram":   {0o755, "\x00\x01\x02 garbage"},
	"writesoutside": {0o755, "#!/bin/sh\necho x > /app/new\n"},
}

// newServer serves tree on an attached descriptor.
func newServer(fd int, m launcher.Mounted) (*fuse.Server, error) {
	root := &fusefs.Inode{}
	options := &fusefs.Options{UID: uint32(m.UID), GID: uint32(m.GID)}
	options.OnAdd = func(ctx context.Context) {
		for name, file := range tree {
			node := &fusefs.MemRegularFile{Data: []byte(file.content), Attr: fuse.Attr{Mode: file.mode}}
			root.AddChild(name, root.NewPersistentInode(ctx, node, fusefs.StableAttr{}), false)
		}
		big := &fusefs.MemRegularFile{Data: bytes.Repeat([]byte("0123456789abcdef"), 10<<20/16), Attr: fuse.Attr{Mode: 0o644}}
		root.AddChild("big", root.NewPersistentInode(ctx, big, fusefs.StableAttr{}), false)
		root.AddChild("data", root.NewPersistentInode(ctx, &fusefs.Inode{}, fusefs.StableAttr{Mode: fuse.S_IFDIR}), false)
	}
	return fuse.NewServer(insiders{fusefs.NewNodeFS(root, options)}, fmt.Sprintf("/dev/fd/%d", fd),
		&fuse.MountOptions{MaxWrite: m.MaxRead, DisableXAttrs: true})
}

// insiders refuses what comes from outside the sandbox, as every Filesystem
// must whose mount is Sandboxed.
type insiders struct{ fuse.RawFileSystem }

func (i insiders) Lookup(cancel <-chan struct{}, header *fuse.InHeader, name string, out *fuse.EntryOut) fuse.Status {
	if header.Pid == 0 {
		return fuse.EACCES
	}
	return i.RawFileSystem.Lookup(cancel, header, name, out)
}

func (i insiders) Open(cancel <-chan struct{}, in *fuse.OpenIn, out *fuse.OpenOut) fuse.Status {
	if in.Pid == 0 {
		return fuse.EACCES
	}
	return i.RawFileSystem.Open(cancel, in, out)
}

// memory is a Filesystem that serves tree from this process.
type memory struct {
	done     chan struct{}
	attached bool
	finished int
	mounted  launcher.Mounted
}

func newMemory() *memory { return &memory{done: make(chan struct{})} }

func (m *memory) Attach(device *os.File, mounted launcher.Mounted) error {
	m.mounted = mounted
	fd, err := unix.FcntlInt(device.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return err
	}
	server, err := newServer(fd, mounted)
	if err != nil {
		return err
	}
	m.attached = true
	go func() {
		server.Serve()
		close(m.done)
	}()
	return nil
}

func (m *memory) Done() <-chan struct{} { return m.done }

func (m *memory) Kill() {}

func (m *memory) Finish() error {
	m.finished++
	if !m.attached {
		return nil
	}
	select {
	case <-m.done:
		return nil
	case <-time.After(10 * time.Second):
		return errors.New("the mount is still there")
	}
}

// child is a Filesystem that serves tree from a process of its own.
type child struct {
	cmd  *exec.Cmd
	done chan struct{}
}

func (c *child) Attach(device *os.File, m launcher.Mounted) error {
	c.cmd = exec.Command("/proc/self/exe", "role-serve", fmt.Sprint(m.UID), fmt.Sprint(m.GID), fmt.Sprint(m.MaxRead))
	c.cmd.ExtraFiles = []*os.File{device}
	ready, err := c.cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := c.cmd.Start(); err != nil {
		return err
	}
	if _, err := io.ReadFull(ready, make([]byte, 1)); err != nil {
		return err
	}
	go func() {
		c.cmd.Wait()
		close(c.done)
	}()
	return nil
}

func (c *child) Done() <-chan struct{} { return c.done }

func (c *child) Kill() {
	if c.cmd != nil {
		c.cmd.Process.Kill()
	}
}

func (c *child) Finish() error {
	if c.cmd != nil {
		<-c.done
	}
	return nil
}

// roleServe is the child's process.
func roleServe(args []string) int {
	var m launcher.Mounted
	fmt.Sscan(strings.Join(args, " "), &m.UID, &m.GID, &m.MaxRead)
	server, err := newServer(3, m)
	if err != nil {
		return 1
	}
	os.Stdout.Write([]byte{'r'})
	server.Serve()
	return 0
}

// build makes a plan in which this binary can be executed.
func build(t testing.TB, o launcher.Options) launcher.Plan {
	t.Helper()
	binary, err := os.Readlink("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	o.Binds = append(o.Binds, launcher.Bind{Source: binary, Target: self, ReadOnly: true})
	plan, err := launcher.Build(o, launcher.ThisHost())
	if err != nil {
		t.Fatal(err)
	}
	return plan
}

// result is what a run came to.
type result struct {
	launcher.Status
	out, err string
	failure  error
}

// pipes are the program's three files, and what it wrote to them.
type pipes struct {
	files    [3]*os.File
	out, err bytes.Buffer
	wait     func()
}

// newPipes feeds input and collects the outputs.
func newPipes(t testing.TB, input io.Reader) *pipes {
	t.Helper()
	p := &pipes{}
	var ends [3]*os.File
	for i := range 3 {
		r, w, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		p.files[i], ends[i] = w, r
		if i == 0 {
			p.files[i], ends[i] = r, w
		}
	}
	finished := make(chan struct{}, 2)
	go func() {
		io.Copy(ends[0], input)
		ends[0].Close()
	}()
	for i, to := range []*bytes.Buffer{&p.out, &p.err} {
		go func() {
			io.Copy(to, ends[i+1])
			ends[i+1].Close()
			finished <- struct{}{}
		}()
	}
	p.wait = func() {
		for _, file := range p.files {
			file.Close()
		}
		<-finished
		<-finished
	}
	return p
}

// launch runs a plan to its end.
func launch(t testing.TB, plan launcher.Plan, filesystem launcher.Filesystem, input io.Reader, o launcher.RunOptions) result {
	t.Helper()
	p := newPipes(t, input)
	o.Stdin, o.Stdout, o.Stderr = p.files[0], p.files[1], p.files[2]
	status, err := launcher.Run(plan, filesystem, o)
	p.wait()
	return result{status, p.out.String(), p.err.String(), err}
}

// run runs a command in a sandbox of the usual options and wants it to succeed.
func run(t testing.TB, o launcher.Options, command ...string) result {
	t.Helper()
	o.Command = command
	filesystem := newMemory()
	r := launch(t, build(t, o), filesystem, strings.NewReader(""), launcher.RunOptions{})
	if filesystem.finished != 1 {
		t.Fatalf("Finish was called %d times", filesystem.finished)
	}
	return r
}

// shell runs a line of shell.
func shell(t testing.TB, o launcher.Options, line string) result {
	t.Helper()
	return run(t, o, "/bin/sh", "-c", line)
}

// prints wants a line of shell to succeed and to print want.
func prints(t *testing.T, o launcher.Options, line, want string) {
	t.Helper()
	r := shell(t, o, line)
	if r.failure != nil || r.Status != (launcher.Status{}) || strings.TrimSpace(r.out) != want {
		t.Errorf("%s: %v, %s\nprinted %q, %q\nwanted  %q", line, r.failure, r.Status, r.out, r.err, want)
	}
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// sandboxTests are run as root and as an ordinary user.
var sandboxTests = []struct {
	name string
	test func(*testing.T)
}{
	{"exit status", testExitStatus},
	{"vault", testVault},
	{"not found and not executable", testNotExecutable},
	{"environment", testEnvironment},
	{"working directory", testWorkingDirectory},
	{"view", testView},
	{"binds", testBinds},
	{"descriptors", testDescriptors},
	{"identity", testIdentity},
	{"privileges", testPrivileges},
	{"further limits", testFurtherLimits},
	{"keyring", testKeyring},
	{"network", testNetwork},
	{"pipes", testPipes},
	{"standard input closed", testStdinClosed},
	{"signals", testSignals},
	{"nohup", testNohup},
	{"stop timeout", testStopTimeout},
	{"orphans", testOrphans},
	{"invisible outside", testInvisible},
	{"closed to others", testClosedToOthers},
	{"launcher killed", testLauncherKilled},
	{"file system dies", testFilesystemDies},
	{"file system hangs", testFilesystemHangs},
	{"attach hangs", testAttachHangs},
	{"stops itself", testStopsItself},
	{"attach fails", testAttachFails},
	{"hundred runs", testHundredRuns},
	{"doctor", testDoctor},
	{"terminal", testTerminal},
}

func TestSandbox(t *testing.T) {
	for _, s := range sandboxTests {
		t.Run(s.name, s.test)
	}
}

// TestSandboxOrdinaryUser runs the same tests in a process of user 65534.
func TestSandboxOrdinaryUser(t *testing.T) {
	if os.Getuid() != 0 {
		t.Log("this is an ordinary user already")
		return
	}
	dir, err := os.MkdirTemp("", "launcher")
	must(t, err)
	defer os.RemoveAll(dir)
	must(t, os.Chmod(dir, 0o755))
	binary := filepath.Join(dir, "launcher.test")
	content, err := os.ReadFile("/proc/self/exe")
	must(t, err)
	must(t, os.WriteFile(binary, content, 0o755))
	cmd := exec.Command(binary, "-test.run=^TestSandbox$", "-test.v", fmt.Sprintf("-test.short=%v", testing.Short()))
	cmd.Dir = "/"
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "TERM=xterm"}
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	output, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, output)
	}
	if passed := bytes.Count(output, []byte("    --- PASS: TestSandbox/")); passed != len(sandboxTests) {
		t.Fatalf("%d of %d tests passed\n%s", passed, len(sandboxTests), output)
	}
}
