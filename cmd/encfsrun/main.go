// Command encfsrun runs code out of an encrypted, authenticated vault.
//
// This package is the command line: flags, prompts, hints and exit codes, and the wiring of the parts together. It holds no
// knowledge of its own about vaults, mounts or sandboxes.
//
// One binary is every process of a run: the command that the user started, the daemon that holds the keys and serves the file
// system (daemon.go), the sandbox's PID 1 and its second stage (package launcher), and the short-lived helper that derives a
// key from a passphrase (package keyring). The hidden first arguments below choose.
package main

import (
	"os"

	"encfsrun/keyring"
	"encfsrun/launcher"
)

// Hidden first arguments, with which the program starts itself.
const (
	kdfCommand    = "kdf-helper"
	daemonCommand = "daemon"
)

// version is set by the build.
var version = "dev"

func main() {
	launcher.Init()
	keepDescriptors()
	os.Exit(dispatch(os.Args))
}

func dispatch(args []string) int {
	if len(args) > 1 {
		switch args[1] {
		case kdfCommand:
			if err := keyring.HelperMain(); err != nil {
				newMessages(os.Stderr).error(err)
				return exitCode(err)
			}
			return 0
		case daemonCommand:
			return daemonMain()
		case launcher.ProbeCommand:
			return launcher.ProbeMain(args[2:])
		}
	}
	return execute(args[1:])
}
