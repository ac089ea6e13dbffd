package durability

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// load is four writers at work on one tree.
type load struct {
	t       *testing.T
	writers []*writer
	changed chan struct{} // something was said; holds one
}

// writer is a process that writes a batch. What it said is read to the end also after it was killed: a report in the pipe counts.
type writer struct {
	cmd      *exec.Cmd
	in       io.WriteCloser
	said     chan struct{} // closed when all of its output was read
	complain bytes.Buffer

	mu    sync.Mutex
	batch batch
	full  bool // it waits, having found the disk full
	ended bool
}

// manner is how the writers work.
type manner struct {
	// careless are those that report without fsync; mostCareless bounds how many records, being much faster, they write (0: no
	// bound).
	careless     []string
	mostCareless int
	scale        int // see batch
}

// startLoad starts a writer of each kind. Their records are those of a crash's number.
func startLoad(t *testing.T, root string, cut int, how manner) *load {
	t.Helper()
	l := &load{t: t, changed: make(chan struct{}, 1)}
	t.Cleanup(func() { l.kill() })
	for i, k := range kinds {
		o := writeOrder{Root: root, Batch: batch{Kind: k.name, Cut: cut, Writer: i, Scale: max(1, how.scale)}, Durable: true}
		if slices.Contains(how.careless, k.name) {
			o.Durable, o.Most = false, how.mostCareless
		}
		w, err := l.start(o)
		must(t, err)
		l.writers = append(l.writers, w)
	}
	return l
}

func (l *load) start(o writeOrder) (*writer, error) {
	w := &writer{batch: o.Batch, said: make(chan struct{}), cmd: child("write")}
	w.cmd.Stderr = &w.complain
	in, err := w.cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, err := w.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	w.in = in
	if err := w.cmd.Start(); err != nil {
		return nil, err
	}
	go w.listen(out, l.changed)
	return w, json.NewEncoder(in).Encode(o)
}

// child is this binary, about to do a job.
func child(job string) *exec.Cmd {
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), jobVariable+"="+job)
	cmd.Dir = "/"
	// Ctrl-C on a terminal is for the test, which then ends its children.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	return cmd
}

func (w *writer) listen(out io.Reader, changed chan struct{}) {
	defer close(w.said)
	tell := func() {
		select {
		case changed <- struct{}{}:
		default:
		}
	}
	for lines := bufio.NewScanner(out); lines.Scan(); tell() {
		w.mu.Lock()
		switch lines.Text() {
		case sayDone:
			w.batch.Acked++
			w.batch.Late = w.batch.Acked
		case sayFull:
			w.full = true
		}
		w.mu.Unlock()
	}
	w.mu.Lock()
	w.ended = true
	w.mu.Unlock()
	tell()
}

func (w *writer) state() (b batch, full, ended bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.batch, w.full, w.ended
}

// until waits until something is so of every writer that has not ended; it returns an error after patience, or when one ends.
func (l *load) until(what string, so func(b batch, full bool) bool) error {
	deadline := time.NewTimer(patience)
	defer deadline.Stop()
	for {
		all := true
		for _, w := range l.writers {
			b, full, ended := w.state()
			if ended {
				<-w.said
				return fmt.Errorf("the writer of %s ended after %d records", b.Kind, b.Acked)
			}
			all = all && so(b, full)
		}
		if all {
			return nil
		}
		select {
		case <-l.changed:
		case <-deadline.C:
			return fmt.Errorf("not so for %v: %s", patience, what)
		}
	}
}

// records waits until every writer has reported n records.
func (l *load) records(n int) error {
	return l.until(fmt.Sprintf("every writer has reported %d records", n), func(b batch, _ bool) bool { return b.Acked >= n })
}

// retry lets writers go on that found the disk full.
func (l *load) retry() {
	for _, w := range l.writers {
		w.mu.Lock()
		full := w.full
		w.full = false
		w.mu.Unlock()
		if full {
			io.WriteString(w.in, "again\n")
		}
	}
}

// batches returns what was written so far.
func (l *load) batches() (list []batch) {
	for _, w := range l.writers {
		b, _, _ := w.state()
		list = append(list, b)
	}
	return list
}

// because ends the writers and adds what they complained about to an error.
func (l *load) because(err error) error {
	_, said := l.kill()
	return fmt.Errorf("%w: %s", err, strings.Join(said, "; "))
}

// kill ends the writers and returns what they wrote, and what they complained about.
func (l *load) kill() (batches []batch, complaints []string) {
	for _, w := range l.writers {
		w.cmd.Process.Kill()
	}
	for _, w := range l.writers {
		<-w.said
		w.cmd.Wait()
		b, _, _ := w.state()
		batches = append(batches, b)
		if said := strings.TrimSpace(w.complain.String()); said != "" {
			complaints = append(complaints, said)
		}
	}
	l.writers = nil
	return batches, complaints
}

// doJob has a child do a job on a tree, within a time that allows for a tree that hangs.
func doJob(job string, o verifyOrder) ([]byte, error) {
	order, err := json.Marshal(o)
	if err != nil {
		return nil, err
	}
	var out, complaints bytes.Buffer
	cmd := child(job)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = bytes.NewReader(order), &out, &complaints
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	timer := time.AfterFunc(5*patience, func() { cmd.Process.Kill() })
	err = cmd.Wait()
	timer.Stop()
	if err != nil {
		return nil, fmt.Errorf("%w: %s", err, strings.TrimSpace(complaints.String()))
	}
	return out.Bytes(), nil
}

// verify looks for all that was reported.
func verify(root string, batches []batch) (r verifyReport, err error) {
	out, err := doJob("verify", verifyOrder{Root: root, Batches: batches})
	if err == nil {
		err = json.Unmarshal(out, &r)
	}
	return r, err
}

// remove removes every second record of a batch, up to a number, and notes that.
func remove(root string, b *batch, upTo int) error {
	b.Removed = upTo
	_, err := doJob("remove", verifyOrder{Root: root, Batches: []batch{*b}})
	return err
}

// prepare makes the directory that is there before anything happens.
func prepare(root string) error {
	_, err := doJob("prepare", verifyOrder{Root: root})
	return err
}
