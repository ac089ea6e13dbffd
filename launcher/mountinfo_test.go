package launcher

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

const sampleMountinfo = `27 1 254:0 / / rw,relatime - ext4 /dev/vda rw,discard
36 27 0:52 / /mnt/a\040b rw,nosuid,nodev shared:3 master:2 - fuse.encfsrun /v/x\134y,\012z rw,user_id=1000,group_id=100
37 27 0:52 /sub /srv/bind ro - fuse.encfsrun /v rw,user_id=1000,group_id=100
38 27 0:60 / /mnt/empty rw,relatime -  tmpfs  rw
`

func TestParseMountinfo(t *testing.T) {
	text := strings.Replace(sampleMountinfo, "-  tmpfs", "- tmpfs", 1)
	mounts, err := ParseMountinfo(strings.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	want := []MountInfo{
		{27, 1, "254:0", "/", "/", "rw,relatime", "ext4", "/dev/vda", "rw,discard"},
		{36, 27, "0:52", "/", "/mnt/a b", "rw,nosuid,nodev", FilesystemType, "/v/x\\y,\nz", "rw,user_id=1000,group_id=100"},
		{37, 27, "0:52", "/sub", "/srv/bind", "ro", FilesystemType, "/v", "rw,user_id=1000,group_id=100"},
		{38, 27, "0:60", "/", "/mnt/empty", "rw,relatime", "tmpfs", "", "rw"},
	}
	if !reflect.DeepEqual(mounts, want) {
		t.Fatalf("got  %+v\nwant %+v", mounts, want)
	}
	if uid, ok := mounts[1].superOption("user_id"); uid != 1000 || !ok {
		t.Errorf("user_id %d %v", uid, ok)
	}
	if copies := mounts[1].Copies(mounts); len(copies) != 1 || copies[0].ID != 37 {
		t.Errorf("copies %v", copies)
	}
}

func TestParseMountinfoRefuses(t *testing.T) {
	for name, line := range map[string]string{
		"empty line":       "",
		"no dash":          "36 35 98:0 / /mnt rw shared:1 ext3 /dev/root rw",
		"nothing after it": "36 35 98:0 / /mnt rw -",
		"no super options": "36 35 98:0 / /mnt rw - ext3 /dev/root",
		"dash too early":   "36 35 98:0 / - ext3 /dev/root",
		"bad id":           "x 35 98:0 / /mnt rw - ext3 /dev/root rw",
		"bad parent":       "36 x 98:0 / /mnt rw - ext3 /dev/root rw",
		"endless line":     strings.Repeat("x", maxMountinfoLine+1),
	} {
		if got, err := ParseMountinfo(strings.NewReader(line + "\n")); err == nil {
			t.Errorf("%s: got %v", name, got)
		}
	}
}

func TestUnescapeOctal(t *testing.T) {
	for in, want := range map[string]string{
		`a\040b\011\012\134\043`: "a b\t\n\\#",
		`\377`:                   "\xff",
		`\400`:                   `\400`,
		`\04`:                    `\04`,
		`\`:                      `\`,
		`\\040`:                  `\ `,
		`\+12`:                   `\+12`,
	} {
		if got := unescapeOctal(in); got != want {
			t.Errorf("%q: got %q, want %q", in, got, want)
		}
	}
}

// escapeOctal is the kernel's mangle(): the inverse of unescapeOctal.
func escapeOctal(s string) string {
	var b strings.Builder
	for _, c := range []byte(s) {
		if strings.IndexByte(" \t\n\\#", c) >= 0 {
			fmt.Fprintf(&b, `\%03o`, c)
		} else {
			b.WriteByte(c)
		}
	}
	return b.String()
}

func formatMountinfo(m MountInfo, tags string) string {
	return fmt.Sprintf("%d %d %s %s %s %s %s- %s %s %s\n", m.ID, m.Parent, m.Device, escapeOctal(m.Root),
		escapeOctal(m.Mountpoint), m.Options, tags, escapeOctal(m.Type), escapeOctal(m.Source), escapeOctal(m.SuperOptions))
}

func TestMountinfoRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		name := rapid.StringMatching(`/[ -~\t\n\\#é]{0,20}`)
		word := rapid.StringMatching(`[a-z0-9:,=]{1,10}`)
		m := MountInfo{
			rapid.IntRange(0, 1<<31-1).Draw(t, "id"), rapid.IntRange(0, 1<<31-1).Draw(t, "parent"),
			word.Draw(t, "device"), name.Draw(t, "root"), name.Draw(t, "mountpoint"), word.Draw(t, "options"),
			word.Draw(t, "type"), name.Draw(t, "source"), word.Draw(t, "super"),
		}
		tags := rapid.SampledFrom([]string{"", "shared:1 ", "shared:1 master:2 propagate_from:3 ", "unbindable "}).Draw(t, "tags")
		got, err := ParseMountinfo(strings.NewReader(formatMountinfo(m, tags)))
		if err != nil || len(got) != 1 || got[0] != m {
			t.Fatalf("got %+v, %v; want %+v", got, err, m)
		}
	})
}

func FuzzParseMountinfo(f *testing.F) {
	f.Add(sampleMountinfo)
	f.Add("")
	f.Add("\n")
	f.Add("1 1 0:1 / / rw - a b c\n1 1 0:1 / / rw - a b c\n")
	f.Add("2 3 0:1 / / rw - a b c\n3 2 0:1 / / rw - a b c\n")
	f.Add(`1 0 0:1 \777 \04 rw - \1 \ \\`)
	if own, err := os.ReadFile("/proc/self/mountinfo"); err == nil {
		f.Add(string(own))
	} else {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, text string) {
		mounts, err := ParseMountinfo(strings.NewReader(text))
		if err != nil {
			return
		}
		if len(mounts) > strings.Count(text, "\n")+1 {
			t.Fatalf("%d mounts in %d lines", len(mounts), strings.Count(text, "\n"))
		}
		for i := range mounts { // none of it may hang on a table that goes in circles
			m := &mounts[i]
			m.Copies(mounts)
			m.superOption("user_id")
			if strings.HasPrefix(m.Mountpoint, "/") && len(mounts) < 50 && len(m.Mountpoint) < 100 {
				mountAt(mounts, m.Mountpoint)
			}
			if got := unescapeOctal(escapeOctal(m.Mountpoint)); got != m.Mountpoint {
				t.Fatalf("%q came back as %q", m.Mountpoint, got)
			}
		}
	})
}

