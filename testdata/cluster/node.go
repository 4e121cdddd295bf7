package main

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

func nodeName(node int) string { return "node-" + strconv.Itoa(node) }

// mountns is where the mount namespace of a node is held.
func (c *cluster) mountns(node int) string { return c.path("ns", nodeName(node)) }

//go:embed scripts/mounts.sh
var mountsScript string

// mount makes the mount namespaces of the nodes, and in them the pool of the
// CSI driver.
func (c *cluster) mount(ctx context.Context) (done string, err error) {
	for node := 1; node <= c.nodes; node++ {
		if c.made("mounts", node) && isNamespace(c.mountns(node)) {
			continue
		}
		if err := c.script(ctx, mountsScript, strconv.Itoa(node), c.id, c.mountns(node), c.path(nodeName(node))); err != nil {
			return "", fmt.Errorf("make mounts of node %d: %w", node, err)
		}
		if err := c.inside(ctx, node, "csi-btrfs", "pool", "--file", c.path("pool.img"), "--dir", c.path("pool")); err != nil {
			return "", fmt.Errorf("mount the storage on node %d: %w", node, err)
		}
		if err := c.setMade("mounts", node); err != nil {
			return "", err
		}
		done = "made mounts"
	}
	return done, nil
}

// inside runs a program of ours in the namespaces of a node.
func (c *cluster) inside(ctx context.Context, node int, program string, args ...string) error {
	args = append([]string{c.path("parts", program)}, args...)
	return runQuietly(exec.CommandContext(ctx, "nsenter", c.enter(node, args...)...))
}

// unmount takes the storage away, then the namespaces and with them every
// mount inside.
func (c *cluster) unmount(ctx context.Context) error {
	var errs []error
	for node := maxNodes; node > 0; node-- {
		pin := c.mountns(node)
		if isNamespace(pin) && c.made("mounts", node) {
			errs = append(errs, c.inside(ctx, node, "csi-btrfs", "pool", "--unmount", "--dir", c.path("pool")))
		}
		errs = append(errs, os.RemoveAll(c.madeFile("mounts", node)))
		for isNamespace(pin) {
			if err := syscall.Unmount(pin, syscall.MNT_DETACH); err != nil {
				return errors.Join(append(errs, fmt.Errorf("unmount %s: %w", pin, err))...)
			}
		}
	}
	return errors.Join(append(errs, c.unmountRest())...)
}

// unmountRest takes away what is mounted below the state directory outside of
// the nodes, the last mount first.
func (c *cluster) unmountRest() error {
	points, err := mountPoints(c.state)
	if err != nil {
		return err
	}
	for _, point := range slices.Backward(points) {
		if err := syscall.Unmount(point, syscall.MNT_DETACH); err != nil {
			return fmt.Errorf("unmount %s: %w", point, err)
		}
	}
	return nil
}

// mountPoints lists what is mounted at or below dir, in the order of mounting.
func mountPoints(dir string) ([]string, error) {
	table, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return nil, err
	}
	var points []string
	unescape := strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`)
	for line := range strings.Lines(string(table)) {
		fields := strings.Fields(line)
		point := unescape.Replace(fields[4])
		if point == dir || strings.HasPrefix(point, dir+"/") {
			points = append(points, point)
		}
	}
	return points, nil
}

// cgroups lists the roots of the cluster's pods, one for each hierarchy.
func (c *cluster) cgroups() []string {
	one, _ := filepath.Glob("/sys/fs/cgroup/backsnap-" + c.id)
	many, _ := filepath.Glob("/sys/fs/cgroup/*/backsnap-" + c.id)
	return append(one, many...)
}

// killAll ends every process that belongs to the cluster: those in the cgroups
// of its pods and those in the mount namespaces of its nodes, as the shims of
// containerd are.
func (c *cluster) killAll(ctx context.Context) error {
	return poll(ctx, 30*time.Second, func(context.Context) error {
		pids, err := c.members()
		if err != nil {
			return err
		}
		for _, pid := range pids {
			if err := syscall.Kill(pid, syscall.SIGKILL); err != nil && err != syscall.ESRCH {
				return fmt.Errorf("kill process %d: %w", pid, err)
			}
		}
		if len(pids) > 0 {
			return fmt.Errorf("kill processes %v: still there", pids)
		}
		return nil
	})
}

// members lists the processes of the cluster that are no zombies.
func (c *cluster) members() ([]int, error) {
	var pids []int
	for _, root := range c.cgroups() {
		err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
			if errors.Is(err, fs.ErrNotExist) {
				return nil
			}
			if err == nil && d.Name() == "cgroup.procs" {
				text, _ := os.ReadFile(path) // it may be gone by now
				for _, field := range strings.Fields(string(text)) {
					pid, _ := strconv.Atoi(field)
					pids = append(pids, pid)
				}
			}
			return err
		})
		if err != nil {
			return nil, err
		}
	}
	inside, err := c.residents()
	pids = append(pids, inside...)
	slices.Sort(pids)
	return slices.DeleteFunc(slices.Compact(pids), func(pid int) bool {
		_, err := identify(pid)
		return err != nil
	}), err
}

// residents lists the processes in the mount namespaces of the nodes.
func (c *cluster) residents() ([]int, error) {
	ours := map[uint64]bool{}
	for node := 1; node <= maxNodes; node++ {
		if info, err := os.Stat(c.mountns(node)); err == nil && isNamespace(c.mountns(node)) {
			ours[info.Sys().(*syscall.Stat_t).Ino] = true
		}
	}
	entries, err := os.ReadDir("/proc")
	if err != nil || len(ours) == 0 {
		return nil, err
	}
	var pids []int
	for _, entry := range entries {
		pid, err := strconv.Atoi(entry.Name())
		if err != nil {
			continue
		}
		info, err := os.Stat(fmt.Sprintf("/proc/%d/ns/mnt", pid))
		if err == nil && ours[info.Sys().(*syscall.Stat_t).Ino] {
			pids = append(pids, pid)
		}
	}
	return pids, nil
}

// removeCgroups removes the empty cgroups, the innermost first.
func (c *cluster) removeCgroups() error {
	for _, root := range c.cgroups() {
		var dirs []string
		err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
			if err == nil && d.IsDir() {
				dirs = append(dirs, path)
			}
			return err
		})
		if err != nil {
			return err
		}
		for _, dir := range slices.Backward(dirs) {
			if err := syscall.Rmdir(dir); err != nil {
				return fmt.Errorf("remove cgroup %s: %w", dir, err)
			}
		}
	}
	return nil
}
