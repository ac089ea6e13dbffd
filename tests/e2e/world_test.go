package e2e

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// person is who uses the product in a test.
type person struct {
	name string
	uid  int
}

// nobody is the ordinary user, and stranger another, where the tests run as root.
const (
	nobody   = 65534
	stranger = 65533
)

// people are all that can be tried here.
func people() []person {
	if os.Getuid() == 0 {
		return []person{{"root", 0}, {"user", nobody}}
	}
	return []person{{"user", os.Getuid()}}
}

// each runs a test in a new world for each person, beside other tests.
func each(t *testing.T, test func(t *testing.T, w *world)) {
	t.Parallel()
	for _, who := range people() {
		t.Run(who.name, func(t *testing.T) {
			t.Parallel()
			test(t, newWorld(t, who))
		})
	}
}

// world is all that a test has on the machine.
type world struct {
	t       *testing.T
	who     person
	dir     string // everything below; everybody may enter it
	binary  string
	passkey string   // file with a passphrase
	machine string   // machine key, once vaultOf has made a vault
	env     []string // of every command
	within  *namespace
}

func newWorld(t *testing.T, who person) *world {
	t.Helper()
	dir, err := os.MkdirTemp("", "encfsrun-e2e-")
	must(t, err)
	w := &world{t: t, who: who, dir: dir}
	t.Cleanup(w.end)
	must(t, os.Chmod(dir, 0o755))
	w.own(dir)
	w.binary, w.passkey, w.machine = w.path("bin/encfsrun"), w.path("passkey"), w.path("machine.key")
	for _, name := range []string{"bin", "home", "state", "run", "tmp", "mnt"} {
		must(t, os.Mkdir(w.path(name), 0o755))
		w.own(w.path(name))
	}
	must(t, os.Chmod(w.path("run"), 0o700))
	must(t, os.Link(built, w.binary))
	w.write("passkey", "correct horse battery staple\n", 0o600)
	w.env = []string{
		"PATH=" + w.path("bin") + ":/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL=C", "TERM=dumb", "HOME=" + w.path("home"),
		"XDG_STATE_HOME=" + w.path("state"), "XDG_RUNTIME_DIR=" + w.path("run"), "TMPDIR=" + w.path("tmp"),
	}
	return w
}

// path names a file of the world.
func (w *world) path(name string) string { return filepath.Join(w.dir, name) }

// own gives a file to the person.
func (w *world) own(name string) {
	if os.Getuid() == 0 {
		must(w.t, os.Lchown(name, w.who.uid, w.who.uid))
	}
}

// write makes a file and the folders above it.
func (w *world) write(name, content string, mode os.FileMode) {
	w.t.Helper()
	w.folder(filepath.Dir(name))
	name = w.path(name)
	must(w.t, os.WriteFile(name, []byte(content), mode))
	must(w.t, os.Chmod(name, mode))
	w.own(name)
}

// folder makes a folder and those above it.
func (w *world) folder(name string) {
	w.t.Helper()
	if name == "." {
		return
	}
	w.folder(filepath.Dir(name))
	err := os.Mkdir(w.path(name), 0o755)
	if errors.Is(err, os.ErrExist) {
		return
	}
	must(w.t, err)
	w.own(w.path(name))
}

// as makes a command another user's; only root can.
func as(cmd *exec.Cmd, uid int) *exec.Cmd {
	if os.Getuid() == 0 {
		if cmd.SysProcAttr == nil {
			cmd.SysProcAttr = &syscall.SysProcAttr{}
		}
		cmd.SysProcAttr.Credential = &syscall.Credential{Uid: uint32(uid), Gid: uint32(uid)}
	}
	return cmd
}

// exec makes a command of the person's, in the world's folder.
func (w *world) exec(command ...string) *exec.Cmd {
	uid := w.who.uid
	if w.within != nil {
		command, uid = append(w.within.enter(), command...), os.Getuid()
	}
	cmd := exec.Command(command[0], command[1:]...)
	cmd.Dir = w.dir
	cmd.Env = slices.Clone(w.env)
	cmd.WaitDelay = 3 * time.Second
	return as(cmd, uid)
}

// encfsrun makes a command of the product.
func (w *world) encfsrun(args ...string) *exec.Cmd {
	return w.exec(append([]string{w.binary}, args...)...)
}

// outcome is what a command came to.
type outcome struct {
	code           int
	stdout, stderr string
}

// finish runs a command to its end, which has to come within a minute.
func finish(t *testing.T, cmd *exec.Cmd) outcome {
	t.Helper()
	p := start(t, cmd)
	return p.wait()
}

// process is a command that was started.
type process struct {
	t           *testing.T
	cmd         *exec.Cmd
	out, errors bytes.Buffer
	done        chan struct{}
	err         error
}

// start starts a command; what it says is kept. It is killed with the test.
func start(t *testing.T, cmd *exec.Cmd) *process {
	t.Helper()
	p := &process{t: t, cmd: cmd, done: make(chan struct{})}
	if cmd.Stdout == nil {
		cmd.Stdout = &p.out
	}
	if cmd.Stderr == nil {
		cmd.Stderr = &p.errors
	}
	must(t, cmd.Start())
	go func() { p.err = cmd.Wait(); close(p.done) }()
	t.Cleanup(func() {
		select {
		case <-p.done:
		default:
			cmd.Process.Kill()
			<-p.done
		}
	})
	return p
}

func (p *process) pid() int { return p.cmd.Process.Pid }

func (p *process) signal(s syscall.Signal) { p.cmd.Process.Signal(s) }

