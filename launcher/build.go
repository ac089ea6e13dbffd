package launcher

import (
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
)

// sandboxHostname is the name of the machine inside a sandbox without network.
const sandboxHostname = "encfsrun"

// Build makes the plan of a sandbox from what the user asked for and what the
// machine is. It reads files below host.Root and changes nothing. The errors
// are of type *PlanError and *MissingError.
func Build(o Options, host Host) (Plan, error) {
	if o.At == "" {
		o.At = DefaultAt
	}
	if o.Dir == "" {
		o.Dir = o.At
	}
	if o.Net == "" {
		o.Net = NetNone
	}
	if o.MaxRead == 0 {
		o.MaxRead = DefaultMaxRead
	}
	identity, err := resolveIdentity(o.User, host)
	if err != nil {
		return Plan{}, err
	}
	environment, err := buildEnvironment(o, identity, host.Environ)
	if err != nil {
		return Plan{}, err
	}
	steps, err := buildSteps(o, identity, host)
	if err != nil {
		return Plan{}, err
	}
	plan := Plan{
		Net:      o.Net,
		Steps:    steps,
		Vault:    Vault{ReadOnly: !o.Writable, MaxRead: o.MaxRead},
		Identity: identity,
		Confine:  Confine{NoNewPrivileges: true, DropCapabilities: true, NoUserNamespaces: true, CoreLimit: 0},
		Env:      environment,
		Dir:      o.Dir,
		Command:  slices.Clone(o.Command),
	}
	if o.Net == NetNone {
		plan.Hostname = sandboxHostname
	}
	if err := plan.Validate(); err != nil {
		return Plan{}, err
	}
	return plan, nil
}

// buildSteps orders the mounts: the system, /etc, the kernel's file systems,
// the private tmpfs, the user's binds, the vault, and the binds that lie in it.
func buildSteps(o Options, id Identity, host Host) ([]Step, error) {
	steps, err := systemSteps(host.Root)
	if err != nil {
		return nil, err
	}
	steps = append(steps, etcSteps(host.Root, o.Net, id)...)
	steps = append(steps, deviceSteps()...)
	steps = append(steps,
		Step{Kind: StepProc, Target: "/proc"},
		Step{Kind: StepTmpfs, Target: "/tmp", Mode: 0o777 | fs.ModeSticky},
		Step{Kind: StepTmpfs, Target: "/run", Mode: 0o755},
		Step{Kind: StepTmpfs, Target: "/home", Mode: 0o755},
		Step{Kind: StepDir, Target: id.Home, Mode: 0o700},
		Step{Kind: StepSymlink, Source: "../tmp", Target: "/var/tmp"},
		Step{Kind: StepSymlink, Source: "../run", Target: "/var/run"},
	)
	var inVault []Step
	for _, bind := range o.Binds {
		step, err := bindStep(bind, host.Root)
		if err != nil {
			return nil, err
		}
		if below(step.Target, o.At) {
			inVault = append(inVault, step)
		} else {
			steps = append(steps, step)
		}
	}
	steps = append(steps, Step{Kind: StepVault, Target: o.At, ReadOnly: !o.Writable})
	steps = append(steps, inVault...)
	return append(steps, Step{Kind: StepReadOnly, Target: "/"}), nil
}

// systemSteps shows the machine's programs and libraries. On a merged system
// /bin and its like are links, which are made again as they are.
func systemSteps(root string) ([]Step, error) {
	names := []string{"/usr", "/bin", "/sbin"}
	libraries, err := filepath.Glob(filepath.Join(root, "lib*"))
	if err != nil {
		return nil, planErrorf("look for the libraries of %s: %s", root, err)
	}
	slices.Sort(libraries)
	for _, library := range libraries {
		names = append(names, "/"+filepath.Base(library))
	}
	var steps []Step
	for _, name := range names {
		info, err := os.Lstat(filepath.Join(root, name))
		switch {
		case err != nil && name == "/usr":
			return nil, &MissingError{What: "this machine has no /usr to run programs from", Mend: "mount /usr"}
		case err != nil:
			continue
		case info.Mode()&fs.ModeSymlink != 0:
			target, err := os.Readlink(filepath.Join(root, name))
			if err != nil {
				return nil, planErrorf("%s can't be read: %s", name, err)
			}
			steps = append(steps, Step{Kind: StepSymlink, Source: target, Target: name})
		case info.IsDir():
			steps = append(steps, Step{Kind: StepBind, Source: name, Target: name, ReadOnly: true})
		}
	}
	return steps, nil
}

// deviceSteps is a /dev with nothing in it that could reach hardware.
func deviceSteps() []Step {
	steps := []Step{{Kind: StepTmpfs, Target: "/dev", Mode: 0o755}}
	for _, name := range []string{"null", "zero", "full", "random", "urandom", "tty"} {
		steps = append(steps, Step{Kind: StepDevice, Source: "/dev/" + name, Target: "/dev/" + name})
	}
	for _, link := range [][2]string{
		{"/proc/self/fd", "/dev/fd"}, {"fd/0", "/dev/stdin"}, {"fd/1", "/dev/stdout"},
		{"fd/2", "/dev/stderr"}, {"pts/ptmx", "/dev/ptmx"},
	} {
		steps = append(steps, Step{Kind: StepSymlink, Source: link[0], Target: link[1]})
	}
	return append(steps,
		Step{Kind: StepPts, Target: "/dev/pts"},
		Step{Kind: StepTmpfs, Target: "/dev/shm", Mode: 0o777 | fs.ModeSticky},
		Step{Kind: StepReadOnly, Target: "/dev"},
	)
}

// bindStep resolves a bind of the user. Links in the source are followed now,
// on the machine, and never later inside, where they would mean another file.
func bindStep(bind Bind, root string) (Step, error) {
	source, err := filepath.Abs(bind.Source)
	if err != nil {
		return Step{}, planErrorf("bind %s: %s", bind.Source, err)
	}
	target := bind.Target
	if target == "" {
		target = source
	}
	resolved, err := filepath.EvalSymlinks(filepath.Join(root, source))
	if err != nil {
		return Step{}, planErrorf("bind %s: %s", bind.Source, cause(err))
	}
	info, err := os.Stat(resolved)
	if err != nil {
		return Step{}, planErrorf("bind %s: %s", bind.Source, cause(err))
	}
	if !info.IsDir() && !info.Mode().IsRegular() && info.Mode()&fs.ModeSocket == 0 && info.Mode()&fs.ModeNamedPipe == 0 {
		return Step{}, planErrorf("bind %s: it is a device, which a sandbox can't have", bind.Source)
	}
	return Step{Kind: StepBind, Source: insideRoot(resolved, root), Target: path.Clean(target), ReadOnly: bind.ReadOnly}, nil
}

// insideRoot takes the root directory off a path that was resolved below it.
func insideRoot(name, root string) string {
	if root == "/" {
		return name
	}
	return "/" + strings.TrimPrefix(strings.TrimPrefix(name, root), "/")
}

// below says whether name lies in dir, or is it.
func below(name, dir string) bool {
	return name == dir || dir == "/" || strings.HasPrefix(name, dir+"/")
}
