package transfer

import (
	"errors"
	"strings"

	"golang.org/x/sys/unix"

	"encfsrun/fs/vault"
	"encfsrun/fs/vault/tree"
)

// maxLinks is how many symbolic links a path may go through, as in the kernel (path_resolution(7)).
const maxLinks = 40

// Resolve finds what a path inside a vault leads to. Slashes at the beginning mean nothing: "" and "/" are the root. Symbolic
// links are followed as far as they stay inside the vault. An absolute one does not, because it names a place of the machine
// where the code will run. Errors are *PathError.
func Resolve(v *vault.Vault, path string) (vault.Ino, error) {
	r := &resolver{v: v, at: []vault.Ino{tree.Root}}
	if err := r.walk(strings.TrimLeft(path, "/")); err != nil {
		return 0, pathError(path, err)
	}
	return r.here(), nil
}

// pathError says what path led to.
func pathError(path string, err error) error {
	switch {
	case errors.Is(err, tree.ErrNotDir):
		err = ErrNotDir
	case errors.Is(err, tree.ErrNotFound), errors.Is(err, tree.ErrNameTooLong), errors.Is(err, tree.ErrInvalid):
		err = ErrNotFound
	}
	return &PathError{path, err}
}

type resolver struct {
	v     *vault.Vault
	at    []vault.Ino // from the root to where we are
	links int
}

func (r *resolver) here() vault.Ino { return r.at[len(r.at)-1] }

func (r *resolver) walk(path string) error {
	for name := range strings.SplitSeq(path, "/") {
		a, err := r.v.Attr(r.here())
		if err != nil {
			return err
		}
		switch {
		case path == "":
		case !isDir(a.Mode):
			return ErrNotDir
		case name == "" || name == ".":
		case name == "..":
			if len(r.at) == 1 {
				return ErrOutside
			}
			r.at = r.at[:len(r.at)-1]
		default:
			if err := r.step(name); err != nil {
				return err
			}
		}
	}
	return nil
}

// step goes to a name in the present directory, through it where it is a link.
func (r *resolver) step(name string) error {
	ino, err := r.v.Lookup(r.here(), name)
	if err != nil {
		return err
	}
	a, err := r.v.Attr(ino)
	if err != nil {
		return err
	}
	if a.Mode&unix.S_IFMT != unix.S_IFLNK {
		r.at = append(r.at, ino)
		return nil
	}
	if r.links++; r.links > maxLinks {
		return ErrLoop
	}
	target, err := r.v.Readlink(ino)
	if err != nil {
		return err
	}
	if strings.HasPrefix(target, "/") {
		return ErrOutside
	}
	return r.walk(target)
}
