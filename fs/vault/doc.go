// Package vault is the authenticated, append-only log on disk and the tree that it holds. It knows nothing of FUSE, of flags or
// of passkeys: it is given a master key, and gives back a tree to read and a session to change it by. docs/FORMAT.md is the
// format; this is how the code is laid out.
//
// # Units
//
//	header.go      vault.json and its twin: parsed strictly, authenticated, replaced atomically
//	segment.go     segment files and their sealed headers
//	block.go       the blocks' plaintext prefix, their sums, the chain
//	stream.go      the record stream of consecutive segments, authenticated while it is read
//	replay.go      the tree out of that stream: commits, checkpoints, what a crash left void
//	open.go        the opening algorithm: which blocks count, where replay begins, what has to be there
//	writer.go      the appending side: blocks filled, sealed on all cores, written, synced (rules W1 to W4)
//	session.go     one session of writing: changes to the tree and to the log at once
//	checkpoint.go  the whole tree as records, so that opening need not read the whole log
//	create.go      a new vault, whole or not at all (W5)
//	slots.go       changes of the key slots
//	pin.go         what this machine has seen, against rollback
//	check.go       every byte verified
//	lock.go        one writer, one change of the header at a time
//
// The leaves are packages of their own: disk (the one door to the disk, which tests fail, tear and cut the power of), seal (keys
// and sealing), record (the codec), tree (the tree in memory).
//
// # Life of a vault
//
//	Create     builds a vault beside its place and renames it
//	Unlock     reads the header, has its slots opened, authenticates it
//	Open       replays the log; the Vault reads blocks by number and authenticates each against its table
//	OpenWriter the same, holding the writer's lock; Begin starts its one Session
//
// # What is trusted
//
// Nothing on the disk, before it authenticates; and nothing that authenticates, before it stands where the chain says. A failing
// disk (EIO) is never taken for damage, and damage never for a torn tail: see opener.tipEnd.
//
// # Concurrency
//
// A Vault's reading methods may be called by many goroutines, also beside its Session; the Session belongs to one. Plaintext of
// files is in guarded memory or in the caller's hands only; names and attributes are on the heap, in the tree.
package vault
