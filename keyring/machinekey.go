package keyring

import (
	"context"
	"crypto/rand"
	"fmt"
	"os"
	"path/filepath"

	"encfsrun/fs/guarded"
)

// GenerateMachineKey makes a file of MachineKeySize random bytes that only its
// owner can read, and returns when it is durable. It refuses a path that
// exists. After an error there is no file.
func GenerateMachineKey(path string) (*Passkey, error) {
	key, err := guarded.NewBuffer(MachineKeySize)
	if err != nil {
		return nil, err
	}
	rand.Read(key.Bytes())
	if err := writeKeyFile(path, key.Bytes()); err != nil {
		key.Destroy()
		return nil, fmt.Errorf("machine key can't be written: %w", err)
	}
	return &Passkey{machineKey: key}, nil
}

func writeKeyFile(path string, key []byte) (err error) {
	// O_EXCL also refuses a link put there to have the key written elsewhere.
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			_ = os.Remove(path)
		}
	}()
	_, err = f.Write(key)
	if err == nil {
		err = f.Sync()
	}
	if closeErr := f.Close(); err == nil {
		err = closeErr
	}
	if err != nil {
		return err
	}
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	defer dir.Close()
	return dir.Sync()
}

// ReadMachineKey reads a machine key that exists, under the rules for passkey
// files. credentialsDir is $CREDENTIALS_DIRECTORY, or empty.
func ReadMachineKey(ctx context.Context, path, credentialsDir string) (*Passkey, error) {
	origin := fmt.Sprintf("machine key file %q", path)
	passkey, err := exemptions{credentialsDir}.readFile(ctx, path, origin)
	if err != nil {
		return nil, err
	}
	if passkey.machineKey == nil {
		passkey.Destroy()
		return nil, &PasskeyError{Origin: origin, Reason: "is not exactly 32 bytes long"}
	}
	passkey.passphrase.Destroy()
	passkey.passphrase = nil
	return passkey, nil
}
