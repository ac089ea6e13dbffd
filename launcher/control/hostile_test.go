package control

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// needRoot fails, rather than skips, where other users can't be had.
func needRoot(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Fatal("this test needs root")
	}
}

// asUser is a registry of an ordinary user, looked at by root.
func asUser(r *Registry, uid int) *Registry {
	other := *r
	other.uid = uid
	return &other
}

// TestHostileFolders: what somebody else can have put in our folder's place.
func TestHostileFolders(t *testing.T) {
	needRoot(t)
	const victim = 12345
	for name, prepare := range map[string]func(path string) error{
		"another user's folder": func(path string) error { return errors.Join(os.Mkdir(path, 0o700), os.Chown(path, nobody, nobody)) },
		"root's folder":         func(path string) error { return os.Mkdir(path, 0o700) },
		"open to the group": func(path string) error {
			return errors.Join(os.Mkdir(path, 0o700), os.Chown(path, victim, victim), os.Chmod(path, 0o770))
		},
		"a link to the victim's own": func(path string) error {
			own := path + "-real"
			return errors.Join(os.Mkdir(own, 0o700), os.Chown(own, victim, victim), os.Symlink(own, path))
		},
		"a dangling link": func(path string) error { return os.Symlink("/does/not/exist", path) },
		"a file":          func(path string) error { return os.WriteFile(path, nil, 0o600) },
		"a FIFO":          func(path string) error { return unix.Mkfifo(path, 0o600) },
	} {
		r := asUser(testRegistry(t), victim)
		must(t, prepare(r.inTmp(victim)))
		var bad *FolderError
		if s, err := r.Listen(sample("/m")); !errors.As(err, &bad) {
			t.Errorf("%s: a socket was made: %v, %v", name, s, err)
		}
		if _, err := r.List(context.Background()); !errors.As(err, &bad) {
			t.Errorf("%s: listed: %v", name, err)
		}
		// It does not keep the user from working where there is a folder of his own.
		r.runtime = r.run + "/xdg"
		must(t, os.Mkdir(r.runtime, 0o700))
		must(t, os.Chown(r.runtime, victim, victim))
		if _, err := r.List(context.Background()); err != nil {
			t.Errorf("%s: list beside it: %v", name, err)
		}
	}
}

// TestHungFolder: a user mounts what never answers where root will look.
func TestHungFolder(t *testing.T) {
	needRoot(t)
	r := testRegistry(t)
	start(t, r, &fake{status: sample("/m")})
	dir := r.inTmp(12345)
	must(t, os.Mkdir(dir, 0o700))
	device, err := unix.Open("/dev/fuse", unix.O_RDWR|unix.O_CLOEXEC, 0)
	must(t, err)
	options := "fd=" + strconv.Itoa(device) + ",rootmode=40700,user_id=12345,group_id=12345,allow_other"
	must(t, unix.Mount("hung", dir, "fuse.hung", unix.MS_NOSUID|unix.MS_NODEV, options))
	defer unix.Unmount(dir, unix.MNT_DETACH)
	defer unix.Close(device) // lets go of who waits
	if got := list(t, r); len(got) != 1 || got[0].Mountpoint != "/m" {
		t.Errorf("listed %+v", got)
	}
}

func TestForeignRuntimeDirIsNotUsed(t *testing.T) {
	needRoot(t)
	r := asUser(testRegistry(t), 12345)
	r.runtime = r.run + "/xdg"
	must(t, os.Mkdir(r.runtime, 0o777))
	if got := r.own()[0].path; got != r.inTmp(12345) {
		t.Errorf("would use %s", got)
	}
	session := r.run + "/user/12345"
	must(t, os.Mkdir(session, 0o700))
	if got := r.own()[0].path; got != r.inTmp(12345) { // it is root's
		t.Errorf("would use %s", got)
	}
	must(t, os.Chown(session, 12345, 12345))
	if got := r.own()[0].path; got != session+"/encfsrun" {
		t.Errorf("would use %s instead of /tmp, where others can make folders", got)
	}
	must(t, os.Remove(session))
	must(t, os.Chown(r.runtime, 12345, 12345))
	if got := r.own()[0].path; got != r.runtime+"/encfsrun" {
		t.Errorf("would use %s", got)
	}
	r.runtime = "relative"
	if got := r.own()[0].path; got != r.inTmp(12345) {
		t.Errorf("would use %s", got)
	}
}

func TestRootListsAllUsers(t *testing.T) {
	needRoot(t)
	r := testRegistry(t)
	start(t, r, &fake{status: sample("/root")})
	theirs := helperDaemon(t, r, nobody)
	session := r.run + "/user/" + strconv.Itoa(nobody)
	must(t, os.Mkdir(session, 0o700))
	must(t, os.MkdirAll(r.run+"/user/not-a-number/encfsrun", 0o700))
	found := list(t, r)
	if len(found) != 2 {
		t.Fatalf("listed %+v", found)
	}
	for _, s := range found {
		if s.Mountpoint == "/helper" && (s.UID != nobody || s.PID != theirs.Process.Pid || s.State != Serving) {
			t.Errorf("the user's: %+v", s)
		}
	}
	if s, err := r.FindName(context.Background(), "name-of-helper"); !errors.Is(err, ErrNotFound) {
		t.Errorf("root takes a name that another user claims: %+v, %v", s, err)
	}
	if got := list(t, asUser(r, nobody)); len(got) != 1 {
		t.Errorf("the user itself lists %+v", got)
	}
}

