package durability

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"
)

// encfsrun is the product, as users run it: the vault and the pins lie on one disk, and meet the same end. A vault that came back
// as it was before what a pin knows would be refused.
type encfsrun struct {
	disk   *disk
	folder string   // passkey, machine key, sockets
	dir    string   // mount point
	flags  []string // of mount
	pid    int      // of the daemon
}

func newEncfsrun(t *testing.T, d *disk) filesystem { return makeEncfsrun(t, d, "--page-cache", "off") }

func newCachedEncfsrun(t *testing.T, d *disk) filesystem {
	return makeEncfsrun(t, d, "--page-cache", "on")
}

func makeEncfsrun(t *testing.T, d *disk, flags ...string) filesystem {
	e := &encfsrun{disk: d, folder: t.TempDir(), dir: mountPoint(t), flags: flags}
	t.Cleanup(func() { e.kill() })
	return e
}

func (e *encfsrun) path() string            { return e.dir }
func (e *encfsrun) vault() string           { return e.disk.path("app.vault") }
func (e *encfsrun) file(name string) string { return filepath.Join(e.folder, name) }

// run runs the product.
func (e *encfsrun) run(args ...string) (string, error) {
	env := []string{"XDG_STATE_HOME=" + e.disk.path("state"), "XDG_RUNTIME_DIR=" + e.file("run"), "HOME=" + e.folder}
	return command(env, append([]string{built}, args...)...)
}

func (e *encfsrun) create() error {
	err := errors.Join(os.Mkdir(e.disk.path("state"), 0o700), os.Mkdir(e.file("run"), 0o700), os.WriteFile(e.file("passkey"), []byte("correct horse battery staple\n"), 0o600))
	if err != nil {
		return err
	}
	if _, err := e.run("init", "-q", "--kdf-memory", "8M", "--kdf-time", "1", "--new-passkey-file", e.file("passkey"), e.vault()); err != nil {
		return err
	}
	_, err = e.run("key", "add", "-q", "--passkey-file", e.file("passkey"), "--machine", e.file("machine"), e.vault())
	return err
}

// mount clears what a dead daemon left, by itself.
func (e *encfsrun) mount() error {
	args := append([]string{"mount", "-q", "--passkey-file", e.file("machine")}, e.flags...)
	_, err := e.run(append(args, e.vault(), e.dir)...)
	if err == nil {
		e.pid, err = e.daemon()
	}
	return err
}

func (e *encfsrun) sync() error {
	_, err := e.run("sync", e.dir)
	return err
}

// unmount returns when the daemon has ended, as the command promises.
func (e *encfsrun) unmount() error {
	_, err := e.run("umount", e.dir)
	if err == nil {
		e.pid = 0
	}
	return err
}

func (e *encfsrun) kill() (err error) {
	if e.pid != 0 {
		err = killProcess(e.pid)
	}
	e.pid = 0
	return err
}

func (e *encfsrun) check() error {
	_, err := e.run("check", "-q", "--passkey-file", e.file("machine"), e.vault())
	return err
}

func (e *encfsrun) daemon() (int, error) {
	out, err := e.run("status", "--json", e.dir)
	if err != nil {
		return 0, err
	}
	var list []struct{ PID int }
	if err := json.Unmarshal([]byte(out), &list); err != nil {
		return 0, err
	}
	if len(list) != 1 || list[0].PID <= 1 {
		return 0, fmt.Errorf("status --json %s says %s", e.dir, out)
	}
	return list[0].PID, nil
}
