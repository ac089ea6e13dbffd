package control

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// FolderError says that a folder for control sockets can't be trusted.
type FolderError struct {
	Path   string
	Reason string
}

func (e *FolderError) Error() string {
	return fmt.Sprintf("the control folder %s %s", e.Path, e.Reason)
}

// Registry knows where the control sockets of live daemons are. It holds no
// open files and may be used by several goroutines.
type Registry struct {
	uid     int
	run     string // "/run"
	tmp     string // "/tmp"
	runtime string // $XDG_RUNTIME_DIR, or empty
}

// Default is the registry of this process's user.
func Default() *Registry {
	return &Registry{uid: os.Geteuid(), run: "/run", tmp: "/tmp", runtime: os.Getenv("XDG_RUNTIME_DIR")}
}

const folderName = "encfsrun"

// folder is one place to look in, and the user that it must belong to.
type folder struct {
	path string
	uid  int
}

// own lists the folders of this user, the one for new sockets first.
//
// $XDG_RUNTIME_DIR counts only if it is this user's: su and sudo pass on that
// of another, where nothing could be made. And a daemon started without it is
// to be found from a session that has it.
func (r *Registry) own() []folder {
	if r.uid == 0 {
		return []folder{{filepath.Join(r.run, folderName), 0}}
	}
	var folders []folder
	if filepath.IsAbs(r.runtime) && ownedBy(r.runtime, r.uid) {
		folders = append(folders, folder{filepath.Join(r.runtime, folderName), r.uid})
	}
	// Where there is a session, not in /tmp: there another user can make the
	// folder first, which would be refused.
	session := filepath.Join(r.run, "user", strconv.Itoa(r.uid))
	if path := filepath.Join(session, folderName); ownedBy(session, r.uid) && (len(folders) == 0 || path != folders[0].path) {
		folders = append(folders, folder{path, r.uid})
	}
	return append(folders, folder{r.inTmp(r.uid), r.uid})
}

func (r *Registry) inTmp(uid int) string {
	return filepath.Join(r.tmp, folderName+"-"+strconv.Itoa(uid))
}

func ownedBy(dir string, uid int) bool {
	var st unix.Stat_t
	return unix.Stat(dir, &st) == nil && st.Mode&unix.S_IFMT == unix.S_IFDIR && int(st.Uid) == uid
}

// others lists the folders that the names in /run/user and /tmp give to other
// users. A name says whose it must be, so that nobody can have more than two.
func (r *Registry) others() []folder {
	var folders []folder
	sessions, _ := os.ReadDir(filepath.Join(r.run, "user"))
	for _, entry := range sessions {
		if uid, ok := parseUID(entry.Name()); ok && uid != r.uid {
			folders = append(folders, folder{filepath.Join(r.run, "user", entry.Name(), folderName), uid})
		}
	}
	temporary, _ := os.ReadDir(r.tmp)
	for _, entry := range temporary {
		name, found := strings.CutPrefix(entry.Name(), folderName+"-")
		if uid, ok := parseUID(name); found && ok && uid != r.uid {
			folders = append(folders, folder{r.inTmp(uid), uid})
		}
	}
	return folders
}

func parseUID(s string) (int, bool) {
	uid, err := strconv.ParseUint(s, 10, 32)
	return int(uid), err == nil && strconv.FormatUint(uid, 10) == s
}

// create makes the folder where it is missing, mode 0700, and opens it.
func (f folder) create() (*os.File, error) {
	if err := unix.Mkdir(f.path, 0o700); err != nil && err != unix.EEXIST {
		return nil, &fs.PathError{Op: "mkdir", Path: f.path, Err: err}
	}
	return f.open()
}

// open opens the folder for use by descriptor and checks what was opened, not
// the name: in /tmp anybody can have made the folder first, or a link to a
// folder of its victim's, to read the sockets' traffic, to answer in a
// daemon's stead, or to have the victim delete files.
func (f folder) open() (*os.File, error) {
	fd, err := unix.Open(f.path, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	switch {
	case errors.Is(err, unix.ELOOP), errors.Is(err, unix.ENOTDIR):
		return nil, &FolderError{f.path, "is not a directory but something that was put there in its place: remove it"}
	case errors.Is(err, unix.EACCES):
		return nil, &FolderError{f.path, "is closed to this user: remove it, or set XDG_RUNTIME_DIR to a directory of your own"}
	case err != nil:
		return nil, &fs.PathError{Op: "open", Path: f.path, Err: err}
	}
	var st unix.Stat_t
	err = unix.Fstat(fd, &st)
	if err == nil && int(st.Uid) != f.uid {
		err = &FolderError{f.path, fmt.Sprintf("belongs to user %d instead of %d: remove it, or set XDG_RUNTIME_DIR to a directory of your own", st.Uid, f.uid)}
	}
	if err == nil && st.Mode&0o077 != 0 {
		err = &FolderError{f.path, fmt.Sprintf("is open to others (mode %04o): remove it", st.Mode&0o7777)}
	}
	if err != nil {
		unix.Close(fd)
		return nil, err
	}
	return os.NewFile(uintptr(fd), f.path), nil
}

// inside names a file of an open folder. Through the descriptor it is surely
// that folder's, and never too long for a socket address (107 bytes).
func inside(dir *os.File, name string) string {
	return fmt.Sprintf("/proc/self/fd/%d/%s", dir.Fd(), name)
}
