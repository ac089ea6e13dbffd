package fs

import (
	"crypto/sha256"
	"fmt"
	"strconv"
	"time"

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

// childHog wants a processor until it is killed.
func childHog([]string) error {
	sum := sha256.Sum256(nil)
	for {
		sum = sha256.Sum256(sum[:])
	}
}

// childClient does what args[0] says args[2] times on the mount args[1], and prints how long that took.
func childClient(args []string) error {
	n, err := strconv.Atoi(args[2])
	if err != nil {
		return err
	}
	large, err := unix.Open(args[1]+"/large", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	buf := make([]byte, 1<<20)
	reader := func(size int) func(i int) error {
		return func(i int) error {
			got, err := unix.Pread(large, buf[:size], int64(i)*int64(size)%(8<<20-int64(size)))
			if err == nil && got != size {
				err = fmt.Errorf("read %d of %d bytes", got, size)
			}
			return err
		}
	}
	module := func(int) error { return readModule(args[1]+"/module", buf) }
	do, found := map[string]func(i int) error{
		"read-4K": reader(4 << 10), "read-128K": reader(128 << 10), "read-1M": reader(1 << 20), "module": module,
		"ioctl": func(int) error {
			if _, err := unix.IoctlGetTermios(large, unix.TCGETS); err != unix.ENOTTY {
				return fmt.Errorf("ioctl: %v", err)
			}
			return nil
		},
		"open": func(int) error {
			fd, err := unix.Open(args[1]+"/module", unix.O_RDONLY|unix.O_CLOEXEC, 0)
			if err != nil {
				return err
			}
			return unix.Close(fd)
		},
	}[args[0]]
	if !found {
		return fmt.Errorf("nobody knows how to %q", args[0])
	}
	began := time.Now()
	for i := range n {
		if err := do(i); err != nil {
			return err
		}
	}
	fmt.Print(time.Since(began))
	return nil
}

// readModule reads a file as Python reads a module.
func readModule(path string, buf []byte) error {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return err
	}
	if _, err := unix.IoctlGetTermios(fd, unix.TCGETS); err != unix.ENOTTY {
		return fmt.Errorf("ioctl: %v", err)
	}
	for {
		n, err := unix.Read(fd, buf[:st.Size+1])
		if n <= 0 {
			return err
		}
	}
}
