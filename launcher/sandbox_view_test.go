package launcher_test

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"encfsrun/launcher"
)

func testExitStatus(t *testing.T) {
	for line, want := range map[string]launcher.Status{
		"exit 0":      {},
		"exit 7":      {Code: 7},
		"exit 255":    {Code: 255},
		"kill -9 $$":  {Signal: unix.SIGKILL},
		"kill -15 $$": {Signal: unix.SIGTERM},
	} {
		if r := shell(t, launcher.Options{}, line); r.failure != nil || r.Status != want {
			t.Errorf("%s: %v, %v, wanted %v", line, r.Status, r.failure, want)
		}
	}
	if code := (launcher.Status{Signal: unix.SIGTERM}).ExitCode(); code != 143 {
		t.Errorf("killed by 15 is exit code %d", code)
	}
}

func testVault(t *testing.T) {
	prints(t, launcher.Options{}, "cat /app/file", "hello from the vault")
	prints(t, launcher.Options{At: "/srv/deep/code"}, "cat /srv/deep/code/file; pwd", "hello from the vault\n/srv/deep/code")
	prints(t, launcher.Options{}, "/app/script one", "script one")
	prints(t, launcher.Options{}, "md5sum < /app/big", "9b5cef55672b5a5b4d3a7a256d7141d2  -")
	if r := shell(t, launcher.Options{}, "echo x > /app/new"); r.Code == 0 || !strings.Contains(r.err, "Read-only file system") {
		t.Errorf("a write to a read-only vault: %v, %s", r.Status, r.err)
	}
	r := shell(t, launcher.Options{}, "grep ' /app ' /proc/self/mountinfo")
	for _, want := range []string{" ro,nosuid,nodev,", "- fuse.encfsrun encfsrun ro,", "max_read=131072", "default_permissions"} {
		if !strings.Contains(r.out, want) {
			t.Errorf("%q is not in %q", want, r.out)
		}
	}
	if r := shell(t, launcher.Options{Writable: true}, "grep ' /app ' /proc/self/mountinfo"); !strings.Contains(r.out, " rw,nosuid,nodev,") {
		t.Errorf("writable: %q", r.out)
	}
}

func testNotExecutable(t *testing.T) {
	for _, c := range []struct {
		command string
		code    int
		says    string
	}{
		{"nosuchprogram", 127, "nosuchprogram is not in the sandbox"},
		{"/no/such/program", 127, "/no/such/program is not in the sandbox"},
		{"./lost", 127, "./lost needs the interpreter /no/such/interpreter, which is not in the sandbox"},
		{"./closed", 126, "./closed needs the interpreter /app/file, which can't be executed: permission denied"},
		{"./noexec", 126, "./noexec can't be executed: permission denied"},
		{"./notaprogram", 126, "./notaprogram can't be executed: exec format error"},
		{"/app", 126, "/app can't be executed: permission denied"},
	} {
		r := run(t, launcher.Options{}, c.command)
		var failed *launcher.ExecError
		if !errors.As(r.failure, &failed) {
			t.Errorf("%s: %v, %v", c.command, r.Status, r.failure)
			continue
		}
		if failed.ExitCode() != c.code || failed.Error() != c.says {
			t.Errorf("%s: %d, %q", c.command, failed.ExitCode(), failed)
		}
	}
	if r := run(t, launcher.Options{Env: []string{"PATH=/nowhere:/app"}}, "noexec"); r.failure == nil ||
		r.failure.Error() != "noexec can't be executed: permission denied" {
		t.Errorf("in PATH without permission: %v", r.failure)
	}
}

func testEnvironment(t *testing.T) {
	for name, value := range map[string]string{
		"SECRET": "leak", "PASSED": "yes", "LANG": "C", "LC_ALL": "C", "TZ": "UTC", "TERM": "vt100",
	} {
		t.Setenv(name, value)
	}
	name, _ := user()
	want := []string{
		"HOME=/home/" + name, "LANG=C", "LC_ALL=C", "LOGNAME=" + name, "PASSED=yes",
		"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
		"PYTHONDONTWRITEBYTECODE=1", "SHELL=/bin/sh", "SPACED=a b=c", "TERM=vt100", "TMPDIR=/tmp", "TZ=UTC", "USER=" + name,
	}
	r := run(t, launcher.Options{Env: []string{"PASSED", "SPACED=a b=c"}}, "env")
	if strings.TrimSpace(r.out) != strings.Join(want, "\n") {
		t.Errorf("env prints\n%s%v", r.out, r.failure)
	}
}