func TestMountAtFollowsTheTable(t *testing.T) {
	mounts := []MountInfo{
		{ID: 1, Parent: 1, Mountpoint: "/"},    // the initial root file system,
		{ID: 20, Parent: 1, Mountpoint: "/"},   // the root over it
		{ID: 21, Parent: 20, Mountpoint: "/m"}, // a mount
		{ID: 22, Parent: 21, Mountpoint: "/m"}, // and another over it
		{ID: 23, Parent: 22, Mountpoint: "/m/sub"},
		{ID: 24, Parent: 20, Mountpoint: "/old/x"},
		{ID: 25, Parent: 20, Mountpoint: "/old"}, // hides 24
		{ID: 26, Parent: 20, Mountpoint: "/a/b"},
	}
	for path, want := range map[string]int{
		"/": 20, "/m": 22, "/m/other": 22, "/m/sub": 23, "/m/sub/deep": 23, "/mm": 20, "/old/x": 25, "/a": 20, "/a/b": 26, "/a/b/c": 26,
	} {
		if got := mountAt(mounts, path); got == nil || got.ID != want {
			t.Errorf("%s: got %v, want %d", path, got, want)
		}
	}
	chroot := []MountInfo{{ID: 31, Parent: 30, Mountpoint: "/x"}, {ID: 32, Parent: 31, Mountpoint: "/x/y"}}
	if got := mountAt(chroot, "/x/y"); got == nil || got.ID != 32 {
		t.Errorf("in a chroot: got %v", got)
	}
	if got := mountAt(chroot, "/z"); got != nil {
		t.Errorf("in a chroot, elsewhere: got %v", got)
	}
}

func TestResolveIsRealpath(t *testing.T) {
	base := realTempDir(t)
	must(t, os.MkdirAll(filepath.Join(base, "dir/sub"), 0o755))
	must(t, os.WriteFile(filepath.Join(base, "file"), nil, 0o644))
	for name, target := range map[string]string{
		"rel": "dir", "abs": filepath.Join(base, "dir"), "up": "dir/../dir/sub", "chain": "rel/sub", "loop": "loop", "dangling": "none",
	} {
		must(t, os.Symlink(target, filepath.Join(base, name)))
	}
	t.Chdir(base)
	for _, path := range []string{
		base, "dir", "./dir//sub/.", "rel", "rel/sub", "abs/sub", "up", "chain", "chain/..", "rel/..", "/", "/..", "../" + filepath.Base(base) + "/dir",
		"none", "dir/none", "dangling", "loop", "file/x", "", "file",
	} {
		full := path
		if !filepath.IsAbs(path) {
			full = base + "/" + path
		}
		want, wantErr := filepath.EvalSymlinks(full)
		if path == "" {
			wantErr = fs.ErrNotExist
		}
		got, err := resolve(nil, path)
		if (err == nil) != (wantErr == nil) || (err == nil && got != want) {
			t.Errorf("%q: got %q, %v; want %q, %v", path, got, err, want, wantErr)
		}
		if errors.Is(wantErr, fs.ErrNotExist) && !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%q: %v is not ErrNotExist", path, err)
		}
	}
}

// TestResolveNeverLooksInside uses a table that claims our mount at a
// directory that does not exist: looking at it would fail.
func TestResolveNeverLooksInside(t *testing.T) {
	base := realTempDir(t)
	must(t, os.Symlink(base, filepath.Join(base, "link")))
	mounts := []MountInfo{
		{ID: 1, Parent: 0, Mountpoint: "/", Type: "ext4"},
		{ID: 2, Parent: 1, Mountpoint: base + "/mnt", Type: FilesystemType},
		{ID: 3, Parent: 2, Mountpoint: base + "/mnt/nested", Type: "tmpfs"},
	}
	for path, want := range map[string]string{
		base + "/mnt":              base + "/mnt",
		base + "/link/mnt/a/../b":  base + "/mnt/b",
		base + "/mnt/nested/x":     base + "/mnt/nested/x",
		base + "/mnt/../link/mnt/": base + "/mnt",
	} {
		if got, err := resolve(mounts, path); err != nil || got != want {
			t.Errorf("%s: got %q, %v; want %q", path, got, err, want)
		}
	}
	if _, err := resolve(mounts, base+"/mnt/../none"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("outside again: %v", err)
	}
}

func TestFindMountOfOthers(t *testing.T) {
	for _, dir := range []string{"/", "/proc", t.TempDir()} {
		if m, err := FindMount(dir); !errors.Is(err, ErrNotMounted) {
			t.Errorf("%s: got %v, %v", dir, m, err)
		}
	}
	if _, err := FindMount("/does/not/exist"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("absent: %v", err)
	}
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func realTempDir(t testing.TB) string {
	t.Helper()
	dir, err := filepath.EvalSymlinks(t.TempDir())
	must(t, err)
	return dir
}
