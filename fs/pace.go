package fs

import (
	"slices"
	"time"
)

const (
	// pollFor is how long the device is polled after a request at most, if others are expected: longer than a program takes that
	// reads a file in several calls, and much shorter than a time slice of anybody who wants the processor.
	pollFor = 50 * time.Microsecond
	// wakeUp is what a reader that slept takes to be told of a request, about.
	wakeUp = 25 * time.Microsecond
	// tornAway is a gap between two looks at the device after which somebody else must have had the processor.
	tornAway = 200 * time.Microsecond
	// nearest and enough: requests that come close together count up to nearest, and from enough on polling pays.
	nearest, enough = 8, 2
	// vain is how often in a row polling may be for nothing until it is given up for a while.
	vain = 4
	// The shortest and the longest such while.
	shortPause, longPause = 2 * time.Millisecond, 250 * time.Millisecond
)

// pace decides whether the next request is worth polling for. A reader that sleeps in poll(2) costs the program 10 to 40 µs for
// each request: the kernel has to wake it, often on a processor that has gone to sleep itself. A reader that looks again and again
// sees the request at once, but takes a processor. So it looks only while requests come close together, for pollFor at most, and not
// where others need the processor: its looking in vain several times in a row (the program that should ask waits for this very
// processor), or being torn away while it looks, ends the polling for a while, and each time for a longer one. Nor is there any
// polling where as many threads ask as there are processors, see callers.
//
// Times are those of a clock that begins anywhere. It is not safe for concurrent use: one worker at a time polls.
type pace struct {
	near   int
	vain   int
	pause  time.Duration // the next while without polling
	resume time.Duration // when that which was begun last ends
}

// pays says whether to poll now.
func (p *pace) pays(now time.Duration) bool {
	return p.near >= enough && now >= p.resume
}

// callers are the threads that made the last requests. Each of them wants a processor when it has been answered.
type callers struct {
	pids [8]uint32
	next int
}

// add notes a request; those that the kernel makes on its own have pid 0.
func (c *callers) add(pid uint32) {
	if pid != 0 {
		c.pids[c.next%len(c.pids)] = pid
		c.next++
	}
}

// count returns how many there are.
func (c *callers) count() (n int) {
	for i, pid := range c.pids {
		if pid != 0 && !slices.Contains(c.pids[:i], pid) {
			n++
		}
	}
	return n
}

// caught notes that a request came while the device was polled.
func (p *pace) caught() {
	p.near = min(p.near+1, nearest)
	p.vain, p.pause = 0, shortPause
}

// missed notes that none came.
func (p *pace) missed(now time.Duration) {
	p.near = max(p.near-2, 0)
	if p.vain++; p.vain >= vain {
		p.giveUp(now)
	}
}

// torn notes that somebody else had the processor meanwhile.
func (p *pace) torn(now time.Duration) { p.giveUp(now) }

func (p *pace) giveUp(now time.Duration) {
	p.vain = 0
	p.resume = now + max(p.pause, shortPause)
	p.pause = min(2*max(p.pause, shortPause), longPause)
}

// slept notes after what time a request came to a reader that slept.
func (p *pace) slept(gap time.Duration) {
	if gap <= pollFor+wakeUp {
		p.near = min(p.near+1, nearest)
	} else {
		p.near = max(p.near-2, 0)
	}
}