// TestForeignPeerIsDropped lets a stranger reach the socket, as if the folder
// had been opened: the daemon still does not answer.
func TestForeignPeerIsDropped(t *testing.T) {
	needRoot(t)
	r := testRegistry(t)
	s := start(t, r, &fake{status: sample("/m")})
	must(t, os.Chmod(filepath.Dir(s.Path()), 0o755))
	must(t, os.Chmod(s.Path(), 0o777))
	defer os.Chmod(filepath.Dir(s.Path()), 0o700)
	for uid, want := range map[int]string{nobody: `got ""`, 0: `got "HTTP/1.1 200 OK`} {
		cmd := exec.Command("/proc/self/exe")
		cmd.Dir = "/"
		cmd.Env = []string{testHelper + "=connect", "SOCKET=" + s.Path()}
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(uid), Gid: uint32(uid)}}
		if out, err := cmd.CombinedOutput(); err != nil || !strings.HasPrefix(string(out), want) {
			t.Errorf("uid %d: %s, %v; want %s", uid, out, err, want)
		}
	}
}

// TestHostileRequests sends what no client of ours would; each ends within the
// limits, and the daemon goes on answering.
func TestHostileRequests(t *testing.T) {
	r := testRegistry(t)
	server := start(t, r, &fake{status: sample("/m")})
	for name, test := range map[string]struct{ send, want string }{
		"unknown path":     {"GET /v1/shutdown HTTP/1.1\r\nHost: x\r\n\r\n", "HTTP/1.1 404"},
		"wrong method":     {"POST /v1/status HTTP/1.1\r\nHost: x\r\n\r\n", "HTTP/1.1 405"},
		"status by POST":   {"POST /v1/status HTTP/1.1\r\nHost: x\r\n\r\n", "HTTP/1.1 405"},
		"not HTTP":         {"\x00\xff\r\n\r\n", "HTTP/1.1 400"},
		"huge header":      {"GET /v1/status HTTP/1.1\r\nHost: x\r\nX: " + strings.Repeat("x", 1<<20), "HTTP/1.1 431"},
		"endless line":     {strings.Repeat("G", 1<<20), ""},
		"huge body":        {"POST /v1/status HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000000000\r\n\r\n" + strings.Repeat("x", 1<<20), "HTTP/1.1 413"},
		"slow header":      {"GET /v1/status HTTP/1.1\r\nHost", ""},
		"nothing at all":   {"", ""},
		"body not sent":    {"GET /v1/status HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n", "HTTP/1.1 413"},
		"chunked body":     {"POST /v1/status HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n", "HTTP/1.1 413"},
		"second request":   {strings.Repeat("GET /v1/status HTTP/1.1\r\nHost: x\r\n\r\n", 1000), "HTTP/1.1 200"},
		"expects continue": {"POST /v1/status HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n", "HTTP/1.1 413"},
	} {
		t.Run(name, func(t *testing.T) {
			conn, err := net.Dial("unix", server.Path())
			must(t, err)
			defer conn.Close()
			conn.SetDeadline(time.Now().Add(2 * answerTimeout))
			go io.WriteString(conn, test.send)
			answer, err := io.ReadAll(conn)
			if errors.Is(err, os.ErrDeadlineExceeded) || !strings.HasPrefix(string(answer), test.want) {
				t.Errorf("got %.80q, %v; want %q", answer, err, test.want)
			}
			if strings.Count(string(answer), "HTTP/1.1 200") > 1 {
				t.Error("more than one request was answered")
			}
			if got := list(t, r); len(got) != 1 || got[0].State != Serving {
				t.Errorf("afterwards: %+v", got)
			}
		})
	}
}

func TestManyIdleConnections(t *testing.T) {
	r := testRegistry(t)
	server := start(t, r, &fake{status: sample("/m")})
	for range 3 * maxConnections {
		conn, err := net.Dial("unix", server.Path())
		must(t, err)
		defer conn.Close()
	}
	deadline := time.Now().Add(10 * time.Second)
	for got := list(t, r); got[0].State != Serving; got = list(t, r) {
		if time.Now().After(deadline) {
			t.Fatal("idle connections keep it from answering")
		}
	}
}

// TestServeEndsWhileFull: no place is free when the daemon is to end.
func TestServeEndsWhileFull(t *testing.T) {
	r := testRegistry(t)
	block := make(chan struct{})
	server := start(t, r, &fake{status: sample("/m"), block: block})
	t.Cleanup(func() { close(block) }) // after Serve has ended: cleanups run last first
	defer server.Close()
	for range maxConnections + 5 {
		conn, err := net.Dial("unix", server.Path())
		must(t, err)
		t.Cleanup(func() { conn.Close() })
		io.WriteString(conn, "GET /v1/status HTTP/1.1\r\nHost: x\r\n\r\n")
	}
	time.Sleep(100 * time.Millisecond)
}

