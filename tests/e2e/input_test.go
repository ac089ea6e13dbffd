package e2e

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

func TestBadPasskeys(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		vault := w.vault()
		w.write("wrong", "wrong horse\n", 0o600)
		w.write("wrong.key", strings.Repeat("\x01", 32), 0o600)
		w.write("two lines", "one\ntwo\n", 0o600)
		w.write("nul", "one\x00two\n", 0o600)
		w.write("empty", "", 0o600)
		w.write("open", "correct horse battery staple\n", 0o644)
		for _, command := range [][]string{{"ls"}, {"check"}, {"cat"}, {"export"}, {"key", "add"}, {"key", "passwd"}, {"mount", "--read-only"}, {"pack", "--update"}} {
			args := append(append([]string{}, command...), "--passkey-file", w.path("wrong"))
			switch command[0] {
			case "pack":
				args = append(args, w.path("app"), vault)
			case "mount":
				args = append(args, vault, w.path("mnt"))
			case "cat":
				args = append(args, vault, "main.py")
			case "export":
				args = append(args, vault, w.path("exported"))
			default:
				args = append(args, vault)
			}
			w.fails(3, []string{vault, "passkey"}, args...)
		}
		w.fails(125, []string{"passkey"}, "run", "--passkey-file", w.path("wrong"), vault, "/bin/true")
		w.fails(3, []string{vault}, "ls", "--passkey-file", w.path("wrong.key"), vault)
		w.fails(1, []string{"two lines"}, "ls", "--passkey-file", w.path("two lines"), vault)
		w.fails(1, []string{"nul"}, "ls", "--passkey-file", w.path("nul"), vault)
		w.fails(1, []string{"empty"}, "ls", "--passkey-file", w.path("empty"), vault)
		w.fails(1, []string{"open", "chmod"}, "ls", "--passkey-file", w.path("open"), vault)
		w.fails(1, []string{"absent"}, "ls", "--passkey-file", w.path("absent"), vault)
		w.fails(2, []string{"--passkey-fd"}, "ls", "--passkey-fd", "9", vault)
		w.fails(2, nil, "ls", "--passkey-fd", "0", "--passkey-file", w.passkey, vault)
		w.fails(1, []string{"/bin/false"}, "ls", "--passkey-command", "/bin/false", vault)
		w.fails(1, []string{"/no/such/command"}, "ls", "--passkey-command", "/no/such/command", vault)
		if exists(w.path("exported")) {
			t.Error("an export that was refused left its folder")
		}
		w.opens(vault)
	})
}

func TestNotAVault(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		vault := w.vault()
		w.write("file", "x", 0o644)
		w.folder("folder")
		broken := func(name, from, to string) string {
			copied := w.path(name)
			w.sh("cp -r " + vault + " " + copied)
			for _, twin := range []string{"vault.json", "vault.json.bak"} {
				text, err := os.ReadFile(filepath.Join(copied, twin))
				must(t, err)
				changed := strings.Replace(string(text), from, to, 1)
				if changed == string(text) {
					t.Fatalf("vault.json does not hold %q", from)
				}
				must(t, os.WriteFile(filepath.Join(copied, twin), []byte(changed), 0o600))
			}
			return copied
		}
		newer := broken("newer", `"version": 1`, `"version": 2`)
		absurd := broken("absurd", `"memory_kib": 8192`, `"memory_kib": 1073741824`)
		passes := broken("passes", `"time": 1`, `"time": 4294967295`)
		garbage := broken("garbage", `{`, `[`)
		for _, command := range [][]string{{"ls"}, {"check"}, {"key", "add"}} {
			fails := func(vault string, parts ...string) {
				t.Helper()
				w.fails(4, append(parts, vault), append(append([]string{}, command...), "--passkey-file", w.passkey, vault)...)
			}
			fails(w.path("file"), "not a vault")
			fails(w.path("folder"), "not a vault")
			fails(w.path("absent"))
			fails(newer, "made by a newer encfsrun", "update encfsrun")
			fails(absurd, "memory")
			fails(passes)
			fails(garbage)
		}
		w.fails(4, []string{"not a vault"}, "mount", "--read-only", "--passkey-file", w.passkey, w.path("folder"), w.path("mnt"))
		w.fails(125, []string{"not a vault"}, "run", "--passkey-file", w.passkey, w.path("folder"), "/bin/true")
		w.fails(4, []string{"not a vault"}, "pack", "--update", "--passkey-file", w.passkey, w.path("app"), w.path("folder"))
		w.opens(vault)
	})
}

