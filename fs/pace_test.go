package fs

import (
	"testing"
	"time"
)

// TestPace plays gaps between requests to a pace, with a clock of its own, and looks how long was polled.
func TestPace(t *testing.T) {
	const us = time.Microsecond
	repeat := func(n int, gaps ...time.Duration) (all []time.Duration) {
		for range n {
			all = append(all, gaps...)
		}
		return all
	}
	for _, c := range []struct {
		what  string
		gaps  []time.Duration // between a reply and the next request; negative: one that does not come before the reader sleeps
		least time.Duration   // that is to be polled
		most  time.Duration
	}{
		{"close together", repeat(1000, 10*us), 9800 * us, 10000 * us},
		{"a burst now and then", repeat(100, 3*us, 3*us, 3*us, 3*us, 800*us), 100 * 50 * us, 100 * 62 * us},
		{"far apart", repeat(1000, 300*us), 0, 0},
		{"seldom", repeat(100, 20*time.Millisecond), 0, 0},
		{"every other one far", repeat(500, 10*us, 300*us), 0, 20 * 60 * us},
		{"only when the reader sleeps", repeat(1000, -10*us), 0, 1000 * us},
	} {
		var p pace
		var now, polled time.Duration
		for _, gap := range c.gaps {
			switch waits := max(gap, -gap); {
			case !p.pays(now):
				now += waits
				p.slept(waits)
			case gap >= 0 && gap <= pollFor:
				now, polled = now+gap, polled+gap
				p.caught()
			default:
				now, polled = now+pollFor, polled+pollFor
				p.missed(now)
				if gap < 0 {
					now += waits
				} else {
					now += gap - pollFor
				}
			}
		}
		if polled < c.least || polled > c.most {
			t.Errorf("%s: polled for %v of %v, want %v to %v", c.what, polled, now, c.least, c.most)
		}
	}
}

// TestPaceTornAway lets somebody else take the processor while the device is polled: polling ends, for longer each time, and begins
// anew when nobody does any more.
func TestPaceTornAway(t *testing.T) {
	p := pace{near: nearest}
	var now time.Duration
	last := time.Duration(0)
	for range 20 {
		if !p.pays(now) {
			t.Fatalf("not polled at %v", now)
		}
		p.torn(now)
		pause := p.resume - now
		if pause < last || pause < shortPause || pause > longPause || p.pays(now+pause-1) {
			t.Fatalf("a pause of %v after one of %v", pause, last)
		}
		last, now = pause, p.resume
	}
	if last != longPause {
		t.Errorf("the longest pause is %v", last)
	}
	p.caught()
	if p.torn(now); p.resume-now != shortPause {
		t.Errorf("after a request that came in time, the pause is %v", p.resume-now)
	}
}

func TestCallers(t *testing.T) {
	var c callers
	for i, step := range []struct {
		pid  uint32
		want int
	}{{7, 1}, {7, 1}, {0, 1}, {8, 2}, {7, 2}, {9, 3}, {9, 3}, {9, 3}, {9, 3}, {9, 3}, {9, 3}, {9, 2}, {9, 1}, {0, 1}, {8, 2}} {
		if c.add(step.pid); c.count() != step.want {
			t.Errorf("after %d requests: %d callers, want %d", i+1, c.count(), step.want)
		}
	}
}
