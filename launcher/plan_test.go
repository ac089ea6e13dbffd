package launcher

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

// fakeHost is a small machine in a directory.
func fakeHost(t *testing.T) Host {
	t.Helper()
	root := t.TempDir()
	write := func(name, text string) {
		name = filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	link := func(target, name string) {
		name = filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink(target, name); err != nil {
			t.Fatal(err)
		}
	}
	write("usr/bin/true", "")
	write("lib32/libc.so", "")
	link("usr/bin", "bin")
	link("usr/lib", "lib")
	write("etc/passwd", "root:x:0:0::/root:/bin/sh\nalice:x:1001:1002::/home/alice:/bin/sh\nbroken line\nUPPER:x:1500:1500::/:/bin/sh\n")
	write("etc/shadow", "secret")
	write("etc/machine-id", "secret")
	write("etc/nsswitch.conf", "")
	write("etc/java-17/conf", "")
	write("etc/ssl/certs/ca.pem", "")
	write("etc/ssl/private/key.pem", "secret")
	write("run/resolver/resolv.conf", "")
	link("../run/resolver/resolv.conf", "etc/resolv.conf")
	link("/usr/share/zoneinfo/UTC", "etc/localtime")
	link("/nowhere", "etc/timezone")
	write("etc/hosts", "")
	write("data/file", "")
	link("/dev/null", "data/device")
	return Host{Root: root, UID: 1001, GID: 1002, PID: 77, Environ: []string{"TERM=dumb", "TOKEN=secret", "LC_TIME=C"}}
}

func TestBuild(t *testing.T) {
	plan, err := Build(Options{
		Command: []string{"true"}, At: "/srv/code", Net: NetHost, Env: []string{"A=1", "TOKEN"},
		Binds: []Bind{{Source: "/data", Target: "/srv/code/data"}, {Source: "/data/file", Target: "/x", ReadOnly: true}},
	}, fakeHost(t))
	if err != nil {
		t.Fatal(err)
	}
	want := `namespaces user mount pid ipc uts cgroup
user alice 1001:1002, on the machine 1001:1002
bind /usr on /usr read-only
symlink usr/bin on /bin
symlink usr/lib on /lib
bind /lib32 on /lib32 read-only
bind /etc/nsswitch.conf on /etc/nsswitch.conf read-only
symlink /usr/share/zoneinfo/UTC on /etc/localtime
bind /etc/ssl/certs on /etc/ssl/certs read-only
bind /etc/java-17 on /etc/java-17 read-only
bind /etc/hosts on /etc/hosts read-only
bind /run/resolver/resolv.conf on /etc/resolv.conf read-only
file /etc/passwd mode 0444
file /etc/group mode 0444
symlink /proc/mounts on /etc/mtab
tmpfs /dev mode 0755
device /dev/null on /dev/null
device /dev/zero on /dev/zero
device /dev/full on /dev/full
device /dev/random on /dev/random
device /dev/urandom on /dev/urandom
device /dev/tty on /dev/tty
symlink /proc/self/fd on /dev/fd
symlink fd/0 on /dev/stdin
symlink fd/1 on /dev/stdout
symlink fd/2 on /dev/stderr
symlink pts/ptmx on /dev/ptmx
devpts /dev/pts
tmpfs /dev/shm mode 01777
readonly /dev
proc /proc
tmpfs /tmp mode 01777
tmpfs /run mode 0755
tmpfs /home mode 0755
dir /home/alice mode 0700
symlink ../tmp on /var/tmp
symlink ../run on /var/run
bind /data/file on /x read-only
vault /srv/code read-only
bind /data on /srv/code/data
readonly /
no new privileges true, capabilities dropped true, no user namespaces true, core dumps of 0 bytes
env A=1
env HOME=/home/alice
env LC_TIME=C
env LOGNAME=alice
env PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
env PYTHONDONTWRITEBYTECODE=1
env SHELL=/bin/sh
env TERM=dumb
env TMPDIR=/tmp
env TOKEN=secret
env USER=alice
in /srv/code
execute ["true"]
`
	if diff := cmp.Diff(want, plan.String()); diff != "" {
		t.Error(diff)
	}
	text, err := json.Marshal(&plan)
	if err != nil {
		t.Fatal(err)
	}
	var back Plan
	if err := json.Unmarshal(text, &back); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(plan, back); diff != "" {
		t.Error(diff)
	}
	if uid, gid := plan.FileOwner(); uid != 1001 || gid != 1002 {
		t.Errorf("files belong to %d:%d", uid, gid)
	}
	wanted := Mounted{Dir: "/srv/code", Sandboxed: true, ReadOnly: true, MaxRead: DefaultMaxRead, UID: 1001, GID: 1002}
	if diff := cmp.Diff(wanted, plan.Mounted()); diff != "" {
		t.Error(diff)
	}
}

func TestIdentity(t *testing.T) {
	host := fakeHost(t)
	for _, c := range []struct {
		name     string
		uid, gid int
		user     string
		want     Identity
		fails    string
	}{
		{"ordinary", 1001, 1002, "", Identity{1001, 1002, 1001, 1002, "alice", "/home/alice", false}, ""},
		{"unknown", 1234, 5, "", Identity{1234, 5, 1234, 5, "app", "/home/app", false}, ""},
		{"group 0", 1234, 0, "", Identity{1234, 1234, 1234, 0, "app", "/home/app", false}, ""},
		{"name unfit", 1500, 1500, "", Identity{1500, 1500, 1500, 1500, "app", "/home/app", false}, ""},
		{"root", 0, 0, "", Identity{1000, 1000, dedicatedBase + 77, dedicatedBase + 77, "app", "/home/app", true}, ""},
		{"root for a name", 0, 0, "alice", Identity{1001, 1002, dedicatedBase + 77, dedicatedBase + 77, "alice", "/home/alice", true}, ""},
		{"root for a number", 0, 0, "1001", Identity{1001, 1002, dedicatedBase + 77, dedicatedBase + 77, "alice", "/home/alice", true}, ""},
		{"root for both", 0, 0, "33:44", Identity{33, 44, dedicatedBase + 77, dedicatedBase + 77, "app", "/home/app", true}, ""},
		{"oneself", 1001, 1002, "alice", Identity{1001, 1002, 1001, 1002, "alice", "/home/alice", false}, ""},
		{"another", 1001, 1002, "1234", Identity{}, "user 1234: only root can choose whom the program runs as"},
		{"as root", 0, 0, "root", Identity{}, "user root: the program can't run as root"},
		{"as group 0", 0, 0, "5:0", Identity{}, "user 5:0: the program can't run as root"},
		{"nonsense", 0, 0, "bob", Identity{}, `user "bob" is neither in /etc/passwd nor of the form UID or UID:GID`},
		{"no id", 0, 0, "4294967295", Identity{}, `user "4294967295" is neither in /etc/passwd nor of the form UID or UID:GID`},
		{"negative", 0, 0, "-1", Identity{}, `user "-1" is neither in /etc/passwd nor of the form UID or UID:GID`},
	} {
		host.UID, host.GID = c.uid, c.gid
		id, err := resolveIdentity(c.user, host)
		if c.fails != "" {
			var refused *PlanError
			if !errors.As(err, &refused) || err.Error() != c.fails {
				t.Errorf("%s: %v, wanted %q", c.name, err, c.fails)
			}
			continue
		}
		if err != nil || id != c.want {
			t.Errorf("%s: %+v, %v", c.name, id, err)
		}
	}
	// Root of a container in which few ids exist.
	host.UID, host.GID = 0, 0
	if err := os.MkdirAll(filepath.Join(host.Root, "proc/self"), 0o755); err != nil {
		t.Fatal(err)
	}
	for name, ok := range map[string]bool{"0 1000 65536\n": false, "0 0 4294967295\n": true, "0 1000 1\n1 100000 65536\n": false} {
		for _, file := range []string{"uid_map", "gid_map"} {
			if err := os.WriteFile(filepath.Join(host.Root, "proc/self", file), []byte(name), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		_, err := resolveIdentity("", host)
		var missing *MissingError
		if ok != (err == nil) || (!ok && !errors.As(err, &missing)) {
			t.Errorf("map %q: %v", name, err)
		}
	}
}

// TestPlanRefused has one fault per case.
func TestPlanRefused(t *testing.T) {
	host := fakeHost(t)
	one := []string{"true"}
	for want, o := range map[string]Options{
		"no command to run":                                                       {},
		`argument "a\x00b" has a NUL in it`:                                       {Command: []string{"a\x00b"}},
		`working directory "tmp" is not an absolute path`:                         {Command: one, Dir: "tmp"},
		`network "lan" is neither none nor host`:                                  {Command: one, Net: "lan"},
		`target "app" is not a clean absolute path`:                               {Command: one, At: "app"},
		`target "/app/../x" is not a clean absolute path`:                         {Command: one, At: "/app/../x"},
		"nothing can be mounted on / in the sandbox":                              {Command: one, At: "/"},
		"/proc/x lies in /proc, where nothing can be mounted":                     {Command: one, At: "/proc/x"},
		"/dev/x lies in /dev, where nothing can be mounted":                       {Command: one, Binds: []Bind{{Source: "/data", Target: "/dev/x"}}},
		"/tmp is already taken in the sandbox, by: tmpfs /tmp mode 01777":         {Command: one, At: "/tmp"},
		"/usr is already taken in the sandbox, by: bind /usr on /usr read-only":   {Command: one, Binds: []Bind{{Source: "/data", Target: "/usr"}}},
		"environment variable NOTSET is not set, so it can't be passed on":        {Command: one, Env: []string{"NOTSET"}},
		`environment entry "=x" is not of the form NAME=VALUE`:                    {Command: one, Env: []string{"=x"}},
		"bind /missing: no such file or directory":                                {Command: one, Binds: []Bind{{Source: "/missing"}}},
		"a largest read of 100 bytes is not between 4 KiB and 1 MiB":              {Command: one, MaxRead: 100},
		"/home is already taken in the sandbox, by: tmpfs /home mode 0755":        {Command: one, At: "/home"},
		"bind /data on /var would hide symlink ../tmp on /var/tmp in the sandbox": {Command: one, Binds: []Bind{{Source: "/data", Target: "/var"}}},
	} {
		_, err := Build(o, host)
		var refused *PlanError
		if !errors.As(err, &refused) || err.Error() != want {
			t.Errorf("got %v, wanted %s", err, want)
		}
	}
	plan, err := Build(Options{Command: one}, host)
	if err != nil {
		t.Fatal(err)
	}
	for name, spoil := range map[string]func(*Plan){
		"uid 0":         func(p *Plan) { p.Identity.UID = 0 },
		"host uid 0":    func(p *Plan) { p.Identity.HostUID = 0 },
		"root's group":  func(p *Plan) { p.Identity.Dedicated, p.Identity.HostGID = true, 0 },
		"invalid uid":   func(p *Plan) { p.Identity.UID = invalidID },
		"two vaults":    func(p *Plan) { p.Steps = append(p.Steps, Step{Kind: StepVault, Target: "/other"}) },
		"no vault":      func(p *Plan) { p.Steps = p.Steps[:3] },
		"name":          func(p *Plan) { p.Identity.Name = "a:b" },
		"home":          func(p *Plan) { p.Identity.Home = "home" },
		"hiding bind":   func(p *Plan) { p.Steps = append(p.Steps, Step{Kind: StepBind, Source: "/data", Target: "/etc"}) },
		"nul in target": func(p *Plan) { p.Steps = append(p.Steps, Step{Kind: StepDir, Target: "/a\x00"}) },
	} {
		bad := plan
		bad.Steps = slices.Clone(plan.Steps)
		spoil(&bad)
		if bad.Validate() == nil {
			t.Errorf("%s: not noticed", name)
		}
	}
}

func TestParseBind(t *testing.T) {
	for text, want := range map[string]Bind{
		"/a": {"/a", "", true}, "/a:/b": {"/a", "/b", true}, "rel": {"rel", "", true},
		"": {}, ":": {}, ":/b": {}, "/a:": {}, "/a:/b:idmap": {},
	} {
		got, err := ParseBind(text, true)
		if got != want || (err != nil) != (want == Bind{}) {
			t.Errorf("%q: %+v, %v", text, got, err)
		}
	}
}

func TestExplainNamespaces(t *testing.T) {
	none := t.TempDir()
	with := func(name, text string) string {
		dir := t.TempDir()
		if err := os.MkdirAll(filepath.Dir(filepath.Join(dir, name)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text+"\n"), 0o644); err != nil {
			t.Fatal(err)
		}
		return dir
	}
	for _, c := range []struct {
		errno syscall.Errno
		dir   string
		mend  string
	}{
		{unix.ENOSPC, with("user/max_user_namespaces", "0"), "sysctl -w user.max_user_namespaces"},
		{unix.EPERM, with("kernel/unprivileged_userns_clone", "0"), "sysctl -w kernel.unprivileged_userns_clone=1"},
		{unix.EACCES, with("kernel/apparmor_restrict_unprivileged_userns", "1"), "sysctl -w kernel.apparmor_restrict_unprivileged_userns=0"},
		{unix.EPERM, none, "in a container"},
		{unix.EINVAL, none, "boot a kernel"},
		{unix.EMFILE, none, ""},
	} {
		err := explainNamespaces(c.errno, c.dir)
		var missing *MissingError
		if errors.As(err, &missing) != (c.mend != "") || (missing != nil && !strings.HasPrefix(missing.Mend, c.mend)) {
			t.Errorf("%v: %#v", c.errno, err)
		}
	}
}