func TestVaultByLink(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		vault := w.vault()
		must(t, os.Symlink(vault, w.path("link")))
		must(t, os.Symlink(w.path("elsewhere"), w.path("dangling")))
		w.opens(w.path("link"))
		w.ok(w.update("-q", w.path("app"), w.path("link"))...)
		if got := w.ok(w.unlock("run", w.path("link"), "cat", "secret")...); got != sources["secret"].content {
			t.Errorf("a run through a link prints %q", got)
		}
		for _, link := range []string{"link", "dangling"} {
			w.fails(1, []string{link, "symbolic link"}, w.fresh(w.path("app"), w.path(link))...)
			w.fails(1, []string{link, "symbolic link"}, "init", "--new-passkey-file", w.passkey, w.path(link))
		}
		w.fails(1, []string{"exists already", "pack --update"}, w.fresh(w.path("app"), vault)...)
		w.fails(4, []string{"dangling"}, "ls", "--passkey-file", w.passkey, w.path("dangling"))
		if exists(w.path("elsewhere")) {
			t.Error("a vault was made through a link")
		}
		w.opens(vault)
	})
}

func TestBadSource(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		vault := w.vault()
		w.fails(1, []string{"absent"}, w.fresh(w.path("absent"), w.path("new"))...)
		w.fails(1, []string{"passkey"}, w.fresh(w.passkey, w.path("new"))...)
		w.fails(1, []string{"no such"}, w.fresh(w.path("app"), w.path("no such/new"))...)
		if w.who.uid != 0 {
			w.write("app/closed", "x", 0o000)
			w.fails(1, []string{"app/closed", "permission denied"}, w.fresh(w.path("app"), w.path("new"))...)
			w.fails(1, []string{"app/closed", "permission denied"}, w.update(w.path("app"), vault)...)
			must(t, os.Remove(w.path("app/closed")))
			must(t, os.Mkdir(w.path("app/closed folder"), 0))
			w.own(w.path("app/closed folder"))
			w.fails(1, []string{"closed folder", "permission denied"}, w.update(w.path("app"), vault)...)
		}
		if exists(w.path("new")) {
			t.Error("a pack that failed left a vault")
		}
		w.opens(vault)
	})
}

// TestSourceThatMoves takes files away, and changes them, while pack reads.
func TestSourceThatMoves(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		vault := w.vault()
		for _, c := range []struct {
			what, named string // what happens, and what is named for it
			change      func() error
		}{
			{"vanishes", "moving/z", func() error { return os.Remove(w.path("moving/z/last")) }},
			{"grows", "moving/a", func() error { return os.WriteFile(w.path("moving/a"), make([]byte, 70<<20), 0o644) }},
			{"shrinks", "moving/a", func() error { return os.Truncate(w.path("moving/a"), 1<<20) }},
			{"is replaced", "moving/z", func() error {
				return errors.Join(os.Remove(w.path("moving/z/last")), os.Symlink("/etc/passwd", w.path("moving/z/last")))
			}},
			{"loses its folder", "moving", func() error { return os.RemoveAll(w.path("moving/z")) }},
		} {
			for _, update := range []bool{false, true} {
				w.write("moving/a", strings.Repeat("0123456789abcdef", 64<<20/16), 0o644)
				w.write("moving/z/last", "x", 0o644)
				args, log := w.fresh(w.path("moving"), w.path("new")), w.path(".new.partial/log")
				if update {
					args, log = w.update(w.path("moving"), vault), filepath.Join(vault, "log")
				}
				p := w.stopped(log, args...)
				must(t, c.change())
				p.signal(syscall.SIGCONT)
				p.wait().wants(t, "pack while a source "+c.what, 1, c.named)
				if exists(w.path("new")) {
					t.Errorf("a source %s: a vault was made", c.what)
				}
				w.opens(vault)
				must(t, os.RemoveAll(w.path("moving")))
			}
		}
	})
}

