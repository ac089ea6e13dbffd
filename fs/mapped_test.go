package fs

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"strconv"
	"testing"

	"golang.org/x/sys/unix"
)

// childMapWrite maps the file args[1], "private" or "shared" as args[0] says, fills args[3] bytes from args[2] on with the byte args[4],
// and then does what args[5] says: "msync", "unmap" or "close" (the descriptor before the mapping). It prints what it sees.
func childMapWrite(args []string) error {
	flags := unix.MAP_PRIVATE
	if args[0] == "shared" {
		flags = unix.MAP_SHARED
	}
	off, err1 := strconv.Atoi(args[2])
	n, err2 := strconv.Atoi(args[3])
	fill, err3 := strconv.Atoi(args[4])
	if err := errors.Join(err1, err2, err3); err != nil {
		return err
	}
	fd, err := unix.Open(args[1], unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return err
	}
	b, err := unix.Mmap(fd, 0, int(st.Size), unix.PROT_READ|unix.PROT_WRITE, flags)
	if err != nil {
		return fmt.Errorf("mmap: %w", err)
	}
	if args[5] == "close" {
		unix.Close(fd)
	}
	copy(b[off:off+n], bytes.Repeat([]byte{byte(fill)}, n))
	fmt.Print(squeeze(b))
	if args[5] == "msync" {
		if err := unix.Msync(b, unix.MS_SYNC); err != nil {
			return fmt.Errorf("msync: %w", err)
		}
		// What is written by a descriptor meanwhile shows in the mapping.
		if _, err := unix.Pwrite(fd, []byte{1, 2, 3}, 0); err != nil {
			return err
		}
		if !bytes.Equal(b[:3], []byte{1, 2, 3}) {
			return fmt.Errorf("the mapping shows %v where 1, 2, 3 were written", b[:3])
		}
	}
	return unix.Munmap(b)
}

// TestMappedWrites: what is written through shared mappings is in the file, durable with msync(2), and what is written through private
// ones is not.
func TestMappedWrites(t *testing.T) {
	onMounts(t, func(t *testing.T, v *volume, m *mounted) {
		content := bytes.Repeat([]byte{9}, 200_000)
		for _, kind := range []string{"shared", "private"} {
			for _, end := range []string{"msync", "unmap", "close"} {
				must(t, os.WriteFile(m.path("f"), content, 0o644))
				want := append([]byte{}, content...)
				copy(want[5000:105_000], bytes.Repeat([]byte{7}, 100_000))
				if got := run(t, "mapwrite", kind, m.path("f"), "5000", "100000", "7", end); got != squeeze(want) {
					t.Errorf("%s, %s: the mapping shows %s, want %s", kind, end, got, squeeze(want))
				}
				if kind == "private" {
					want = content
				}
				if end == "msync" {
					want = append([]byte{1, 2, 3}, want[3:]...)
				}
				if got, err := os.ReadFile(m.path("f")); err != nil || !bytes.Equal(got, want) {
					t.Errorf("%s, %s: the file holds %s, want %s", kind, end, squeeze(got), squeeze(want))
				}
			}
		}
		must(t, os.WriteFile(m.path("g"), content, 0o644))
		run(t, "mapwrite", "shared", m.path("g"), "0", "200000", "8", "close")
		must(t, with(m.path("g"), unix.O_RDONLY, unix.Fsync))
		durable, err := v.durable("")
		must(t, err)
		if want := "08*200000 "; durable["/g"].Content != want {
			t.Errorf("durable is %s, want %s", durable["/g"].Content, want)
		}
	})
}

// childExec becomes the program args[0].
func childExec(args []string) error {
	os.Setenv(childVariable, "wait")
	return unix.Exec(args[0], args, os.Environ())
}

// TestExecOfWhatWasWritten writes a program and runs it; while it runs, nobody writes it. A process that serves a mount must not exec
// from it itself.
func TestExecOfWhatWasWritten(t *testing.T) {
	onMounts(t, func(t *testing.T, _ *volume, m *mounted) {
		program, err := os.ReadFile("/proc/self/exe")
		must(t, err)
		must(t, os.WriteFile(m.path("program"), program, 0o755))
		cmd := child("exec", m.path("program"))
		out, err := cmd.StdoutPipe()
		must(t, err)
		in, err := cmd.StdinPipe()
		must(t, err)
		runtime.LockOSThread() // Pdeathsig is sent when the thread ends
		defer runtime.UnlockOSThread()
		must(t, cmd.Start())
		b := make([]byte, 8)
		n, err := out.Read(b)
		if string(b[:n]) != "waiting\n" {
			t.Errorf("the program says %q, %v", b[:n], err)
		}
		wantErr(t, "writing to it", with(m.path("program"), unix.O_WRONLY, func(int) error { return nil }), unix.ETXTBSY)
		must(t, in.Close())
		must(t, cmd.Wait())
		must(t, with(m.path("program"), unix.O_WRONLY, func(int) error { return nil }))
	})
}

// childWait says that it waits, and does until its standard input ends.
func childWait([]string) error {
	fmt.Println("waiting")
	_, err := os.Stdin.Read(make([]byte, 1))
	if errors.Is(err, io.EOF) {
		return nil
	}
	return err
}

// TestLocks: the kernel keeps them, between descriptors and between processes.
func TestLocks(t *testing.T) {
	m := newVolume(t).mount(t, volumeOptions{})
	must(t, os.WriteFile(m.path("f"), nil, 0o644))
	a, err := unix.Open(m.path("f"), unix.O_RDWR|unix.O_CLOEXEC, 0)
	must(t, err)
	defer unix.Close(a)
	b, err := unix.Open(m.path("f"), unix.O_RDWR|unix.O_CLOEXEC, 0)
	must(t, err)
	defer unix.Close(b)
	must(t, unix.Flock(a, unix.LOCK_EX|unix.LOCK_NB))
	wantErr(t, "flock while another has it", unix.Flock(b, unix.LOCK_SH|unix.LOCK_NB), unix.EWOULDBLOCK)
	must(t, unix.Flock(a, unix.LOCK_UN))
	must(t, unix.Flock(b, unix.LOCK_SH|unix.LOCK_NB))
	lock := unix.Flock_t{Type: unix.F_WRLCK, Start: 10, Len: 10}
	must(t, unix.FcntlFlock(uintptr(a), unix.F_OFD_SETLK, &lock))
	overlapping := unix.Flock_t{Type: unix.F_RDLCK, Start: 15, Len: 1}
	wantErr(t, "a lock of what is locked", unix.FcntlFlock(uintptr(b), unix.F_OFD_SETLK, &overlapping), unix.EAGAIN)
	beside := unix.Flock_t{Type: unix.F_RDLCK, Start: 20, Len: 1}
	must(t, unix.FcntlFlock(uintptr(b), unix.F_OFD_SETLK, &beside))
}
