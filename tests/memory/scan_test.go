package memory

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"testing"
)

// mapping is one of a process's, with what /proc/PID/smaps says of its protection.
type mapping struct {
	name       string
	start, end uint64
	locked     bool // "lo": never swapped
	noDump     bool // "dd": not in a core
}

func (m mapping) guarded() bool { return m.locked && m.noDump }

// secretMemory can be read by nobody but the process itself, not even through /proc/PID/mem.
func (m mapping) secretMemory() bool { return strings.HasPrefix(m.name, "/secretmem") }

// mappings reads /proc/PID/smaps.
func mappings(t *testing.T, pid int) []mapping {
	t.Helper()
	f, err := os.Open(fmt.Sprintf("/proc/%d/smaps", pid))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var all []mapping
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		fields := strings.Fields(lines.Text())
		var start, end uint64
		if n, _ := fmt.Sscanf(fields[0], "%x-%x", &start, &end); n == 2 {
			m := mapping{start: start, end: end}
			if len(fields) > 5 {
				m.name = strings.Join(fields[5:], " ")
			}
			all = append(all, m)
		} else if fields[0] == "VmFlags:" {
			m := &all[len(all)-1]
			m.locked, m.noDump = slices.Contains(fields, "lo"), slices.Contains(fields, "dd")
		}
	}
	if len(all) == 0 {
		t.Fatalf("process %d has no mappings", pid)
	}
	return all
}

// hits counts where secrets were found.
type hits struct {
	guarded int
	outside []string // a description of each hit outside of guarded memory
	scanned uint64   // bytes
}

// scan searches every mapping of a process for the secrets.
func scan(t *testing.T, pid int, secrets map[string][]byte) (h hits) {
	t.Helper()
	mem, err := os.Open(fmt.Sprintf("/proc/%d/mem", pid))
	if err != nil {
		t.Fatal(err)
	}
	defer mem.Close()
	const step, overlap = 4 << 20, 128
	buf := make([]byte, step+overlap)
	for _, m := range mappings(t, pid) {
		if m.secretMemory() || m.name == "[vvar]" || m.name == "[vsyscall]" || m.name == "[vvar_vclock]" {
			continue
		}
		for at := m.start; at < m.end; at += step {
			n, err := mem.ReadAt(buf[:min(uint64(len(buf)), m.end-at)], int64(at))
			if err != nil && err != io.EOF && n == 0 {
				continue // guard pages, and reservations without memory
			}
			h.scanned += uint64(n)
			for name, secret := range secrets {
				h.add(buf[:n], name, secret, m, at)
			}
		}
	}
	return h
}

func (h *hits) add(b []byte, name string, secret []byte, m mapping, at uint64) {
	for from := 0; ; {
		i := bytes.Index(b[from:], secret)
		if i < 0 {
			return
		}
		if m.guarded() {
			h.guarded++
		} else {
			h.outside = append(h.outside, fmt.Sprintf("%s at %#x in %q (locked %v, no dump %v)", name, at+uint64(from+i), m.name, m.locked, m.noDump))
		}
		from += i + len(secret)
	}
}
