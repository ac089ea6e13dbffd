package e2e

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// end waits for the last of the world to go, reports what stays, and removes it.
func (w *world) end() {
	var left []string
	for deadline := time.Now().Add(5 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		if left = w.left(); len(left) == 0 || time.Now().After(deadline) {
			break
		}
	}
	for _, l := range left {
		w.t.Errorf("left behind: %s", l)
	}
	for _, pid := range w.processes() {
		syscall.Kill(pid, syscall.SIGKILL)
	}
	for _, m := range w.mounts() {
		unix.Unmount(m, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW)
		w.exec("fusermount3", "-u", "-z", m).Run()
	}
	if m := w.mounts(); len(m) > 0 {
		w.t.Errorf("%v can't be unmounted: %s is not removed", m, w.dir)
		return
	}
	os.RemoveAll(w.dir)
}

// left lists what the product left on the machine.
func (w *world) left() (left []string) {
	for _, pid := range w.processes() {
		line, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
		left = append(left, fmt.Sprintf("process %d: %s", pid, strings.ReplaceAll(string(line), "\x00", " ")))
	}
	for _, m := range w.mounts() {
		left = append(left, "mount "+m)
	}
	for _, s := range w.sockets() {
		left = append(left, "control socket "+s)
	}
	filepath.WalkDir(w.dir, func(path string, d fs.DirEntry, err error) error {
		if err == nil && (filepath.Dir(path) == w.path("tmp") || strings.HasSuffix(path, ".partial") || strings.HasSuffix(path, ".new")) {
			left = append(left, "file "+path)
		}
		return nil
	})
	return left
}

// processes lists those that run the world's binary. A process in another mount namespace shows it by the end of its path.
func (w *world) processes() (pids []int) {
	for _, pid := range allPids() {
		exe, err := os.Readlink(fmt.Sprintf("/proc/%d/exe", pid))
		if err == nil && strings.Contains(exe, filepath.Base(w.dir)+"/bin/encfsrun") {
			pids = append(pids, pid)
		}
	}
	return pids
}

func allPids() (pids []int) {
	names, _ := filepath.Glob("/proc/[0-9]*")
	for _, name := range names {
		if pid, err := strconv.Atoi(filepath.Base(name)); err == nil {
			pids = append(pids, pid)
		}
	}
	return pids
}

// mounts lists the mount points of this mount namespace that are the world's, the last one first.
func (w *world) mounts() (dirs []string) {
	table, _ := os.ReadFile("/proc/self/mountinfo")
	for line := range strings.Lines(string(table)) {
		if f := strings.Fields(line); len(f) > 4 && strings.Contains(line, w.dir) {
			dirs = append([]string{f[4]}, dirs...)
		}
	}
	return dirs
}

// sockets lists the control sockets and descriptions of the world's daemons, wherever they are kept.
func (w *world) sockets() (found []string) {
	folders := []string{w.path("run/encfsrun"), "/run/encfsrun", fmt.Sprintf("/tmp/encfsrun-%d", w.who.uid), fmt.Sprintf("/run/user/%d/encfsrun", w.who.uid)}
	for i, folder := range folders {
		entries, _ := os.ReadDir(folder)
		for _, e := range entries {
			name := filepath.Join(folder, e.Name())
			text, _ := os.ReadFile(name)
			if i == 0 || strings.Contains(string(text), w.dir) {
				found = append(found, name)
			}
		}
	}
	return found
}

// children lists the direct children of a process, zombies too.
func children(pid int) (pids []int) {
	for _, p := range allPids() {
		if state := stateOf(p); state.parent == pid {
			pids = append(pids, p)
		}
	}
	return pids
}

// procState is what /proc/PID/stat says; the zero value of a process that is gone.
type procState struct {
	command string
	state   string
	parent  int
}

func stateOf(pid int) (s procState) {
	text, _ := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	open, shut := strings.Index(string(text), "("), strings.LastIndex(string(text), ")")
	if open < 0 || shut < 0 {
		return s
	}
	f := strings.Fields(string(text)[shut+1:])
	s.command, s.state = string(text)[open+1:shut], f[0]
	s.parent, _ = strconv.Atoi(f[1])
	return s
}

// alive says whether a process runs; a zombie does not.
func alive(pid int) bool {
	s := stateOf(pid)
	return s.state != "" && s.state != "Z" && s.state != "X"
}

// descendants lists all processes below one.
func descendants(pid int) (pids []int) {
	for _, child := range children(pid) {
		pids = append(pids, child)
		pids = append(pids, descendants(child)...)
	}
	return pids
}
