// Package keyring turns a passkey into a vault's master key.
//
// A passkey is what a person, a service manager or a hardware token supplies:
// a passphrase, or a machine key (a file of 32 random bytes). A vault's header
// holds up to eight key slots; each wraps the same random master key under one
// passkey. The life of a key is
//
//	Source.Read      a passkey comes in: descriptor, file, command, terminal
//	Unlock           the slots of its kind are tried; one yields the master key
//	NewSource.Read   a new passkey comes in, or is generated
//	NewPassphraseSlot, NewMachineSlot   the master key is wrapped once more
//
// A passphrase is stretched with Argon2id. That takes hundreds of megabytes
// and leaves residue in them, so it is done by a KDF that the caller chooses:
// HelperKDF runs it in a short-lived process of its own, whose body is
// HelperMain.
//
// Secrets are read with read(2) straight into guarded buffers and never become
// strings or plain byte slices; key schedules live inside guarded.Do. Nothing
// here is kept in package variables, and values may be used by several
// goroutines as long as none of them is destroyed meanwhile; only one prompt
// may be on the terminal at a time.
//
// What can't be avoided: the kernel's buffers of a pipe or a terminal held the
// passkey for a moment; the states of SHA-256 and AES stay in the heap until a
// collection, and are erased then only if the binary was built with
// GOEXPERIMENT=runtimesecret.
//
// The package knows nothing of vault files: the caller stores the slots and
// authenticates them with a key derived from the master key.
package keyring
