package control

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"encfsrun/internal/testkit"
)

const testHelper = "CONTROL_TEST_HELPER"

func init() {
	testkit.QuickExits()
	switch os.Getenv(testHelper) {
	case "serve": // a daemon, until it is killed
		r := &Registry{uid: os.Geteuid(), run: os.Getenv("RUN"), tmp: os.Getenv("TMP")}
		server, err := r.Listen(sample("/helper"))
		if err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		fmt.Println("ready")
		server.Serve(context.Background(), &fake{status: sample("/helper")})
		os.Exit(0)
	case "connect": // a client: prints how many bytes it gets for a status request
		conn, err := net.Dial("unix", os.Getenv("SOCKET"))
		if err != nil {
			fmt.Println("refused", err)
			os.Exit(0)
		}
		conn.Write([]byte("GET /v1/status HTTP/1.1\r\nHost: x\r\n\r\n"))
		line, _ := bufio.NewReader(conn).ReadString('\n')
		fmt.Printf("got %q\n", line)
		os.Exit(0)
	}
}

const nobody = 65534

type fake struct {
	sync   error
	status Status
	block  chan struct{} // unless nil, until it is closed there is no answer
}

func (f *fake) Sync() error { return f.sync }

func (f *fake) Status() Status {
	if f.block != nil {
		<-f.block
	}
	return f.status
}

func sample(mountpoint string) Status {
	return Status{
		Mountpoint: mountpoint, Vault: "/v/app.vault", VaultID: "00ff", Name: "name-of-" + filepath.Base(mountpoint),
		PID: os.Getpid(), UID: os.Geteuid(), State: Serving, ReadOnly: true, OpenFiles: 3, GuardedBytes: 1 << 40, DirtyBytes: 7, DamagedFiles: 2,
		Started: time.Date(2026, 1, 2, 3, 4, 5, 678, time.UTC),
	}
}

// testRegistry has all its places in a temporary directory.
func testRegistry(t *testing.T) *Registry {
	t.Helper()
	base := t.TempDir()
	r := &Registry{uid: os.Geteuid(), run: base + "/run", tmp: base + "/tmp"}
	for dir := base; dir != "/tmp"; dir = filepath.Dir(dir) {
		must(t, os.Chmod(dir, 0o755)) // for helpers that are other users
	}
	must(t, os.MkdirAll(r.run+"/user", 0o755))
	must(t, os.Mkdir(r.tmp, 0o755))
	must(t, os.Chmod(r.tmp, 0o777|os.ModeSticky))
	return r
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// start serves daemon until the end of the test.
func start(t *testing.T, r *Registry, daemon *fake) *Server {
	t.Helper()
	s, err := r.Listen(daemon.status)
	must(t, err)
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- s.Serve(ctx, daemon) }()
	t.Cleanup(func() {
		cancel()
		select {
		case err := <-ended:
			if err != nil {
				t.Errorf("serve: %v", err)
			}
		case <-time.After(5 * time.Second):
			t.Error("serve does not end")
		}
		if files, _ := filepath.Glob(filepath.Dir(s.Path()) + "/" + s.id + "*"); len(files) > 0 {
			t.Errorf("left behind: %v", files)
		}
	})
	return s
}

func list(t *testing.T, r *Registry) []Status {
	t.Helper()
	begin := time.Now()
	found, err := r.List(context.Background())
	must(t, err)
	if took := time.Since(begin); took > listTimeout+time.Second {
		t.Errorf("the list took %v", took)
	}
	return found
}

func TestStatusComesBack(t *testing.T) {
	r := testRegistry(t)
	if got := list(t, r); len(got) != 0 {
		t.Fatalf("nothing runs, listed %v", got)
	}
	late := sample("/mnt/b")
	late.Started = late.Started.Add(time.Hour)
	second := start(t, r, &fake{status: late})
	first := start(t, r, &fake{status: sample("/mnt/a")})
	a, b := sample("/mnt/a"), late
	a.Socket, b.Socket = first.Path(), second.Path()
	if diff := cmp.Diff([]Status{a, b}, list(t, r)); diff != "" {
		t.Error(diff)
	}
	if got, err := r.FindName(context.Background(), "name-of-b"); err != nil || got.Mountpoint != "/mnt/b" {
		t.Errorf("found %v, %v", got, err)
	}
	for _, what := range []string{"", "/mnt/b", "name"} {
		if got, err := r.FindName(context.Background(), what); !errors.Is(err, ErrNotFound) {
			t.Errorf("%q: %v, %v", what, got, err)
		}
	}
	info, err := os.Stat(first.Path())
	must(t, err)
	if info.Mode().Perm() != 0o600 {
		t.Errorf("the socket has mode %v", info.Mode())
	}
}

// TestFindMount: what serves a mount is told by the kernel's word alone, its
// user and its device. All of these claim the same mount point and name.
func TestFindMount(t *testing.T) {
	r := testRegistry(t)
	claim := func(device, vault string, sandboxed bool, after time.Duration) {
		s := sample("/mnt")
		s.Device, s.Vault, s.Sandboxed, s.Started = device, vault, sandboxed, s.Started.Add(after)
		start(t, r, &fake{status: s})
	}
	claim("0:7", "it", false, 0)
	claim("0:8", "another mount, later", false, time.Hour)
	claim("0:7", "a run, later", true, time.Hour)
	claim("", "without a mount", false, time.Hour)
	if got, err := r.FindMount(context.Background(), r.uid, "0:7"); err != nil || got.Vault != "it" {
		t.Errorf("found %+v, %v", got, err)
	}
	for what, ask := range map[string]func() (Status, error){
		"of another user": func() (Status, error) { return r.FindMount(context.Background(), r.uid+1, "0:7") },
		"unknown":         func() (Status, error) { return r.FindMount(context.Background(), r.uid, "0:9") },
		"of no device":    func() (Status, error) { return r.FindMount(context.Background(), r.uid, "") },
	} {
		if got, err := ask(); !errors.Is(err, ErrNotFound) {
			t.Errorf("%s: %+v, %v", what, got, err)
		}
	}
}

