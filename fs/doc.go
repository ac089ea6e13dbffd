// Package fs is the mounted file system: requests of the kernel come in, and replies go out straight from guarded memory.
//
// An [FS] answers the FUSE protocol (go-fuse's fuse.RawFileSystem) for a tree that never changes. It holds no tree of its own:
// names, attributes and the places of contents come from a [Source], an open vault, and decrypted blocks from a [Blocks], the
// guarded cache. A node id is the vault's inode number; numbers are never reused, so the generation is always 0.
//
// # A read
//
// READ → Source.Spans (which bytes of which blocks) → Blocks.Acquire (all distinct blocks at once, first come first served) → a
// reply whose slices point into the pinned blocks → one writev(2) to /dev/fuse → Done, which lets the pins go. Nothing is copied
// through the heap, and holes come from one page run of zeros. go-fuse calls Done after the write only for a result that has
// Slices; a result of size 0 may never get Done, so it has no pins. Interrupts are not obeyed: like on a local disk a read ends
// when it ends, for EINTR would reach programs that don't expect it from a file, and a page fault as SIGBUS. A read is cut at the
// end of the file and nowhere else, since short reads are taken for the end of a file; [MaxRead] is the size at which a request
// always finds room in the cache.
//
// # What the kernel keeps
//
// Entries, attributes and the absence of names are cached by the kernel for as long as it likes: nothing changes in a read-only
// tree. Contents are not: files are opened for direct I/O. What mmap(2) and execve(2) still put into the page cache is
// invalidated at the last release of the inode, by one goroutine of its own (drop.go), because a notification waits for pages
// that may wait for a READ. Listings and the targets of symlinks are kept too, unless outsiders are to be refused. Where nothing has an extended attribute,
// the kernel is told so and asks no more.
//
// # Life of an inode
//
// The kernel counts what LOOKUP and READDIRPLUS told it and gives the counts back with FORGET; an inode is known while its count
// is above zero. At the unmount it forgets without saying so.
//
// # Who may ask
//
// Permissions are the kernel's matter: the mount must have default_permissions, and no LOOKUP is refused for a mode. With
// Options.RefuseOutsiders all that tells anything is refused to callers outside the pid namespace in which the mount was made
// (outsiders.go).
//
// # Failures
//
// A block that does not authenticate is EIO to the program and goes to Options.OnIntegrity once per file. A panic in a handler
// ends the process, because go-fuse alone would answer EIO and go on with locks held and counts wrong. No name and no content is
// ever logged. go-fuse writes some lines to the log package's default logger, which could hold names if the kernel broke the
// protocol: a daemon points that to io.Discard.
//
// # Rules for the process that serves
//
// It must never touch the mount itself: no path in it, no descriptor on it, no child whose working directory lies in it. Its umask
// does not matter here, for modes are stored as the kernel sends them, after the caller's own umask.
package fs