// TestHostileDaemons: root lists what a user made up.
func TestHostileDaemons(t *testing.T) {
	needRoot(t)
	r := testRegistry(t)
	dir := r.inTmp(nobody)
	must(t, os.Mkdir(dir, 0o700))
	reached := false
	secret := filepath.Join(t.TempDir(), "service.sock")
	service, err := net.Listen("unix", secret)
	must(t, err)
	defer service.Close()
	go func() {
		if conn, err := service.Accept(); err == nil {
			reached = true
			conn.Close()
		}
	}()
	must(t, os.Symlink(secret, dir+"/link.sock"))
	must(t, unix.Mkfifo(dir+"/fifo.sock", 0o600))
	must(t, os.WriteFile(dir+"/file.sock", nil, 0o600))
	must(t, os.Mkdir(dir+"/dir.sock", 0o700))
	must(t, os.Symlink("/etc/passwd", dir+"/plain.json"))
	must(t, unix.Mkfifo(dir+"/stuck.json", 0o600))
	must(t, exec.Command("chown", "-hR", strconv.Itoa(nobody), dir).Run())

	for name, reply := range map[string]string{
		"endless":   "HTTP/1.1 200 OK\r\n\r\n" + strings.Repeat("x", 1<<20),
		"header":    "HTTP/1.1 200 OK\r\nX: " + strings.Repeat("x", 1<<20),
		"not-json":  "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n[]",
		"no-state":  "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}",
		"an-error":  "HTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\n",
		"redirect":  "HTTP/1.1 302 Found\r\nLocation: http://localhost/\r\nContent-Length: 0\r\n\r\n",
		"stuck":     "",
		"plain":     "\x1b]0;title\x07",
		"gzip-bomb": "HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\n\r\n\x1f\x8b",
	} {
		nastyDaemon(t, dir+"/"+name+".sock", reply)
	}
	root := rootsSocket(t, dir+"/roots.sock")
	for _, s := range list(t, r) {
		if s.State != NotAnswering || s.Mountpoint != "" || s.UID != nobody {
			t.Errorf("listed %+v", s)
		}
	}
	for _, name := range []string{"link", "fifo", "file", "dir"} {
		if _, err := os.Lstat(dir + "/" + name + ".sock"); err != nil {
			t.Errorf("root deleted what is no socket: %v", err)
		}
	}
	if reached {
		t.Error("root was led to another service's socket")
	}
	if root() {
		t.Error("root talked to a socket that is not the user's")
	}
}

// nastyDaemon is a socket of nobody's, at which a process of nobody's sends reply.
func nastyDaemon(t *testing.T, path, reply string) {
	t.Helper()
	// The kernel notes who listens: change only this thread's user meanwhile.
	fd, err := listenAs(path, nobody)
	must(t, err)
	file := os.NewFile(uintptr(fd), path)
	listener, err := net.FileListener(file)
	file.Close()
	must(t, err)
	t.Cleanup(func() { listener.Close() })
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				conn.SetDeadline(time.Now().Add(5 * time.Second))
				io.WriteString(conn, reply)
				io.Copy(io.Discard, conn)
			}()
		}
	}()
}

// rootsSocket is owned by nobody, but root listens. The function reports
// whether anything was ever sent to it.
func rootsSocket(t *testing.T, path string) func() bool {
	t.Helper()
	listener, err := net.Listen("unix", path)
	must(t, err)
	must(t, os.Chown(path, nobody, nobody))
	t.Cleanup(func() { listener.Close() })
	return func() bool {
		listener.(*net.UnixListener).SetDeadline(time.Now().Add(50 * time.Millisecond))
		conn, err := listener.Accept()
		if err != nil {
			return false
		}
		defer conn.Close()
		conn.SetDeadline(time.Now().Add(time.Second))
		n, _ := conn.Read(make([]byte, 1))
		return n > 0
	}
}

// TestFloodedFolder: a user makes more sockets than root will ask.
func TestFloodedFolder(t *testing.T) {
	r := testRegistry(t)
	start(t, r, &fake{status: sample("/m")})
	dir := r.own()[0].path
	for i := range 3 * maxSockets {
		must(t, os.WriteFile(dir+"/zz"+strconv.Itoa(i)+".sock", nil, 0o600))
	}
	list(t, r)
}

// listenAs makes a listening socket as another user, on a thread of its own.
func listenAs(path string, uid int) (int, error) {
	type result struct {
		fd  int
		err error
	}
	done := make(chan result)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
		fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		if err == nil {
			if _, _, errno := syscall.RawSyscall(syscall.SYS_SETRESUID, ^uintptr(0), uintptr(uid), ^uintptr(0)); errno != 0 {
				err = errno
			}
		}
		if err == nil {
			err = unix.Bind(fd, &unix.SockaddrUnix{Name: path})
		}
		if err == nil {
			err = unix.Listen(fd, 16)
		}
		done <- result{fd, err}
	}()
	r := <-done
	return r.fd, r.err
}
