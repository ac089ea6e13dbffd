package fs

import "github.com/hanwen/go-fuse/v2/fuse"

// capabilities returns what is asked of the kernel, beside what every mount gets (newServer).
func (f *FS) capabilities() uint64 {
	// mmap with MAP_SHARED of files that are open for direct I/O.
	c := uint64(fuse.CAP_DIRECT_IO_ALLOW_MMAP)
	if !f.opts.RefuseOutsiders {
		c |= fuse.CAP_CACHE_SYMLINKS // a target never changes, but what is kept is given to everybody
	}
	if f.store == nil {
		return c
	}
	return c |
		fuse.CAP_ATOMIC_O_TRUNC | // OPEN truncates: one request less
		fuse.CAP_HANDLE_KILLPRIV_V2 | // write, truncate and chown clear privileges here: one request less for each write
		fuse.CAP_POSIX_ACL | // the kernel asks for ACLs and obeys them
		fuse.CAP_DONT_MASK | // a default ACL replaces the umask, so that is applied here
		fuse.CAP_SETXATTR_EXT // and is told when an ACL clears setgid
}
