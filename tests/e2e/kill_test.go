package e2e

import (
	"crypto/rand"
	"crypto/sha256"
	"fmt"
	mathrand "math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

func TestTwoPacksAtOnce(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		w.bigSource(1)
		new := w.path("new")
		p := w.stopped(w.path(".new.partial/log"), w.fresh("-q", w.path("big"), new)...)
		w.fails(5, []string{new, fmt.Sprintf("pid %d", p.pid())}, w.fresh(w.path("big"), new)...)
		p.signal(syscall.SIGCONT)
		if o := p.wait(); o.code != 0 {
			t.Errorf("the first of two packs: exit %d\n%s", o.code, o.stderr)
		}
		w.ok("check", "-q", "--passkey-file", w.passkey, new)
		for range rounds(10) {
			must(t, os.RemoveAll(new))
			a, b := start(t, w.encfsrun(w.fresh("-q", w.path("big"), new)...)), start(t, w.encfsrun(w.fresh("-q", w.path("big"), new)...))
			won := 0
			for _, o := range []outcome{a.wait(), b.wait()} {
				if o.code == 0 {
					won++
				} else if o.code != 5 && !(o.code == 1 && strings.Contains(o.stderr, "exists already")) {
					t.Errorf("one of two packs: exit %d\n%s", o.code, o.stderr)
				}
			}
			if won != 1 {
				t.Errorf("%d of two packs won", won)
			}
			w.ok("check", "-q", "--passkey-file", w.passkey, new)
		}
	})
}

func TestTwoUpdatesAtOnce(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		vault := w.vault()
		w.bigSource(1)
		p := w.stopped(filepath.Join(vault, "log"), w.update("-q", w.path("big"), vault)...)
		w.fails(5, []string{vault, fmt.Sprintf("pid %d", p.pid()), "wait"}, w.update(w.path("big"), vault)...)
		// Readers and slots go beside the writer, and what they see is the older commit, whole.
		w.opens(vault)
		w.ok(w.unlock("mount", "--read-only", vault, w.path("mnt"))...)
		w.ok("key", "add", "--passkey-file", w.machine, "--machine", w.path("second.key"), vault)
		p.signal(syscall.SIGCONT)
		if o := p.wait(); o.code != 0 {
			t.Errorf("the first of two updates: exit %d\n%s", o.code, o.stderr)
		}
		for name, file := range sources {
			if got := w.sh("cat " + w.path("mnt/"+name)); got != file.content {
				t.Errorf("the mount from before the update gives another %s", name)
			}
		}
		w.ok("umount", w.path("mnt"))
		w.isVersion(vault, 1)
		w.ok("ls", "--passkey-file", w.path("second.key"), vault)
	})
}

func TestSignalsDuringPack(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		vault := w.vault()
		w.bigSource(1)
		before := w.sh("ls -a " + w.dir)
		for _, s := range []syscall.Signal{syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP} {
			p := w.stopped(w.path(".new.partial/log"), w.fresh("-q", w.path("big"), w.path("new"))...)
			p.signal(s)
			p.signal(syscall.SIGCONT)
			p.wait().wants(t, "pack after "+s.String(), 128+int(s), "stopped")
			if now := w.sh("ls -a " + w.dir); now != before {
				t.Errorf("after %v pack left something:\n%s", s, now)
			}
			p = w.stopped(filepath.Join(vault, "log"), w.update("-q", w.path("big"), vault)...)
			p.signal(s)
			p.signal(syscall.SIGCONT)
			p.wait().wants(t, "pack --update after "+s.String(), 128+int(s), "stopped")
			w.opens(vault)
		}
	})
}

// bigSource makes 20 MB in the folder big, whose files tell their version: five of the forty are new in each.
func (w *world) bigSource(version int) {
	w.t.Helper()
	for i := range 40 {
		name := fmt.Sprintf("big/%d/file", i)
		if i%8 != 0 && exists(w.path(name)) {
			continue
		}
		noise := make([]byte, 500_000)
		rand.Read(noise)
		w.write(name, fmt.Sprintf("version %d\n%s", version, noise), 0o644)
	}
	w.write("big/version", fmt.Sprint(version), 0o644)
	w.write("big/0/version", fmt.Sprint(version), 0o644)
}

// version exports a vault made of bigSource, says which version it is, and fails where it is not one of them, whole.
func (w *world) version(vault string) int {
	w.t.Helper()
	w.ok(w.unlock("check", "-q", vault)...)
	files := []string{"version", "0/version"}
	for i := 0; i < 40; i += 8 {
		files = append(files, fmt.Sprintf("%d/file", i))
	}
	out := w.ok(w.unlock(append([]string{"cat", vault}, files...)...)...)
	var n, again int
	if _, err := fmt.Sscanf(out, "%1d%1d", &n, &again); err != nil || n != again {
		w.t.Fatalf("the versions in %s are mixed: %.20q", vault, out)
	}
	if found := strings.Count(out, fmt.Sprintf("version %d\n", n)); found != 5 {
		w.t.Fatalf("%d of 5 files in %s are of version %d", found, vault, n)
	}
	return n
}

