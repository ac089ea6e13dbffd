// Package launcher gives a mounted file system to one program and to nobody
// else, or to a whole machine and takes it back safely. It knows nothing of
// encryption: it is given a [Filesystem], which can serve a /dev/fuse
// descriptor.
//
// # A run
//
// [Build] turns [Options] and the [Host] into a [Plan]: the sandbox as data,
// checked as a whole, printable, tested without a kernel. [Run] carries it out
// with three parties:
//
//	launcher (Run)               PID 1 of the sandbox (Init)
//	clone into new namespaces -> opens what it will bind, makes the new root
//	                             mounts the vault at its place
//	Filesystem.Attach         <- mounted, with the /dev/fuse descriptor
//	go                        -> makes sure the mount answers, pivots
//	                             a thread gives up everything and executes
//	signals, terminal        <-> reaps, forwards, reports stops
//	Filesystem.Finish         <- exited, and ends; the kernel kills the rest
//
// The end of any of the three ends the run: PID 1 dies with the launcher
// (parent-death signal, and the end of the socket), the launcher kills PID 1
// when the file system ends, and the kernel kills a pid namespace with its PID 1.
//
// The launcher holds no key, stays dumpable (else an ordinary user could not
// make a user namespace), and never touches the vault's mount itself, so that a
// file system that hangs can't hang it. A process that serves a mount must not
// execute programs from it: whoever serves is another process.
//
// # Who can see the tree
//
// The mount exists in the sandbox's mount namespace only. A sandbox started by
// root is mapped to an id of its own, and the kernel refuses everybody else,
// root included. An ordinary user's sandbox is mapped to the user: the same
// user, who owns the namespaces, can get to the mount through /proc/PID/root,
// and the file system must refuse requests whose pid is 0, which is what those
// from outside the pid namespace carry ([Mounted].Sandboxed).
//
// main must call [Init] before anything else: PID 1 is this same binary.
package launcher