func TestStatusFields(t *testing.T) {
	text, err := json.Marshal(sample("/m"))
	must(t, err)
	var fields map[string]any
	must(t, json.Unmarshal(text, &fields))
	for _, name := range []string{
		"mountpoint", "vault", "name", "pid", "state", "read_only", "open_files", "guarded_bytes", "dirty_bytes", "damaged_files", "vault_id", "uid", "started",
		"device", "sandboxed",
	} {
		if _, ok := fields[name]; !ok {
			t.Errorf("no %q in %s", name, text)
		}
	}
}

func TestVeryLongFolder(t *testing.T) {
	r := testRegistry(t)
	r.run = filepath.Join(r.run, strings.Repeat("long/", 40))
	must(t, os.MkdirAll(r.run, 0o755))
	start(t, r, &fake{status: sample("/m")})
	if got := list(t, r); len(got) != 1 || got[0].State != Serving {
		t.Errorf("listed %v", got)
	}
}

func TestDeadSocketsAreRemoved(t *testing.T) {
	r := testRegistry(t)
	start(t, r, &fake{status: sample("/live")})
	dead, err := r.Listen(sample("/dead"))
	must(t, err)
	dead.listener.Close() // as a killed process leaves it
	if got := list(t, r); len(got) != 1 || got[0].Mountpoint != "/live" {
		t.Errorf("listed %v", got)
	}
	if files, _ := filepath.Glob(filepath.Dir(dead.Path()) + "/*"); len(files) != 2 {
		t.Errorf("left: %v", files)
	}
	must(t, dead.Close())
	must(t, dead.Close())
}

// TestBirthIsNotDeath: a socket that does not listen yet is not cleaned away.
func TestBirthIsNotDeath(t *testing.T) {
	r := testRegistry(t)
	s, err := r.Listen(sample("/m"))
	must(t, err)
	defer s.Close()
	young := filepath.Dir(s.Path()) + "/0123.new"
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	must(t, err)
	defer unix.Close(fd)
	must(t, unix.Bind(fd, &unix.SockaddrUnix{Name: young}))
	list(t, r)
	if _, err := os.Lstat(young); err != nil {
		t.Errorf("a socket at birth was removed: %v", err)
	}
	old := time.Now().Add(-2 * youngAge)
	must(t, unix.UtimesNanoAt(unix.AT_FDCWD, young, []unix.Timespec{unix.NsecToTimespec(old.UnixNano()), unix.NsecToTimespec(old.UnixNano())}, unix.AT_SYMLINK_NOFOLLOW))
	list(t, r)
	if _, err := os.Lstat(young); err == nil {
		t.Error("a leftover of a failed birth stays")
	}
}

// TestStuckDaemons lists thirty daemons that accept nothing.
func TestStuckDaemons(t *testing.T) {
	r := testRegistry(t)
	for range 30 {
		s, err := r.Listen(sample("/stuck"))
		must(t, err)
		defer s.Close()
	}
	got := list(t, r)
	if len(got) != 30 {
		t.Fatalf("listed %d", len(got))
	}
	for _, s := range got {
		if s.State != NotAnswering || s.Mountpoint != "/stuck" || s.PID != os.Getpid() || s.GuardedBytes != 0 {
			t.Fatalf("listed %+v", s)
		}
	}
}

// helperDaemon starts a daemon in a process of its own, as user uid.
func helperDaemon(t *testing.T, r *Registry, uid int) *exec.Cmd {
	t.Helper()
	cmd := exec.Command("/proc/self/exe")
	cmd.Dir = "/"
	cmd.Env = []string{testHelper + "=serve", "RUN=" + r.run, "TMP=" + r.tmp}
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if uid != os.Geteuid() {
		cmd.SysProcAttr.Credential = &syscall.Credential{Uid: uint32(uid), Gid: uint32(uid)}
	}
	stdout, err := cmd.StdoutPipe()
	must(t, err)
	must(t, cmd.Start())
	t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
	if line, _ := bufio.NewReader(stdout).ReadString('\n'); line != "ready\n" {
		t.Fatalf("the daemon says %q", line)
	}
	return cmd
}

func TestStoppedDaemonAndWatch(t *testing.T) {
	r := testRegistry(t)
	daemon := helperDaemon(t, r, os.Geteuid())
	daemon.Process.Signal(syscall.SIGSTOP)
	found := list(t, r)
	if len(found) != 1 || found[0].State != NotAnswering || found[0].Mountpoint != "/helper" || found[0].PID != daemon.Process.Pid {
		t.Fatalf("listed %+v", found)
	}
	watch, err := r.Watch(context.Background(), found[0])
	must(t, err)
	defer watch.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer cancel()
	if err := watch.Wait(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("it lives, but: %v", err)
	}
	ended := make(chan error, 1)
	again, err := r.Watch(context.Background(), found[0])
	must(t, err)
	defer again.Close()
	go func() { ended <- again.Wait(context.Background()) }()
	daemon.Process.Kill()
	select {
	case err := <-ended:
		must(t, err)
	case <-time.After(5 * time.Second):
		t.Fatal("the end of the daemon was not noticed")
	}
	daemon.Wait()
	gone, err := r.Watch(context.Background(), found[0])
	must(t, err)
	must(t, gone.Wait(context.Background()))
	if got := list(t, r); len(got) != 0 {
		t.Errorf("listed %v", got)
	}
}
