package durability

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"testing"
)

// gocryptfs is the peer.
type gocryptfs struct {
	disk          *disk
	passfile, dir string
	pid           int // of the daemon
}

func newGocryptfs(t *testing.T, d *disk) filesystem {
	g := &gocryptfs{disk: d, passfile: filepath.Join(t.TempDir(), "pass"), dir: mountPoint(t)}
	t.Cleanup(func() { g.kill() })
	return g
}

func (g *gocryptfs) path() string   { return g.dir }
func (g *gocryptfs) cipher() string { return g.disk.path("cipher") }

func (g *gocryptfs) create() error {
	if err := errors.Join(os.WriteFile(g.passfile, []byte("durability\n"), 0o600), os.Mkdir(g.cipher(), 0o755)); err != nil {
		return err
	}
	_, err := command(nil, "gocryptfs", "-q", "-init", "-scryptn", "10", "-passfile", g.passfile, g.cipher())
	return err
}

func (g *gocryptfs) mount() error {
	if isMounted(g.dir) { // it does not clear what its dead daemon left
		if _, err := command(nil, "fusermount3", "-u", "-z", g.dir); err != nil {
			return err
		}
	}
	_, err := command(nil, "gocryptfs", "-q", "-nosyslog", "-passfile", g.passfile, g.cipher(), g.dir)
	if err == nil {
		g.pid, err = g.daemon()
	}
	return err
}

// sync is what users of it have: the kernel does not hand syncfs(2) to a FUSE file system, but its disk knows it.
func (g *gocryptfs) sync() error { return errors.Join(syncfs(g.dir), syncfs(g.disk.dir)) }

func (g *gocryptfs) unmount() error {
	defer func() { g.pid = 0 }()
	return ends(g.pid, func(int) error {
		_, err := command(nil, "fusermount3", "-u", g.dir)
		return err
	})
}

func (g *gocryptfs) kill() (err error) {
	if g.pid != 0 {
		err = killProcess(g.pid)
	}
	g.pid = 0
	return err
}

func (g *gocryptfs) check() error { return nil } // its fsck is not what is measured here

// daemon finds the daemon by its command line, which ends with the mount point.
func (g *gocryptfs) daemon() (int, error) {
	names, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, name := range names {
		line, _ := os.ReadFile(name)
		if bytes.Contains(line, []byte("gocryptfs\x00")) && bytes.HasSuffix(line, []byte("\x00"+g.dir+"\x00")) {
			return strconv.Atoi(filepath.Base(filepath.Dir(name)))
		}
	}
	return 0, fmt.Errorf("gocryptfs has no daemon at %s", g.dir)
}
