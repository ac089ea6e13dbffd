package e2e

import (
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// in makes a run of a command with the machine key; flags come first, up to "--".
func (w *world) in(vault string, args ...string) []string {
	for i, a := range args {
		if a == "--" {
			return append(append(append(w.unlock("run"), args[:i]...), vault), args[i+1:]...)
		}
	}
	return append(w.unlock("run", vault), args...)
}

func TestRunStatus(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		vault := w.vault()
		for _, c := range []struct {
			code    int
			command []string
		}{
			{0, []string{"true"}}, {1, []string{"false"}}, {3, []string{"/app/exits", "3"}}, {125, []string{"./exits", "125"}}, {255, []string{"./exits", "255"}},
			{137, []string{"sh", "-c", "kill -9 $$"}}, {143, []string{"sh", "-c", "kill -TERM $$"}}, {139, []string{"sh", "-c", "kill -SEGV $$"}},
			{0, []string{"./script", "x"}}, {0, []string{"/usr/bin/python3", "main.py"}},
		} {
			o := w.run(w.in(vault, c.command...)...)
			if o.code != c.code || o.stderr != "" && !strings.Contains(strings.Join(c.command, " "), "kill") {
				t.Errorf("run %v: exit %d, want %d\n%s", c.command, o.code, c.code, o.stderr)
			}
		}
		for _, c := range []struct {
			code    int
			named   string
			command string
		}{
			{127, "no-such-program", "no-such-program"}, {127, "/app/no-such", "/app/no-such"}, {127, "/no/such/interpreter", "./lost"},
			{126, "noexec", "./noexec"}, {126, "/app/lib", "/app/lib"},
		} {
			o := w.run(w.in(vault, c.command)...)
			o.wants(t, "run "+c.command, c.code, c.named)
		}
	})
}

func TestRunFlags(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		vault := w.vault()
		w.write("data/file", "data of the machine\n", 0o666)
		must(t, os.Chmod(w.path("data"), 0o777))
		prints := func(want string, args ...string) {
			t.Helper()
			o := w.run(w.in(vault, args...)...)
			if o.code != 0 || o.stdout != want || o.stderr != "" {
				t.Errorf("run %v: exit %d, prints %q, want %q\n%s", args, o.code, o.stdout, want, o.stderr)
			}
		}
		secret := sources["secret"].content
		prints("hello from the vault a -b --c\n", "/usr/bin/python3", "main.py", "a", "-b", "--c")
		prints("/app\n", "pwd")
		prints("/srv/code\n"+secret, "--at", "/srv/code", "--", "sh", "-c", "pwd; cat /srv/code/secret; test ! -e /app")
		prints("/app/lib\n", "--chdir", "/app/lib", "--", "pwd")
		prints("K=v w\n", "--env", "K=v w", "--", "sh", "-c", "echo K=$K")
		w.env = append(w.env, "PASSED=on", "KEPT=back")
		prints("on-\n", "--env", "PASSED", "--", "sh", "-c", "echo $PASSED-$KEPT")
		prints("data of the machine\n", "--ro-bind", w.path("data")+":/data", "--", "cat", "/data/file")
		prints("", "--ro-bind", w.path("data")+":/data", "--", "sh", "-c", "! echo x 2>/dev/null >/data/file")
		prints("data of the machine\n", "--bind", w.path("data"), "--", "cat", w.path("data/file"))
		if w.who.uid != 0 { // root's sandbox has ids of its own, which can change nothing of the machine's
			prints("", "--bind", w.path("data")+":/data", "--", "sh", "-c", "echo new >/data/file")
			if b, _ := os.ReadFile(w.path("data/file")); string(b) != "new\n" {
				t.Errorf("after a write through --bind the file holds %q", b)
			}
		}
		prints("lo\n", "sh", "-c", "ls /sys/class/net 2>/dev/null || sed -n 's/ *\\(.*\\):.*/\\1/p' /proc/net/dev")
		host := w.sh("sed -n 's/ *\\(.*\\):.*/\\1/p' /proc/net/dev")
		prints(host, "--net", "host", "--", "sed", "-n", "s/ *\\(.*\\):.*/\\1/p", "/proc/net/dev")
		temporary := "/tmp/of-" + filepath.Base(w.dir)
		prints("", "sh", "-c", "! echo x 2>/dev/null >/app/new && ! rm -f /app/secret 2>/dev/null && echo x >"+temporary+" && echo x >$HOME/x")
		prints("", "sh", "-c", "test $(id -u) != 0")
		if exists(temporary) {
			t.Error("/tmp of the sandbox is the machine's")
		}
	})
}

