package durability

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
)

// trial is a subject on a disk, and all that was written to it.
type trial struct {
	t       *testing.T
	subject subject
	disk    *disk
	fs      filesystem
	tally   *tally
	batches []batch
	known   map[string]finding // by kind: what of the batches was found missing by an earlier look
}

// newTrial makes a subject on a disk and mounts it. What makes it is on the disk.
func newTrial(t *testing.T, s subject, d *disk, sum *tally) *trial {
	t.Helper()
	tr := &trial{t: t, subject: s, disk: d, fs: s.make(t, d), tally: sum, known: map[string]finding{}}
	must(t, tr.fs.create())
	must(t, tr.fs.mount())
	must(t, prepare(tr.fs.path()))
	d.sync()
	return tr
}

// disaster is what happens under the writers, and what has to be done before the subject can be mounted again.
type disaster struct {
	happens, mended func(tr *trial)
	// blurred says that what is reported while it happens does not count: now and then an fsync that meets the shutdown of ext4 is
	// told that all is well, and its file ends in zeros. Where the power fails, nobody lives to be told that.
	blurred bool
}

var (
	powerCut = disaster{
		happens: func(tr *trial) { tr.disk.cut() },
		mended:  func(tr *trial) { tr.disk.powerOn() },
		blurred: true,
	}
	daemonKilled = disaster{
		happens: func(tr *trial) { must(tr.t, tr.fs.kill()) },
		mended:  func(*trial) {},
	}
)

// crash lets the four writers work till each has written some records; then there is a disaster. What comes back is looked at.
// It returns false where nothing comes back: then all is lost.
func (tr *trial) crash(d disaster, how manner) bool {
	tr.t.Helper()
	l := startLoad(tr.t, tr.fs.path(), tr.tally.crashes, how)
	if err := l.records(3 + rand.IntN(60)); err != nil {
		tr.t.Fatal(l.because(err))
	}
	before := l.batches()
	d.happens(tr)
	batches, _ := l.kill() // they complain, of course
	for i := range batches {
		if d.blurred {
			batches[i].Acked = before[i].Acked
		}
	}
	tr.add(batches)
	return tr.recover(d)
}

// crashSettled lets the writers work without fsync and end; the power is cut when the subject has settled.
func (tr *trial) crashSettled(settle func(filesystem) error) bool {
	tr.t.Helper()
	var all []string
	for _, k := range kinds {
		all = append(all, k.name)
	}
	l := startLoad(tr.t, tr.fs.path(), tr.tally.crashes, manner{careless: all, mostCareless: mostCareless})
	if err := l.records(mostCareless / 2); err != nil {
		tr.t.Fatal(l.because(err))
	}
	batches, _ := l.kill()
	tr.add(batches)
	if err := settle(tr.fs); err != nil {
		tr.problem("settling: %v", err)
		return false
	}
	powerCut.happens(tr)
	return tr.recover(powerCut)
}

// recover takes a subject from a disaster to the next mount.
func (tr *trial) recover(d disaster) bool {
	tr.t.Helper()
	tr.tally.crashes++
	must(tr.t, tr.fs.kill()) // of a cut, the daemon survived the disk only
	d.mended(tr)
	if err := tr.fs.mount(); err != nil {
		tr.problem("it can't be mounted after the crash: %v", err)
		for _, b := range tr.batches {
			tr.tally.of(b.Kind).Lost += b.Acked
		}
		return false
	}
	tr.look()
	return true
}

func (tr *trial) add(batches []batch) {
	for _, b := range batches {
		tr.batches = append(tr.batches, b)
		tr.tally.reported += b.Acked
	}
}

// look verifies all batches, and counts what is worse than at the last look.
func (tr *trial) look() {
	tr.t.Helper()
	r, err := verify(tr.fs.path(), tr.batches)
	if err != nil {
		tr.problem("looking at what is there: %v", err)
		return
	}
	now := map[string]finding{}
	for i, f := range r.Findings {
		kind := tr.batches[i].Kind
		sum := now[kind]
		sum.add(f)
		now[kind] = sum
	}
	for kind, f := range now {
		old := tr.known[kind]
		tr.tally.of(kind).add(finding{Lost: max(0, f.Lost-old.Lost), Torn: max(0, f.Torn-old.Torn), Ragged: max(0, f.Ragged-old.Ragged)})
		tr.judge(f)
	}
	tr.known = now
	if len(r.Unreadable) > 0 {
		tr.problem("%d entries can't be read: %s", len(r.Unreadable), r.Unreadable[0])
	}
}

func (tr *trial) judge(f finding) {
	if f.Lost+f.Torn > 0 || f.Ragged > 0 && tr.subject.leavesWhole {
		tr.problem("%d lost, %d torn, %d ragged:\n\t%s", f.Lost, f.Torn, f.Ragged, strings.Join(f.Said, "\n\t"))
	}
}

// problem is an error of a subject that is judged, and else something to note, once a tally.
func (tr *trial) problem(format string, args ...any) {
	tr.t.Helper()
	if tr.subject.losesNothing {
		tr.t.Errorf("%s: "+format, append([]any{tr.subject.name}, args...)...)
	} else if tr.tally.noted++; tr.tally.noted <= 3 {
		tr.t.Logf("%s, not judged: "+format, append([]any{tr.subject.name}, args...)...)
	}
}

// end unmounts, and has the subject's own command check what is left.
func (tr *trial) end() {
	tr.t.Helper()
	if err := tr.fs.unmount(); err != nil {
		tr.problem("unmounting: %v", err)
		return
	}
	if err := tr.fs.check(); err != nil {
		tr.problem("checking: %v", err)
	}
}

// tally is what became of everything that a subject was given.
type tally struct {
	crashes, reported int
	kinds             map[string]*finding
	noted             int
}

func (s *tally) of(kind string) *finding {
	if s.kinds == nil {
		s.kinds = map[string]*finding{}
	}
	if s.kinds[kind] == nil {
		s.kinds[kind] = &finding{}
	}
	return s.kinds[kind]
}

func (f *finding) add(g finding) {
	f.Lost, f.Torn, f.Ragged = f.Lost+g.Lost, f.Torn+g.Torn, f.Ragged+g.Ragged
	f.Said = append(f.Said, g.Said[:min(len(g.Said), max(0, mostSaid-len(f.Said)))]...)
}

func (s *tally) total() (f finding) {
	for _, k := range s.kinds {
		f.add(*k)
	}
	return f
}

func (s *tally) String() string {
	f := s.total()
	text := fmt.Sprintf("%d crashes, %d records reported: %d lost, %d torn, %d ragged", s.crashes, s.reported, f.Lost, f.Torn, f.Ragged)
	for _, k := range kinds {
		f := s.of(k.name)
		text += fmt.Sprintf("; %s %d/%d/%d", k.name, f.Lost, f.Torn, f.Ragged)
	}
	return text
}
