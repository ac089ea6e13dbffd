package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// smallDisk mounts a disk of a size on the world's folder disk, and unseen by all others.
func (w *world) smallDisk(size string) {
	w.folder("disk")
	w.unshare(fmt.Sprintf("mount -t tmpfs -o mode=0755,size=%s none %[2]s && chown --reference=%[3]s %[2]s", size, w.path("disk"), w.dir))
}

func TestFullDisk(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		w.vault()
		w.write("big/file", strings.Repeat("0123456789abcdef", 20<<20/16), 0o644)
		w.smallDisk("8M")
		disk := w.path("disk")
		before := func() string { return w.sh("cd " + disk + " && ls -aR . | sort && du -s .") }

		// No room at all, and too little: no vault comes to be, and nothing stays.
		state := before()
		w.fails(1, []string{"no space left", "make room"}, w.fresh(w.path("big"), disk+"/new")...)
		if after := before(); after != state {
			t.Errorf("a pack without room left something:\n%s", after)
		}
		w.sh("head -c 20M /dev/zero >" + disk + "/fill 2>/dev/null || true")
		state = before()
		w.fails(1, []string{"no space left", "make room"}, w.fresh(w.path("app"), disk+"/new")...)
		w.fails(1, []string{"no space left", "make room"}, "init", "--kdf-memory", "8M", "--new-passkey-file", w.passkey, disk+"/new")
		if after := before(); after != state {
			t.Errorf("a pack without room left something:\n%s", after)
		}

		// A vault on such a disk opens as before, and takes the same update once there is room.
		w.sh("rm " + disk + "/fill")
		w.ok(w.fresh("-q", w.path("app"), disk+"/v")...)
		w.ok("key", "add", "--passkey-file", w.passkey, "--machine", w.machine+"2", disk+"/v")
		w.machine += "2"
		root := w.ok(w.unlock("check", "-q", disk+"/v")...)
		w.fails(1, []string{"no space left", "make room"}, w.update(w.path("big"), disk+"/v")...)
		if now := w.ok(w.unlock("check", "-q", disk+"/v")...); now != root {
			t.Errorf("after an update that found no room the root is %s, not %s", now, root)
		}
		w.opens(disk + "/v")
		w.sh("head -c 20M /dev/zero >" + disk + "/fill 2>/dev/null || true")
		w.fails(1, []string{"no space left", "make room"}, w.update(w.path("big"), disk+"/v")...)
		w.fails(1, []string{"no space left", "make room"}, "key", "add", "--passkey-file", w.machine, "--machine", w.path("third.key"), disk+"/v")
		if exists(w.path("third.key")) {
			t.Error("a machine key that opens nothing was left behind")
		}
		w.fails(1, []string{"no space left", "make room"}, "key", "passwd", "--passkey-file", w.passkey, "--new-passkey-file", w.passkey, "--kdf-memory", "8M", disk+"/v")
		w.fails(1, []string{"no space left", "make room"}, w.unlock("export", disk+"/v", disk+"/out")...)
		w.opens(disk + "/v")
		if got := w.ok("ls", "--passkey-file", w.passkey, disk+"/v"); !strings.Contains(got, "secret") {
			t.Error("the passphrase opens the vault no more")
		}
		w.sh("rm " + disk + "/fill")
		w.ok(w.update("-q", "--keep-extra", w.path("app"), disk+"/v")...)
		w.ok("key", "add", "--passkey-file", w.machine, "--machine", w.path("third.key"), disk+"/v")
		w.opens(disk + "/v")
		w.within = nil
	})
}

