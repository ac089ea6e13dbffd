package keyring

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"strings"
)

// CredentialName is the file under $CREDENTIALS_DIRECTORY that holds the
// passkey.
const CredentialName = "encfsrun.passkey"

// Source says where the passkey of an existing vault comes from. The first
// three are given explicitly, and two of them are a usage error; else the
// first that is set of the others counts, and at last the terminal is asked.
// Standard input is never read unless FD says 0.
type Source struct {
	FD      int    // --passkey-fd; -1 when not given, so the zero Source reads descriptor 0
	File    string // --passkey-file
	Command string // --passkey-command; see splitWords for its quoting

	EnvFile        string // $ENCFSRUN_PASSKEY_FILE, a path
	CredentialsDir string // $CREDENTIALS_DIRECTORY; counts when it holds CredentialName
}

// NewSource says where a new passkey comes from: at most one of the first
// three, else the terminal.
type NewSource struct {
	FD      int    // --new-passkey-fd; -1 when not given
	File    string // --new-passkey-file
	Command string // --new-passkey-command

	CredentialsDir string // $CREDENTIALS_DIRECTORY; files under it may be readable by others
}

// Validate returns a *UsageError for sources that can't be meant. Nothing is
// opened.
func (s Source) Validate() error { return s.explicit().validate() }

// Validate returns a *UsageError for sources that can't be meant. Nothing is
// opened.
func (s NewSource) Validate() error { return s.explicit().validate() }

// Read gets the passkey. vault is the name to ask for at a terminal. The
// caller destroys the passkey.
//
// Errors: *UsageError, *PasskeyError, *UnsafeFileError, *CommandError,
// *NoTerminalError, *InterruptedError.
func (s Source) Read(ctx context.Context, vault string) (*Passkey, error) {
	if err := s.Validate(); err != nil {
		return nil, err
	}
	e := s.explicit()
	if e.given() {
		return e.read(ctx)
	}
	if s.EnvFile != "" {
		return e.exemptions.readFile(ctx, s.EnvFile, fmt.Sprintf("passkey file %q of $ENCFSRUN_PASSKEY_FILE", s.EnvFile))
	}
	if s.CredentialsDir != "" {
		path := filepath.Join(s.CredentialsDir, CredentialName)
		passkey, err := e.exemptions.readFile(ctx, path, fmt.Sprintf("credential %q", path))
		// A service may have other credentials and not this one.
		if !errors.Is(err, fs.ErrNotExist) {
			return passkey, err
		}
	}
	return askPasskey(ctx, vault)
}

func (s Source) explicit() explicit {
	return explicit{"--passkey", s.FD, s.File, s.Command, exemptions{s.CredentialsDir}}
}

func (s NewSource) explicit() explicit {
	return explicit{"--new-passkey", s.FD, s.File, s.Command, exemptions{s.CredentialsDir}}
}

// explicit is the part that both kinds of sources share.
type explicit struct {
	flag          string // the flags' common beginning
	fd            int
	file, command string
	exemptions    exemptions
}

func (e explicit) given() bool { return e.fd >= 0 || e.file != "" || e.command != "" }

func (e explicit) validate() error {
	var given []string
	if e.fd >= 0 {
		given = append(given, e.flag+"-fd")
	}
	if e.file != "" {
		given = append(given, e.flag+"-file")
	}
	if e.command != "" {
		given = append(given, e.flag+"-command")
	}
	if len(given) > 1 {
		return &UsageError{strings.Join(given, " and ") + " can't be given together"}
	}
	if e.fd == 1 || e.fd == 2 {
		return &UsageError{fmt.Sprintf("%s-fd %d is an output", e.flag, e.fd)}
	}
	if e.command != "" {
		if _, err := splitWords(e.command); err != nil {
			return &UsageError{fmt.Sprintf("%s-command can't be split into words: %v", e.flag, err)}
		}
	}
	return nil
}

// read reads the one that is given.
func (e explicit) read(ctx context.Context) (*Passkey, error) {
	switch {
	case e.fd >= 0:
		return e.exemptions.readDescriptor(ctx, e.fd, fmt.Sprintf("%s-fd %d", e.flag, e.fd))
	case e.file != "":
		return e.exemptions.readFile(ctx, e.file, fmt.Sprintf("passkey file %q", e.file))
	}
	return readCommand(ctx, e.command, commandLimit)
}

// others lists the sources that need no terminal.
func (e explicit) others() []string {
	return []string{e.flag + "-file FILE", e.flag + "-fd N", e.flag + "-command CMD"}
}
