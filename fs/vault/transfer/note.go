package transfer

import (
	"bytes"
	"path"
	"strings"
)

// NoteKind says what a Note is about.
type NoteKind string

// The kinds of notes.
const (
	NoteSocket     NoteKind = "socket"     // left out
	NoteDevice     NoteKind = "device"     // left out
	NoteVault      NoteKind = "vault"      // left out: the vault being written, or its folder while it is built
	NoteGit        NoteKind = "git"        // a repository's history was packed
	NoteEnv        NoteKind = "env"        // a file of settings, often with passwords
	NotePrivateKey NoteKind = "privatekey" // a private key
	NoteAbsolute   NoteKind = "absolute"   // a symbolic link to an absolute path; Detail is its target
	NoteOutside    NoteKind = "outside"    // a symbolic link that leaves the source; Detail is its target
	NoteShebang    NoteKind = "shebang"    // a script whose interpreter lies under the source's path on this machine; Detail is that
	NoteXattr      NoteKind = "xattr"      // the host refused an extended attribute on export; Detail is its name
	NoteSetID      NoteKind = "setid"      // setuid or setgid was not exported, because the owner was not
)

// Note is something that the user should know of an entry.
type Note struct {
	Kind   NoteKind `json:"kind"`
	Path   string   `json:"path"` // relative to the top
	Detail string   `json:"detail,omitempty"`
}

// notesPerKind bounds the memory for notes: of a million absolute links the first hundred say enough.
const notesPerKind = 100

func (r *Report) note(kind NoteKind, path, detail string) {
	n := 0
	for _, note := range r.Notes {
		if note.Kind == kind {
			n++
		}
	}
	if n < notesPerKind {
		r.Notes = append(r.Notes, Note{kind, path, detail})
		return
	}
	if r.Unlisted == nil {
		r.Unlisted = map[NoteKind]int{}
	}
	r.Unlisted[kind]++
}

// noteName notes what a name alone gives away.
func (r *Report) noteName(rel string, isDir bool) {
	name := path.Base(rel)
	switch {
	case name == ".git": // a file in a worktree or a submodule
		r.note(NoteGit, rel, "")
	case isDir:
	case name == ".env" || strings.HasPrefix(name, ".env.") && !isExample(name):
		r.note(NoteEnv, rel, "")
	}
}

func isExample(name string) bool {
	switch path.Ext(name) {
	case ".example", ".sample", ".template", ".dist":
		return true
	}
	return false
}

// noteLink notes a symbolic link that will not lead to the same place elsewhere. The test is lexical: links on the way are not
// followed.
func (r *Report) noteLink(rel, target string) {
	switch {
	case strings.HasPrefix(target, "/"):
		r.note(NoteAbsolute, rel, target)
	default:
		if to := path.Join(path.Dir(rel), target); to == ".." || strings.HasPrefix(to, "../") {
			r.note(NoteOutside, rel, target)
		}
	}
}

const (
	headSize   = 1024     // bytes at the beginning of a file that noteHead looks at
	keyMaxSize = 64 << 10 // a file with a private key is small
)

// keyNames are what ssh-keygen(1) calls its keys.
var keyNames = map[string]bool{"id_rsa": true, "id_dsa": true, "id_ecdsa": true, "id_ed25519": true, "id_ecdsa_sk": true, "id_ed25519_sk": true}

// noteHead notes what the beginning of a regular file gives away. tops are the source's paths on the host.
func (r *Report) noteHead(rel string, head []byte, size uint64, tops []string) {
	if keyNames[path.Base(rel)] || size <= keyMaxSize && isPEMKey(head) {
		r.note(NotePrivateKey, rel, "")
	}
	line, ok := bytes.CutPrefix(head, []byte("#!"))
	if !ok {
		return
	}
	line, _, _ = bytes.Cut(line, []byte("\n"))
	line = bytes.TrimLeft(line, " \t")
	for _, top := range tops {
		if rest, ok := bytes.CutPrefix(line, []byte(top)); ok && len(rest) > 0 && rest[0] == '/' {
			r.note(NoteShebang, rel, string(bytes.TrimRight(line, " \t\r")))
			return
		}
	}
}

// isPEMKey finds the header of a private key: RFC 7468, and what OpenSSL and OpenSSH call theirs.
func isPEMKey(head []byte) bool {
	_, rest, ok := bytes.Cut(head, []byte("-----BEGIN "))
	for ok {
		label, _, _ := bytes.Cut(rest, []byte("\n"))
		if bytes.Contains(label, []byte("PRIVATE KEY-----")) {
			return true
		}
		_, rest, ok = bytes.Cut(rest, []byte("-----BEGIN "))
	}
	return false
}
