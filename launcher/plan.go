package launcher

import (
	"encoding/json"
	"fmt"
	"io/fs"
	"os"
	"strings"
)

// Plan is a sandbox as data: everything that PID 1 will do, in order. It holds
// no secret, can be printed, compared and tested without a kernel, and says
// nothing about the machine that it was not told by [Build].
type Plan struct {
	Net      Net      `json:"net"`
	Steps    []Step   `json:"steps"`    // carried out one after the other in the new root
	Vault    Vault    `json:"vault"`    // what the vault step mounts
	Hostname string   `json:"hostname"` // "" keeps the machine's
	Identity Identity `json:"identity"`
	Confine  Confine  `json:"confine"`
	Env      []string `json:"env"` // sorted "K=V"
	Dir      string   `json:"dir"` // working directory
	Command  []string `json:"command"`
}

// Net says what network the program has.
type Net string

// The networks: only a loopback of its own, or the machine's.
const (
	NetNone Net = "none"
	NetHost Net = "host"
)

// StepKind is what a step does.
type StepKind string

// The kinds of steps. Every mount is nosuid and nodev, except that device
// nodes must not be nodev.
const (
	StepTmpfs    StepKind = "tmpfs"    // a fresh tmpfs at Target, its root of mode Mode and the program's
	StepDir      StepKind = "dir"      // a directory of mode Mode, unless there is one
	StepSymlink  StepKind = "symlink"  // Target is a link that reads Source
	StepFile     StepKind = "file"     // a file of mode Mode that holds Content
	StepBind     StepKind = "bind"     // the machine's Source, with all mounts below it, at Target
	StepDevice   StepKind = "device"   // the machine's device node Source at Target
	StepProc     StepKind = "proc"     // the pid namespace's /proc
	StepPts      StepKind = "devpts"   // pseudo terminals of the sandbox's own
	StepVault    StepKind = "vault"    // the FUSE mount; steps after it wait until it answers
	StepReadOnly StepKind = "readonly" // the mount at Target, not what is mounted below it, turns read-only
)

// Step is one thing to do on the way to the sandbox's view of files. Target is
// an absolute path inside; its missing parents are made.
type Step struct {
	Kind     StepKind    `json:"kind"`
	Source   string      `json:"source,omitempty"`
	Target   string      `json:"target"`
	Mode     fs.FileMode `json:"mode,omitempty"`
	Content  string      `json:"content,omitempty"`
	ReadOnly bool        `json:"read_only,omitempty"`
}

// Vault is the FUSE mount to make.
type Vault struct {
	ReadOnly bool `json:"read_only"`
	MaxRead  int  `json:"max_read"` // bytes in one READ request
}

// Identity is who the program is. Inside, the namespace maps one uid and one
// gid and knows no other.
type Identity struct {
	UID     int    `json:"uid"` // as the program sees itself; never 0
	GID     int    `json:"gid"`
	HostUID int    `json:"host_uid"` // as the machine sees it; never 0
	HostGID int    `json:"host_gid"`
	Name    string `json:"name"`
	Home    string `json:"home"`
	// Dedicated says that the host ids are not the caller's: PID 1 switches to
	// them and gives up the caller's supplementary groups.
	Dedicated bool `json:"dedicated"`
}

// Confine is what the program gives up right before it is executed. The
// filters (seccomp, landlock) and limits of a run have their place here.
type Confine struct {
	NoNewPrivileges  bool   `json:"no_new_privileges"`
	DropCapabilities bool   `json:"drop_capabilities"` // all, from every set, and the securebits locked
	NoUserNamespaces bool   `json:"no_user_namespaces"`
	CoreLimit        uint64 `json:"core_limit"` // bytes of a core dump; with 0 none goes to a pipe either
}

// At is where the vault is mounted.
func (p *Plan) At() string {
	for _, step := range p.Steps {
		if step.Kind == StepVault {
			return step.Target
		}
	}
	return ""
}

// FileOwner returns the uid and gid that a file system must answer as the
// owner of its files, as they are called inside: any other is unmapped there,
// and the kernel then refuses everybody.
func (p *Plan) FileOwner() (uid, gid int) { return p.Identity.UID, p.Identity.GID }

// Mounted describes the plan's mount to the file system that will serve it.
func (p *Plan) Mounted() Mounted {
	return Mounted{
		Dir: p.At(), Sandboxed: true, ReadOnly: p.Vault.ReadOnly, MaxRead: p.Vault.MaxRead,
		UID: p.Identity.UID, GID: p.Identity.GID,
	}
}

// String prints the step as a line: what, from where, to where, and how.
func (s Step) String() string {
	var line strings.Builder
	line.WriteString(string(s.Kind))
	if s.Source != "" {
		line.WriteString(" " + s.Source + " on")
	}
	line.WriteString(" " + s.Target)
	if s.Mode != 0 {
		fmt.Fprintf(&line, " mode %#o", unixMode(s.Mode))
	}
	if s.ReadOnly {
		line.WriteString(" read-only")
	}
	return line.String()
}

// unixMode is a mode as chmod takes it: the permission bits and the sticky bit.
func unixMode(mode fs.FileMode) uint32 {
	bits := uint32(mode.Perm())
	if mode&fs.ModeSticky != 0 {
		bits |= 0o1000
	}
	return bits
}

// String prints the plan for a person, one fact on a line, in the order in
// which it is carried out.
func (p *Plan) String() string {
	var text strings.Builder
	namespaces := "user mount pid ipc uts cgroup"
	if p.Net == NetNone {
		namespaces += " net"
	}
	fmt.Fprintf(&text, "namespaces %s\n", namespaces)
	fmt.Fprintf(&text, "user %s %d:%d, on the machine %d:%d\n", p.Identity.Name,
		p.Identity.UID, p.Identity.GID, p.Identity.HostUID, p.Identity.HostGID)
	for _, step := range p.Steps {
		fmt.Fprintf(&text, "%s\n", step)
	}
	if p.Hostname != "" {
		fmt.Fprintf(&text, "hostname %s\n", p.Hostname)
	}
	fmt.Fprintf(&text, "no new privileges %t, capabilities dropped %t, no user namespaces %t, core dumps of %d bytes\n",
		p.Confine.NoNewPrivileges, p.Confine.DropCapabilities, p.Confine.NoUserNamespaces, p.Confine.CoreLimit)
	for _, entry := range p.Env {
		fmt.Fprintf(&text, "env %s\n", entry)
	}
	fmt.Fprintf(&text, "in %s\nexecute %q\n", p.Dir, p.Command)
	return text.String()
}

// encode writes the plan to a memory file, for PID 1: with a large environment
// or many arguments it is larger than a message may be.
func (p *Plan) encode() (*os.File, error) {
	text, err := json.Marshal(p)
	if err != nil {
		return nil, fmt.Errorf("encode the plan: %w", err)
	}
	return memoryFile("plan", text)
}