func TestRunPipes(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		vault := w.vault()
		data := make([]byte, 10<<20)
		rand.Read(data)
		cmd := w.encfsrun(w.in(vault, "sh", "-c", "tee /tmp/copy; cat /tmp/copy >&2")...)
		cmd.Stdin = bytes.NewReader(data)
		o := finish(t, cmd)
		if o.code != 0 || sha256.Sum256([]byte(o.stdout)) != sha256.Sum256(data) || o.stderr != o.stdout {
			t.Errorf("10 MB in: exit %d, %d bytes out, %d to standard error", o.code, len(o.stdout), len(o.stderr))
		}
		// A reader that goes away: the program gets SIGPIPE, as anywhere.
		if got := w.sh(w.binary + " run --passkey-file " + w.machine + " " + vault + " yes | head -1"); got != "y\n" {
			t.Errorf("yes | head -1 prints %q", got)
		}
		// All three closed.
		w.sh(fmt.Sprintf("%s run --passkey-file %s %s true <&- >&- 2>&-", w.binary, w.machine, vault))
		w.sh(fmt.Sprintf("test -z \"$(%s run --passkey-file %s %s cat <&-)\"", w.binary, w.machine, vault))
		// The passkey on standard input is not the program's to read.
		cmd = w.encfsrun("run", "--passkey-fd", "0", vault, "cat")
		cmd.Stdin = strings.NewReader("correct horse battery staple\nmore\n")
		finish(t, cmd).wants(t, "two lines as a passkey", 125, "line")
		cmd = w.encfsrun("run", "--passkey-fd", "0", vault, "cat")
		cmd.Stdin = strings.NewReader("correct horse battery staple\n")
		if o := finish(t, cmd); o.code != 0 || o.stdout != "" {
			t.Errorf("with the passkey on standard input: exit %d, %q\n%s", o.code, o.stdout, o.stderr)
		}
	})
}

// running is a run whose program has said that it is there.
type running struct {
	*process
	daemon int
	stdout io.Reader
}

// background starts a run of a shell script that prints "ready" once it is.
func (w *world) background(vault, script string) *running {
	w.t.Helper()
	return w.ready(w.encfsrun(w.in(vault, "sh", "-c", script)...))
}

// ready starts a run and returns when it has printed so.
func (w *world) ready(cmd *exec.Cmd) *running {
	w.t.Helper()
	read, write, err := os.Pipe()
	must(w.t, err)
	w.t.Cleanup(func() { read.Close() })
	cmd.Stdout = write
	r := &running{process: start(w.t, cmd), stdout: read}
	write.Close()
	line := make([]byte, 6)
	if _, err := io.ReadFull(read, line); err != nil || string(line) != "ready\n" {
		w.t.Fatalf("the program in the sandbox is not ready: %q, %v\n%s", line, err, r.errors.String())
	}
	for _, child := range children(r.pid()) {
		if line, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", child)); strings.HasSuffix(string(line), "\x00daemon\x00") {
			r.daemon = child
		}
	}
	if r.daemon == 0 {
		w.t.Fatal("the run has no daemon")
	}
	return r
}

// gone wants that a set of processes ends.
func gone(t *testing.T, pids []int) {
	t.Helper()
	eventually(t, fmt.Sprintf("processes %v are gone", pids), func() bool {
		for _, pid := range pids {
			if alive(pid) {
				return false
			}
		}
		return true
	})
}

func TestRunSignals(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		vault := w.vault()
		for _, c := range []struct {
			signal syscall.Signal
			script string
			code   int
		}{
			{syscall.SIGTERM, "echo ready; exec sleep 60", 143},
			{syscall.SIGINT, "echo ready; exec sleep 60", 130},
			{syscall.SIGHUP, "echo ready; exec sleep 60", 129},
			{syscall.SIGTERM, "trap 'exit 7' TERM; echo ready; while :; do sleep 0.05; done", 7},
			{syscall.SIGINT, "trap 'exit 8' INT; echo ready; while :; do sleep 0.05; done", 8},
			{syscall.SIGHUP, "trap 'exit 0' HUP; echo ready; while :; do sleep 0.05; done", 0},
			{syscall.SIGUSR1, "trap 'exit 9' USR1; echo ready; while :; do sleep 0.05; done", 9},
		} {
			r := w.background(vault, c.script)
			all := descendants(r.pid())
			r.signal(c.signal)
			if o := r.wait(); o.code != c.code || o.stderr != "" {
				t.Errorf("%v to a run of %q: exit %d, want %d\n%s", c.signal, c.script, o.code, c.code, o.stderr)
			}
			gone(t, all)
		}
		// What ignores SIGTERM is killed when it was patient enough.
		r := w.background(vault, "trap '' TERM; echo ready; while :; do sleep 0.05; done")
		began := time.Now()
		r.signal(syscall.SIGTERM)
		if o := r.wait(); o.code != 137 || time.Since(began) < 7*time.Second {
			t.Errorf("a program that ignores SIGTERM: exit %d after %v\n%s", o.code, time.Since(began), o.stderr)
		}
	})
}