func (w *world) isVersion(vault string, n int) {
	w.t.Helper()
	if got := w.version(vault); got != n {
		w.t.Errorf("%s is version %d, want %d", vault, got, n)
	}
}

// TestKilledPack kills pack at random moments of its work: there is a whole vault or none, and the next pack makes one.
func TestKilledPack(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		w.bigSource(1)
		vault := w.vaultOf(w.path("big"))
		new, partial := w.path("new"), w.path(".new.partial")
		pack := func() []string { return w.fresh("-q", w.path("big"), new) }
		began := time.Now()
		w.ok(pack()...)
		usual := time.Since(began)
		must(t, os.RemoveAll(new))
		killed, total := 0, rounds(100)
		for range total {
			p := start(t, w.encfsrun(pack()...))
			eventually(t, "pack has begun to write", func() bool { return exists(partial) || !p.running() })
			time.Sleep(mathrand.N(usual))
			p.signal(syscall.SIGKILL)
			dead := p.wait().code != 0
			if dead {
				killed++
			}
			usual = aim(usual, dead)
			if !exists(new) {
				w.ok(pack()...)
			}
			if exists(partial) {
				t.Fatal("the folder of a killed pack was not reclaimed")
			}
			w.sameAs(new)
			must(t, os.RemoveAll(new))
		}
		t.Logf("%d of %d packs were killed at work (within %v)", killed, total, usual)
		if killed < total/4 {
			t.Errorf("only %d of %d packs were killed: it proves nothing", killed, total)
		}
		w.isVersion(vault, 1)
	})
}

// aim corrects how late a random kill may come, on a machine whose load changes: so that some come too late, and most do not.
func aim(latest time.Duration, dead bool) time.Duration {
	if dead {
		return latest * 103 / 100
	}
	return latest * 9 / 10
}

// sameAs says that a vault with the passphrase holds what big does.
func (w *world) sameAs(vault string) {
	w.t.Helper()
	w.ok("check", "-q", "--passkey-file", w.passkey, vault)
	cmd := w.encfsrun("cat", "--passkey-file", w.passkey, vault, "0/file", "39/file", "version")
	o := finish(w.t, cmd)
	var want []byte
	for _, name := range []string{"0/file", "39/file", "version"} {
		b, err := os.ReadFile(filepath.Join(w.path("big"), name))
		must(w.t, err)
		want = append(want, b...)
	}
	if o.code != 0 || sha256.Sum256([]byte(o.stdout)) != sha256.Sum256(want) {
		w.t.Fatalf("%s does not hold the source: exit %d\n%s", vault, o.code, o.stderr)
	}
}

// TestKilledUpdate kills pack --update at random moments: the vault is as before or as after, and the next update works.
func TestKilledUpdate(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		w.bigSource(1)
		vault := w.vaultOf(w.path("big"))
		w.sh("cp -a " + vault + " " + w.path("pristine"))
		log := filepath.Join(vault, "log")
		var usual time.Duration
		was, killed, before, after, total := 1, 0, 0, 0, rounds(100)
		for i := range total + 1 {
			if i%10 == 0 { // the log grows with every round
				must(t, os.RemoveAll(vault))
				must(t, os.RemoveAll(w.path("state/encfsrun")))
				w.sh("cp -a " + w.path("pristine") + " " + vault)
				was = 1
			}
			next := was%9 + 1
			w.bigSource(next)
			size := sizeOf(log)
			began := time.Now()
			p := start(t, w.encfsrun(w.update("-q", w.path("big"), vault)...))
			eventually(t, "the update has begun to write", func() bool { return sizeOf(log) > size || !p.running() })
			if i == 0 {
				p.wait()
				usual, was = time.Since(began), next
				continue
			}
			time.Sleep(mathrand.N(usual))
			p.signal(syscall.SIGKILL)
			dead := p.wait().code != 0
			usual = aim(usual, dead)
			if dead {
				killed++
				switch w.version(vault) {
				case was:
					before++
				case next:
					after++
				default:
					t.Fatalf("the vault is neither as before nor as after")
				}
			}
			w.ok(w.update("-q", w.path("big"), vault)...)
			if was = next; i%10 == 9 {
				w.isVersion(vault, next)
			}
		}
		t.Logf("%d of %d updates were killed at work (within %v): %d times as before, %d as after", killed, total, usual, before, after)
		if killed < total/4 {
			t.Errorf("only %d of %d updates were killed: it proves nothing", killed, total)
		}
	})
}