func (p *process) running() bool {
	select {
	case <-p.done:
		return false
	default:
		return true
	}
}

// wait returns what the command came to: as a shell has it, 128+n for signal n.
func (p *process) wait() outcome {
	p.t.Helper()
	select {
	case <-p.done:
	case <-time.After(time.Minute):
		p.signal(syscall.SIGKILL)
		<-p.done
		p.t.Fatalf("%v does not end\n%s%s", p.cmd.Args, p.out.String(), p.errors.String())
	}
	status := p.cmd.ProcessState.Sys().(syscall.WaitStatus)
	code := status.ExitStatus()
	if status.Signaled() {
		code = 128 + int(status.Signal())
	}
	return outcome{code, p.out.String(), p.errors.String()}
}

// run runs encfsrun to its end.
func (w *world) run(args ...string) outcome {
	w.t.Helper()
	return finish(w.t, w.encfsrun(args...))
}

// ok runs encfsrun, which has to do as it is told, and returns what it printed.
func (w *world) ok(args ...string) string {
	w.t.Helper()
	o := w.run(args...)
	if o.code != 0 {
		w.t.Fatalf("encfsrun %s: exit %d\n%s%s", strings.Join(args, " "), o.code, o.stdout, o.stderr)
	}
	return o.stdout
}

// fails runs encfsrun, which has to exit with code and say why in one sentence that holds every part.
func (w *world) fails(code int, parts []string, args ...string) {
	w.t.Helper()
	o := w.run(args...)
	o.wants(w.t, strings.Join(args, " "), code, parts...)
}

// wants checks an exit code, and that what is said of it is one sentence, of encfsrun's own, that holds every part.
func (o outcome) wants(t *testing.T, what string, code int, parts ...string) {
	t.Helper()
	if o.code != code {
		t.Errorf("%s: exit %d, want %d\n%s%s", what, o.code, code, o.stdout, o.stderr)
		return
	}
	sentence, problem := sentenceOf(o.stderr)
	if problem != "" {
		t.Errorf("%s: %s:\n%s", what, problem, o.stderr)
	}
	for _, part := range parts {
		if !strings.Contains(sentence, part) {
			t.Errorf("%s says %q, which does not hold %q", what, sentence, part)
		}
	}
}

// sentenceOf returns the one error in what was written to standard error, and what is wrong with its form.
func sentenceOf(stderr string) (sentence, problem string) {
	var errors []string
	for line := range strings.Lines(stderr) {
		if !strings.HasPrefix(line, "encfsrun: warning: ") {
			errors = append(errors, strings.TrimSuffix(line, "\n"))
		}
	}
	if len(errors) != 1 {
		return stderr, "that is not one sentence"
	}
	sentence, own := strings.CutPrefix(errors[0], "encfsrun: ")
	switch {
	case !own:
		return sentence, "that is not a sentence of encfsrun's"
	case strings.Contains(sentence, "%!") || strings.Contains(sentence, "goroutine"):
		return sentence, "that is nothing for a user"
	}
	return sentence, ""
}

// sources are the files of a small tree; vaultOf packs it.
var sources = map[string]struct {
	content string
	mode    os.FileMode
}{
	"main.py":   {"import sys\nprint('hello from the vault', *sys.argv[1:])\n", 0o644},
	"lib/a.py":  {"x = 1\n", 0o644},
	"secret":    {"the secret of the tree\n", 0o644},
	"script":    {"#!/bin/sh\necho script $1\n", 0o755},
	"lost":      {"#!/no/such/interpreter\n", 0o755},
	"noexec":    {"#!/bin/sh\necho never\n", 0o644},
	"server":    {"#!/bin/sh\necho serving with $TOKEN\n", 0o755},
	"exits":     {"#!/bin/sh\nexit $1\n", 0o755},
	"lib/a.txt": {strings.Repeat("0123456789abcdef", 16384), 0o644}, // 256 KiB: more than a few blocks
}

// fresh are pack's arguments for a new vault whose passkey costs next to nothing.
func (w *world) fresh(args ...string) []string {
	return append([]string{"pack", "--kdf-memory", "8M", "--kdf-time", "1", "--new-passkey-file", w.passkey}, args...)
}

// update are pack's arguments for a vault that is there.
func (w *world) update(args ...string) []string {
	return append([]string{"pack", "--update", "--passkey-file", w.machine}, args...)
}

// vault makes app and app.vault, with a passphrase and a machine key, and returns the vault's path.
func (w *world) vault() string {
	w.t.Helper()
	for name, file := range sources {
		w.write(filepath.Join("app", name), file.content, file.mode)
	}
	return w.vaultOf(w.path("app"))
}

// vaultOf packs src.
func (w *world) vaultOf(src string) string {
	w.t.Helper()
	vault := src + ".vault"
	w.ok(w.fresh("-q", src, vault)...)
	w.ok("key", "add", "-q", "--passkey-file", w.passkey, "--machine", w.machine, vault)
	return vault
}

// unlock is the flag that opens a vault at once, before other arguments.
func (w *world) unlock(args ...string) []string {
	return append([]string{args[0], "--passkey-file", w.machine}, args[1:]...)
}

// opens says that the vault is whole and holds what app's copy of sources does.
func (w *world) opens(vault string) {
	w.t.Helper()
	w.ok(w.unlock("check", "-q", vault)...)
	if got := w.ok(w.unlock("cat", vault, "secret")...); got != sources["secret"].content {
		w.t.Errorf("%s holds the secret %q", vault, got)
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// eventually waits until something is so.
func eventually(t *testing.T, what string, so func() bool) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !so(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not so for 20 s: %s", what)
		}
	}
}
