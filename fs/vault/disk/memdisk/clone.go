package memdisk

// Clone gives a second disk in the same state, with the same things in the air, but
// without hook, open files or locks, and with the power on.
func (d *Disk) Clone() *Disk {
	d.mu.Lock()
	defer d.mu.Unlock()
	c := cloner{nodes: make(map[*node]*node), renames: make(map[*rename]*rename)}
	return &Disk{root: c.node(d.root)}
}

// cloner keeps what is one thing in the original one thing in the copy.
type cloner struct {
	nodes   map[*node]*node
	renames map[*rename]*rename
}

func (c *cloner) node(n *node) *node {
	if n == nil {
		return nil
	}
	if copied := c.nodes[n]; copied != nil {
		return copied
	}
	copied := &node{perm: n.perm}
	c.nodes[n] = copied
	if n.dir == nil {
		copied.content = n.content.clone()
		return copied
	}
	copied.dir = &directory{entries: c.entries(n.dir.entries), durable: c.entries(n.dir.durable)}
	for _, ch := range n.dir.pending {
		copied.dir.pending = append(copied.dir.pending, change{ch.name, c.node(ch.node), c.rename(ch.rename)})
	}
	return copied
}

func (c *cloner) entries(entries map[string]*node) map[string]*node {
	if entries == nil {
		return nil
	}
	copied := make(map[string]*node, len(entries))
	for name, n := range entries {
		copied[name] = c.node(n)
	}
	return copied
}

func (c *cloner) rename(r *rename) *rename {
	if r == nil {
		return nil
	}
	if c.renames[r] == nil {
		c.renames[r] = &rename{synced: r.synced}
	}
	return c.renames[r]
}
