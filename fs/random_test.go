package fs

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"pgregory.net/rapid"
)

// TestRandomOperations does random things on a mount and on the model, by several users, with several open files, over remounts,
// and compares every answer, the tree, and which times changed.
func TestRandomOperations(t *testing.T) {
	for _, pageCache := range []bool{false, true} {
		t.Run(fmt.Sprintf("page cache %v", pageCache), func(t *testing.T) {
			m := newRandomWorld(t, volumeOptions{Options: Options{PageCache: pageCache}, others: true, flags: restricted, budget: 4 << 20})
			rapid.Check(t, m.run)
		})
	}
}

// randomWorld is a volume and a model on which one check after the other works, each in a folder of its own.
type randomWorld struct {
	t       *testing.T
	volume  *volume
	options volumeOptions
	mounted *mounted
	tmpfs   string
	checks  int
}

func newRandomWorld(t *testing.T, o volumeOptions) *randomWorld {
	v := newVolume(t)
	w := &randomWorld{t: t, volume: v, options: o, mounted: v.mount(t, o), tmpfs: tmpfs(t)}
	for _, dir := range []string{w.mounted.dir, w.tmpfs} {
		letThrough(t, dir)
	}
	t.Cleanup(func() { unix.Umask(unix.Umask(0o22)) })
	return w
}

// check is one run.
type check struct {
	*randomWorld
	name string
	pair pair
	rt   *rapid.T
}

func (w *randomWorld) run(rt *rapid.T) {
	w.checks++
	c := &check{randomWorld: w, name: fmt.Sprintf("check%d", w.checks), rt: rt}
	old := unix.Umask(0)
	defer unix.Umask(old)
	c.locate()
	for _, dir := range []string{c.pair.mount, c.pair.model} {
		if err := os.Mkdir(dir, 0o777); err != nil {
			rt.Fatal(err)
		}
	}
	defer func() {
		c.closeAll()
		os.RemoveAll(c.pair.mount)
		os.RemoveAll(c.pair.model)
	}()
	actions := map[string]func(*rapid.T){}
	for name, action := range randomActions {
		actions[name] = func(rt *rapid.T) { c.rt = rt; action(c) }
	}
	rt.Repeat(actions)
	if err := c.pair.equal(); err != nil {
		rt.Fatal(err)
	}
}

func (c *check) locate() {
	c.pair.mount, c.pair.model = filepath.Join(c.mounted.dir, c.name), filepath.Join(c.tmpfs, c.name)
}

func (c *check) closeAll() {
	for _, h := range c.pair.open {
		unix.Close(h.mount)
		unix.Close(h.model)
	}
	c.pair.open = nil
}

// do does something on both sides, as somebody, and fails the check if the answers differ.
func (c *check) do(do func(s side) (any, error)) (answer any, err error) {
	before := c.changes(nil)
	waitForTick()
	who := rapid.SampledFrom([]actor{{}, {}, {uid: 1001, gid: 1001}, {uid: 1002, gid: 1002, groups: []int{1001}}}).Draw(c.rt, "actor")
	who.do(c.t, func() { answer, err = same(&c.pair, do) })
	if errors.Is(err, errDiffers) {
		c.rt.Fatal(err)
	}
	c.changes(before)
	return answer, err
}

// waitForTick waits until the clock that tmpfs takes its times from has moved on.
func waitForTick() {
	coarse := func() (ts unix.Timespec) {
		unix.ClockGettime(unix.CLOCK_REALTIME_COARSE, &ts)
		return ts
	}
	for was := coarse(); coarse() == was; {
		time.Sleep(time.Millisecond)
	}
}

// changes compares which times changed on the two sides since before, and returns the present ones.
func (c *check) changes(before map[string][2]*entry) map[string][2]*entry {
	now := map[string][2]*entry{}
	for i, dir := range []string{c.pair.model, c.pair.mount} {
		all, err := walkTree(dir)
		if err != nil {
			c.rt.Fatal(err)
		}
		for path, e := range all {
			both := now[path]
			both[i] = e
			now[path] = both
		}
	}
	for path, both := range before {
		after := now[path]
		if after[0] == nil || after[1] == nil {
			continue
		}
		for at, name := range []string{"", "modification", "change"} {
			if at == 0 {
				continue // atime: the comparison itself reads
			}
			want, got := after[0].times[at] != both[0].times[at], after[1].times[at] != both[1].times[at]
			if want != got {
				c.rt.Fatalf("%s: the time of %s changed: %v, want %v", path, name, got, want)
			}
			if set := after[0].times[at]; set.Sec < 1e6 && set != after[1].times[at] {
				c.rt.Fatalf("%s: the time of %s is %v, want %v", path, name, after[1].times[at], set)
			}
		}
	}
	return now
}