// stopped starts a command that writes a log and stops it, as a debugger or a slow machine would, when a megabyte is there.
func (w *world) stopped(log string, args ...string) *process {
	w.t.Helper()
	before := sizeOf(log)
	p := start(w.t, w.encfsrun(args...))
	for deadline := time.Now().Add(20 * time.Second); sizeOf(log) < before+1<<20; time.Sleep(200 * time.Microsecond) {
		if !p.running() || time.Now().After(deadline) {
			o := p.wait()
			w.t.Fatalf("%v was not seen at work: exit %d\n%s", args, o.code, o.stderr)
		}
	}
	p.signal(syscall.SIGSTOP)
	eventually(w.t, "the process is stopped", func() bool { return stateOf(p.pid()).state == "T" || !p.running() })
	if !p.running() {
		w.t.Fatalf("%v was too quick to be stopped", args)
	}
	return p
}

// sizeOf adds up the files of a folder; 0 where there is none.
func sizeOf(dir string) (n int64) {
	entries, _ := os.ReadDir(dir)
	for _, e := range entries {
		if info, err := e.Info(); err == nil {
			n += info.Size()
		}
	}
	return n
}

func exists(name string) bool {
	_, err := os.Lstat(name)
	return err == nil
}

func TestBadMountpoints(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		vault := w.vault()
		w.write("full/file", "x", 0o644)
		w.write("file", "x", 0o644)
		fails := func(code int, dir string, parts ...string) {
			t.Helper()
			w.fails(code, parts, w.unlock("mount", "--read-only", vault, dir)...)
		}
		fails(1, w.path("absent"), "does not exist", "mkdir -p")
		fails(1, w.path("file"), "is not a directory")
		fails(1, w.path("file/below"), "is not a directory")
		fails(1, w.path("full"), "is not empty")
		if w.who.uid != 0 {
			fails(1, "/usr/src", "belongs to another user")
		}
		w.ok(w.unlock("mount", "--read-only", vault, w.path("mnt"))...)
		fails(1, w.path("mnt"), "already mounted", "encfsrun umount")
		w.ok("umount", w.path("mnt"))
		w.fails(1, []string{"mnt"}, "umount", w.path("mnt"))
		w.fails(1, []string{"absent"}, "umount", w.path("absent"))
	})
}

func TestUsage(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		vault := w.vault()
		for _, args := range [][]string{
			{"no-such-command"}, {"pack"}, {"pack", w.path("app")}, {"pack", w.path("app"), vault, "more"}, {"ls"}, {"ls", "--no-such-flag", vault},
			{"mount", vault}, {"umount"}, {"cat"}, {"key", "remove", vault}, {"key", "no-such"}, {"init"}, {"check", "--expect-root", "00", vault},
			{"--log-format", "xml", "status"}, {"ls", "--passkey-file", "", vault}, {"pack", "--keep-extra", w.path("app"), vault},
		} {
			w.fails(2, nil, args...)
		}
		for _, args := range [][]string{
			{"run"}, {"run", vault}, {"run", vault, "--"}, {"run", "--no-such-flag", vault, "true"}, {"run", "--net", "some", vault, "true"},
			{"run", "--at", "relative", vault, "true"}, {"run", "--bind", "/no/such/source", vault, "true"}, {"run", "--env", "=x", vault, "true"}, {"--log-format", "xml", "run", vault, "true"}, {"run", "--guarded-memory", "x", vault, "true"},
		} {
			w.fails(125, nil, args...)
		}
		for _, args := range [][]string{{"--help"}, {"run", "--help"}, {"pack", "--help"}, {"help", "key"}, {"--version"}} {
			if w.ok(args...) == "" {
				t.Errorf("%v prints nothing", args)
			}
		}
	})
}
