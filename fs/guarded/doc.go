// Package guarded keeps secrets in memory that the kernel never swaps, never
// dumps and never hands to anybody else, and wipes it after use.
//
// There are two kinds of it. A [Buffer] is one small secret of its own, a key
// or a passkey; it lies in memfd_secret(2) memory, which not even the kernel
// has in its direct map, or where that can't be had in a memguard buffer. A
// [Pool] is a number of memguard slabs (mlocked, MADV_DONTDUMP, between two
// guard pages each) cut into equal blocks, and a [Cache] keeps the decrypted
// blocks of a vault in them. Contents can't lie in memfd_secret memory: the
// kernel refuses to send a FUSE reply from it (EFAULT).
//
// # Life of a block
//
// [Cache.Acquire] pins all the blocks of one request. A block that is missing
// gets a frame: one that is free, else one of a new slab while the budget
// lasts, else that of a block which nobody has pinned (chosen by CLOCK). The
// first of the askers to come to it wipes it and calls the [Loader], which
// decrypts straight into it, so that contents never lie on the Go heap; other
// askers wait for that one load and share its result, or its error. The reply
// is written from the block, and [Cache.Release] unpins it. It stays cached,
// and is wiped before it is used for another, or at once by [Cache.Drop] and
// [Cache.Close].
//
// # No deadlock
//
// A request takes all its blocks at once or none, in the order of arrival:
// while one waits for pins to go, those that come later wait behind it, even
// if all they ask for is cached, because else they could keep it waiting for
// ever. No request is larger than [Cache.MaxRequest], for which there is memory.
// So there is progress as long as those who hold pins release them, and they
// must not call Acquire before they do.
//
// # Limits
//
// A pool never locks more than its budget. Before each slab it is tried whether
// the kernel would lock it (RLIMIT_MEMLOCK), since memguard destroys all its
// buffers and panics when a lock fails. If it would not, the pool works on with
// the slabs that it has. A panic out of memguard is fail-stop: all guarded
// memory is unmapped then, and the process must end.
//
// Linking this package sets RLIMIT_CORE to 0 for good, in every process of the
// program: memguard does that when it is initialised. Nothing of memguard that
// catches signals or exits is linked.
package guarded
