package memdisk

import (
	"iter"
	"maps"
	"math/rand/v2"
	"slices"
)

// Choose settles the fate of one thing that was in the air when the power went: of
// n states that the medium may have, numbered from 0, the state before anything
// that was not synced, to n-1, the newest, it picks one.
type Choose func(n int) int

// Lose is the Choose by which nothing survives that was not synced.
func Lose(int) int { return 0 }

// Keep is the Choose by which everything survives.
func Keep(n int) int { return n - 1 }

// Random gives a Choose for one crash. Fates come in runs: with fair coins alone a
// thousand pages would never survive together, nor all but one.
func Random(r *rand.Rand) Choose {
	chances := [...]float64{0, 0.05, 0.5, 0.95, 1} // of the newest state
	chance := chances[r.IntN(len(chances))]
	return func(n int) int {
		if r.IntN(8) == 0 {
			chance = chances[r.IntN(len(chances))]
		}
		if r.Float64() < chance {
			return n - 1
		}
		if n > 2 && r.IntN(4) == 0 {
			return r.IntN(n)
		}
		return 0
	}
}

// Mode makes a crash harsher than the usual ones.
type Mode uint8

const (
	// TornPages lets each sector of 512 bytes survive on its own, not whole pages.
	TornPages Mode = 1 << iota
	// SplitRenames lets the two halves of a rename survive apart, as on a file
	// system without a journal: after it a file may have both names, or neither.
	SplitRenames
)

// Crash gives the disk as it is found when the power comes back. The choices are
// asked for in an order that depends on d alone: lengths before pages, directories
// by their names. Nothing is asked about what was synced. d is not changed and may
// crash again; the new Disk has no hook, no locks and no operations yet.
func (d *Disk) Crash(choose Choose, mode Mode) *Disk {
	d.mu.Lock()
	defer d.mu.Unlock()
	c := crash{
		choose:  choose,
		mode:    mode,
		found:   make(map[*node]*node),
		renames: make(map[*rename]bool),
	}
	return &Disk{root: c.node(d.root)}
}

// Crashes gives every outcome that Crash can have, some of them more than once.
// There are about as many as 2 to the number of things in the air: for states that
// are only a few changes away from durable.
func (d *Disk) Crashes(mode Mode) iter.Seq[*Disk] {
	return func(yield func(*Disk) bool) {
		// Each crash follows the path of choices of the one before, up to the last
		// that has states left to try, and takes the first state from there on.
		type choice struct{ taken, of int }
		var path []choice
		for {
			asked := 0
			after := d.Crash(func(n int) int {
				if asked == len(path) {
					path = append(path, choice{0, n})
				}
				asked++
				return path[asked-1].taken
			}, mode)
			if !yield(after) {
				return
			}
			for len(path) > 0 && path[len(path)-1].taken == path[len(path)-1].of-1 {
				path = path[:len(path)-1]
			}
			if len(path) == 0 {
				return
			}
			path[len(path)-1].taken++
		}
	}
}

// crash is one power cut.
type crash struct {
	choose  Choose
	mode    Mode
	found   map[*node]*node  // what survived, by what it was
	renames map[*rename]bool // whose fate is settled
}

func (c *crash) node(n *node) *node {
	if after := c.found[n]; after != nil {
		return after
	}
	if n.dir == nil {
		after := &node{perm: n.perm, content: n.content.crash(c.choose, c.mode)}
		c.found[n] = after
		return after
	}
	after := newDir(n.perm)
	c.found[n] = after
	survivors := c.entries(n.dir)
	for _, name := range slices.Sorted(maps.Keys(survivors)) {
		child := survivors[name]
		if child.dir != nil && c.found[child] != nil {
			continue // two names, of two renames or a split one: it gets the first, lest it hold itself
		}
		after.dir.entries[name] = c.node(child)
	}
	return after
}

// entries settles which changes of a directory survived.
func (c *crash) entries(d *directory) map[string]*node {
	if len(d.pending) == 0 {
		return d.entries
	}
	survivors := maps.Clone(d.durable)
	for _, ch := range d.pending {
		if c.survives(ch) {
			apply(survivors, ch.name, ch.node)
		}
	}
	return survivors
}

func (c *crash) survives(ch change) bool {
	if ch.rename == nil || c.mode&SplitRenames != 0 {
		return c.choose(2) == 1
	}
	if ch.rename.synced {
		return true
	}
	fate, settled := c.renames[ch.rename]
	if !settled {
		fate = c.choose(2) == 1
		c.renames[ch.rename] = fate
	}
	return fate
}

// crash gives the file as it is found afterwards. Versions that a failed Sync took
// for clean are not among what may survive.
func (c *content) crash(choose Choose, mode Mode) content {
	c.shared = true
	after := content{stable: c.stable, shared: true}
	after.size = c.survivingSize(choose)
	after.stableSize = after.size
	pages := (after.size + pageSize - 1) / pageSize
	for _, i := range slices.Sorted(maps.Keys(c.dirty)) {
		if i >= pages {
			break
		}
		before := c.onMedium(i)
		survivor := survivingPage(before, c.dirty[i], choose, mode)
		if survivor != before {
			after.setStable(i, survivor)
		}
	}
	after.trim(pages)
	return after
}

// survivingSize picks the old length, the newest, or any in between.
func (c *content) survivingSize(choose Choose) int64 {
	if c.size == c.stableSize {
		return c.size
	}
	between := c.growth[:len(c.growth)-1]
	if len(between) == 0 {
		return [...]int64{c.stableSize, c.size}[choose(2)]
	}
	switch choose(3) {
	case 0:
		return c.stableSize
	case 1:
		return between[choose(len(between))]
	}
	return c.size
}

// survivingPage picks a version of a page or, torn, of each of its sectors.
func survivingPage(before *page, versions []*page, choose Choose, mode Mode) *page {
	version := func(k int) *page {
		if k == 0 {
			return before
		}
		return versions[k-1]
	}
	if mode&TornPages == 0 {
		return version(choose(len(versions) + 1))
	}
	torn := *before
	for at := 0; at < pageSize; at += sectorSize {
		from := version(choose(len(versions) + 1))
		copy(torn[at:at+sectorSize], from[at:])
	}
	return &torn
}

// trim forgets what lies behind the length: a later write must find zeros there.
func (c *content) trim(pages int64) {
	if int64(len(c.stable)) > pages {
		c.stable = c.stable[:pages:pages]
	}
	end := c.size % pageSize
	if end == 0 || int64(len(c.stable)) < pages {
		return
	}
	last := c.onMedium(pages - 1)
	for _, b := range last[end:] {
		if b != 0 {
			cut := new(page)
			copy(cut[:end], last[:])
			c.setStable(pages-1, cut)
			return
		}
	}
}
