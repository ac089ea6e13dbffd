// Package fs is the mounted file system: requests of the kernel come in, and replies go out straight from guarded memory.
//
// An [FS] answers the FUSE protocol (go-fuse's fuse.RawFileSystem) for one tree, and a [Server] reads the requests of a mount and lets
// it answer. An FS holds no tree of its own: names, attributes and the places of contents come from a [Source], an open vault, and
// decrypted blocks from a [Blocks], the guarded cache. What changes the tree goes to a [Store], the vault's session of writing;
// without one the mount is read-only. A node id is the vault's inode number; numbers are never reused, so the generation is always 0.
//
// # A request
//
// Requests are read by a loop of this package (loop.go, device.go), not by go-fuse's server: that reads each on the heap, copies
// names and small payloads around, and takes 10 to 20 µs longer, because it wakes another reader before it answers and is woken for
// each request itself. go-fuse is used for the structures of the protocol, and its ProtocolServer for requests that are rare and
// bring neither names nor contents (dispatch.go).
//
// A worker reads a request into its own guarded buffer, calls the handler, sends the reply, wipes both, and reads the next. Then it
// polls the device for a moment before it sleeps, where that pays (pace.go). Handlers are quick as a rule. One that waits, for the
// disk or for guarded memory, says so before (FS.waits), and another worker reads meanwhile: so no handler may wait unsaid for
// anything that takes another request to happen. There are 16 workers at most; if all wait, requests wait in the kernel.
//
// What a handler is given lies in the buffer and must not be kept. No handler may send a notification: the kernel may wait in it
// for a request that nobody would read.
//
// # A read
//
// READ → Source.Spans (which bytes of which blocks) → Blocks.Acquire (all distinct blocks at once, first come first served) → a
// reply whose slices point into the pinned blocks → one writev(2) to /dev/fuse → Done, which lets the pins go. Nothing is copied
// through the heap, and holes come from one page run of zeros. What lies in too many pieces for that is copied together in guarded
// memory (copies.go). Interrupts are not obeyed: like on a local disk a read ends when it ends, for EINTR would reach programs that
// don't expect it from a file, and a page fault as SIGBUS. A read is cut at the end of the file and nowhere else, since short reads
// are taken for the end of a file; [MaxRead] is the size at which a request always finds room in the cache.
//
// # A change
//
// One lock orders all that changes the tree (FS.mu); whoever reads the tree, or what waits in memory, shares it. A request that
// changes something reserves its space in the log first (space.go), then checks all that can be refused, and then can't fail any
// more but with the disk. Names, ACLs and other attributes go to the Store at once. Two things wait in memory:
//
//   - Sizes, times, modes and owners (pending.go). They are merged into every answer.
//   - What a WRITE brings (dirty.go): it is copied into chunks of guarded memory and wiped where it came in, so that overwriting and
//     small appends cost nothing. How much of the memory that is, is bounded; the file that became dirty first makes room.
//
// A flush (flush.go) puts the pending attributes of one file, its size among them, and writes its dirty bytes to the log. It comes
// before a read of dirty bytes, which the log answers alone; when a file's last writer closes it; when there is much of a file;
// and before every commit.
//
// # Commits
//
// A commit flushes everything, whoever asks for it: so what a crash leaves is the tree as it was at one instant, and no order of
// operations can be seen to be broken. It happens for fsync(2) of any file or directory, for a write with O_SYNC or O_DSYNC before
// the reply, and some seconds after a change at the latest. Who comes while one is on its way to the disk shares the next
// (commit.go). The lock is not held while the disk syncs. After a commit that nobody waits for, the log is kept short.
//
// Where the Store fails for good, the mount turns read-only: changes are EROFS, every sync is EIO, and what is there can be read.
//
// # What the kernel keeps
//
// Entries, attributes and the absence of names are cached by the kernel for as long as it likes: nothing changes but by its own
// requests, and what else a request changes beside what it names, the kernel knows or is told in the reply (lookup.go). Contents are
// not: files are opened for direct I/O. What mmap(2) and execve(2) still put into the page cache is invalidated at the last release
// of the inode, by one goroutine of its own (drop.go), because a notification waits for pages that may wait for a READ. With
// Options.PageCache the kernel keeps contents as of any local disk, and writes them through. Listings and the targets of symlinks are
// kept too, unless outsiders are to be refused. Where nothing has an extended attribute and nothing ever will, the kernel is told so
// and asks no more.
//
// # Life of an inode
//
// The kernel counts what LOOKUP and READDIRPLUS told it and gives the counts back with FORGET; an inode is known while its count
// is above zero. At the unmount it forgets without saying so. An inode without a name (removed, or made with O_TMPFILE) is freed when
// the kernel does not know it any more and nobody has it open; what a crash leaves of such inodes, the vault drops when it is opened.
//
// # Who may ask
//
// Permissions are the kernel's matter: the mount must have default_permissions, and no LOOKUP is refused for a mode. With
// Options.RefuseOutsiders all that tells or changes anything is refused to callers outside the pid namespace in which the mount was
// made (outsiders.go). What of permissions is left to a file system is that ACLs and modes agree (acl.go), what a new inode gets of
// its directory, and that setuid, setgid and capabilities go when contents or owners change.
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
