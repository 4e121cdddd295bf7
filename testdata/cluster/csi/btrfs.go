package main

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Numbers and layouts of linux/btrfs.h. Going past the btrfs command makes a
// cut one system call, so a killed driver leaves either all of it or nothing.
const (
	ioctlSubvolCreate  = 0x5000940e // _IOW(0x94, 14, subvolArgs)
	ioctlSubvolDestroy = 0x5000940f // _IOW(0x94, 15, subvolArgs)
	ioctlSnapCreate    = 0x50009417 // _IOW(0x94, 23, snapArgs)
	ioctlSubvolInfo    = 0x81f8943c // _IOR(0x94, 60, subvolInfo)

	snapReadOnly = 1 << 1
)

type subvolArgs struct {
	_    int64
	name [4088]byte
}

type snapArgs struct {
	fd    int64
	_     uint64
	flags uint64
	_     [4]uint64
	name  [4040]byte
}

type subvolTime struct {
	sec  uint64
	nsec uint32
	_    uint32
}

type subvolInfo struct {
	_          uint64
	_          [256]byte
	_          [4]uint64
	uuid       [16]byte
	parentUUID [16]byte
	_          [16]byte
	_          [4]uint64
	_          subvolTime
	created    subvolTime
	_          [2]subvolTime
	_          [8]uint64
}

func (i subvolInfo) createdAt() time.Time {
	return time.Unix(int64(i.created.sec), int64(i.created.nsec)).UTC()
}

func createSubvolume(path string) error {
	var args subvolArgs
	copy(args.name[:len(args.name)-1], filepath.Base(path))
	err := ioctl(filepath.Dir(path), ioctlSubvolCreate, unsafe.Pointer(&args))
	if err != nil {
		return fmt.Errorf("create subvolume %s: %w", path, err)
	}
	return nil
}

// deleteSubvolume removes a subvolume and what is in it. That there is none
// is no error.
func deleteSubvolume(path string) error {
	var args subvolArgs
	copy(args.name[:len(args.name)-1], filepath.Base(path))
	err := ioctl(filepath.Dir(path), ioctlSubvolDestroy, unsafe.Pointer(&args))
	if err != nil && err != unix.ENOENT {
		return fmt.Errorf("delete subvolume %s: %w", path, err)
	}
	return nil
}

// snapshotSubvolume makes to a copy of the subvolume from as it is at one
// instant, in one transaction of the file system.
func snapshotSubvolume(from, to string, readOnly bool) error {
	source, err := os.Open(from)
	if err != nil {
		return fmt.Errorf("open subvolume: %w", err)
	}
	defer source.Close()
	args := snapArgs{fd: int64(source.Fd())}
	if readOnly {
		args.flags = snapReadOnly
	}
	copy(args.name[:len(args.name)-1], filepath.Base(to))
	if err := ioctl(filepath.Dir(to), ioctlSnapCreate, unsafe.Pointer(&args)); err != nil {
		return fmt.Errorf("snapshot subvolume %s to %s: %w", from, to, err)
	}
	return nil
}

func readSubvolume(path string) (subvolInfo, error) {
	var info subvolInfo
	if err := ioctl(path, ioctlSubvolInfo, unsafe.Pointer(&info)); err != nil {
		return subvolInfo{}, fmt.Errorf("read subvolume %s: %w", path, err)
	}
	return info, nil
}

// isCutOf reports whether the snapshot was made of the subvolume source.
func (i subvolInfo) isCutOf(source subvolInfo) bool {
	return bytes.Equal(i.parentUUID[:], source.uuid[:])
}

func ioctl(dir string, request uintptr, arg unsafe.Pointer) error {
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer f.Close()
	if _, _, errno := syscall.Syscall(syscall.SYS_IOCTL, f.Fd(), request, uintptr(arg)); errno != 0 {
		return errno
	}
	return nil
}
