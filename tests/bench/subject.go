package main

import (
	"path/filepath"
)

// Names of the subjects, which goals and ratios refer to.
const (
	plain       = "ext4"
	gocryptfs   = "gocryptfs"
	floorDirect = "floor" // what go-fuse itself costs
	floorCached = "floor, page cache"
	ours        = "encfsrun"
	oursCached  = "encfsrun, page cache"
)

// modes are ours, each with the floor that it stands on.
var modes = []struct{ ours, floor string }{{ours, floorDirect}, {oursCached, floorCached}}

// command is a program and its arguments.
type command []string

// subject is one way to keep a tree of files, as the commands that do it. What is nil it can't do.
type subject struct {
	name  string
	needs []string // programs
	// create makes an empty store; nothing of it is timed.
	create func(s *store) []command
	// fill imports the files of src; only it is timed in an import. copyFlag is cp's: -r, or -a to keep times.
	fill func(s *store, src, copyFlag string) []command
	// mountedFill says that fill copies into the mounted store.
	mountedFill bool
	// mount makes the tree appear at s.mountpoint(); without it the tree is simply there, at s.tree().
	mount func(s *store) command
	// run is argv as started out of the store.
	run func(s *store, argv command) command
	// writable mounts an empty store for writing. Without it and without mount the tree is simply there.
	writable func(s *store) command
	// umount ends what writable began, and all that it has to do; without it fusermount3 does.
	umount func(s *store) command
}

func (s subject) fills() bool  { return s.fill != nil }
func (s subject) writes() bool { return s.writable != nil || s.mount == nil }

// copyAndSync is what an import is compared with: done only when it is on the disk.
func copyAndSync(flag, src, dst string) []command {
	return []command{{"cp", flag, src + "/.", dst}, {"sync"}}
}

func subjects(o options) []subject {
	list := []subject{plainSubject(), gocryptfsSubject(), floorSubject(o.self, floorDirect, "off"), floorSubject(o.self, floorCached, "on")}
	direct, cached := encfsrunSubject(o.encfsrun), encfsrunSubject(o.encfsrun)
	cached.name = oursCached
	cached.run = nil // it has no other mode
	direct.setPageCache("off")
	cached.setPageCache("on")
	return append(list, direct, cached)
}

func plainSubject() subject {
	return subject{
		name:   plain,
		create: func(s *store) []command { return []command{{"mkdir", s.tree()}} },
		fill: func(s *store, src, flag string) []command {
			return copyAndSync(flag, src, s.tree())
		},
		run: func(_ *store, argv command) command { return argv },
	}
}

func gocryptfsSubject() subject {
	mount := func(s *store) command {
		return command{"gocryptfs", "-q", "-passfile", s.path("pass"), s.path("cipher"), s.mountpoint()}
	}
	return subject{
		name:        gocryptfs,
		needs:       []string{"gocryptfs", "fusermount3"},
		mountedFill: true,
		create: func(s *store) []command {
			return []command{
				{"mkdir", s.path("cipher")},
				{"sh", "-c", "umask 077; echo bench >" + quote(s.path("pass"))},
				{"gocryptfs", "-q", "-init", "-scryptn", "10", "-passfile", s.path("pass"), s.path("cipher")},
			}
		},
		fill: func(s *store, src, flag string) []command {
			return copyAndSync(flag, src, s.mountpoint())
		},
		mount:    mount,
		writable: mount,
	}
}

// floorSubject keeps nothing beyond a mount: it is there for what is written and read in one.
func floorSubject(self, name, pageCache string) subject {
	return subject{
		name:     name,
		create:   func(*store) []command { return nil },
		writable: func(s *store) command { return command{self, jobMountFloor, pageCache, s.mountpoint()} },
	}
}

func encfsrunSubject(encfsrun string) subject {
	return subject{
		name:  ours,
		needs: []string{encfsrun, "fusermount3"},
		create: func(s *store) []command {
			return []command{
				{"sh", "-c", "umask 077; echo bench >" + quote(s.path("pass"))},
				{encfsrun, "init", "-q", "--new-passkey-file", s.path("pass"), s.path("vault")},
				{encfsrun, "key", "add", "-q", "--passkey-file", s.path("pass"), "--machine", s.path("machine"), s.path("vault")},
			}
		},
		// The first import into an empty vault, unlocked by the machine key.
		fill: func(s *store, src, _ string) []command {
			return []command{{encfsrun, "pack", "-q", "--update", "--passkey-file", s.path("machine"), src, s.path("vault")}}
		},
		mount: func(s *store) command {
			return command{encfsrun, "mount", "-q", "--read-only", "--passkey-file", s.path("machine"), s.path("vault"), s.mountpoint()}
		},
		run: func(s *store, argv command) command {
			return append(command{encfsrun, "run", "-q", "--passkey-file", s.path("machine"), s.path("vault"), "--"}, argv...)
		},
	}
}

// setPageCache makes encfsrun mount in one of its modes, for reading and for writing.
func (s *subject) setPageCache(mode string) {
	encfsrun := s.needs[0]
	s.mount = func(s *store) command {
		return command{encfsrun, "mount", "-q", "--read-only", "--page-cache", mode, "--passkey-file", s.path("machine"), s.path("vault"), s.mountpoint()}
	}
	s.writable = func(s *store) command {
		return command{encfsrun, "mount", "-q", "--page-cache", mode, "--passkey-file", s.path("machine"), s.path("vault"), s.mountpoint()}
	}
	s.umount = func(s *store) command { return command{encfsrun, "umount", s.mountpoint()} }
}

// quote makes a path one word for sh.
func quote(path string) string {
	quoted := "'"
	for _, r := range filepath.Clean(path) {
		if r == '\'' {
			quoted += `'\''`
			continue
		}
		quoted += string(r)
	}
	return quoted + "'"
}
