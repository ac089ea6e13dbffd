package launcher

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
)

// etcNames are the entries of /etc that programs need and that hold no
// secrets, as patterns of filepath.Glob below /etc. What is left out on purpose:
// accounts and password hashes, machine-id, hostname, ssl/private, and the
// configuration of package managers, which may hold tokens.
var etcNames = []string{
	// finding programs and libraries
	"alternatives", "ld.so.cache", "ld.so.conf", "ld.so.conf.d",
	// names, numbers, time, language
	"nsswitch.conf", "host.conf", "gai.conf", "services", "protocols", "networks",
	"localtime", "timezone", "locale.alias", "locale.conf",
	"mime.types", "magic", "magic.mime", "os-release", "debian_version", "lsb-release",
	// certificates that others are checked by
	"ssl/certs", "ssl/openssl.cnf", "ca-certificates", "ca-certificates.conf",
	"pki/tls/certs", "pki/tls/cert.pem", "pki/tls/openssl.cnf", "pki/ca-trust", "pki/java", "crypto-policies",
	// settings of runtimes
	"java*", "python*", "pypy*", "perl", "ruby*", "php*", "node*", "lua*", "R", "maven",
	// what is drawn and typed
	"fonts", "terminfo", "inputrc", "bash.bashrc", "shells", "ImageMagick*", "OpenCL", "vulkan", "glvnd",
}

// etcOfNetwork are the entries that make sense only in the machine's network.
var etcOfNetwork = []string{"hosts", "resolv.conf"}

// etcSteps shows the entries that this machine has, and makes passwd, group
// and, without network, hosts anew. Links are made again where what they lead
// to is in the sandbox, else what they lead to is bound in their place
// (resolv.conf is often a link into /run).
func etcSteps(root string, network Net, id Identity) []Step {
	names := slices.Clone(etcNames)
	if network == NetHost {
		names = append(names, etcOfNetwork...)
	}
	var found []string
	for _, pattern := range names {
		matches, err := filepath.Glob(filepath.Join(root, "etc", pattern))
		if err != nil {
			continue // the patterns are constants and well formed; a root that is not has no entries
		}
		for _, match := range matches {
			found = append(found, "/"+strings.TrimPrefix(insideRoot(match, root), "/"))
		}
	}
	var steps []Step
	for _, name := range found {
		if step, ok := etcStep(root, name, found); ok {
			steps = append(steps, step)
		}
	}
	steps = append(steps,
		Step{Kind: StepFile, Target: "/etc/passwd", Mode: 0o444, Content: passwdText(id)},
		Step{Kind: StepFile, Target: "/etc/group", Mode: 0o444, Content: groupText(id)},
		Step{Kind: StepSymlink, Source: "/proc/mounts", Target: "/etc/mtab"},
	)
	if network == NetNone {
		steps = append(steps, Step{Kind: StepFile, Target: "/etc/hosts", Mode: 0o444,
			Content: "127.0.0.1 localhost " + sandboxHostname + "\n::1 localhost\n"})
	}
	return steps
}

// etcStep shows one entry. A link that leads nowhere is left out.
func etcStep(root, name string, found []string) (Step, bool) {
	target, err := os.Readlink(filepath.Join(root, name))
	if err == nil {
		if !path.IsAbs(target) {
			target = path.Join(path.Dir(name), target)
		}
		if below(target, "/usr") || slices.ContainsFunc(found, func(dir string) bool { return below(target, dir) }) {
			return Step{Kind: StepSymlink, Source: target, Target: name}, true
		}
	}
	resolved, err := resolveBelow(root, name)
	if err != nil {
		return Step{}, false
	}
	return Step{Kind: StepBind, Source: resolved, Target: name, ReadOnly: true}, true
}

// resolveBelow follows all links of name as somebody would whose root is root.
func resolveBelow(root, name string) (string, error) {
	if root == "/" {
		return filepath.EvalSymlinks(name)
	}
	for range 40 { // as many links as the kernel follows
		target, err := os.Readlink(filepath.Join(root, name))
		if err != nil {
			_, err = os.Stat(filepath.Join(root, name))
			return name, err
		}
		if !path.IsAbs(target) {
			target = path.Join(path.Dir(name), target)
		}
		name = path.Clean(target)
	}
	return "", fs.ErrInvalid
}

// nobodyID is what ids that are not mapped look like inside.
const nobodyID = 65534

// passwdText names the users that exist inside, so that getpwuid works.
func passwdText(id Identity) string {
	text := fmt.Sprintf("%s:x:%d:%d::%s:/bin/sh\n", id.Name, id.UID, id.GID, id.Home)
	if id.UID != nobodyID {
		text += fmt.Sprintf("nobody:x:%d:%d::/nonexistent:/usr/sbin/nologin\n", nobodyID, nobodyID)
	}
	return text
}

func groupText(id Identity) string {
	text := fmt.Sprintf("%s:x:%d:\n", id.Name, id.GID)
	if id.GID != nobodyID {
		text += fmt.Sprintf("nogroup:x:%d:\n", nobodyID)
	}
	return text
}

// cause is the reason without the operation and the path, which the message
// that it goes into has already.
func cause(err error) error {
	var pathError *fs.PathError
	if errors.As(err, &pathError) {
		return pathError.Err
	}
	return err
}
