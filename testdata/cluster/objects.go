package main

import (
	"bytes"
	"context"
	_ "embed"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
)

var (
	//go:embed manifests/storage.yaml
	storageObjects []byte
	//go:embed manifests/services.yaml
	serviceObjects string
	//go:embed manifests/probe.yaml
	probeObjects string
)

const snapshotModule = "github.com/kubernetes-csi/external-snapshotter/client/v8"

// applyAll makes the objects that every cluster has. The definitions of the
// snapshot kinds come first: a class of one cannot be made before its kind.
func (c *cluster) applyAll(ctx context.Context) (done string, err error) {
	services := fill(serviceObjects, "node", c.net.node[1].String(), "dns", dnsService,
		"s3", strconv.Itoa(s3Port), "rest", strconv.Itoa(restPort))
	rest := bytes.Join([][]byte{[]byte(services), storageObjects}, []byte("\n---\n"))
	goMod, err := os.ReadFile(filepath.Join(c.root, "go.mod"))
	if err != nil {
		return "", err
	}
	stamp := hashOf(append(rest, snapshotVersion(goMod)...))
	if old, err := os.ReadFile(c.path("objects")); err == nil && string(old) == stamp {
		return "", nil
	}
	kinds, err := c.snapshotKinds(ctx)
	if err != nil {
		return "", fmt.Errorf("read the snapshot kinds: %w", err)
	}
	if err := c.apply(ctx, kinds); err != nil {
		return "", fmt.Errorf("make the snapshot kinds: %w", err)
	}
	if _, err := c.kubectl(ctx, nil, "wait", "--for=condition=Established", "--timeout=30s", "customresourcedefinitions", "--all"); err != nil {
		return "", err
	}
	if err := c.apply(ctx, rest); err != nil {
		return "", fmt.Errorf("make classes and services: %w", err)
	}
	return "made objects", writeFile(c.path("objects"), []byte(stamp), 0o644)
}

// snapshotVersion is the line of the go.mod that decides which kinds there are.
func snapshotVersion(goMod []byte) string {
	for line := range strings.Lines(string(goMod)) {
		if strings.Contains(line, snapshotModule) {
			return strings.TrimSpace(line)
		}
	}
	return ""
}

// snapshotKinds are the custom resource definitions that come with the client
// module that the product uses.
func (c *cluster) snapshotKinds(ctx context.Context) ([]byte, error) {
	cmd := exec.CommandContext(ctx, "go", "list", "-m", "-f", "{{.Dir}}", snapshotModule)
	cmd.Dir = c.root
	dir, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("go list: %w", err)
	}
	files, err := filepath.Glob(filepath.Join(strings.TrimSpace(string(dir)), "config", "crd", "*.k8s.io_*.yaml"))
	if err != nil || len(files) == 0 {
		return nil, errors.Join(fmt.Errorf("no definitions in %s", dir), err)
	}
	var all [][]byte
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			return nil, err
		}
		all = append(all, text)
	}
	return bytes.Join(all, []byte("\n---\n")), nil
}

func (c *cluster) apply(ctx context.Context, objects []byte) error {
	_, err := c.kubectl(ctx, objects, "apply", "--server-side", "--force-conflicts", "-f", "-")
	return err
}

// kubectl runs the cluster's own kubectl as its admin and returns what it
// prints.
func (c *cluster) kubectl(ctx context.Context, stdin []byte, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, c.path("bin", "kubectl"), append([]string{"--kubeconfig=" + c.pki("admin.kubeconfig")}, args...)...)
	cmd.Stdin = bytes.NewReader(stdin)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("kubectl %s: %w\n%s", args[0], err, lastLines(stderr.String(), 10))
	}
	return stdout.String(), nil
}
