package memdisk_test

import (
	"bytes"
	"errors"
	"strings"
	"syscall"
	"testing"

	"encfsrun/fs/vault/disk"
	"encfsrun/fs/vault/disk/memdisk"
)

const pageSize = 4096

// script carries out short steps on a disk and fails the test when one fails.
type script struct {
	t     *testing.T
	d     *memdisk.Disk
	files map[string]disk.File
}

func newScript(t *testing.T) *script {
	return &script{t, memdisk.New(), make(map[string]disk.File)}
}

func (s *script) must(err error) {
	s.t.Helper()
	if err != nil {
		s.t.Fatal(err)
	}
}

func (s *script) create(name string) {
	s.t.Helper()
	f, err := s.d.Create(name, 0o600)
	s.must(err)
	s.files[name] = f
}

func (s *script) write(name, data string, off int64) {
	s.t.Helper()
	_, err := s.files[name].WriteAt([]byte(data), off)
	s.must(err)
}

func (s *script) sync(name string)      { s.t.Helper(); s.must(s.files[name].Sync()) }
func (s *script) syncDir(name string)   { s.t.Helper(); s.must(s.d.SyncDir(name)) }
func (s *script) mkdir(name string)     { s.t.Helper(); s.must(s.d.Mkdir(name, 0o700)) }
func (s *script) remove(name string)    { s.t.Helper(); s.must(s.d.Remove(name)) }
func (s *script) rename(old, nw string) { s.t.Helper(); s.must(s.d.Rename(old, nw)) }

// durable makes a file that no crash can change.
func (s *script) durable(name, data string) {
	s.t.Helper()
	s.must(s.d.WriteFile(name, []byte(data)))
	f, err := s.d.OpenWrite(name)
	s.must(err)
	s.files[name] = f
}

// show renders a disk in one line: "/a=xy /b=[z][.]." is a file "xy", and a page of "z"
// with a page and a byte of zeros behind it.
func show(t *testing.T, d *memdisk.Disk) string {
	t.Helper()
	var parts []string
	for _, name := range d.Files() {
		data, err := d.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		parts = append(parts, name+"="+shorten(data))
	}
	return strings.Join(parts, " ")
}

// shorten writes a page of one letter as that letter in brackets, zero bytes as dots.
func shorten(data []byte) string {
	var out strings.Builder
	for len(data) > 0 {
		part := data[:min(len(data), pageSize)]
		data = data[len(part):]
		text := string(bytes.ReplaceAll(part, []byte{0}, []byte(".")))
		if len(part) == pageSize && strings.Count(text, text[:1]) == pageSize {
			text = "[" + text[:1] + "]"
		}
		out.WriteString(text)
	}
	return out.String()
}

func whole(letter string) string { return strings.Repeat(letter, pageSize) }

// eio lets the n-th sync fail, counted from 1.
func eio(d *memdisk.Disk, n int) {
	d.Hook = func(op memdisk.Op) error {
		if op.Kind == memdisk.OpSync {
			if n--; n == 0 {
				return syscall.EIO
			}
		}
		return nil
	}
}

func (s *script) syncFails(name string) {
	s.t.Helper()
	if err := s.files[name].Sync(); !errors.Is(err, syscall.EIO) {
		s.t.Fatalf("sync: %v, want EIO", err)
	}
}