// path draws a path of up to three names.
func (c *check) path(label string) string {
	names := rapid.SliceOfN(rapid.SampledFrom([]string{"a", "b", "c"}), 1, 3).Draw(c.rt, label)
	return path.Join(names...)
}

func (c *check) at(s side, p string) string { return filepath.Join(s.dir, p) }

// handle draws an open file; none is no index.
func (c *check) handle(label string) (handle, bool) {
	if len(c.pair.open) == 0 {
		return handle{}, false
	}
	return c.pair.open[rapid.IntRange(0, len(c.pair.open)-1).Draw(c.rt, label)], true
}

var (
	anyMode   = rapid.SampledFrom([]uint32{0o644, 0o666, 0o755, 0o777, 0o600, 0o000, 0o4755, 0o2755, 0o2745, 0o6777, 0o1777, 0o2777})
	anyOffset = rapid.OneOf(rapid.Int64Range(0, 5000), rapid.Int64Range(0, 300_000), rapid.SampledFrom([]int64{0, 4096, 32768, 65536, 1 << 20}))
	anyLength = rapid.OneOf(rapid.IntRange(0, 5000), rapid.IntRange(0, 200_000), rapid.SampledFrom([]int{1, 4096, 32768}))
	anyID     = rapid.SampledFrom([]int{-1, 0, 1001, 1002, 70000})
)

// open opens a path on both sides and keeps the handles.
func (c *check) open(open func(s side) (int, error)) {
	if len(c.pair.open) >= 6 {
		return
	}
	var h handle
	_, err := c.do(func(s side) (any, error) {
		fd, err := open(s)
		if s.dir == c.pair.mount {
			h.mount = fd
		} else {
			h.model = fd
		}
		return nil, err
	})
	if err == nil {
		c.pair.open = append(c.pair.open, h)
	}
}

