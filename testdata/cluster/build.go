package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"time"
)

// module is a nested module that builds parts of the cluster. Each has its own
// go.sum, so that the product's go.mod stays clean.
type module struct {
	dir      string   // below testdata/cluster, and its name
	pkg      string   // what to build: "tool" is every tool of its go.mod
	tags     string   // build tags
	ldflags  string   // besides the usual ones
	programs []string // what it gives
	names    []string // other names of its one program
}

// modules are in the order in which they are built: images need restic.
var modules = []module{
	{dir: "restic", pkg: "tool", tags: "disable_grpc_modules", programs: []string{"restic"}}, // as its releases are built
	{dir: "csi", pkg: ".", programs: []string{"csi-btrfs"}},
	{dir: "cni", pkg: "tool", programs: []string{"bridge", "host-local", "loopback"}},
	{dir: "etcd", pkg: "tool", programs: []string{"etcd"}},
	{
		dir: "containerd", pkg: "tool", tags: "no_btrfs no_devmapper no_zfs",
		ldflags:  "-X github.com/containerd/containerd/v2/version.Version=v2.4.2",
		programs: []string{"containerd", "containerd-shim-runc-v2", "ctr"},
	},
	{
		dir: "kubernetes", pkg: ".", programs: []string{"kubernetes"},
		ldflags: "-X k8s.io/component-base/version.gitVersion=v1.36.3 -X k8s.io/component-base/version.gitMajor=1 -X k8s.io/component-base/version.gitMinor=36",
		names:   []string{"kube-apiserver", "kube-controller-manager", "kube-scheduler", "kube-proxy", "kubelet", "kubectl"},
	},
	{dir: "snapshotter", pkg: "tool", programs: []string{"csi-snapshotter", "snapshot-controller"}},
	{dir: "provisioner", pkg: "tool", programs: []string{"csi-provisioner"}},
	{dir: "coredns", pkg: ".", programs: []string{"coredns"}},
	{dir: "restserver", pkg: "tool", programs: []string{"rest-server"}},
	{dir: "versitygw", pkg: "tool", programs: []string{"versitygw"}},
}

func (m module) args(out string) []string {
	if len(m.programs) == 1 {
		out = filepath.Join(out, m.programs[0])
	} else {
		out += string(filepath.Separator)
	}
	return []string{
		"build", "-trimpath", "-buildvcs=false", "-tags=" + m.tags,
		"-ldflags=" + strings.TrimSpace("-s -w "+m.ldflags), "-o", out, m.pkg,
	}
}

// buildEnv makes a build depend on nothing but the module and the Go version:
// static programs also where there is a C compiler.
var buildEnv = []string{"CGO_ENABLED=0", "GOWORK=off", "GOFLAGS="}

// key names the content of what m builds from: its files, the flags, the
// toolchain. Tests and documents do not count.
func (m module) key(dir, goVersion string) (string, error) {
	sum := sha256.New()
	fmt.Fprintf(sum, "%q %q %q %q\n", goVersion, m.args(""), m.programs, buildEnv)
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || strings.HasSuffix(path, "_test.go") || strings.HasSuffix(path, ".md") {
			return err
		}
		text, err := os.ReadFile(path)
		name, _ := filepath.Rel(dir, path)
		fmt.Fprintf(sum, "%q %d\n%s\n", filepath.ToSlash(name), len(text), text)
		return err
	})
	return hex.EncodeToString(sum.Sum(nil)[:12]), err
}

// build leaves the programs of m in the cache and returns their folder. done
// is empty if they were there.
func (c *cluster) build(ctx context.Context, m module) (out, done string, err error) {
	source := filepath.Join(c.root, "testdata", "cluster", m.dir)
	key, err := m.key(source, runtime.Version()+" "+runtime.GOOS+"/"+runtime.GOARCH)
	if err != nil {
		return "", "", fmt.Errorf("read %s: %w", m.dir, err)
	}
	out = filepath.Join(c.cache, "bin", m.dir+"-"+key)
	if _, err := os.Stat(out); err == nil {
		return out, "", nil
	}
	c.progress.say("building %s", m.dir)
	if err := c.compile(ctx, m, source, out); err != nil {
		return "", "", fmt.Errorf("build %s: %w", m.dir, err)
	}
	return out, "built " + m.dir, nil
}

// compile builds aside and renames, so that what is in the cache is whole.
func (c *cluster) compile(ctx context.Context, m module, source, out string) error {
	if err := os.MkdirAll(filepath.Dir(out), 0o755); err != nil {
		return err
	}
	part, err := os.MkdirTemp(filepath.Dir(out), ".part-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(part)
	if err := os.Chmod(part, 0o755); err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, "go", m.args(part)...)
	cmd.Dir, cmd.Env = source, append(os.Environ(), buildEnv...)
	if err := runQuietly(cmd); err != nil {
		return err
	}
	for _, name := range m.programs {
		if _, err := os.Stat(filepath.Join(part, name)); err != nil {
			return err
		}
	}
	err = os.Rename(part, out)
	if _, missing := os.Stat(out); missing == nil {
		return nil // another run was faster
	}
	return err
}

// publish makes the programs of m, built in out, known by their names: kubectl in
// bin, which users put on their PATH, everything in parts.
func (c *cluster) publish(m module, out string) error {
	program := func(name string) string { return name }
	names := m.programs
	if len(m.names) > 0 {
		names, program = m.names, func(string) string { return m.programs[0] }
	}
	for _, name := range names {
		target := filepath.Join(out, program(name))
		if err := symlink(target, c.path("parts", name)); err != nil {
			return err
		}
	}
	if m.dir == "kubernetes" {
		return symlink(filepath.Join(out, m.programs[0]), c.path("bin", "kubectl"))
	}
	return nil
}

func symlink(target, path string) error {
	if old, err := os.Readlink(path); err == nil && old == target {
		return nil
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	part := path + ".part"
	if err := os.RemoveAll(part); err != nil {
		return err
	}
	if err := os.Symlink(target, part); err != nil {
		return err
	}
	return os.Rename(part, path)
}

// runQuietly runs cmd and shows its output only as part of the error.
func runQuietly(cmd *exec.Cmd) error {
	var output bytes.Buffer
	cmd.Stdout, cmd.Stderr = &output, &output
	cmd.WaitDelay = time.Second
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("%s: %w\n%s", filepath.Base(cmd.Path), err, lastLines(output.String(), 20))
	}
	return nil
}

// lastLines is the end of text, with each line moved to the right.
func lastLines(text string, n int) string {
	lines := strings.Split(strings.TrimRight(text, "\n"), "\n")
	lines = lines[max(0, len(lines)-n):]
	return "    " + strings.Join(lines, "\n    ")
}

// tail is the end of the file at path, for an error message.
func tail(path string) string {
	f, err := os.Open(path)
	if err != nil {
		return "    " + err.Error()
	}
	defer f.Close()
	if info, err := f.Stat(); err == nil && info.Size() > 16<<10 {
		f.Seek(-16<<10, io.SeekEnd)
	}
	text, err := io.ReadAll(f)
	if err != nil {
		return "    " + err.Error()
	}
	return lastLines(string(text), 15)
}
