package launcher_test

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"encfsrun/launcher"
)

// background is a run that goes on in a goroutine.
type background struct {
	pid  int // of PID 1
	done chan result
	out  *os.File
	text *bufio.Reader // over out
}

// inBackground starts a run and returns when its program has printed a line.
func inBackground(t *testing.T, o launcher.Options, filesystem launcher.Filesystem, ro launcher.RunOptions) *background {
	t.Helper()
	plan := build(t, o)
	read, write, err := os.Pipe()
	must(t, err)
	started := make(chan int, 1)
	ro.Stdout, ro.Started = write, func(pid int) { started <- pid }
	b := &background{done: make(chan result, 1), out: read, text: bufio.NewReader(read)}
	go func() {
		status, err := launcher.Run(plan, filesystem, ro)
		write.Close()
		b.done <- result{Status: status, failure: err}
	}()
	select {
	case b.pid = <-started:
	case r := <-b.done:
		t.Fatalf("not started: %v", r.failure)
	case <-time.After(30 * time.Second):
		t.Fatal("not started for thirty seconds")
	}
	if _, err := b.text.ReadString('\n'); err != nil {
		t.Fatalf("the program says nothing: %v", (<-b.done).failure)
	}
	return b
}

// says wants the program to print a line next.
func (b *background) says(t *testing.T, want string) {
	t.Helper()
	if line, err := b.text.ReadString('\n'); line != want+"\n" {
		t.Fatalf("the program says %q, %v; want %q", line, err, want)
	}
}

// end waits for the end of the run.
func (b *background) end(t *testing.T) result {
	t.Helper()
	defer b.out.Close()
	select {
	case r := <-b.done:
		rest, err := io.ReadAll(b.text)
		must(t, err)
		r.out = string(rest)
		return r
	case <-time.After(40 * time.Second):
		t.Fatal("the run does not end")
		return result{}
	}
}

// processes returns the pids, on this machine, of the processes in the same
// pid namespace as PID 1 of a sandbox. Those of other users are found by
// descent instead.
func processes(t *testing.T, pid int) []int {
	t.Helper()
	list := []int{pid}
	for i := 0; i < len(list); i++ {
		threads, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", list[i]))
		for _, thread := range threads {
			text, _ := os.ReadFile(thread)
			for _, field := range strings.Fields(string(text)) {
				number, _ := strconv.Atoi(field)
				list = append(list, number)
			}
		}
	}
	return list
}

// gone waits until none of pids exists, not even as a zombie.
func gone(t *testing.T, pids []int) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		var left []int
		for _, pid := range pids {
			if _, err := os.Stat(fmt.Sprintf("/proc/%d", pid)); err == nil {
				left = append(left, pid)
			}
		}
		if len(left) == 0 {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("processes %v are left", left)
		}
	}
}

func testSignals(t *testing.T) {
	b := inBackground(t, launcher.Options{Command: []string{"/bin/sh", "-c",
		`trap 'echo usr1' USR1; trap 'echo hup' HUP; trap 'echo int; exit 3' INT; echo ready; while :; do sleep 0.05; done`}},
		newMemory(), launcher.RunOptions{})
	for _, s := range []struct {
		signal syscall.Signal
		says   string
	}{{unix.SIGUSR1, "usr1"}, {unix.SIGHUP, "hup"}, {unix.SIGINT, "int"}} {
		must(t, unix.Kill(os.Getpid(), s.signal))
		b.says(t, s.says)
	}
	if r := b.end(t); r.failure != nil || r.Code != 3 || r.out != "" {
		t.Errorf("the program saw %q more and ended with %v, %v", r.out, r.Status, r.failure)
	}
	b = inBackground(t, launcher.Options{Command: []string{"/bin/sh", "-c", "echo ready; exec sleep 60"}}, newMemory(), launcher.RunOptions{})
	must(t, unix.Kill(os.Getpid(), unix.SIGTERM))
	if r := b.end(t); r.failure != nil || r.Signal != unix.SIGTERM {
		t.Errorf("after SIGTERM: %v, %v", r.Status, r.failure)
	}
}

// testNohup: the program inherits what the launcher's caller ignores.
func testNohup(t *testing.T) {
	binary, err := os.Readlink("/proc/self/exe")
	must(t, err)
	out, err := exec.Command("/usr/bin/nohup", binary, "role-launch", "/bin/grep", "SigIgn", "/proc/self/status").Output()
	var ignored uint64
	fmt.Sscanf(string(out), "SigIgn: %x", &ignored)
	if err != nil || ignored&(1<<(unix.SIGHUP-1)) == 0 {
		t.Errorf("%v, the program says %q", err, out)
	}
}