// randomActions are what may be done. Each draws its arguments first, so that both sides get the same.
var randomActions = map[string]func(c *check){
	"open": func(c *check) {
		p, mode := c.path("path"), anyMode.Draw(c.rt, "mode")
		flags := rapid.SampledFrom([]int{unix.O_RDONLY, unix.O_WRONLY, unix.O_RDWR}).Draw(c.rt, "access") | unix.O_NONBLOCK
		for _, f := range []int{unix.O_CREAT, unix.O_CREAT, unix.O_EXCL, unix.O_TRUNC, unix.O_APPEND, unix.O_NOFOLLOW} {
			if rapid.Bool().Draw(c.rt, "flag") {
				flags |= f
			}
		}
		if flags&unix.O_CREAT == 0 {
			flags &^= unix.O_EXCL
		}
		c.open(func(s side) (int, error) { return unix.Open(c.at(s, p), flags|unix.O_CLOEXEC, mode) })
	},
	"tmpfile": func(c *check) {
		p, mode := c.path("path"), anyMode.Draw(c.rt, "mode")
		c.open(func(s side) (int, error) {
			return unix.Open(c.at(s, path.Dir(p)), unix.O_TMPFILE|unix.O_RDWR|unix.O_CLOEXEC, mode)
		})
	},
	"close": func(c *check) {
		if len(c.pair.open) == 0 {
			return
		}
		i := rapid.IntRange(0, len(c.pair.open)-1).Draw(c.rt, "handle")
		unix.Close(c.pair.open[i].mount)
		unix.Close(c.pair.open[i].model)
		c.pair.open = append(c.pair.open[:i:i], c.pair.open[i+1:]...)
	},
	"write": func(c *check) {
		h, ok := c.handle("handle")
		off, n, fill := anyOffset.Draw(c.rt, "offset"), anyLength.Draw(c.rt, "length"), rapid.ByteRange(1, 255).Draw(c.rt, "fill")
		if ok {
			b := bytes.Repeat([]byte{fill}, n)
			c.do(func(s side) (any, error) { return unix.Pwrite(s.fd(h), b, off) })
		}
	},
	"read": func(c *check) {
		h, ok := c.handle("handle")
		off, n := anyOffset.Draw(c.rt, "offset"), anyLength.Draw(c.rt, "length")
		if ok {
			c.do(func(s side) (any, error) {
				b := make([]byte, n)
				n, err := unix.Pread(s.fd(h), b, off)
				return squeeze(b[:max(n, 0)]), err
			})
		}
	},
	"truncate": func(c *check) {
		h, ok := c.handle("handle")
		p, size := c.path("path"), anyOffset.Draw(c.rt, "size")
		if ok && rapid.Bool().Draw(c.rt, "by handle") {
			c.do(func(s side) (any, error) { return nil, unix.Ftruncate(s.fd(h), size) })
		} else {
			// To the size that it has nothing happens; but tmpfs gives back what fallocate has set aside behind the end, and then
			// takes that for a change of the contents.
			if info, err := os.Stat(filepath.Join(c.pair.model, p)); err == nil && info.Size() == size {
				size++
			}
			c.do(func(s side) (any, error) { return nil, unix.Truncate(c.at(s, p), size) })
		}
	},
	"fallocate": func(c *check) {
		h, ok := c.handle("handle")
		off, n := anyOffset.Draw(c.rt, "offset"), anyLength.Draw(c.rt, "length")
		mode := rapid.SampledFrom([]uint32{0, fallocKeepSize, fallocPunchHole | fallocKeepSize}).Draw(c.rt, "mode")
		if ok {
			c.do(func(s side) (any, error) { return nil, unix.Fallocate(s.fd(h), mode, off, int64(n)) })
		}
	},
	"copy range": func(c *check) {
		from, ok := c.handle("from")
		to, _ := c.handle("to")
		offIn, offOut, n := anyOffset.Draw(c.rt, "from offset"), anyOffset.Draw(c.rt, "to offset"), anyLength.Draw(c.rt, "length")
		if ok {
			c.do(func(s side) (any, error) {
				in, out := offIn, offOut
				return unix.CopyFileRange(s.fd(from), &in, s.fd(to), &out, n, 0)
			})
		}
	},
	"mkdir": func(c *check) {
		p, mode := c.path("path"), anyMode.Draw(c.rt, "mode")
		c.do(func(s side) (any, error) { return nil, unix.Mkdir(c.at(s, p), mode) })
	},
	"mknod": func(c *check) {
		p, mode := c.path("path"), anyMode.Draw(c.rt, "mode")
		kind := rapid.SampledFrom([]uint32{unix.S_IFIFO, unix.S_IFSOCK, unix.S_IFCHR, unix.S_IFREG}).Draw(c.rt, "kind")
		dev := 0
		if kind == unix.S_IFCHR {
			dev = 0x10305
		}
		c.do(func(s side) (any, error) { return nil, unix.Mknod(c.at(s, p), kind|mode, dev) })
	},
	"symlink": func(c *check) {
		p, target := c.path("path"), rapid.SampledFrom([]string{"a", "b/c", "../a", "gone", strings.Repeat("t/", 2000)}).Draw(c.rt, "target")
		c.do(func(s side) (any, error) { return nil, unix.Symlink(target, c.at(s, p)) })
	},
	"unlink": func(c *check) {
		p := c.path("path")
		c.do(func(s side) (any, error) { return nil, unix.Unlink(c.at(s, p)) })
	},
	"rmdir": func(c *check) {
		p := c.path("path")
		c.do(func(s side) (any, error) { return nil, unix.Rmdir(c.at(s, p)) })
	},
	"link": func(c *check) {
		p, q := c.path("old"), c.path("new")
		h, ok := c.handle("handle")
		if ok && rapid.Bool().Draw(c.rt, "by handle") {
			c.do(func(s side) (any, error) {
				old := fmt.Sprintf("/proc/self/fd/%d", s.fd(h))
				return nil, unix.Linkat(unix.AT_FDCWD, old, unix.AT_FDCWD, c.at(s, q), unix.AT_SYMLINK_FOLLOW)
			})
		} else {
			c.do(func(s side) (any, error) { return nil, unix.Link(c.at(s, p), c.at(s, q)) })
		}
	},
	"rename": func(c *check) {
		p, q := c.path("old"), c.path("new")
		flags := rapid.SampledFrom([]uint{0, 0, unix.RENAME_NOREPLACE, unix.RENAME_EXCHANGE}).Draw(c.rt, "flags")
		c.do(func(s side) (any, error) {
			return nil, unix.Renameat2(unix.AT_FDCWD, c.at(s, p), unix.AT_FDCWD, c.at(s, q), flags)
		})
	},
	"chmod": func(c *check) {
		p, mode := c.path("path"), anyMode.Draw(c.rt, "mode")
		c.do(func(s side) (any, error) { return nil, unix.Chmod(c.at(s, p), mode) })
	},
	"chown": func(c *check) {
		p, uid, gid := c.path("path"), anyID.Draw(c.rt, "uid"), anyID.Draw(c.rt, "gid")
		c.do(func(s side) (any, error) { return nil, unix.Lchown(c.at(s, p), uid, gid) })
	},
	"utimens": func(c *check) {
		p := c.path("path")
		stamp := rapid.SampledFrom([]unix.Timespec{{Nsec: unix.UTIME_NOW}, {Nsec: unix.UTIME_OMIT}, {Sec: 1000, Nsec: 123456789}, {Sec: -5, Nsec: 1}})
		times := []unix.Timespec{stamp.Draw(c.rt, "atime"), stamp.Draw(c.rt, "mtime")}
		c.do(func(s side) (any, error) {
			return nil, unix.UtimesNanoAt(unix.AT_FDCWD, c.at(s, p), times, unix.AT_SYMLINK_NOFOLLOW)
		})
	},
	"setxattr": func(c *check) {
		p, name := c.path("path"), rapid.SampledFrom([]string{"user.x", "user.y", "trusted.z", "security.capability"}).Draw(c.rt, "name")
		value := bytes.Repeat([]byte("v"), rapid.SampledFrom([]int{0, 1, 300}).Draw(c.rt, "length"))
		flags := rapid.IntRange(0, 2).Draw(c.rt, "flags")
		if name == "security.capability" { // CAP_NET_RAW, permitted and effective; the kernel takes no other form
			value = []byte{1, 0, 0, 2, 0, 32, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}
		}
		c.do(func(s side) (any, error) { return nil, unix.Lsetxattr(c.at(s, p), name, value, flags) })
	},
	"removexattr": func(c *check) {
		p, name := c.path("path"), rapid.SampledFrom([]string{"user.x", "user.y", accessACL, defaultACL}).Draw(c.rt, "name")
		c.do(func(s side) (any, error) { return nil, unix.Lremovexattr(c.at(s, p), name) })
	},
	"setfacl": func(c *check) {
		p, name := c.path("path"), rapid.SampledFrom([]string{accessACL, defaultACL}).Draw(c.rt, "name")
		value := drawACL(c.rt).encode()
		c.do(func(s side) (any, error) { return nil, unix.Lsetxattr(c.at(s, p), name, value, 0) })
	},
	"umask": func(c *check) { unix.Umask(rapid.SampledFrom([]int{0, 0o22, 0o77, 0o27}).Draw(c.rt, "umask")) },
	"list": func(c *check) {
		p := c.path("path")
		c.do(func(s side) (any, error) { return listing(c.at(s, p)) })
	},
	"access": func(c *check) {
		p, mode := c.path("path"), rapid.Uint32Range(0, 7).Draw(c.rt, "mode")
		c.do(func(s side) (any, error) {
			return nil, unix.Faccessat(unix.AT_FDCWD, c.at(s, p), mode, unix.AT_EACCESS)
		})
	},
	"fsync": func(c *check) {
		if h, ok := c.handle("handle"); ok {
			if _, err := c.do(func(s side) (any, error) { return nil, unix.Fsync(s.fd(h)) }); err == nil {
				c.durable()
			}
		}
	},
	"remount": func(c *check) {
		if rapid.IntRange(0, 9).Draw(c.rt, "rarely") > 0 {
			return
		}
		c.closeAll()
		c.mounted.unmount(c.t)
		c.mounted = c.volume.mount(c.t, c.options)
		c.randomWorld.mounted = c.mounted
		c.locate()
		if err := c.pair.equal(); err != nil {
			c.rt.Fatal(err)
		}
	},
}

// drawACL draws a valid ACL.
func drawACL(rt *rapid.T) acl {
	perm := rapid.Uint16Range(0, 7)
	list := acl{{aclUserObj, perm.Draw(rt, "user"), ^uint32(0)}}
	extended := rapid.Bool().Draw(rt, "extended")
	if extended {
		list = append(list, aclEntry{aclUser, perm.Draw(rt, "named user"), 1001})
	}
	list = append(list, aclEntry{aclGroupObj, perm.Draw(rt, "group"), ^uint32(0)})
	if extended {
		list = append(list, aclEntry{aclGroup, perm.Draw(rt, "named group"), 1002}, aclEntry{aclMask, perm.Draw(rt, "mask"), ^uint32(0)})
	}
	return append(list, aclEntry{aclOther, perm.Draw(rt, "other"), ^uint32(0)})
}
