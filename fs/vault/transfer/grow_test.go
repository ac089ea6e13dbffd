package transfer

import (
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"golang.org/x/sys/unix"
	"pgregory.net/rapid"
)

// grower changes a tree of the host at random.
type grower struct {
	*workshop
	r    *rapid.T
	dirs []string // "" is always one
	rest []string // all else
}

func (g *grower) one(what string, of []string) string { return rapid.SampledFrom(of).Draw(g.r, what) }

func (g *grower) dirNames() []string { return append([]string{""}, g.dirs...) }

// fresh is a name that nothing has; names are few, so that what is removed comes back as something else.
func (g *grower) fresh() (string, bool) {
	name := filepath.Join(g.one("dir", g.dirNames()), g.one("name", []string{"a", "b", "c", "d", "\xff", "e f", "\n"}))
	_, err := os.Lstat(g.at(name))
	return name, err != nil
}

// grow makes one thing.
func (g *grower) grow() {
	name, ok := g.fresh()
	if !ok {
		return
	}
	switch kind := g.one("kind", []string{"file", "file", "file", "dir", "dir", "link", "symlink", "fifo"}); kind {
	case "dir":
		g.do(os.Mkdir(g.at(name), 0o755))
		g.dirs = append(g.dirs, name)
		return
	case "link":
		if len(g.rest) == 0 {
			return
		}
		g.do(unix.Linkat(unix.AT_FDCWD, g.at(g.one("linked", g.rest)), unix.AT_FDCWD, g.at(name), 0))
	case "symlink":
		g.symlink(name, g.one("target", []string{"a", "../b", "/etc", "nowhere"}))
	case "fifo":
		g.node(name, unix.S_IFIFO)
	case "file":
		g.do(os.WriteFile(g.at(name), nil, 0o644))
		g.contents(name)
	}
	g.rest = append(g.rest, name)
}

// contents writes parts of a file, leaving the others as they are or holes.
func (g *grower) contents(name string) {
	f, err := os.OpenFile(g.at(name), os.O_RDWR, 0)
	g.do(err)
	defer f.Close()
	g.do(f.Truncate(rapid.SampledFrom([]int64{0, 1, 100, 4096, 32728, 70_000, 1 << 20, 3_000_000}).Draw(g.r, "size")))
	for range rapid.IntRange(0, 3).Draw(g.r, "parts") {
		b := make([]byte, rapid.SampledFrom([]int{1, 100, 4096, 32728, 33000, 1<<20 + 1}).Draw(g.r, "length"))
		seed := rand.New(rand.NewPCG(rapid.Uint64().Draw(g.r, "seed"), 0))
		for i := range b {
			b[i] = byte(seed.Uint32())
		}
		_, err := f.WriteAt(b, rapid.SampledFrom([]int64{0, 1, 4096, 50_000, 1 << 20}).Draw(g.r, "at"))
		g.do(err)
	}
}

// change changes one thing, or takes it away.
func (g *grower) change() {
	all := append(g.dirNames(), g.rest...)
	switch g.one("change", []string{"grow", "grow", "remove", "contents", "byte", "mode", "times", "xattr", "noxattr", "rename"}) {
	case "grow":
		g.grow()
	case "remove":
		if name := g.one("removed", all); name != "" {
			g.remove(name)
			g.relist()
		}
	case "rename":
		if to, ok := g.fresh(); ok && len(g.rest) > 0 {
			g.do(os.Rename(g.at(g.one("renamed", g.rest)), g.at(to)))
			g.relist()
		}
	case "contents":
		if name, ok := g.regular(); ok {
			g.contents(name)
		}
	case "byte":
		g.flip()
	case "mode":
		if name := g.one("chmod", all); !g.isLink(name) {
			g.mode(name, rapid.SampledFrom([]uint32{0o700, 0o755, 0o4711, 0o1777}).Draw(g.r, "mode"))
		}
	case "times":
		g.times(g.one("touched", all), rapid.Int64Range(-1000, 1<<33).Draw(g.r, "sec"), rapid.Int64Range(0, 999_999_999).Draw(g.r, "nsec"))
	case "xattr":
		name := g.one("attributed", append(g.dirNames(), g.regulars()...))
		g.xattr(name, g.one("xattr", []string{"user.a", "user.b"}), g.one("value", []string{"", "x", "yy"}))
	case "noxattr":
		name := g.one("attributed", append(g.dirNames(), g.regulars()...))
		if err := unix.Lremovexattr(g.at(name), "user.a"); err != nil && err != unix.ENODATA {
			g.t.Fatal(err)
		}
	}
}

// flip changes a byte and puts the time back, so that neither size nor time tells.
func (g *grower) flip() {
	name, ok := g.regular()
	if !ok {
		return
	}
	var st unix.Stat_t
	g.do(unix.Lstat(g.at(name), &st))
	if st.Size == 0 {
		return
	}
	f, err := os.OpenFile(g.at(name), os.O_RDWR, 0)
	g.do(err)
	defer f.Close()
	at, b := rapid.Int64Range(0, st.Size-1).Draw(g.r, "offset"), []byte{0}
	_, err = f.ReadAt(b, at)
	g.do(err)
	b[0] ^= 1
	_, err = f.WriteAt(b, at)
	g.do(err)
	g.do(unix.UtimesNano(g.at(name), []unix.Timespec{st.Atim, st.Mtim}))
}

func (g *grower) isLink(name string) bool {
	info, err := os.Lstat(g.at(name))
	g.do(err)
	return info.Mode()&os.ModeSymlink != 0
}

func (g *grower) regulars() []string {
	return slices.DeleteFunc(slices.Clone(g.rest), func(name string) bool {
		info, err := os.Lstat(g.at(name))
		g.do(err)
		return !info.Mode().IsRegular()
	})
}

func (g *grower) regular() (string, bool) {
	names := g.regulars()
	if len(names) == 0 {
		return "", false
	}
	return g.one("file", names), true
}

// relist looks at what there is.
func (g *grower) relist() {
	g.dirs, g.rest = nil, nil
	g.do(filepath.WalkDir(g.top, func(path string, e os.DirEntry, err error) error {
		rel, _ := filepath.Rel(g.top, path)
		switch {
		case err != nil || rel == ".":
		case e.IsDir():
			g.dirs = append(g.dirs, rel)
		default:
			g.rest = append(g.rest, rel)
		}
		return err
	}))
}

func newGrower(t *testing.T, r *rapid.T, entries int) *grower {
	g := &grower{workshop: newWorkshop(t), r: r}
	for range entries {
		g.grow()
	}
	return g
}
