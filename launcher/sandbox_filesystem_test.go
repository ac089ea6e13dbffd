package launcher_test

import (
	"errors"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"encfsrun/launcher"
)

func testFilesystemDies(t *testing.T) {
	for _, program := range []string{
		"echo ready; exec sleep 60",
		"echo ready; while cat /app/file >/dev/null 2>&1; do :; done; exit 9", // notices first
	} {
		filesystem := &child{done: make(chan struct{})}
		b := inBackground(t, launcher.Options{Command: []string{"/bin/sh", "-c", program}}, filesystem, launcher.RunOptions{})
		pids := processes(t, b.pid)
		must(t, filesystem.cmd.Process.Kill())
		r := b.end(t)
		var failed *launcher.FilesystemError
		if !errors.As(r.failure, &failed) || failed.Stage != launcher.StageServe {
			t.Errorf("%v, %v", r.Status, r.failure)
		}
		gone(t, pids)
	}
}

// testFilesystemHangs stops the file system's process while the program waits
// for it, so that not even SIGKILL ends the program: the clock, or a second
// SIGTERM, ends the file system.
func testFilesystemHangs(t *testing.T) {
	const reads = "echo ready; read go; exec cat /app/big"
	const idles = "echo ready; read go"
	for _, test := range []struct {
		name, program string
		signals       int
		end           time.Duration
	}{
		{"a signal and the clock, a request under way", reads, 1, 300 * time.Millisecond},
		{"two signals, a request under way", reads, 2, time.Minute},
		{"the clock, when the program has ended", idles, 0, 300 * time.Millisecond},
		{"two signals, when the program has ended", idles, 2, time.Minute},
	} {
		input, goes, err := os.Pipe()
		must(t, err)
		filesystem := &child{done: make(chan struct{})}
		b := inBackground(t, launcher.Options{Command: []string{"/bin/sh", "-c", test.program}}, filesystem,
			launcher.RunOptions{Stdin: input, StopTimeout: 200 * time.Millisecond, EndTimeout: test.end})
		must(t, filesystem.cmd.Process.Signal(unix.SIGSTOP))
		goes.WriteString("go\n")
		time.Sleep(time.Second)
		for range test.signals {
			must(t, unix.Kill(os.Getpid(), unix.SIGTERM))
			time.Sleep(500 * time.Millisecond)
		}
		r := b.end(t)
		input.Close()
		goes.Close()
		var failed *launcher.FilesystemError
		if !errors.As(r.failure, &failed) || failed.Stage != launcher.StageHang {
			t.Errorf("%s: %v, %v", test.name, r.Status, r.failure)
		}
	}
}

// stuck never answers to Attach.
type stuck struct {
	memory
	asked chan struct{}
}

func (s *stuck) Attach(*os.File, launcher.Mounted) error {
	close(s.asked)
	<-s.done
	return errors.New("killed")
}

func (s *stuck) Kill() { close(s.done) }

func testAttachHangs(t *testing.T) {
	filesystem := &stuck{*newMemory(), make(chan struct{})}
	plan := build(t, launcher.Options{Command: []string{"true"}})
	ended := make(chan error, 1)
	go func() {
		_, err := launcher.Run(plan, filesystem, launcher.RunOptions{})
		ended <- err
	}()
	<-filesystem.asked // a signal before that would end the run in peace
	for {
		select {
		case err := <-ended:
			var failed *launcher.FilesystemError
			if !errors.As(err, &failed) || failed.Stage != launcher.StageHang {
				t.Errorf("ended with %v", err)
			}
			return
		case <-time.After(500 * time.Millisecond):
			must(t, unix.Kill(os.Getpid(), unix.SIGTERM))
		}
	}
}

// broken fails to attach.
type broken struct{ memory }

func (b *broken) Attach(*os.File, launcher.Mounted) error { return errors.New("no memory") }

func testAttachFails(t *testing.T) {
	filesystem := &broken{*newMemory()}
	r := launch(t, build(t, launcher.Options{Command: []string{"echo", "never"}}), filesystem, strings.NewReader(""), launcher.RunOptions{})
	var failed *launcher.FilesystemError
	if !errors.As(r.failure, &failed) || failed.Stage != launcher.StageAttach || r.out != "" || filesystem.finished != 1 {
		t.Errorf("%v, %q, finished %d times", r.failure, r.out, filesystem.finished)
	}
}
