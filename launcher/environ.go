package launcher

import (
	"slices"
	"strings"
)

// sandboxPath is where programs are looked for inside.
const sandboxPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// passedOn are the caller's variables that the program gets too: how to talk to
// the terminal and the user, and nothing that could hold a secret or a host path.
var passedOn = []string{"TERM", "LANG", "TZ"}

// buildEnvironment makes a clean environment and puts what the user asked for
// on top. The result is sorted.
func buildEnvironment(o Options, id Identity, caller []string) ([]string, error) {
	outer := map[string]string{}
	for _, entry := range caller {
		if name, value, ok := strings.Cut(entry, "="); ok {
			outer[name] = value
		}
	}
	env := map[string]string{
		"PATH": sandboxPath, "HOME": id.Home, "USER": id.Name, "LOGNAME": id.Name,
		"SHELL": "/bin/sh", "TMPDIR": "/tmp",
	}
	if !o.Writable {
		env["PYTHONDONTWRITEBYTECODE"] = "1" // it would try, and fail, at every import
	}
	for name, value := range outer {
		if slices.Contains(passedOn, name) || strings.HasPrefix(name, "LC_") {
			env[name] = value
		}
	}
	for _, entry := range o.Env {
		name, value, given := strings.Cut(entry, "=")
		if !given {
			if value, given = outer[name]; !given {
				return nil, planErrorf("environment variable %s is not set, so it can't be passed on", name)
			}
		}
		env[name] = value
	}
	list := make([]string, 0, len(env))
	for name, value := range env {
		list = append(list, name+"="+value)
	}
	slices.Sort(list)
	return list, nil
}
