package e2e

import (
	"os"
	"regexp"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// TestNewPasskey types new passkeys, as pack asks for them.
func TestNewPasskey(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		w.vault()
		s := w.shell()
		normal := s.modes()
		pack := "encfsrun pack --kdf-memory 8M --kdf-time 1 app "

		s.types(pack + "typed\n")
		s.expect(`new passkey for "typed"`)
		if s.echoes() {
			t.Error("what is typed for a passkey is shown")
		}
		s.types("one passphrase\n")
		s.expect("the same again")
		s.types("another passphrase\n")
		s.expect("the two differ")
		s.expect("new passkey")
		s.types("one passphrase\n")
		s.expect("the same again")
		s.types("one passphrase\n")
		s.expect("root ")
		s.expect(prompt)
		s.status(0)
		if strings.Contains(s.all, "passphrase\r") {
			t.Errorf("a passphrase was shown:\n%s", s.all)
		}
		if s.modes() != normal {
			t.Error("the terminal is not as before")
		}

		// Never the same twice.
		s.types(pack + "mistyped\n")
		for range 3 {
			s.expect("new passkey")
			s.types("one\n")
			s.expect("the same again")
			s.types("two\n")
		}
		s.expect(prompt)
		s.status(1)
		if exists(w.path("mistyped")) {
			t.Error("a vault was made with a mistyped passkey")
		}

		// Nothing typed: one is made up, shown once, and opens the vault. A pipe gets the root alone.
		s.types(pack + "generated >out\n")
		s.expect("new passkey")
		s.types("\n")
		s.expect("shown this once")
		s.expect(prompt)
		s.status(0)
		found := regexp.MustCompile(`(?:[0-9a-z]{5}-){5}[0-9a-z]{5}`).FindAllString(s.all, -1)
		if len(found) != 1 {
			t.Fatalf("passphrases shown: %q", found)
		}
		if out, _ := os.ReadFile(w.path("out")); !regexp.MustCompile(`^root [0-9a-f]{64}\n$`).Match(out) {
			t.Errorf("standard output has %q", out)
		}
		s.types("encfsrun cat generated secret\n")
		s.expect(`passkey for "generated"`)
		s.types(found[0] + "\n")
		s.expect(strings.TrimSpace(sources["secret"].content))
		s.expect(prompt)

		// Ctrl-C at each prompt: nothing stays, the terminal is as before.
		for _, again := range []bool{false, true} {
			s.types(pack + "interrupted\n")
			s.expect("new passkey")
			if again {
				s.types("half\n")
				s.expect("the same again")
			}
			s.types("typed so far\x03")
			s.expect(prompt)
			s.status(130)
			if !s.echoes() || s.modes() != normal {
				t.Error("after Ctrl-C the terminal is not as before")
			}
		}
		if got := w.sh("ls -A " + w.dir + " | grep interrupted || true"); got != "" {
			t.Errorf("Ctrl-C at the prompt left %s", got)
		}
	})
}

