package fs

import "github.com/hanwen/go-fuse/v2/fuse"

// admit counts a request and says whether its caller may have an answer.
//
// The kernel gives each request the caller's pid as seen from the pid namespace in which the mount was made, and 0 to callers
// that have none there. Where that is a sandbox, 0 is a process that came to the tree through /proc/PID/root, by joining the
// mount namespace, with a descriptor stolen by pidfd_getfd(2), or with another process's page faults (process_vm_readv): what a
// process of the same uid, or root, can do on the host. So everything that tells something is refused: LOOKUP, GETATTR, READLINK,
// OPEN, READ, LSEEK, OPENDIR, READDIR(PLUS), GETXATTR, LISTXATTR, STATFS; and everything that changes something (mayChange). A READ
// of the program's own carries its pid, also for a page fault, for read-ahead and for asynchronous I/O, since the kernel prepares
// requests in the caller's context. A WRITE does too, but for pages of shared mappings (WRITE_CACHE), which come from nobody.
//
// What only lets go is answered to everybody: FORGET, RELEASE and INIT carry pid 0 by the kernel's design, and a FLUSH comes from
// a dying process. So is FSYNC, which neither tells nor changes anything.
//
// What the kernel has cached it shows without asking: an outsider with the right uid learns the attributes of a name that the
// program has looked up, if he can guess it.
func (f *FS) admit(h *fuse.InHeader) bool {
	if h.Pid == 0 && f.opts.RefuseOutsiders {
		f.refused.Add(1)
		return false
	}
	return true
}
