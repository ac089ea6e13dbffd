package keyring

import (
	"bytes"

	"encfsrun/fs/guarded"
)

// MaxPassphrase is the longest passphrase in bytes.
const MaxPassphrase = 4096

// Passkey is what opens slots: a passphrase, a machine key, or content that
// can be either.
//
// What comes from a descriptor, a file or a command is content: exactly 32
// bytes are a machine key, and any content that is one line is a passphrase. 32
// bytes that are one line too are tried as both, so nobody has to say which.
// What is typed at a terminal is a passphrase.
//
// A passphrase is bytes: no encoding is assumed and nothing is normalised. One
// line means that one newline at the end ("\n" or "\r\n") is dropped and that
// what is left is not empty, holds no NUL, LF or CR, and is at most
// MaxPassphrase bytes long.
type Passkey struct {
	passphrase *guarded.Buffer // without the newline; nil when it can't be one
	machineKey *guarded.Buffer // 32 bytes; nil when it can't be one
}

// Passphrase returns the passphrase, or nil. It is destroyed with the Passkey.
func (p *Passkey) Passphrase() *guarded.Buffer { return p.passphrase }

// MachineKey returns the machine key, or nil. It is destroyed with the
// Passkey.
func (p *Passkey) MachineKey() *guarded.Buffer { return p.machineKey }

// Destroy wipes the passkey. It may be called twice, and on nil.
func (p *Passkey) Destroy() {
	if p == nil {
		return
	}
	p.passphrase.Destroy()
	p.machineKey.Destroy()
}

// kind names the kind of slot that the passkey looks for; a passphrase, when
// it can be both.
func (p *Passkey) kind() Kind {
	if p.passphrase != nil {
		return KindPassphrase
	}
	return KindMachine
}

// NewPassphrase makes a passkey of a passphrase, with or without a newline at
// its end. It copies.
func NewPassphrase(line []byte) (*Passkey, error) {
	const origin = "the passphrase"
	n, reason := passphraseLength(line)
	if reason != "" {
		return nil, &PasskeyError{Origin: origin, Reason: reason}
	}
	passphrase, err := copyGuarded(line[:n])
	if err != nil {
		return nil, err
	}
	return &Passkey{passphrase: passphrase}, nil
}

// contentPasskey makes a passkey of what came from a descriptor, a file or a
// command. It copies.
func contentPasskey(content []byte, origin string) (p *Passkey, err error) {
	n, reason := passphraseLength(content)
	if reason != "" && len(content) != MachineKeySize {
		return nil, &PasskeyError{Origin: origin, Reason: reason}
	}
	p = &Passkey{}
	if reason == "" {
		if p.passphrase, err = copyGuarded(content[:n]); err != nil {
			return nil, err
		}
	}
	if len(content) == MachineKeySize {
		if p.machineKey, err = copyGuarded(content); err != nil {
			p.Destroy()
			return nil, err
		}
	}
	return p, nil
}

// passphraseLength returns how much of content is the passphrase, or why none
// of it is.
func passphraseLength(content []byte) (n int, reason string) {
	line := content
	if cut, found := bytes.CutSuffix(line, []byte("\n")); found {
		line = bytes.TrimSuffix(cut, []byte("\r"))
	}
	switch {
	case len(line) == 0:
		return 0, "is empty"
	case len(line) > MaxPassphrase:
		return 0, "is longer than a passphrase may be (4096 bytes)"
	case bytes.IndexByte(line, 0) >= 0:
		return 0, "holds a NUL byte, which no passphrase has"
	case bytes.ContainsAny(line, "\r\n"):
		return 0, "holds more than one line"
	}
	return len(line), ""
}

func copyGuarded(b []byte) (*guarded.Buffer, error) {
	buf, err := guarded.NewBuffer(len(b))
	if err != nil {
		return nil, err
	}
	copy(buf.Bytes(), b)
	return buf, nil
}
