package main

import (
	"bytes"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"encfsrun/launcher"
)

// TestStoppedDaemon: a daemon that was stopped does not make its launcher deaf.
func TestStoppedDaemon(t *testing.T) {
	eachPerson(t, func(t *testing.T, p *person) {
		for _, args := range [][]string{
			{"run", "v", "sh", "-c", "sleep 1"},
			{"run", "v", "sh", "-c", "sleep 1; exec cat file"},
			{"mount", "--read-only", "--foreground", "v", "mnt"},
		} {
			cmd := p.command(args...)
			var said bytes.Buffer
			cmd.Stderr = &said
			must(t, cmd.Start())
			eventually(t, "it serves", func() bool { return len(p.status()) == 1 })
			time.Sleep(300 * time.Millisecond) // it is listed a moment before it serves
			must(t, unix.Kill(p.daemons()[0], unix.SIGSTOP))
			time.Sleep(time.Second)
			ended := make(chan struct{})
			go func() { cmd.Wait(); close(ended) }()
			for signals := 0; ; signals++ {
				select {
				case <-ended:
				case <-time.After(2 * time.Second):
					if signals == 8 { // two, and what a program's stop timeout takes
						t.Fatalf("%v does not end", args)
					}
					cmd.Process.Signal(unix.SIGTERM)
					continue
				}
				break
			}
			want := 125
			if args[0] == "mount" {
				want = 1
			}
			if code := cmd.ProcessState.ExitCode(); code != want || !bytes.Contains(said.Bytes(), []byte("killed")) {
				t.Errorf("%v exits with %d: %s", args, code, said.String())
			}
			if _, err := launcher.FindMount(p.path("mnt")); err == nil {
				t.Errorf("%v: still mounted", args)
			}
			eventually(t, "nothing is left", func() bool { return len(p.processes("")) == 0 })
		}
	})
}

// TestKilledForegroundLauncher: the daemon of a foreground mount whose launcher was killed obeys the signals itself.
func TestKilledForegroundLauncher(t *testing.T) {
	eachPerson(t, func(t *testing.T, p *person) {
		cmd := p.command("mount", "--read-only", "--foreground", "v", "mnt")
		must(t, cmd.Start())
		eventually(t, "it serves", func() bool { return len(p.status()) == 1 })
		time.Sleep(500 * time.Millisecond) // it is listed a moment before it serves
		daemon := p.daemons()[0]
		must(t, cmd.Process.Kill())
		cmd.Wait()
		if p.ok("status", "mnt"); len(p.daemons()) != 1 {
			t.Error("the mount went with its launcher")
		}
		time.Sleep(200 * time.Millisecond)
		must(t, unix.Kill(daemon, unix.SIGTERM))
		eventually(t, "the daemon ends", func() bool { return len(p.daemons()) == 0 })
		if _, err := launcher.FindMount(p.path("mnt")); err == nil {
			t.Error("still mounted")
		}
	})
}
