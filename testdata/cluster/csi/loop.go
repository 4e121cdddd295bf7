package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// maxOwner is the longest owner that a loop device can remember.
const maxOwner = 63

// attachLoop gives the file a loop device, with direct I/O where the file can,
// that remembers its owner. With autoclear the device goes when its last user
// does, and the returned file is its first user: a driver killed before the
// mount leaves nothing.
func attachLoop(file, owner string, autoclear bool) (*os.File, error) {
	backing, err := os.OpenFile(file, os.O_RDWR, 0)
	if err != nil {
		return nil, fmt.Errorf("attach loop: %w", err)
	}
	defer backing.Close()
	config := unix.LoopConfig{Fd: uint32(backing.Fd())}
	config.Info.Flags = unix.LO_FLAGS_DIRECT_IO
	copy(config.Info.File_name[:maxOwner], owner)
	if autoclear {
		config.Info.Flags |= unix.LO_FLAGS_AUTOCLEAR
	}
	for {
		device, err := freeLoop()
		if err != nil {
			return nil, fmt.Errorf("attach loop to %s: %w", file, err)
		}
		err = unix.IoctlLoopConfigure(int(device.Fd()), &config)
		if err == nil {
			return device, nil
		}
		device.Close()
		if !errors.Is(err, unix.EBUSY) { // EBUSY: somebody was faster, take the next
			return nil, fmt.Errorf("attach loop to %s: %w", file, err)
		}
	}
}

func freeLoop() (*os.File, error) {
	control, err := os.OpenFile("/dev/loop-control", os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	defer control.Close()
	n, err := unix.IoctlRetInt(int(control.Fd()), unix.LOOP_CTL_GET_FREE)
	if err != nil {
		return nil, fmt.Errorf("get free loop device: %w", err)
	}
	path := fmt.Sprintf("/dev/loop%d", n)
	// Where /dev is no devtmpfs nobody makes the node.
	err = unix.Mknod(path, unix.S_IFBLK|0o600, int(unix.Mkdev(7, uint32(n))))
	if err != nil && !errors.Is(err, unix.EEXIST) {
		return nil, fmt.Errorf("make %s: %w", path, err)
	}
	return os.OpenFile(path, os.O_RDWR, 0)
}

// ownerOf tells who attached the device; "" if it is free by now.
func ownerOf(device string) (string, error) {
	f, err := os.Open(device)
	if err != nil {
		return "", fmt.Errorf("read owner: %w", err)
	}
	defer f.Close()
	status, err := unix.IoctlLoopGetStatus64(int(f.Fd()))
	if errors.Is(err, unix.ENXIO) {
		return "", nil
	}
	if err != nil {
		return "", fmt.Errorf("read owner of %s: %w", device, err)
	}
	return unix.ByteSliceToString(status.File_name[:]), nil
}

// detachLoop frees the device if it still is that of file, at once or when its
// last user goes.
func detachLoop(device, file string) error {
	f, err := os.OpenFile(device, os.O_RDWR, 0)
	if err != nil {
		return fmt.Errorf("detach loop: %w", err)
	}
	defer f.Close()
	// Open, the device cannot be given to another file between look and leap.
	backing, err := backingFile(filepath.Base(device))
	if err != nil || backing != file {
		return err
	}
	if err := unix.IoctlSetInt(int(f.Fd()), unix.LOOP_CLR_FD, 0); err != nil {
		return fmt.Errorf("detach %s: %w", device, err)
	}
	return nil
}

// setReadOnly makes the device refuse writes, or take them again.
func setReadOnly(device string, readOnly bool) error {
	f, err := os.Open(device)
	if err != nil {
		return fmt.Errorf("set read-only: %w", err)
	}
	defer f.Close()
	value := 0
	if readOnly {
		value = 1
	}
	if err := unix.IoctlSetPointerInt(int(f.Fd()), unix.BLKROSET, value); err != nil {
		return fmt.Errorf("set %s read-only to %t: %w", device, readOnly, err)
	}
	return nil
}

// loopsOn lists the loop devices whose file is path or lies below it.
func loopsOn(path string) ([]string, error) {
	dirs, err := filepath.Glob("/sys/block/loop*")
	if err != nil {
		return nil, err
	}
	var devices []string
	for _, dir := range dirs {
		name := filepath.Base(dir)
		backing, err := backingFile(name)
		if err != nil {
			return nil, fmt.Errorf("list loop devices: %w", err)
		}
		if backing == path || strings.HasPrefix(backing, path+"/") {
			devices = append(devices, "/dev/"+name)
		}
	}
	return devices, nil
}

// backingFile is the file behind the loop device, as it was named when it was
// attached; "" if the device is free.
func backingFile(name string) (string, error) {
	text, err := os.ReadFile(filepath.Join("/sys/block", name, "loop/backing_file"))
	if errors.Is(err, os.ErrNotExist) || errors.Is(err, unix.ENXIO) || errors.Is(err, unix.ENODEV) {
		return "", nil
	}
	return strings.TrimSuffix(strings.TrimSuffix(string(text), "\n"), " (deleted)"), err
}

// mountsOf lists where the devices are mounted or bound, newest last.
func mountsOf(devices []string) ([]mount, error) {
	mounts, err := readMounts()
	if err != nil {
		return nil, err
	}
	wanted := map[string]bool{}
	for _, device := range devices {
		wanted[device] = true
	}
	var of []mount
	for _, m := range mounts {
		if wanted[m.device()] {
			of = append(of, m)
		}
	}
	return of, nil
}
