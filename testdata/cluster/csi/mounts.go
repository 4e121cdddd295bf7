package main

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// mount is one line of /proc/self/mountinfo.
type mount struct {
	root     string // what of the file system is mounted: "/", or "/loop3" for a bind-mounted device
	point    string
	readOnly bool
	fsType   string
	source   string
}

// device is the loop device that m shows, as a file system or as a device
// node bound to a path; "" if it shows none.
func (m mount) device() string {
	if strings.HasPrefix(m.source, "/dev/loop") {
		return m.source
	}
	if base := filepath.Base(m.root); strings.HasPrefix(base, "loop") && isBlockDevice(m.point) {
		return "/dev/" + base
	}
	return ""
}

func isBlockDevice(path string) bool {
	var st unix.Stat_t
	return unix.Stat(path, &st) == nil && st.Mode&unix.S_IFMT == unix.S_IFBLK
}

// readMounts lists the mounts of this process, oldest first.
func readMounts() ([]mount, error) {
	f, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var mounts []mount
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		before, after, ok := strings.Cut(lines.Text(), " - ")
		left, right := strings.Fields(before), strings.Fields(after)
		if !ok || len(left) < 6 || len(right) < 2 {
			return nil, fmt.Errorf("read mountinfo: unknown line %q", lines.Text())
		}
		mounts = append(mounts, mount{
			root:     unescape.Replace(left[3]),
			point:    unescape.Replace(left[4]),
			readOnly: strings.HasPrefix(left[5]+",", "ro,"),
			fsType:   right[0],
			source:   unescape.Replace(right[1]),
		})
	}
	return mounts, lines.Err()
}

// unescape undoes what the kernel does to paths in mountinfo.
var unescape = strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`)

// mountAt returns what is mounted on top at path, and whether anything is.
func mountAt(path string) (mount, bool, error) {
	mounts, err := readMounts()
	if err != nil {
		return mount{}, false, err
	}
	for i := len(mounts) - 1; i >= 0; i-- {
		if mounts[i].point == path {
			return mounts[i], true, nil
		}
	}
	return mount{}, false, nil
}

// bind shows from at to in one step, so that a read-only bind is never seen
// writable.
func bind(from, to string, readOnly bool) error {
	tree, err := unix.OpenTree(unix.AT_FDCWD, from, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC)
	if err != nil {
		return fmt.Errorf("bind %s: open tree: %w", from, err)
	}
	defer unix.Close(tree)
	if readOnly {
		attr := &unix.MountAttr{Attr_set: unix.MOUNT_ATTR_RDONLY}
		if err := unix.MountSetattr(tree, "", unix.AT_EMPTY_PATH, attr); err != nil {
			return fmt.Errorf("bind %s: make read-only: %w", from, err)
		}
	}
	err = unix.MoveMount(tree, "", unix.AT_FDCWD, to, unix.MOVE_MOUNT_F_EMPTY_PATH)
	if err != nil {
		return fmt.Errorf("bind %s to %s: %w", from, to, err)
	}
	return nil
}

// unmount takes away all that is mounted at path. That nothing is, or that
// there is no such path, is no error.
func unmount(path string) error {
	for {
		err := unix.Unmount(path, unix.UMOUNT_NOFOLLOW)
		if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOENT) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("unmount %s: %w", path, err)
		}
	}
}

// run runs a program and puts the end of what it said into the error. The
// program dies with the driver: a mount that went on after a restart could meet
// a second one of the same image.
func run(name string, args ...string) error {
	runtime.LockOSThread() // the signal comes when the thread ends, not the process
	defer runtime.UnlockOSThread()
	cmd := exec.Command(name, args...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	out, err := cmd.CombinedOutput()
	if err != nil {
		return fmt.Errorf("run %s: %w: %s", name, err, strings.TrimSpace(tail(string(out), 500)))
	}
	return nil
}

func tail(s string, n int) string {
	return s[max(0, len(s)-n):]
}
