package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// maxOwner is the longest owner that a loop device can remember.
const maxOwner = 63

// attachLoop gives the file a loop device, with direct I/O where the file can,
// that remembers its owner. LO_FLAGS_READ_ONLY makes one that refuses writes.
// With LO_FLAGS_AUTOCLEAR the device goes when its last user does, and the
// returned file is its first user: a driver killed before the mount leaves
// nothing.
func attachLoop(file, owner string, flags uint32) (*os.File, error) {
	mode := os.O_RDWR
	if flags&unix.LO_FLAGS_READ_ONLY != 0 {
		mode = os.O_RDONLY
	}
	backing, err := os.OpenFile(file, mode, 0)
	if err != nil {
		return nil, fmt.Errorf("attach loop: %w", err)
	}
	defer backing.Close()
	config := unix.LoopConfig{Fd: uint32(backing.Fd())}
	config.Info.Flags = flags | unix.LO_FLAGS_DIRECT_IO
	copy(config.Info.File_name[:maxOwner], owner)
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

// loop is an attached loop device.
type loop struct{ device, owner string }

// loopsOn lists the loop devices of file, which may be deleted.
func loopsOn(file string) ([]loop, error) {
	attached, err := attachedFiles()
	if err != nil {
		return nil, err
	}
	var loops []loop
	for device, name := range attached {
		if !mayBe(name, file) {
			continue
		}
		f, err := os.OpenFile(device, os.O_RDONLY, 0)
		if err != nil {
			return nil, fmt.Errorf("list loop devices: %w", err)
		}
		owner, is, err := describe(f, file)
		f.Close()
		if err != nil {
			return nil, err
		}
		if is {
			loops = append(loops, loop{device, owner})
		}
	}
	return loops, nil
}

// attachedFiles maps the loop devices in use to what the kernel calls their
// files. It is only the end of the path if the mount namespace in which the
// file was opened is gone.
func attachedFiles() (map[string]string, error) {
	entries, err := filepath.Glob("/sys/block/loop*/loop/backing_file")
	if err != nil {
		return nil, err
	}
	names := map[string]string{}
	for _, entry := range entries {
		if name, err := os.ReadFile(entry); err == nil { // else detached since
			device := "/dev/" + strings.Split(entry, "/")[3]
			names[device] = strings.TrimSuffix(strings.TrimSpace(string(name)), " (deleted)")
		}
	}
	return names, nil
}

// mayBe reports whether the kernel's name of a file looks like path. To open
// all devices instead and ask them would delay their end, since the last one
// that closes an autoclear device frees it.
func mayBe(name, path string) bool {
	return filepath.Base(name) == filepath.Base(path) &&
		filepath.Base(filepath.Dir(name)) == filepath.Base(filepath.Dir(path))
}

// describe tells who attached the open device and whether it is one of file.
func describe(device *os.File, file string) (owner string, is bool, err error) {
	status, err := unix.IoctlLoopGetStatus64(int(device.Fd()))
	if errors.Is(err, unix.ENXIO) {
		return "", false, nil // detached since
	}
	if err != nil {
		return "", false, fmt.Errorf("ask %s for its file: %w", device.Name(), err)
	}
	owner = unix.ByteSliceToString(status.File_name[:])
	var st unix.Stat_t
	switch err := unix.Stat(file, &st); {
	case errors.Is(err, unix.ENOENT):
		attached, err := attachedFiles()
		return owner, attached[device.Name()] == file, err
	case err != nil:
		return "", false, fmt.Errorf("stat %s: %w", file, err)
	}
	return owner, status.Device == st.Dev && status.Inode == st.Ino, nil
}

// detachLoop frees the device if it still is one of file, at once or when its
// last user goes.
func detachLoop(device, file string) error {
	f, err := os.OpenFile(device, os.O_RDWR, 0)
	if err != nil {
		return fmt.Errorf("detach loop: %w", err)
	}
	defer f.Close()
	// Open, the device cannot be given to another file between look and leap.
	_, is, err := describe(f, file)
	if err != nil || !is {
		return err
	}
	if err := unix.IoctlSetInt(int(f.Fd()), unix.LOOP_CLR_FD, 0); err != nil {
		return fmt.Errorf("detach %s: %w", device, err)
	}
	return nil
}

// detachAll frees the loop devices of file.
func detachAll(file string) error {
	loops, err := loopsOn(file)
	if err != nil {
		return err
	}
	for _, l := range loops {
		if err := detachLoop(l.device, file); err != nil {
			return err
		}
	}
	return nil
}

// mountsOf lists where the devices are mounted or bound, newest last.
func mountsOf(loops []loop) ([]mount, error) {
	mounts, err := readMounts()
	if err != nil {
		return nil, err
	}
	return slices.DeleteFunc(mounts, func(m mount) bool {
		device := m.device()
		return !slices.ContainsFunc(loops, func(l loop) bool { return l.device == device })
	}), nil
}