// user is the name and uid that a program of this user has inside by default.
func user() (string, int) {
	if os.Getuid() == 0 {
		return "app", 1000
	}
	return "nobody", os.Getuid()
}

func testWorkingDirectory(t *testing.T) {
	prints(t, launcher.Options{}, "pwd", "/app")
	prints(t, launcher.Options{Dir: "/tmp"}, "pwd", "/tmp")
	r := shell(t, launcher.Options{Dir: "/not/there"}, "pwd")
	var failed *launcher.SetupError
	if !errors.As(r.failure, &failed) || r.failure.Error() != "enter the working directory /not/there: no such file or directory" {
		t.Errorf("a directory that is not there: %v", r.failure)
	}
}

func testView(t *testing.T) {
	name, uid := user()
	prints(t, launcher.Options{}, "ls /", strings.Join(rootEntries(t), "\n"))
	prints(t, launcher.Options{}, "ls /dev",
		"fd\nfull\nnull\nptmx\npts\nrandom\nshm\nstderr\nstdin\nstdout\ntty\nurandom\nzero")
	prints(t, launcher.Options{}, "ls -A /home /tmp /run /dev/shm", "/dev/shm:\n\n/home:\n"+name+"\n\n/run:\n\n/tmp:")
	prints(t, launcher.Options{}, "for d in /tmp /run /home/"+name+" /dev/shm /var/tmp; do touch $d/x && stat -c %u $d/x; done",
		strings.TrimSpace(strings.Repeat(fmt.Sprintln(uid), 5)))
	prints(t, launcher.Options{}, "for d in / /usr /etc /dev /proc/sys /var /bin; do touch $d/x 2>/dev/null && echo wrote to $d; done; echo done", "done")
	prints(t, launcher.Options{}, "stat -c %a /tmp /dev/shm /home/"+name, "1777\n1777\n700")
	prints(t, launcher.Options{}, "head -c 4 /dev/zero | od -An -tx1; echo x > /dev/null", "00 00 00 00")
	prints(t, launcher.Options{}, "cat /proc/sys/kernel/hostname; getent hosts encfsrun | tr -s ' '", "encfsrun\n127.0.0.1 localhost encfsrun")
	prints(t, launcher.Options{}, "cat /etc/shadow /etc/machine-id 2>/dev/null; ls /sys /root /boot 2>/dev/null; echo none", "none")
	r := shell(t, launcher.Options{}, "cat /proc/self/mountinfo")
	mounts, err := launcher.ParseMountinfo(strings.NewReader(r.out))
	must(t, err)
	for _, mount := range mounts {
		options := strings.Split(mount.Options, ",")
		has := func(name string) bool { return strings.Contains(","+strings.Join(options, ",")+",", ","+name+",") }
		device := strings.HasPrefix(mount.Mountpoint, "/dev/") && mount.Mountpoint != "/dev/shm"
		if !has("nosuid") || (!has("nodev") && !device) {
			t.Errorf("%s is mounted %s", mount.Mountpoint, mount.Options)
		}
	}
	if len(mounts) < 10 {
		t.Errorf("%d mounts are too few:\n%s", len(mounts), r.out)
	}
}

// rootEntries is what / should hold inside.
func rootEntries(t *testing.T) []string {
	t.Helper()
	var names []string
	for _, name := range []string{"app", "bin", "dev", "etc", "home", "lib", "lib32", "lib64", "libx32", "opt", "proc", "run", "sbin", "tmp", "usr", "var"} {
		switch name {
		case "lib", "lib32", "lib64", "libx32", "bin", "sbin":
			if _, err := os.Lstat("/" + name); err != nil {
				continue
			}
		}
		names = append(names, name)
	}
	return names
}