// roleIgnore ignores what asks it to end.
func roleIgnore([]string) int {
	signal.Ignore(unix.SIGTERM, unix.SIGINT)
	fmt.Println("ready")
	time.Sleep(time.Minute)
	return 0
}

func testStopTimeout(t *testing.T) {
	b := inBackground(t, launcher.Options{Command: []string{self, "role-ignore"}}, newMemory(),
		launcher.RunOptions{StopTimeout: 300 * time.Millisecond})
	began := time.Now()
	must(t, unix.Kill(os.Getpid(), unix.SIGTERM))
	r := b.end(t)
	if took := time.Since(began); r.failure != nil || r.Signal != unix.SIGKILL || took < 250*time.Millisecond || took > 5*time.Second {
		t.Errorf("a program that ignores SIGTERM: %v, %v after %s", r.Status, r.failure, took)
	}
}

// roleDaemons leaves processes behind that ignore everything, one of them in a
// session of its own and with another parent. It ends with its standard input.
func roleDaemons([]string) int {
	for range 3 {
		cmd := exec.Command("/proc/self/exe", "role-ignore")
		cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
		out, _ := cmd.StdoutPipe()
		if cmd.Start() != nil {
			return 1
		}
		bufio.NewReader(out).ReadString('\n')
	}
	shell := exec.Command("/bin/sh", "-c", "/opt/self role-ignore >/dev/null & (/opt/self role-ignore > /dev/null &)")
	if shell.Run() != nil {
		return 1
	}
	fmt.Println("ready")
	os.Stdin.Read(make([]byte, 1))
	return 5
}

func testOrphans(t *testing.T) {
	input, end, err := os.Pipe()
	must(t, err)
	defer input.Close()
	b := inBackground(t, launcher.Options{Command: []string{self, "role-daemons"}}, newMemory(), launcher.RunOptions{Stdin: input})
	pids := processes(t, b.pid)
	end.Close()
	if len(pids) != 7 {
		t.Errorf("%d processes in the sandbox, wanted PID 1, the program and five orphans", len(pids))
	}
	if r := b.end(t); r.failure != nil || r.Code != 5 {
		t.Errorf("ended with %v, %v", r.Status, r.failure)
	}
	gone(t, pids)
}

// oddRead marks the vaults of the tests that look for them in the machine's
// mounts, where other tests mount too.
const oddRead = 132 << 10

// visibleMounts counts the mounts of a sandbox in a mountinfo.
func visibleMounts(t *testing.T, text string) int {
	t.Helper()
	mounts, err := launcher.ParseMountinfo(strings.NewReader(text))
	must(t, err)
	count := 0
	for _, mount := range mounts {
		if strings.Contains(mount.SuperOptions, fmt.Sprintf("max_read=%d", oddRead)) || !mount.Ours() && mount.Source == "encfsrun" {
			count++
		}
	}
	return count
}

func testInvisible(t *testing.T) {
	if r := shell(t, launcher.Options{MaxRead: oddRead}, "cat /proc/self/mountinfo"); visibleMounts(t, r.out) != 9 {
		t.Errorf("inside there are %d mounts of the sandbox's own, wanted the root, the vault and seven:\n%s", visibleMounts(t, r.out), r.out)
	}
	b := inBackground(t, launcher.Options{MaxRead: oddRead, Command: []string{"/bin/sh", "-c", "echo ready; exec sleep 60"}}, newMemory(), launcher.RunOptions{})
	during, err := os.ReadFile("/proc/self/mountinfo")
	must(t, err)
	if visibleMounts(t, string(during)) != 0 {
		t.Errorf("mounts of the sandbox are visible outside:\n%s", during)
	}
	must(t, unix.Kill(b.pid, unix.SIGKILL))
	if r := b.end(t); r.failure == nil {
		t.Errorf("after PID 1 was killed: %v, without an error", r.Status)
	}
}

