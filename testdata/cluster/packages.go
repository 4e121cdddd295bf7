package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
)

// packages are the Debian packages that hold the programs we call, or that the
// parts call.
var packages = map[string]string{
	"ip":         "iproute2",
	"iptables":   "iptables",
	"conntrack":  "conntrack",
	"runc":       "runc",
	"mkfs.btrfs": "btrfs-progs",
	"mkfs.ext4":  "e2fsprogs",
	"nsenter":    "util-linux",
}

// installPackages installs what the machine lacks.
func installPackages(ctx context.Context, cache string) (done string, err error) {
	var missing []string
	for program, name := range packages {
		if !installed(program) {
			missing = append(missing, name)
		}
	}
	if len(missing) == 0 {
		return "", nil
	}
	slices.Sort(missing)
	missing = slices.Compact(missing)
	if _, err := exec.LookPath("apt-get"); err != nil {
		return "", fmt.Errorf("install %s: this is no Debian; install them by hand", strings.Join(missing, " "))
	}
	// A folder for its temporary files that nothing else empties meanwhile.
	dir := filepath.Join(cache, "tmp")
	if err := os.MkdirAll(dir, 0o1777); err != nil {
		return "", err
	}
	for _, args := range [][]string{{"update"}, append([]string{"install", "--yes", "--no-install-recommends"}, missing...)} {
		cmd := exec.CommandContext(ctx, "apt-get", args...)
		cmd.Env = append(os.Environ(), "DEBIAN_FRONTEND=noninteractive", "TMPDIR="+dir)
		if err := runQuietly(cmd); err != nil {
			return "", fmt.Errorf("install %s: %w", strings.Join(missing, " "), err)
		}
	}
	return "installed " + strings.Join(missing, " "), nil
}

// installed looks where root's programs are, too.
func installed(program string) bool {
	if _, err := exec.LookPath(program); err == nil {
		return true
	}
	for _, dir := range []string{"/usr/sbin", "/sbin"} {
		if _, err := os.Stat(filepath.Join(dir, program)); err == nil {
			return true
		}
	}
	return false
}