func TestRunKilled(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		vault := w.vault()
		for range rounds(5) {
			r := w.background(vault, "setsid sleep 60 & echo ready; cat /app/lib/a.txt >/dev/null; sleep 60")
			all := descendants(r.pid())
			if len(all) < 4 {
				t.Errorf("only %v run below the launcher", all)
			}
			r.signal(syscall.SIGKILL)
			r.wait()
			gone(t, all)

			r = w.background(vault, "echo ready; while :; do cat /app/lib/a.txt >/dev/null 2>&1; done")
			all = descendants(r.pid())
			must(t, syscall.Kill(r.daemon, syscall.SIGKILL))
			r.wait().wants(t, "a run whose daemon was killed", 125, "killed")
			gone(t, all)
		}
		// Killed at random moments of its start.
		for range rounds(20) {
			p := start(t, w.encfsrun(w.in(vault, "sleep", "60")...))
			var n [1]byte
			rand.Read(n[:])
			time.Sleep(time.Duration(n[0]) * 300 * time.Microsecond)
			all := descendants(p.pid())
			p.signal(syscall.SIGKILL)
			p.wait()
			gone(t, all)
		}
		// SIGTERM is the launcher's to obey: the daemon lives on.
		r := w.background(vault, "echo ready; sleep 1; cat /app/secret")
		must(t, syscall.Kill(r.daemon, syscall.SIGTERM))
		rest, _ := io.ReadAll(r.stdout)
		if o := r.wait(); o.code != 0 || string(rest) != sources["secret"].content {
			t.Errorf("after a SIGTERM to the daemon: exit %d, %q\n%s", o.code, rest, o.stderr)
		}
	})
}

// TestRunTampered alters the vault under a running program: it gets an error, and the user a message, and never a wrong byte.
func TestRunTampered(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		vault := w.vault()
		cmd := w.encfsrun(w.in(vault, "sh", "-c", "echo ready; read go; cat /app/lib/a.txt; echo cat=$? >&2")...)
		input, err := cmd.StdinPipe()
		must(t, err)
		p := w.ready(cmd)
		segments, _ := filepath.Glob(filepath.Join(vault, "log", "*.seg"))
		for _, s := range segments {
			b, err := os.ReadFile(s)
			must(t, err)
			for at := 600; at < len(b); at += 4096 { // every block
				b[at] ^= 0x40
			}
			f, err := os.OpenFile(s, os.O_WRONLY, 0)
			must(t, err)
			_, err = f.WriteAt(b, 0)
			must(t, err)
			must(t, f.Close())
		}
		fmt.Fprintln(input, "go")
		output, _ := io.ReadAll(p.stdout)
		read, o := string(output), p.wait()
		if o.code != 0 || !strings.HasPrefix(sources["lib/a.txt"].content, read) || len(read) == len(sources["lib/a.txt"].content) {
			t.Errorf("exit %d, %d bytes read of an altered file", o.code, len(read))
		}
		for _, part := range []string{"cat=1", "Input/output error", "encfsrun: warning: a program was refused a damaged file"} {
			if !strings.Contains(o.stderr, part) {
				t.Errorf("standard error does not hold %q:\n%s", part, o.stderr)
			}
		}
	})
}

func TestManyRuns(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		vault := w.vault()
		want := sources["secret"].content
		var all []*process
		for range 20 {
			all = append(all, start(t, w.encfsrun(w.in(vault, "cat", "secret")...)))
		}
		for _, p := range all {
			if o := p.wait(); o.code != 0 || o.stdout != want || o.stderr != "" {
				t.Errorf("one of 20 runs at once: exit %d, %q\n%s", o.code, o.stdout, o.stderr)
			}
		}
		memory := lockedPages(t)
		for range rounds(100) {
			if o := w.run(w.in(vault, "cat", "secret")...); o.code != 0 || o.stdout != want || o.stderr != "" {
				t.Errorf("one of 100 runs in a row: exit %d, %q\n%s", o.code, o.stdout, o.stderr)
			}
		}
		eventually(t, "no process is left", func() bool { return len(w.left()) == 0 })
		t.Logf("locked memory of the machine: %d kB before, %d kB after", memory, lockedPages(t))
	})
}

// lockedPages is the machine's locked memory in kB.
func lockedPages(t *testing.T) (n int) {
	t.Helper()
	text, err := os.ReadFile("/proc/meminfo")
	must(t, err)
	for line := range strings.Lines(string(text)) {
		if rest, ok := strings.CutPrefix(line, "Mlocked:"); ok {
			fmt.Sscan(rest, &n)
		}
	}
	return n
}
