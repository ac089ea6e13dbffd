package fs

import (
	"fmt"
	"math/rand/v2"
	"sync"
	"syscall"

	"encfsrun/fs/vault"
	"encfsrun/fs/vault/tree"
)

// model is a Source in memory, and what tests compare the mount with. Files are laid out in blocks as a vault's log would hold
// them: behind each other, with gaps where records begin.
type model struct {
	nodes  map[tree.Ino]*node
	last   tree.Ino
	blocks [][]byte // block n is blocks[n-1]
	at     int      // where the next byte goes in the last block
	rng    *rand.Rand

	mu     sync.Mutex
	broken map[uint64]error // what loading a block answers instead of its bytes
	loads  int
	// lookup is called before each look-up, if set.
	lookup func(name string)
}

type node struct {
	attr    tree.Attr
	data    []byte // of a regular file, holes as zeros
	layout  []vault.Span
	target  string
	xattrs  map[string][]byte
	entries []tree.Entry
	names   map[string]tree.Ino
	parent  tree.Ino
}

func newModel() *model {
	m := &model{nodes: map[tree.Ino]*node{}, rng: rand.New(rand.NewPCG(1, 2)), broken: map[uint64]error{}}
	m.dir(tree.Root, "")
	return m
}

// put makes an inode of a type and names it.
func (m *model) put(parent tree.Ino, name string, mode uint32, n *node) tree.Ino {
	m.last++
	ino := m.last
	n.attr.Ino = ino
	n.attr.Mode |= mode
	n.attr.Nlink = 1
	if n.attr.Mode&0o7777 == 0 {
		n.attr.Mode |= 0o755
	}
	stamp := int64(1700000000 + m.rng.IntN(1e6))
	n.attr.Atime = tree.Time{Sec: stamp, Nsec: uint32(m.rng.IntN(1e9))}
	n.attr.Mtime = tree.Time{Sec: stamp - 5, Nsec: uint32(m.rng.IntN(1e9))}
	n.attr.Ctime = tree.Time{Sec: stamp - 3, Nsec: uint32(m.rng.IntN(1e9))}
	n.parent = parent
	m.nodes[ino] = n
	if name != "" {
		m.link(parent, name, ino)
	}
	return ino
}

// link adds a name of an inode.
func (m *model) link(parent tree.Ino, name string, ino tree.Ino) {
	p := m.nodes[parent]
	if p.names == nil {
		p.names = map[string]tree.Ino{}
	}
	p.names[name] = ino
	cookie := uint64(3)
	if n := len(p.entries); n > 0 {
		cookie = p.entries[n-1].Cookie + 1 + uint64(m.rng.IntN(3))
	}
	p.entries = append(p.entries, tree.Entry{Name: name, Ino: ino, Mode: m.nodes[ino].attr.Mode, Cookie: cookie})
	p.attr.Size = uint64(len(p.entries))
}

func (m *model) dir(parent tree.Ino, name string) tree.Ino {
	return m.put(parent, name, syscall.S_IFDIR, &node{})
}

func (m *model) symlink(parent tree.Ino, name, target string) tree.Ino {
	return m.put(parent, name, syscall.S_IFLNK, &node{target: target, attr: tree.Attr{Size: uint64(len(target)), Mode: 0o777}})
}

// file makes a regular file. Runs of 8192 zeros at a multiple of 8192 become holes.
func (m *model) file(parent tree.Ino, name string, data []byte) tree.Ino {
	n := &node{data: data}
	n.attr.Size = uint64(len(data))
	for off := 0; off < len(data); {
		end := min(len(data), off+8192)
		hole := isZero(data[off:end])
		for end < len(data) && isZero(data[end:min(len(data), end+8192)]) == hole {
			end = min(len(data), end+8192)
		}
		if hole {
			n.layout = append(n.layout, vault.Span{Len: end - off, Hole: true})
		} else {
			m.lay(n, data[off:end])
		}
		off = end
	}
	return m.put(parent, name, syscall.S_IFREG, n)
}

func isZero(b []byte) bool {
	for _, c := range b {
		if c != 0 {
			return false
		}
	}
	return true
}

// lay appends the bytes of one record to the blocks.
func (m *model) lay(n *node, data []byte) {
	n.attr.Blocks += uint64(len(data)+511) / 512
	m.at += 21 // the record's header
	for len(data) > 0 {
		if len(m.blocks) == 0 || m.at >= vault.PlainSize {
			m.blocks = append(m.blocks, make([]byte, vault.PlainSize))
			m.at = 32
		}
		block := m.blocks[len(m.blocks)-1]
		k := copy(block[m.at:], data)
		n.layout = append(n.layout, vault.Span{Len: k, Block: uint64(len(m.blocks)), At: m.at})
		m.at += k
		data = data[k:]
	}
}

