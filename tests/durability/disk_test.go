package durability

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

// disk is a file system of a test's own, mounted at dir, on which a subject keeps what it keeps.
type disk struct {
	t      *testing.T
	dir    string
	device string   // of an ext4: its loop device
	loop   *os.File // keeps the device while nothing is mounted; the kernel clears it after the last close
}

// The image of an ext4 has holes: only what is written takes room.
const ext4Size = 512 << 20

// newExt4 makes an ext4 of a size in bytes on a loop device. Its power can be cut.
func newExt4(t *testing.T, size int64) *disk {
	t.Helper()
	folder := t.TempDir()
	image := filepath.Join(folder, "image")
	must(t, os.WriteFile(image, nil, 0o600))
	must(t, os.Truncate(image, size))
	if out, err := exec.Command("/sbin/mkfs.ext4", "-q", "-F", "-E", "lazy_itable_init=0", image).CombinedOutput(); err != nil {
		t.Fatalf("mkfs.ext4: %v: %s", err, bytes.TrimSpace(out))
	}
	d := &disk{t: t, dir: filepath.Join(folder, "disk")}
	must(t, os.Mkdir(d.dir, 0o755))
	var err error
	d.loop, err = attachLoop(image)
	must(t, err)
	d.device = d.loop.Name()
	t.Cleanup(func() {
		d.remove()
		d.loop.Close()
	})
	d.mount()
	return d
}

// newTmpfs makes a disk of a size in bytes that has no power to cut.
func newTmpfs(t *testing.T, size int64) *disk {
	t.Helper()
	d := &disk{t: t, dir: t.TempDir()}
	must(t, unix.Mount("none", d.dir, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, fmt.Sprintf("size=%d,mode=0755", size)))
	t.Cleanup(d.remove)
	return d
}

// remove unmounts, also what somebody still holds.
func (d *disk) remove() {
	if err := unix.Unmount(d.dir, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW); err != nil && err != unix.EINVAL {
		d.t.Errorf("unmounting %s: %v", d.dir, err)
	}
}

func (d *disk) path(name string) string { return filepath.Join(d.dir, name) }

func (d *disk) mount() {
	d.t.Helper()
	if err := unix.Mount(d.device, d.dir, "ext4", 0, ""); err != nil {
		d.t.Fatalf("mounting %s: %v", d.device, err)
	}
}

const (
	ext4IocShutdown     = 0x8004587d // _IOR('X', 125, __u32), fs/ext4/ext4.h
	ext4GoingNoLogFlush = 2          // EXT4_GOING_FLAGS_NOLOGFLUSH: the journal's buffer goes too
)

// cut cuts the power: from now on nothing reaches the device, and what had not is gone.
func (d *disk) cut() {
	d.t.Helper()
	dir, err := os.Open(d.dir)
	must(d.t, err)
	defer dir.Close()
	flags := uint32(ext4GoingNoLogFlush)
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, dir.Fd(), ext4IocShutdown, uintptr(unsafe.Pointer(&flags))); errno != 0 {
		d.t.Fatalf("cutting the power of %s: %v", d.dir, errno)
	}
}

// powerOn mounts the disk again after a cut: the journal is replayed. Nobody may hold a file of it.
func (d *disk) powerOn() {
	d.t.Helper()
	if err := unix.Unmount(d.dir, unix.UMOUNT_NOFOLLOW); err != nil {
		d.t.Fatalf("unmounting %s after the cut: %v", d.dir, err)
	}
	d.mount()
}

// sync writes everything to the device.
func (d *disk) sync() {
	d.t.Helper()
	must(d.t, syncfs(d.dir))
}

// load puts something useless of a size in bytes on the disk; unload makes room again.
func (d *disk) load(size int64) {
	d.t.Helper()
	f, err := os.Create(d.path("ballast"))
	must(d.t, err)
	must(d.t, errors.Join(unix.Fallocate(int(f.Fd()), 0, 0, size), f.Sync(), f.Close()))
}

func (d *disk) unload() {
	d.t.Helper()
	must(d.t, os.Remove(d.path("ballast")))
}

// attachLoop makes a block device of a file. It goes when it is neither open nor mounted.
func attachLoop(image string) (*os.File, error) {
	file, err := os.OpenFile(image, os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	control, err := os.OpenFile("/dev/loop-control", os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	defer control.Close()
	for {
		n, err := unix.IoctlRetInt(int(control.Fd()), unix.LOOP_CTL_GET_FREE)
		if err != nil {
			return nil, fmt.Errorf("a free loop device: %w", err)
		}
		loop, err := os.OpenFile(fmt.Sprintf("/dev/loop%d", n), os.O_RDWR, 0)
		if err != nil {
			return nil, err
		}
		config := unix.LoopConfig{Fd: uint32(file.Fd()), Info: unix.LoopInfo64{Flags: unix.LO_FLAGS_AUTOCLEAR}}
		if err = unix.IoctlLoopConfigure(int(loop.Fd()), &config); err == nil {
			return loop, nil
		}
		loop.Close()
		if err != unix.EBUSY { // somebody was faster
			return nil, fmt.Errorf("%s: %w", loop.Name(), err)
		}
	}
}
