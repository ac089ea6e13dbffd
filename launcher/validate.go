package launcher

import (
	"path"
	"strings"
)

// notForMounts lists the directories that nothing of the user's may cover or
// enter: a program that finds its own files in /proc or /dev is fooled about
// the machine, and so is the sandbox.
var notForMounts = []string{"/proc", "/dev", "/sys"}

// Validate checks the plan as a whole. The error is a *PlanError.
func (p *Plan) Validate() error {
	for _, check := range []func(*Plan) error{
		checkTargets, checkVault, checkCommand, checkIdentity, checkEnvironment,
	} {
		if err := check(p); err != nil {
			return err
		}
	}
	return nil
}

func checkCommand(p *Plan) error {
	if len(p.Command) == 0 || p.Command[0] == "" {
		return planErrorf("no command to run")
	}
	for _, argument := range p.Command {
		if strings.ContainsRune(argument, 0) {
			return planErrorf("argument %q has a NUL in it", argument)
		}
	}
	if !absolute(p.Dir) {
		return planErrorf("working directory %q is not an absolute path", p.Dir)
	}
	if p.Net != NetNone && p.Net != NetHost {
		return planErrorf("network %q is neither none nor host", p.Net)
	}
	return nil
}

// checkIdentity refuses 0 on either side: programs misbehave as root, and
// root's files are what a sandbox started by root must not reach.
func checkIdentity(p *Plan) error {
	id := p.Identity
	for _, number := range []int{id.UID, id.GID, id.HostUID} {
		if number <= 0 || int64(number) >= invalidID {
			return planErrorf("the program can't run as user %d:%d (%d:%d on the machine)", id.UID, id.GID, id.HostUID, id.HostGID)
		}
	}
	if id.HostGID < 0 || (id.Dedicated && id.HostGID == 0) {
		return planErrorf("the program can't run as group %d on the machine", id.HostGID)
	}
	if !userName.MatchString(id.Name) || !absolute(id.Home) {
		return planErrorf("user name %q or home %q is not usable", id.Name, id.Home)
	}
	return nil
}

func checkEnvironment(p *Plan) error {
	for _, entry := range p.Env {
		if name, _, ok := strings.Cut(entry, "="); !ok || name == "" || strings.ContainsRune(entry, 0) {
			return planErrorf("environment entry %q is not of the form NAME=VALUE", entry)
		}
	}
	return nil
}

// checkTargets makes sure that no step hides what an earlier one put in place,
// except that a bind may replace a file of /etc or lie in a bind before it.
func checkTargets(p *Plan) error {
	placed := map[string]Step{}
	for index, step := range p.Steps {
		if !absolute(step.Target) || strings.ContainsRune(step.Target, 0) {
			return planErrorf("target %q is not a clean absolute path", step.Target)
		}
		if step.Kind == StepReadOnly {
			continue
		}
		if step.Target == "/" {
			return planErrorf("nothing can be mounted on / in the sandbox")
		}
		if before, ok := placed[step.Target]; ok && !mayReplace(before, step) {
			return planErrorf("%s is already taken in the sandbox, by: %s", step.Target, before)
		}
		if step.Kind == StepBind || step.Kind == StepVault {
			for _, dir := range notForMounts {
				if below(step.Target, dir) {
					return planErrorf("%s lies in %s, where nothing can be mounted", step.Target, dir)
				}
			}
			for _, before := range p.Steps[:index] {
				if before.Target != step.Target && below(before.Target, step.Target) {
					return planErrorf("%s would hide %s in the sandbox", step, before)
				}
			}
		}
		placed[step.Target] = step
	}
	return nil
}

// mayReplace allows a bind over a file or a bind of the system's, such as
// another resolv.conf, and over the home directory.
func mayReplace(before, step Step) bool {
	return step.Kind == StepBind && before.Kind != StepVault &&
		(strings.HasPrefix(before.Target, "/etc/") || before.Kind == StepDir)
}

func checkVault(p *Plan) error {
	count := 0
	for _, step := range p.Steps {
		if step.Kind == StepVault {
			count++
		}
	}
	if count != 1 {
		return planErrorf("a plan has one vault, this one has %d", count)
	}
	if p.Vault.MaxRead < 4096 || p.Vault.MaxRead > 1<<20 {
		return planErrorf("a largest read of %d bytes is not between 4 KiB and 1 MiB", p.Vault.MaxRead)
	}
	return nil
}

// absolute says whether name is a clean absolute path.
func absolute(name string) bool { return path.IsAbs(name) && path.Clean(name) == name }