func testBinds(t *testing.T) {
	dir := t.TempDir()
	for parent := dir; parent != os.TempDir() && parent != "/"; parent = filepath.Dir(parent) {
		must(t, os.Chmod(parent, 0o755))
	}
	must(t, os.WriteFile(filepath.Join(dir, "in"), []byte("bound"), 0o644))
	must(t, os.Symlink(dir, filepath.Join(dir, "link")))
	must(t, os.Symlink("/etc", filepath.Join(dir, "evil")))
	prints(t, launcher.Options{Binds: []launcher.Bind{{Source: dir, Target: "/mnt/data", ReadOnly: true}}},
		"cat /mnt/data/in; touch /mnt/data/x 2>/dev/null || echo refused", "boundrefused")
	prints(t, launcher.Options{Binds: []launcher.Bind{{Source: dir + "/link", Target: "/data"}}}, "cat /data/in", "bound")
	prints(t, launcher.Options{Binds: []launcher.Bind{{Source: dir + "/in", Target: "/one/file"}}}, "cat /one/file", "bound")
	prints(t, launcher.Options{Binds: []launcher.Bind{{Source: dir, Target: "/app/data", ReadOnly: true}}}, "cat /app/data/in /app/file", "boundhello from the vault")
	if os.Getuid() != 0 { // root's sandboxes have an id that owns nothing
		prints(t, launcher.Options{Binds: []launcher.Bind{{Source: dir}}}, "echo more >> "+dir+"/in; cat "+dir+"/in", "boundmore")
		if text, err := os.ReadFile(filepath.Join(dir, "in")); err != nil || string(text) != "boundmore\n" {
			t.Errorf("outside it reads %q, %v", text, err)
		}
	}
	// A link in a bind means what it means inside, and never the machine's file.
	r := shell(t, launcher.Options{Binds: []launcher.Bind{{Source: dir, Target: "/w", ReadOnly: true},
		{Source: dir + "/in", Target: "/w/evil/passwd", ReadOnly: true}}}, "cat /etc/passwd")
	if r.failure != nil || r.out != "bound" && r.out != "boundmore\n" {
		t.Errorf("a bind through a link: %q, %v", r.out, r.failure)
	}
	r = shell(t, launcher.Options{At: "/usr/nowhere"}, "true")
	if r.failure == nil || !strings.Contains(r.failure.Error(), "/usr/nowhere does not exist and /usr is read-only") {
		t.Errorf("a mount point that can't be made: %v", r.failure)
	}
}

// roleDescriptors prints the descriptors it was started with.
func roleDescriptors([]string) int {
	for fd := range 1024 {
		flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0)
		if err == nil && flags&unix.FD_CLOEXEC == 0 {
			name, _ := os.Readlink(fmt.Sprintf("/proc/self/fd/%d", fd))
			fmt.Println(fd, strings.Split(name, ":")[0])
		}
	}
	return 0
}

func testDescriptors(t *testing.T) {
	leak, err := unix.Open("/etc/hostname", unix.O_RDONLY, 0) // not close-on-exec, as a shell's 9<file
	must(t, err)
	defer unix.Close(leak)
	if r := run(t, launcher.Options{}, self, "role-descriptors"); r.out != "0 pipe\n1 pipe\n2 pipe\n" {
		t.Errorf("the program has\n%s%v", r.out, r.failure)
	}
	prints(t, launcher.Options{}, "ls /proc/self/fd", "0\n1\n2\n3") // 3 is the folder that ls reads
}

