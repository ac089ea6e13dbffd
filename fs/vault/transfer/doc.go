// Package transfer carries a tree of the host into a vault and out again.
//
// # In
//
// Import fills a vault that is being made, Update makes one that exists mirror the source. Both walk the source directory by
// directory: first the metadata of all its entries in the order of their names, then the contents of its files in the same
// order, then its subdirectories. So what a program will read together lies together in the log. Contents go from the source
// straight into the block that is being filled; what is kept in memory is the names of the directories on the way down and one
// entry for each inode that has more than one name.
//
// Taken along are regular files, directories, symbolic links, hard links and FIFOs, with modes (setuid bits too), owners, times in
// nanoseconds, holes, and the extended attributes of the namespaces user, trusted and security and POSIX ACLs. Not
// security.selinux: it is what the policy of the host says of a place on the host, and means nothing elsewhere; and no other
// system.* names, which are the views that a network file system gives of its own rights. Sockets and device nodes are left
// out with a Note. Other file systems that are mounted below the source are walked into. The source's own vault is not.
//
// # A source that moves
//
// Every name is opened relative to its directory's descriptor and never followed, so that whoever swaps a directory for a link
// while we read can't lead us out of the source. What was read is compared with what stat said before: if a file or a directory
// changed in between, the error is a *ChangedError, and nothing of the session may be committed.
//
// # Out
//
// Export writes a tree to a new directory of the host, Cat one file to a writer. Blocks are opened in guarded memory and written
// from there.
//
// # Concurrency
//
// A function of this package uses its Session alone while it runs; a Vault that is only read may serve others besides.
package transfer
