// Package testkit is what the tests of several packages need: a process that is the same whoever started it, and the product,
// built. Package secrets beside it has the keys of vaults. Only tests import them.
package testkit

import (
	"fmt"
	"os"
	"os/signal"
	"strings"
	"syscall"
)

// DefaultSignals lets every process that this one starts from now on begin with the default disposition of each signal, as a
// program that a person starts does. What the caller ignores is inherited else: SIGHUP under nohup(1), SIGINT in the background
// of a script; and a shell can't trap what it was told to ignore. This process itself goes on passing those signals over.
func DefaultSignals() {
	passedOver := make(chan os.Signal, 1) // never read
	for _, s := range ignored() {
		signal.Notify(passedOver, s) // a signal that is handled is reset by execve(2)
	}
}

// ignored lists the signals that this process ignores, as the kernel has it: os/signal does not know all that was inherited. Not
// 32 and 33: they are the C library's, and posix_spawn(3), which make uses, ignores them for its children.
func ignored() (list []os.Signal) {
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		panic(err)
	}
	_, rest, _ := strings.Cut(string(status), "\nSigIgn:\t")
	var mask uint64
	if _, err := fmt.Sscanf(rest, "%x", &mask); err != nil {
		panic(fmt.Sprintf("the ignored signals of /proc/self/status: %v", err))
	}
	for n := syscall.Signal(1); n <= 64; n++ {
		if mask&(1<<(n-1)) != 0 && n != 32 && n != 33 {
			list = append(list, n)
		}
	}
	return list
}

// QuickExits takes effect under the race detector alone. Every process with more than one thread sleeps there for a second at its
// end, for the threads to show their last races, unless its environment says otherwise: with some two hundred processes, one
// after the other, tests take minutes instead of seconds, and what others do on the machine meanwhile (page reclaim, clocks that
// run out) comes in between. So this executes the process anew, with such an environment; it has to come first of all. It works
// for children that were given no environment too, if they call it. A race that is found ends the process: the report of a
// child would be lost else.
func QuickExits() {
	options := os.Getenv("GORACE")
	if !race || strings.Contains(options, "atexit_sleep_ms") {
		return
	}
	os.Setenv("GORACE", strings.TrimSpace(options+" atexit_sleep_ms=0 halt_on_error=1"))
	panic(syscall.Exec("/proc/self/exe", os.Args, os.Environ()))
}