func testIdentity(t *testing.T) {
	name, uid := user()
	prints(t, launcher.Options{}, "id -u; id -g; id -un; id -gn; stat -c '%u %g' /app/file /app",
		fmt.Sprintf("%d\n%d\n%s\n%s\n%d %d\n%d %d", uid, uid, name, name, uid, uid, uid, uid))
	r := shell(t, launcher.Options{}, "cat /proc/self/uid_map /proc/self/gid_map; grep Groups: /proc/self/status")
	fields := strings.Fields(r.out)
	plan := build(t, launcher.Options{Command: []string{"true"}})
	want := fmt.Sprintf("%d %d 1", plan.Identity.UID, plan.Identity.HostUID)
	if len(fields) < 6 || strings.Join(fields[:3], " ") != want {
		t.Errorf("the maps are %q, wanted %s", r.out, want)
	}
	if os.Getuid() != 0 {
		return
	}
	if plan.Identity.HostUID < 1<<24 || !strings.HasSuffix(strings.TrimSpace(r.out), "Groups:") {
		t.Errorf("root's sandbox has %q", r.out)
	}
	prints(t, launcher.Options{User: "33:44"}, "id -u; id -g; echo $HOME; stat -c '%u %g' /app/file", "33\n44\n/home/www-data\n33 44")
}

// libraryIgnored is what of this process's ignored signals are the C library's own, 32 and 33, as /proc/PID/status prints it:
// posix_spawn(3), which make calls, ignores them for its children, and a program inherits that like any other.
func libraryIgnored(t *testing.T) string {
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(status), "SigIgn:\t")
	var ignored uint64
	if _, err := fmt.Sscanf(rest, "%x", &ignored); err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("%016x", ignored&(1<<31|1<<32))
}

func testPrivileges(t *testing.T) {
	const none = "0000000000000000"
	prints(t, launcher.Options{}, `sed -n 's/^\(Cap.*\|NoNewPrivs\):\t/\1 /p' /proc/self/status; ulimit -c; ulimit -Hc`,
		"CapInh "+none+"\nCapPrm "+none+"\nCapEff "+none+"\nCapBnd "+none+"\nCapAmb "+none+"\nNoNewPrivs 1\n0\n0")
	// PID 1: nothing of it may be read, and signals don't end it.
	prints(t, launcher.Options{}, "cat /proc/1/environ /proc/1/maps 2>/dev/null; ls /proc/1/fd /proc/1/root/ 2>/dev/null; for s in HUP INT QUIT TERM USR1 SEGV ABRT KILL STOP; do kill -$s 1; done; sleep 0.1; echo alive", "alive")
	prints(t, launcher.Options{}, "for s in INT QUIT HUP TERM CHLD PIPE; do (trap - $s); done; grep -E 'SigIgn|SigBlk' /proc/self/status", "SigBlk:\t"+none+"\nSigIgn:\t"+libraryIgnored(t))
	// Nothing outside can be signalled: neither by number nor through a group.
	prints(t, launcher.Options{}, "kill -0 "+fmt.Sprint(os.Getpid())+" 2>/dev/null || echo no; ps -eo pid= | wc -l", "no\n4")
	escaped := make(chan os.Signal, 1)
	signal.Notify(escaped, unix.SIGUSR2)
	defer signal.Stop(escaped)
	prints(t, launcher.Options{}, "trap '' USR2; kill -USR2 0; sleep 0.1; echo sent", "sent")
	if len(escaped) != 0 {
		t.Error("a signal to the program's group reached the launcher")
	}
	if r := shell(t, launcher.Options{}, "kill -TERM 0; sleep 5"); r.failure != nil || r.Signal != unix.SIGTERM {
		t.Errorf("a signal to the program's own group: %v, %v", r.Status, r.failure)
	}
}

// testFurtherLimits: what the program could otherwise still bring about.
func testFurtherLimits(t *testing.T) {
	prints(t, launcher.Options{}, "unshare -Urm true 2>&1; echo 9 2>/dev/null > /proc/sys/user/max_user_namespaces; cat /proc/sys/user/max_user_namespaces /proc/self/coredump_filter",
		"unshare: unshare failed: No space left on device\n0\n00000000")
}

// roleKeyring looks for a key in its session keyring.
func roleKeyring([]string) int {
	if _, err := unix.KeyctlSearch(unix.KEY_SPEC_SESSION_KEYRING, "user", "encfsrun-test", 0); err != nil {
		fmt.Println("none:", err)
		return 0
	}
	fmt.Println("found")
	return 0
}

