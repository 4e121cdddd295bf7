package main

import (
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// runPool is the subcommand that puts the pool up or away. It may be called
// again at any time and after being killed at any moment.
func runPool(args []string) error {
	flags := flag.NewFlagSet("csi-btrfs pool", flag.ExitOnError)
	file := flags.String("file", "", "the pool's `path`, made if there is none")
	size := flags.String("size", "20G", "`size` of a new pool; it takes only what is written")
	dir := flags.String("dir", "", "where to mount the pool, a `path`")
	down := flags.Bool("unmount", false, "unmount the pool, and before it every volume on it, wherever")
	flags.Parse(args)
	switch {
	case flags.NArg() > 0:
		return fmt.Errorf("unknown argument %q", flags.Arg(0))
	case *dir == "":
		return errors.New("give --dir")
	case *down:
		return unmountPool(*dir)
	case *file == "":
		return errors.New("give --file")
	}
	return mountPool(*file, *size, *dir)
}

func mountPool(file, size, dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	dir, err := filepath.EvalSymlinks(dir)
	if err != nil {
		return err
	}
	if dir, err = filepath.Abs(dir); err != nil {
		return err
	}
	m, mounted, err := mountAt(dir)
	if err != nil {
		return err
	}
	if mounted && m.fsType != "btrfs" {
		return fmt.Errorf("mount pool: %s holds a mount of %s", dir, m.fsType)
	}
	if mounted {
		return nil
	}
	if err := makePool(file, size); err != nil {
		return fmt.Errorf("make pool: %w", err)
	}
	device, err := poolDevice(file)
	if err != nil {
		return fmt.Errorf("mount pool: %w", err)
	}
	defer device.Close()
	// Images are disks: overwritten in place between cuts, checked by what is
	// on them.
	return run("mount", "-t", "btrfs", "-o", "noatime,nodatacow", device.Name(), dir)
}

// poolDevice is the loop device of the pool, held open. It is the same one for
// the mounts of all nodes: btrfs refuses the same file system on two devices.
func poolDevice(file string) (*os.File, error) {
	loops, err := loopsOn(file)
	if err != nil {
		return nil, err
	}
	for _, l := range loops {
		f, err := os.OpenFile(l.device, os.O_RDWR, 0)
		if err != nil {
			return nil, err
		}
		// Held open it cannot go any more; it may have gone just before.
		if _, is, err := describe(f, file); err == nil && is {
			return f, nil
		}
		f.Close()
	}
	return attachLoop(file, "pool", unix.LO_FLAGS_AUTOCLEAR)
}

func makePool(file, size string) error {
	_, err := os.Stat(file)
	if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
		return err
	}
	half := file + ".new" // if left by a killed call, made again
	if err := os.Remove(half); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := run("truncate", "-s", size, half); err != nil {
		return err
	}
	if err := run("mkfs.btrfs", "-q", "-m", "single", half); err != nil {
		return err
	}
	return os.Rename(half, file)
}

func unmountPool(dir string) error {
	dir, err := filepath.EvalSymlinks(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if dir, err = filepath.Abs(dir); err != nil {
		return err
	}
	if err := releaseVolumes(dir); err != nil {
		return fmt.Errorf("unmount pool: %w", err)
	}
	if err := unix.Unmount(dir, 0); err != nil && !errors.Is(err, unix.EINVAL) {
		return fmt.Errorf("unmount pool %s: %w", dir, err)
	}
	return nil
}

// releaseVolumes unmounts every volume of the pool at dir and detaches the
// volumes of all nodes. One that another node still uses goes when its last
// user does.
func releaseVolumes(dir string) error {
	images, err := filepath.Glob(filepath.Join(dir, "*", "volumes", "*", "image"))
	if err != nil {
		return err
	}
	attached, err := attachedFiles()
	if err != nil {
		return err
	}
	for _, name := range attached {
		if strings.HasPrefix(name, dir+"/") {
			images = append(images, name) // it may be deleted
		}
	}
	for _, image := range images {
		_, mounts, err := usesOf(image)
		if err != nil {
			return err
		}
		for _, m := range slices.Backward(mounts) {
			if err := detachAll(m.point); err != nil { // the kubelet puts loop devices on raw volumes
				return err
			}
			if err := unmount(m.point); err != nil {
				return err
			}
		}
		if err := detachAll(image); err != nil {
			return err
		}
	}
	return nil
}
