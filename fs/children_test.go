package fs

import (
	"crypto/sha256"
	"fmt"

	"golang.org/x/sys/unix"
)

// childMmap maps the file args[1], "private" or "shared" as args[0] says, and prints the hash of what it sees.
func childMmap(args []string) error {
	flags := unix.MAP_PRIVATE
	if args[0] == "shared" {
		flags = unix.MAP_SHARED
	}
	fd, err := unix.Open(args[1], unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return err
	}
	b, err := unix.Mmap(fd, 0, int(st.Size), unix.PROT_READ, flags)
	if err != nil {
		return fmt.Errorf("mmap: %w", err)
	}
	unix.Close(fd)
	fmt.Printf("%x", sha256.Sum256(b))
	return unix.Munmap(b)
}

// childServe mounts a tree at args[0] and serves it; looking up "panic" in it is a panic.
func childServe(args []string) error {
	m := newModel()
	m.lookup = func(name string) {
		if name == "panic" {
			panic("the handler fails")
		}
	}
	cache, err := newCache(m, 16<<20)
	if err != nil {
		return err
	}
	dev, err := openMount(args[0], maxRead, restricted, "")
	if err != nil {
		return err
	}
	s, err := NewServer(dev, New(m, cache, Options{}), maxRead)
	if err != nil {
		return err
	}
	fmt.Println("serving")
	s.Serve()
	return nil
}
