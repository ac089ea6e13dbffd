package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"syscall"

	"encfsrun/tests/bench/floor"
)

// mountFloor mounts the floor at a directory and returns when it answers; a child serves it till it is unmounted.
func mountFloor(mode, dir string) error {
	if mode != "off" && mode != "on" {
		return fmt.Errorf("page cache %q, want on or off", mode)
	}
	dev, err := floor.Mount(dir)
	if err != nil {
		return err
	}
	defer dev.Close()
	self, err := os.Executable()
	if err != nil {
		return err
	}
	cmd := exec.Command(self, "serve-floor", mode)
	cmd.ExtraFiles = []*os.File{dev}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	failed := make(chan error, 1)
	if err := cmd.Start(); err != nil {
		return errors.Join(err, syscall.Unmount(dir, syscall.MNT_DETACH))
	}
	go func() { failed <- cmd.Wait() }()
	answered := make(chan error, 1)
	go func() { _, err := os.Stat(dir); answered <- err }()
	select {
	case err = <-answered:
	case err = <-failed:
		err = fmt.Errorf("the floor does not serve: %w", err)
	}
	return err
}

// serveFloor is that child. It has the mount as its descriptor 3.
func serveFloor(mode string) error {
	syscall.Umask(0)
	dev := os.NewFile(3, "/dev/fuse")
	if dev == nil {
		return io.ErrUnexpectedEOF
	}
	return floor.Serve(dev, floor.New(mode == "on"))
}
