package main

import (
	"os"
	"time"

	"github.com/schollz/progressbar/v3"
	"golang.org/x/term"
)

// progress is a bar on the user's terminal; in a pipe, and with --quiet, it is nothing.
type progress struct{ bar *progressbar.ProgressBar }

// newProgress starts a bar of total bytes.
func (a *app) newProgress(what string, total int64) *progress {
	if a.messages.quiet || a.messages.json || !term.IsTerminal(int(os.Stderr.Fd())) {
		return &progress{}
	}
	return &progress{progressbar.NewOptions64(max(total, 1),
		progressbar.OptionSetWriter(os.Stderr),
		progressbar.OptionSetDescription(what),
		progressbar.OptionShowBytes(true),
		progressbar.OptionFullWidth(),
		progressbar.OptionThrottle(100*time.Millisecond),
		progressbar.OptionClearOnFinish(),
	)}
}

func (p *progress) set(done int64) {
	if p.bar != nil {
		p.bar.Set64(done)
	}
}

// close takes the bar off the terminal.
func (p *progress) close() {
	if p.bar != nil {
		p.bar.Finish()
	}
}