// random returns n bytes that no other call returns, with runs of zeros where holes is set.
func (m *model) random(n int, holes bool) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(m.rng.Uint32())
	}
	for off := 0; holes && off < n; off += 8192 {
		if m.rng.IntN(3) == 0 {
			clear(b[off:min(n, off+8192)])
		}
	}
	return b
}

// breakBlocks makes loading the blocks of a file fail, or work again where err is nil.
func (m *model) breakBlocks(ino tree.Ino, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, s := range m.nodes[ino].layout {
		m.broken[s.Block] = err
	}
}

// load is a guarded.Loader.
func (m *model) load(number uint64, dst []byte) (int, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.loads++
	if err := m.broken[number]; err != nil {
		return 0, err
	}
	return copy(dst, m.blocks[number-1]), nil
}

func (m *model) node(ino tree.Ino) (*node, error) {
	if n := m.nodes[ino]; n != nil {
		return n, nil
	}
	return nil, fmt.Errorf("inode %d: %w", ino, tree.ErrNotFound)
}

func (m *model) Lookup(parent tree.Ino, name string) (tree.Ino, error) {
	if m.lookup != nil {
		m.lookup(name)
	}
	n, err := m.node(parent)
	if err != nil {
		return 0, err
	}
	if n.attr.Mode&syscall.S_IFMT != syscall.S_IFDIR {
		return 0, tree.ErrNotDir
	}
	if ino, found := n.names[name]; found {
		return ino, nil
	}
	return 0, tree.ErrNotFound
}

func (m *model) Attr(ino tree.Ino) (tree.Attr, error) {
	n, err := m.node(ino)
	if err != nil {
		return tree.Attr{}, err
	}
	return n.attr, nil
}

func (m *model) Readlink(ino tree.Ino) (string, error) {
	n, err := m.node(ino)
	if err != nil {
		return "", err
	}
	if n.attr.Mode&syscall.S_IFMT != syscall.S_IFLNK {
		return "", tree.ErrInvalid
	}
	return n.target, nil
}

func (m *model) ReadDir(dir tree.Ino, after uint64, yield func(tree.Entry) bool) error {
	n, err := m.node(dir)
	if err != nil {
		return err
	}
	for _, e := range n.entries {
		if e.Cookie > after && !yield(e) {
			return nil
		}
	}
	return nil
}

func (m *model) Parent(dir tree.Ino) (tree.Ino, error) {
	n, err := m.node(dir)
	if err != nil {
		return 0, err
	}
	return n.parent, nil
}

func (m *model) ListXattr(ino tree.Ino) ([]string, error) {
	n, err := m.node(ino)
	if err != nil {
		return nil, err
	}
	var names []string
	for name := range n.xattrs {
		names = append(names, name)
	}
	return names, nil
}

func (m *model) GetXattr(ino tree.Ino, name string) ([]byte, error) {
	n, err := m.node(ino)
	if err != nil {
		return nil, err
	}
	if v, found := n.xattrs[name]; found {
		return v, nil
	}
	return nil, tree.ErrNoXattr
}

func (m *model) Spans(ino tree.Ino, off int64, n int, spans []vault.Span) ([]vault.Span, error) {
	f, err := m.node(ino)
	if err != nil {
		return spans, err
	}
	at := int64(0)
	for _, s := range f.layout {
		from, to := max(off, at), min(off+int64(n), at+int64(s.Len))
		if from < to {
			p := s
			p.Len = int(to - from)
			p.At += int(from - at)
			spans = append(spans, p)
		}
		at += int64(s.Len)
	}
	return spans, nil
}

// seek finds the first offset from off on whose span is a hole or not; the end counts as a hole.
func (m *model) seek(ino tree.Ino, off uint64, hole bool) (uint64, error) {
	n, err := m.node(ino)
	if err != nil {
		return 0, err
	}
	at := uint64(0)
	for _, s := range n.layout {
		if end := at + uint64(s.Len); end > off && s.Hole == hole {
			return max(off, at), nil
		}
		at += uint64(s.Len)
	}
	if hole && off < at {
		return at, nil
	}
	return 0, tree.ErrNoData
}

func (m *model) SeekData(ino tree.Ino, off uint64) (uint64, error) { return m.seek(ino, off, false) }
func (m *model) SeekHole(ino tree.Ino, off uint64) (uint64, error) { return m.seek(ino, off, true) }

func (m *model) Stats() (s tree.Stats) {
	for _, n := range m.nodes {
		s.Xattrs += uint64(len(n.xattrs))
		s.Inodes++
		s.Bytes += uint64(len(n.data))
	}
	return s
}