// TestPasskeyOfARun types the passkey of a run, and then uses the terminal in the sandbox.
func TestPasskeyOfARun(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		w.vault()
		s := w.shell()
		normal := s.modes()
		ask := func(command string) {
			t.Helper()
			s.types(command + "\n")
			s.expect("passkey for ")
			if s.echoes() {
				t.Error("what is typed for a passkey is shown")
			}
		}
		const right = "correct horse battery staple\n"
		run := "encfsrun run app.vault "

		ask(run + "/usr/bin/python3 -q")
		s.types(right)
		s.expect(">>> ")
		s.types("print(6*7, open('secret').read())\n")
		s.expect("42 the secret of the tree")
		s.expect(">>> ")
		s.types("exit(4)\n")
		s.expect(prompt)
		s.status(4)

		ask(run + "-- sh -c 'read line; echo got $line; stty -a | grep -o \"[-]*echo \"; exit 5'")
		s.types(right)
		s.types("typed ahead\n")
		s.expect("got typed ahead")
		s.expect(prompt)
		s.status(5)

		// Ctrl-C is the program's once it runs, and ours at the prompt.
		ask(run + "sh -c 'trap \"echo caught; exit 6\" INT; echo ready; while :; do sleep 0.1; done'")
		s.types(right)
		s.expect("ready")
		s.types("\x03")
		s.expect("caught")
		s.expect(prompt)
		s.status(6)
		for _, command := range []string{run + "true", "encfsrun mount --read-only app.vault mnt", "encfsrun ls app.vault", "encfsrun key add app.vault"} {
			ask(command)
			s.types("half\x03")
			s.expect(prompt)
			s.status(130)
			if s.modes() != normal {
				t.Errorf("after Ctrl-C at the prompt of %s the terminal is not as before", command)
			}
		}
		// SIGTERM at the prompt, and a terminal that goes away.
		p := w.on(w.encfsrun("run", w.path("app.vault"), "true"))
		p.expect("passkey for ")
		must(t, p.cmd.Process.Signal(syscall.SIGTERM))
		if code := p.exit(); code != 143 {
			t.Errorf("SIGTERM at the prompt of a run: exit %d", code)
		}
		if !p.echoes() {
			t.Error("after SIGTERM at the prompt nothing is echoed")
		}
		p = w.on(w.encfsrun("run", w.path("app.vault"), "true"))
		p.expect("passkey for ")
		must(t, unix.Kill(-p.cmd.Process.Pid, unix.SIGHUP)) // as the kernel does
		if code := p.exit(); code != 129 {
			t.Errorf("SIGHUP at the prompt of a run: exit %d", code)
		}

		// A killed launcher leaves no prompt behind that would go on reading the terminal.
		p = w.on(w.encfsrun("run", w.path("app.vault"), "true"))
		p.expect("passkey for ")
		must(t, p.cmd.Process.Kill())
		eventually(t, "the daemon at the prompt ends with its launcher", func() bool { return len(w.processes()) == 0 })

		ask(run + "true")
		s.types("wrong\n")
		s.expect("wrong passkey")
		s.expect(prompt)
		s.status(125)
		ask("encfsrun mount --read-only app.vault mnt")
		s.types("wrong\n")
		s.expect("wrong passkey")
		s.expect(prompt)
		s.status(3)
		ask("encfsrun mount --read-only app.vault mnt")
		s.types(right)
		s.expect(prompt)
		s.types("cat mnt/secret; encfsrun umount mnt\n")
		s.expect("the secret of the tree")
		s.expect(prompt)
		s.status(0)
		if s.modes() != normal {
			t.Error("the terminal is not as before")
		}
		if strings.Contains(s.all, "battery") {
			t.Error("the passphrase was shown")
		}
	})
}

// TestNoTerminal has nobody to ask.
func TestNoTerminal(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		vault := w.vault()
		for _, c := range []struct {
			code int
			args []string
		}{
			{1, []string{"ls", vault}}, {125, []string{"run", vault, "true"}}, {1, []string{"mount", "--read-only", vault, w.path("mnt")}},
			{1, []string{"pack", w.path("app"), w.path("new")}}, {1, []string{"pack", "--update", w.path("app"), vault}}, {1, []string{"key", "add", "--passkey-file", w.machine, vault}},
		} {
			for _, closed := range []string{"", " <&-", " <&- 3>&-"} {
				o := finish(t, w.exec(append([]string{"/bin/sh", "-c", "exec setsid -w \"$@\"" + closed, "sh", w.binary}, c.args...)...))
				o.wants(t, "without a terminal, "+strings.Join(c.args, " "), c.code, "terminal", "passkey-file")
			}
		}
		if exists(w.path("new")) {
			t.Error("a vault was made without a passkey")
		}
		// With the key in a file nothing is missed.
		w.sh("setsid -w " + w.binary + " run --passkey-file " + w.machine + " " + vault + " true <&- >&- 2>&-")
		w.sh("setsid -w " + w.binary + " mount --read-only --passkey-file " + w.machine + " " + vault + " " + w.path("mnt") + " <&- >&- 2>&-")
		if got := w.sh("cat " + w.path("mnt/secret")); got != sources["secret"].content {
			t.Errorf("the mount gives %q", got)
		}
		w.ok("umount", w.path("mnt"))
		w.sh("setsid -w " + w.binary + " pack --update -q --passkey-file " + w.machine + " " + w.path("app") + " " + vault + " <&- >&- 2>&-")
		w.opens(vault)
	})
}
