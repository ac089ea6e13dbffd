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

// prefixSize is how many bytes of a secret are searched for before it is compared.
const prefixSize = 8

// hits counts where secrets were found.
type hits struct {
	guarded int
	outside []string // a description of each hit outside of guarded memory
	scanned uint64   // bytes
}

// scan searches every mapping of a process for the secrets.
func scan(t *testing.T, pid int, secrets [][]byte) (h hits) {
	t.Helper()
	mem, err := os.Open(fmt.Sprintf("/proc/%d/mem", pid))
	if err != nil {
		t.Fatal(err)
	}
	defer mem.Close()
	groups := map[string][][]byte{} // by their first bytes: all canaries begin with the same, and are searched for at once
	for _, secret := range secrets {
		prefix := string(secret[:prefixSize])
		groups[prefix] = append(groups[prefix], secret)
	}
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
			for prefix, group := range groups {
				h.add(buf[:n], []byte(prefix), group, m, at)
			}
		}
	}
	return h
}

func (h *hits) add(b, prefix []byte, group [][]byte, m mapping, at uint64) {
	for from := 0; ; {
		i := bytes.Index(b[from:], prefix)
		if i < 0 {
			return
		}
		from += i
		if slices.ContainsFunc(group, func(secret []byte) bool { return bytes.HasPrefix(b[from:], secret) }) {
			if m.guarded() {
				h.guarded++
			} else {
				h.outside = append(h.outside, fmt.Sprintf("%.8x at %#x in %q (locked %v, no dump %v)", group[0], at+uint64(from), m.name, m.locked, m.noDump))
			}
		}
		from += prefixSize
	}
}