func TestReadOnlyDisk(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		vault := w.vault()
		w.unshare("mount --bind " + vault + " " + vault + " && mount -o remount,bind,ro " + vault)
		w.opens(vault)
		w.ok(w.unlock("ls", vault)...)
		w.ok(w.unlock("export", "-q", vault, w.path("out"))...)
		w.ok("key", "list", vault)
		if mountsInside() {
			if got := w.ok(w.unlock("run", vault, "cat", "/app/secret")...); got != sources["secret"].content {
				t.Errorf("run prints %q", got)
			}
			w.ok(w.unlock("mount", "--read-only", vault, w.path("mnt"))...)
			if got := w.sh("cat " + w.path("mnt/secret")); got != sources["secret"].content {
				t.Errorf("the mount gives %q", got)
			}
			w.ok("umount", w.path("mnt"))
		}
		w.fails(1, []string{vault, "read-only file system"}, w.update(w.path("app"), vault)...)
		w.fails(1, []string{vault, "read-only file system"}, "key", "add", "--passkey-file", w.machine, "--machine", w.path("new.key"), vault)
		w.fails(1, []string{vault, "read-only file system"}, "key", "passwd", "--passkey-file", w.passkey, "--new-passkey-file", w.passkey, vault)
		w.fails(1, []string{"read-only file system"}, w.fresh(w.path("app"), vault+"/inside")...)
		if exists(w.path("new.key")) {
			t.Error("a machine key that opens nothing was left behind")
		}
		w.within = nil
		w.opens(vault)
	})
}

// TestLostLock takes away what holds nothing: a vault copied without its lock file opens, also where none can be made.
func TestLostLock(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		vault := w.vault()
		must(t, os.Remove(filepath.Join(vault, "lock")))
		w.opens(vault)
		w.ok(w.update("-q", w.path("app"), vault)...)
		must(t, os.Remove(filepath.Join(vault, "lock")))
		w.unshare("mount --bind " + vault + " " + vault + " && mount -o remount,bind,ro " + vault)
		w.opens(vault)
		w.fails(1, []string{vault, "read-only file system"}, w.update(w.path("app"), vault)...)
		w.within = nil
	})
}

func TestStateDirectory(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		vault := w.vault()
		warns := func(what string, args ...string) {
			t.Helper()
			o := w.run(args...)
			if o.code != 0 || strings.Count(o.stderr, "encfsrun: warning: ") != 1 || !strings.Contains(o.stderr, "rollback") && !strings.Contains(o.stderr, "rolled back") {
				t.Errorf("%s: exit %d, want 0 and one warning of rollbacks\n%s%s", what, o.code, o.stdout, o.stderr)
			}
		}
		all := func(what string, state ...string) {
			t.Helper()
			with := func(args ...string) []string { return append(append([]string{}, state...), args...) }
			warns(what+", ls", with(w.unlock("ls", vault)...)...)
			warns(what+", pack --update", with(w.update(w.path("app"), vault)...)...)
			if w.within != nil && !mountsInside() {
				return
			}
			warns(what+", key passwd", with("key", "passwd", "--passkey-file", w.passkey, "--new-passkey-file", w.passkey, "--kdf-memory", "8M", vault)...)
			warns(what+", run", with(w.unlock("run", vault, "true")...)...)
			warns(what+", mount", with(w.unlock("mount", "--read-only", vault, w.path("mnt"))...)...)
			w.ok("umount", w.path("mnt"))
		}
		env := w.env
		w.env = without(w.env, "HOME", "XDG_STATE_HOME", "XDG_RUNTIME_DIR")
		all("no HOME")
		w.env = env
		w.write("a file", "", 0o644)
		all("a file as the state directory", "--state-dir", w.path("a file"))
		w.smallDisk("64K")
		w.sh("head -c 1M /dev/zero >" + w.path("disk") + "/fill 2>/dev/null || true")
		all("a full state directory", "--state-dir", w.path("disk"))
		w.within = nil
		w.folder("ro")
		w.unshare("mount --bind " + w.path("ro") + " " + w.path("ro") + " && mount -o remount,bind,ro " + w.path("ro"))
		all("a read-only state directory", "--state-dir", w.path("ro"))
		w.within = nil
		w.opens(vault)
	})
}

// without leaves variables out of an environment.
func without(env []string, names ...string) (kept []string) {
	for _, e := range env {
		name, _, _ := strings.Cut(e, "=")
		drop := false
		for _, n := range names {
			drop = drop || n == name
		}
		if !drop {
			kept = append(kept, e)
		}
	}
	return kept
}