// testKeyring starts a launcher that has a key in its session keyring.
func testKeyring(t *testing.T) {
	with := func(args ...string) string {
		type outcome struct {
			text []byte
			err  error
		}
		done := make(chan outcome)
		go func() {
			runtime.LockOSThread() // and never unlocked: the keyring is the thread's
			cmd := exec.Command("/proc/self/exe", args...)
			_, err := unix.KeyctlInt(unix.KEYCTL_JOIN_SESSION_KEYRING, 0, 0, 0, 0)
			if err == nil {
				_, err = unix.AddKey("user", "encfsrun-test", []byte("secret"), unix.KEY_SPEC_SESSION_KEYRING)
			}
			var text []byte
			if err == nil {
				text, err = cmd.Output()
			}
			done <- outcome{text, err}
		}()
		o := <-done
		must(t, o.err)
		return string(o.text)
	}
	if got := with("role-keyring"); got != "found\n" {
		t.Fatalf("outside: %s", got)
	}
	if got := with("role-launch", self, "role-keyring"); !strings.HasPrefix(got, "none: ") {
		t.Errorf("inside: %s", got)
	}
}

func roleLoopback([]string) int {
	links, err := net.Interfaces()
	if err != nil {
		return 1
	}
	for _, link := range links {
		fmt.Println(link.Name, link.Flags&net.FlagUp != 0)
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		fmt.Println(err)
		return 1
	}
	go listener.Accept()
	conn, err := net.Dial("tcp", listener.Addr().String())
	if err != nil {
		fmt.Println(err)
		return 1
	}
	conn.Close()
	return 0
}

func roleDial(args []string) int {
	conn, err := net.Dial("tcp", args[0])
	if err != nil {
		fmt.Println("refused")
		return 1
	}
	conn.Close()
	fmt.Println("connected")
	return 0
}

func testNetwork(t *testing.T) {
	if r := run(t, launcher.Options{}, self, "role-loopback"); r.out != "lo true\n" || r.Code != 0 {
		t.Errorf("without network there is %q, %v", r.out, r.Status)
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	defer listener.Close()
	address := listener.Addr().String()
	if r := run(t, launcher.Options{}, self, "role-dial", address); r.out != "refused\n" {
		t.Errorf("the machine's loopback without network: %s%v", r.out, r.failure)
	}
	if r := run(t, launcher.Options{Net: launcher.NetHost}, self, "role-dial", address); r.out != "connected\n" {
		t.Errorf("the machine's loopback with its network: %s%v", r.out, r.failure)
	}
	hosts, err := os.ReadFile("/etc/hosts")
	must(t, err)
	prints(t, launcher.Options{Net: launcher.NetHost}, "cat /etc/hosts; test -r /etc/resolv.conf", strings.TrimSpace(string(hosts)))
}

func testPipes(t *testing.T) {
	input := bytes.Repeat([]byte("ten megabytes in and out\n"), 10<<20/25)
	plan := build(t, launcher.Options{Command: []string{"cat"}})
	r := launch(t, plan, newMemory(), bytes.NewReader(input), launcher.RunOptions{})
	if r.failure != nil || r.Code != 0 || r.out != string(input) {
		t.Errorf("cat of %d bytes gave %d, %v, %v", len(input), len(r.out), r.Status, r.failure)
	}
	if r := shell(t, launcher.Options{}, "cat /app/big | head -c 5; echo to stderr >&2"); r.out != "01234" || r.err != "to stderr\n" {
		t.Errorf("printed %q, %q", r.out, r.err)
	}
	// PID 1 holds no end of the program's pipes: the reader sees it close.
	r = shell(t, launcher.Options{}, "exec 1>&- 2>&-; sleep 0.2")
	if r.failure != nil || r.Code != 0 {
		t.Errorf("outputs closed: %v, %v", r.Status, r.failure)
	}
}

func testStdinClosed(t *testing.T) {
	p := newPipes(t, strings.NewReader(""))
	status, err := launcher.Run(build(t, launcher.Options{Command: []string{"wc", "-c"}}), newMemory(),
		launcher.RunOptions{Stdout: p.files[1], Stderr: p.files[2]})
	p.wait()
	if err != nil || status.Code != 0 || p.out.String() != "0\n" {
		t.Errorf("without standard input: %v, %v, %q", status, err, p.out.String())
	}
}