// testClosedToOthers tries to read the tree from this process and from another
// user's. For root and others the kernel refuses, because the mount's id is
// not theirs; the same ordinary user gets as far as the file system, which sees
// that the request comes from outside.
func testClosedToOthers(t *testing.T) {
	b := inBackground(t, launcher.Options{Command: []string{"/bin/sh", "-c", "echo ready; exec sleep 60"}}, newMemory(), launcher.RunOptions{})
	defer func() {
		must(t, unix.Kill(os.Getpid(), unix.SIGTERM))
		b.end(t)
	}()
	pids := processes(t, b.pid)
	if len(pids) != 2 {
		t.Fatalf("processes %v", pids)
	}
	// PID 1 is not dumpable: its descriptors are closed.
	if os.Getuid() != 0 {
		for _, name := range []string{"environ", "fd/0"} {
			if _, err := os.Open(fmt.Sprintf("/proc/%d/%s", pids[0], name)); !errors.Is(err, unix.EACCES) {
				t.Errorf("/proc/1/%s of the sandbox: %v", name, err)
			}
		}
	}
	for _, pid := range pids {
		name := fmt.Sprintf("/proc/%d/root/app/file", pid)
		if _, err := os.ReadFile(name); !errors.Is(err, unix.EACCES) {
			t.Errorf("this process reads %s: %v", name, err)
		}
		if os.Getuid() != 0 {
			continue
		}
		other := exec.Command("/bin/cat", name)
		other.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
		if text, err := other.Output(); err == nil || len(text) > 0 {
			t.Errorf("another user reads %s: %q", name, text)
		}
	}
}

// roleLaunch is a launcher that can be killed: it prints the pid of PID 1.
func roleLaunch(args []string) int {
	binary, _ := os.Readlink("/proc/self/exe")
	plan, err := launcher.Build(launcher.Options{
		Command: args, Binds: []launcher.Bind{{Source: binary, Target: self, ReadOnly: true}},
	}, launcher.ThisHost())
	if err != nil {
		fmt.Println(err)
		return 1
	}
	status, err := launcher.Run(plan, newMemory(), launcher.RunOptions{
		Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr,
		Started: func(pid int) { fmt.Fprintln(os.Stderr, pid) },
	})
	if err != nil {
		fmt.Println(err)
		return 1
	}
	return status.ExitCode()
}

func testLauncherKilled(t *testing.T) {
	cmd := exec.Command("/proc/self/exe", "role-launch", self, "role-daemons")
	errors, err := cmd.StderrPipe()
	must(t, err)
	output, err := cmd.StdoutPipe()
	must(t, err)
	_, err = cmd.StdinPipe() // open until it has been killed
	must(t, err)
	must(t, cmd.Start())
	line, err := bufio.NewReader(errors).ReadString('\n')
	must(t, err)
	pid, err := strconv.Atoi(strings.TrimSpace(line))
	must(t, err)
	if line, _ := bufio.NewReader(output).ReadString('\n'); line != "ready\n" {
		t.Fatalf("the program says %q", line)
	}
	pids := processes(t, pid)
	if len(pids) != 7 {
		t.Errorf("%d processes in the sandbox, wanted 7", len(pids))
	}
	must(t, cmd.Process.Kill())
	cmd.Wait()
	gone(t, pids)
}

func testHundredRuns(t *testing.T) {
	count := func() (fds, mounts int) {
		entries, err := os.ReadDir("/proc/self/fd")
		must(t, err)
		info, err := os.ReadFile("/proc/self/mountinfo")
		must(t, err)
		return len(entries), visibleMounts(t, string(info))
	}
	run(t, launcher.Options{}, "true") // what the runtime keeps open from now on
	fds, _ := count()
	runs := 100
	if testing.Short() {
		runs = 10
	}
	for i := range runs {
		if r := run(t, launcher.Options{MaxRead: oddRead}, "true"); r.failure != nil || r.Code != 0 {
			t.Fatalf("run %d: %v, %v", i, r.Status, r.failure)
		}
	}
	if left := processes(t, os.Getpid()); len(left) != 1 {
		t.Errorf("processes %v are left", left[1:])
	}
	if fds2, mounts2 := count(); fds2 > fds || mounts2 != 0 {
		t.Errorf("%d descriptors became %d, and %d mounts are left", fds, fds2, mounts2)
	}
}

func testDoctor(t *testing.T) {
	for _, check := range launcher.Doctor() {
		if check.Means == "" || check.OK == (check.Mend != "") {
			t.Errorf("%+v", check)
		}
		if (check.Name == "fuse" || check.Name == "user namespaces") && !check.OK {
			t.Errorf("%+v", check)
		}
	}
}
