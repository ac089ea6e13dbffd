package control

import (
	"encoding/json"
	"fmt"
	"time"
)

// State is what a daemon is doing with its mount.
type State string

const (
	Serving  State = "serving"
	Draining State = "draining" // detached; files that are still open are served
	Unsynced State = "unsynced" // accepted writes could not be made durable
	// NotAnswering is given by [Registry.List] alone, for a daemon that lives
	// but did not answer in time. Its numbers are zero.
	NotAnswering State = "not answering"
)

// Status describes one mount or run. Its JSON form is what GET /v1/status
// answers and `encfsrun status --json` prints.
//
// Root sees the daemons of all users: to it the strings are a stranger's, of any
// bytes that JSON can hold, and are to be quoted before they go to a terminal.
type Status struct {
	Mountpoint   string    `json:"mountpoint"` // absolute, without symlinks; for a run as the program sees it
	Vault        string    `json:"vault"`      // absolute path
	VaultID      string    `json:"vault_id"`   // lower-case hex
	Name         string    `json:"name"`       // of a run; may be empty
	Device       string    `json:"device"`     // "major:minor" of the mount; empty for a run, whose mount only it sees
	Sandboxed    bool      `json:"sandboxed"`  // a run: Mountpoint is a path in its sandbox
	PID          int       `json:"pid"`        // the daemon's; List gives it in the caller's pid namespace, as the kernel says
	UID          int       `json:"uid"`        // the daemon's; from the kernel too
	State        State     `json:"state"`
	ReadOnly     bool      `json:"read_only"`
	OpenFiles    int64     `json:"open_files"`
	GuardedBytes int64     `json:"guarded_bytes"` // decrypted, in guarded memory now
	DirtyBytes   int64     `json:"dirty_bytes"`   // accepted, not yet durable
	DamagedFiles int64     `json:"damaged_files"` // that programs were refused, because a block of them does not authenticate
	Started      time.Time `json:"started"`

	// Socket is the path of the daemon's control socket; filled in by List.
	Socket string `json:"-"`
}

// maxStatus bounds the JSON of a status in bytes: three paths of 4 KiB each,
// every byte escaped as six, fit.
const maxStatus = 128 << 10

// decodeStatus reads what a daemon, possibly another user's, said of itself.
// Fields of a newer version are passed over.
func decodeStatus(text []byte) (Status, error) {
	var s Status
	if err := json.Unmarshal(text, &s); err != nil {
		return Status{}, fmt.Errorf("decode a status: %w", err)
	}
	switch s.State {
	case Serving, Draining, Unsynced:
		return s, nil
	}
	return Status{}, fmt.Errorf("decode a status: unknown state %q", s.State)
}
