package keyring

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/subtle"
	"fmt"
	"unicode/utf8"

	"encfsrun/fs/guarded"
)

// newTries is how often a new passkey may be mistyped.
const newTries = 3

// Read gets a new passphrase. what names the object to ask for at a terminal,
// where the passphrase is typed twice, and where an empty line generates one:
// then generated is true, and the caller shows it once (Passkey.Passphrase).
// The caller destroys the passkey.
//
// A file of 32 bytes that can't be typed is refused: it is a machine key, and
// as a passphrase it would be stretched in vain.
//
// Errors are those of Source.Read and *MismatchError.
func (s NewSource) Read(ctx context.Context, what string) (passkey *Passkey, generated bool, err error) {
	if err := s.Validate(); err != nil {
		return nil, false, err
	}
	e := s.explicit()
	if !e.given() {
		return askNewPasskey(ctx, what)
	}
	passkey, err = e.read(ctx)
	if err != nil {
		return nil, false, err
	}
	if p := passkey.Passphrase(); p == nil || passkey.MachineKey() != nil && !printable(p.Bytes()) {
		passkey.Destroy()
		return nil, false, &PasskeyError{Origin: "the new passkey", Reason: "is a machine key, not a passphrase"}
	}
	// It is to be a passphrase, also where it happens to be 32 bytes long.
	passkey.machineKey.Destroy()
	passkey.machineKey = nil
	return passkey, false, nil
}

func askNewPasskey(ctx context.Context, what string) (*Passkey, bool, error) {
	t, err := openTerminal(ctx, explicit{flag: "--new-passkey"}.others())
	if err != nil {
		return nil, false, err
	}
	defer t.close()
	for range newTries {
		var passkey *Passkey
		empty, same := false, false
		// Quoted: a name must not send control sequences to the terminal.
		err := t.askLine(fmt.Sprintf("new passkey for %q (empty: generate one): ", what), func(line []byte) (err error) {
			if empty = len(line) == 0; empty {
				return nil
			}
			passkey, err = NewPassphrase(line)
			return err
		})
		if err != nil {
			return nil, false, err
		}
		if empty {
			passkey, err := GeneratePassphrase()
			return passkey, err == nil, err
		}
		err = t.askLine("the same again: ", func(line []byte) error {
			same = subtle.ConstantTimeCompare(line, passkey.passphrase.Bytes()) == 1
			return nil
		})
		if err == nil && same {
			return passkey, false, nil
		}
		passkey.Destroy()
		if err != nil {
			return nil, false, err
		}
		t.write("the two differ\n")
	}
	return nil, false, &MismatchError{newTries}
}

// A generated passphrase: six groups of five characters, 150 bits. The
// alphabet is Crockford's base 32 in lower case, which has none of the letters
// that are taken for digits or each other (i, l, o, u).
const (
	generatedAlphabet   = "0123456789abcdefghjkmnpqrstvwxyz"
	generatedGroups     = 6
	generatedGroupChars = 5
)

// GeneratePassphrase returns a random passphrase of at least 128 bits that is
// easy to type. Its hyphens are part of it.
func GeneratePassphrase() (*Passkey, error) {
	random, err := guarded.NewBuffer(generatedGroups * generatedGroupChars)
	if err != nil {
		return nil, err
	}
	defer random.Destroy()
	rand.Read(random.Bytes())
	text, err := guarded.NewBuffer(generatedGroups*(generatedGroupChars+1) - 1)
	if err != nil {
		return nil, err
	}
	rest := random.Bytes()
	for i := range text.Bytes() {
		if i%(generatedGroupChars+1) == generatedGroupChars {
			text.Bytes()[i] = '-'
			continue
		}
		// 256 is a multiple of 32, so no character is likelier than another.
		text.Bytes()[i] = generatedAlphabet[int(rest[0])%len(generatedAlphabet)]
		rest = rest[1:]
	}
	return &Passkey{passphrase: text}, nil
}

// printable says whether bytes can have been typed: valid UTF-8 without control
// characters.
func printable(b []byte) bool {
	return utf8.Valid(b) && !bytes.ContainsFunc(b, func(r rune) bool { return r < 0x20 || r == 0x7f })
}
