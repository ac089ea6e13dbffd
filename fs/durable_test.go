package fs

import (
	"fmt"
	"maps"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"encfsrun/fs/vault"
	"encfsrun/fs/vault/disk"
	"encfsrun/fs/vault/tree"
)

// durable opens the vault for reading, beside the mount: what is durable must be all that was done so far.
func (c *check) durable() {
	got, err := c.volume.durable(c.name)
	if err != nil {
		c.rt.Fatal(err)
	}
	want, err := walkTree(c.pair.model)
	if err != nil {
		c.rt.Fatal(err)
	}
	for _, all := range []map[string]*entry{got, want} {
		maps.DeleteFunc(all, func(path string, e *entry) bool { e.Inode, e.times = 0, [3]unix.Timespec{}; return false })
	}
	if diff := cmp.Diff(want, got, cmp.AllowUnexported(entry{})); diff != "" {
		c.rt.Fatalf("what is durable differs (-want +got):\n%s", diff)
	}
}

// durable reads a folder of the vault's last commit.
func (v *volume) durable(name string) (map[string]*entry, error) {
	unlocked, err := v.unlock()
	if err != nil {
		return nil, err
	}
	defer unlocked.Close()
	opened, err := unlocked.Open(disk.OS(), vault.Options{})
	if err != nil {
		return nil, err
	}
	defer opened.Close()
	all := map[string]*entry{}
	top := tree.Root
	if name != "" {
		if top, err = opened.Lookup(tree.Root, name); err != nil {
			return nil, err
		}
	}
	return all, collect(opened, all, "", top)
}

func collect(v *vault.Vault, all map[string]*entry, path string, ino tree.Ino) error {
	a, err := v.Attr(ino)
	if err != nil {
		return err
	}
	e := &entry{Mode: comparedMode(a.Mode), UID: a.UID, GID: a.GID, Nlink: a.Nlink, Size: int64(a.Size), Rdev: uint64(a.Rdev)}
	all[path] = e
	names, err := v.ListXattr(ino)
	if err != nil {
		return err
	}
	for _, name := range names {
		value, err := v.GetXattr(ino, name)
		if err != nil {
			return err
		}
		if e.Xattrs == nil {
			e.Xattrs = map[string]string{}
		}
		e.Xattrs[name] = fmt.Sprintf("%x", value)
	}
	switch a.Mode & unix.S_IFMT {
	case unix.S_IFLNK:
		e.Target, err = v.Readlink(ino)
	case unix.S_IFREG:
		e.Content, err = contents(v, ino, int(a.Size))
	case unix.S_IFDIR:
		e.Size = 0
		var entries []tree.Entry
		err = v.ReadDir(ino, 0, func(e tree.Entry) bool { entries = append(entries, e); return true })
		for _, child := range entries {
			if err == nil {
				err = collect(v, all, path+"/"+child.Name, child.Ino)
			}
		}
	}
	return err
}

func contents(v *vault.Vault, ino tree.Ino, size int) (string, error) {
	spans, err := v.Spans(ino, 0, size, nil)
	if err != nil {
		return "", err
	}
	var content []byte
	plain := make([]byte, vault.PlainSize)
	for _, s := range spans {
		if s.Hole {
			content = append(content, make([]byte, s.Len)...)
			continue
		}
		if _, err := v.LoadBlock(s.Block, plain); err != nil {
			return "", err
		}
		content = append(content, plain[s.At:s.At+s.Len]...)
	}
	return squeeze(content), nil
}
