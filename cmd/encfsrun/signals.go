package main

import (
	"context"
	"os"
	"os/signal"
	"slices"
	"sync"
	"syscall"
)

// cancelOnSignal ends commands in order on SIGINT, SIGTERM and SIGHUP: they clean up and exit with 128+n. run and mount call
// release when they have a mount, for their own rules: a signal to a run is its program's, and so is the status. One that came
// before that is not lost: when release returns, it has cancelled the command's context.
func (a *app) cancelOnSignal(cancel context.CancelCauseFunc) (release func()) {
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, heeded(syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP)...)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		if s, ok := <-signals; ok {
			cancel(&signalError{s.(syscall.Signal)})
		}
	}()
	return sync.OnceFunc(func() {
		signal.Stop(signals) // nothing is sent to it any more
		close(signals)
		<-ended
	})
}

// heeded leaves out the signals that the caller told this process to ignore, as nohup(1) and shells do. Whoever catches one all
// the same undoes that for the program of a run too: it would inherit that the signal is ignored.
func heeded(signals ...os.Signal) []os.Signal { return slices.DeleteFunc(signals, signal.Ignored) }
