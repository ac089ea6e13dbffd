package e2e

import (
	"os"
	"strings"
	"testing"
)

const readmePasskey = "a passkey of the README"

// TestReadme types the README's commands as they stand there, in its order, as somebody new would. Only the places are other
// ones: what the README puts into /srv, /mnt and /etc is the world's.
func TestReadme(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		w.vault()
		must(t, os.RemoveAll(w.path("app.vault")))
		w.folder("data")
		s := w.shell()
		s.types("export TOKEN=t0ken\n")
		s.expect(prompt)
		for _, command := range readmeCommands(t) {
			if strings.Contains(command, "SLOT") {
				list := strings.Fields(w.ok("key", "list", w.path("app.vault")))
				command = strings.ReplaceAll(command, "SLOT", list[0])
			}
			command = strings.NewReplacer("/srv/data", w.path("data"), "/mnt/app", w.path("mnt"), "/etc/app.key", w.path("app.key")).Replace(command)
			shown := w.types(s, command)
			want := map[string]string{"main.py": "hello from the vault", "./server": "serving with t0ken", "check": "root ", "status": w.path("mnt")}
			for part, text := range want {
				if fits := strings.Contains(command, " "+part) && (strings.Contains(command, " run ") || part == "check" || part == "status"); fits && !strings.Contains(shown, text) {
					t.Errorf("%s does not show %q:\n%s", command, text, shown)
				}
			}
			if strings.HasPrefix(command, "encfsrun pack ./app") {
				// The same passkey at a price that a test can pay a dozen times.
				w.write("readme", readmePasskey+"\n", 0o600)
				w.ok("key", "passwd", "--passkey-file", w.path("readme"), "--new-passkey-file", w.path("readme"), "--kdf-memory", "8M", "--kdf-time", "1", w.path("app.vault"))
			}
			if strings.Contains(command, " mount ") {
				s.types("cat mnt/secret\n")
				s.expect("the secret of the tree")
				s.expect(prompt)
			}
		}
	})
}

// types types a command, answers whatever it asks for with the passkey, wants it to end well, and returns what it showed.
func (w *world) types(s *terminal, command string) string {
	w.t.Helper()
	from := len(s.all)
	s.types(command + "\n")
	s.expect("\n") // the echo
	for {
		switch s.expect(prompt, "passkey for ", "the same again: ") {
		case 0:
			shown := s.all[from:]
			s.types("echo status=$?.\n")
			s.expect("\n")
			if s.expect("status=0.", "status=") != 0 {
				w.t.Fatalf("%s fails:\n%s", command, shown)
			}
			s.expect(prompt)
			return shown
		case 1:
			s.expect(": ")
			s.types(readmePasskey + "\n")
		case 2:
			s.types(readmePasskey + "\n")
		}
	}
}

// readmeCommands returns the lines of the README that begin with encfsrun, without their comments; the first two stand on its
// first screen too.
func readmeCommands(t *testing.T) (commands []string) {
	t.Helper()
	text, err := os.ReadFile("../../README.md")
	must(t, err)
	_, using, found := strings.Cut(string(text), "## Using it")
	if !found {
		t.Fatal("the README does not say how to use it")
	}
	for line := range strings.Lines(using) {
		command, indented := strings.CutPrefix(line, "    encfsrun ")
		if !indented {
			continue
		}
		command, _, _ = strings.Cut("encfsrun "+command, "#")
		for part := range strings.SplitSeq(command, ";") {
			commands = append(commands, strings.TrimSpace(part))
		}
	}
	if len(commands) < 12 {
		t.Fatalf("only %d commands were found in the README: %q", len(commands), commands)
	}
	return commands
}
