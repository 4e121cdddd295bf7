package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/backsnap/kubectl-backsnap/testdata/cluster/images"
)

// up brings the cluster from whatever state it is in to a usable one.
func (c *cluster) up(ctx context.Context, nodes int) (err error) {
	if os.Geteuid() != 0 {
		return errors.New("start the cluster: it needs root, for namespaces and mounts")
	}
	unlock, err := c.lock(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, unlock()) }()
	if err := c.reshape(nodes); err != nil {
		return err
	}
	if err := c.progress.step(func() (string, error) { return installPackages(ctx, c.cache) }); err != nil {
		return err
	}
	built, err := c.buildAll(ctx)
	if err != nil {
		return err
	}
	changed, err := c.startAll(ctx, built)
	if err != nil {
		return err
	}
	if err := c.check(ctx, changed); err != nil {
		return err
	}
	done := "up"
	if !changed {
		done = "already up"
	}
	c.progress.say("%s: %s", done, c.state)
	return nil
}

// reshape settles how many nodes there are: a cluster can grow, not shrink.
func (c *cluster) reshape(nodes int) error {
	if nodes == 0 {
		nodes = max(1, c.nodes)
	}
	if nodes > maxNodes {
		return fmt.Errorf("make %d nodes: there are addresses for %d", nodes, maxNodes)
	}
	if nodes < c.nodes {
		return fmt.Errorf("make %d nodes of %d: wipe the cluster first", nodes, c.nodes)
	}
	if nodes == c.nodes {
		return nil
	}
	c.nodes = nodes
	return writeJSON(c.path("cluster.json"), shape{Nodes: nodes})
}

// buildAll builds what is not in the cache: the images, which wait for Debian's
// mirror, beside the programs, which wait for the processor. When one fails the
// other is given up.
func (c *cluster) buildAll(ctx context.Context) ([]images.Image, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	if err := c.buildModules(ctx, modules[:1]); err != nil {
		return nil, err
	}
	var built []images.Image
	pictures := make(chan error, 1)
	go func() {
		var err error
		if built, err = c.buildImages(ctx); err != nil {
			cancel()
		}
		pictures <- err
	}()
	err := c.buildModules(ctx, modules[1:])
	if err != nil {
		cancel()
	}
	err = errors.Join(err, <-pictures)
	return built, err
}

func (c *cluster) buildModules(ctx context.Context, all []module) error {
	for _, m := range all {
		err := c.progress.step(func() (string, error) {
			out, done, err := c.build(ctx, m)
			if err != nil {
				return "", err
			}
			return done, c.publish(m, out)
		})
		if err != nil {
			return err
		}
	}
	return nil
}

func (c *cluster) buildImages(ctx context.Context) ([]images.Image, error) {
	restic, err := os.Readlink(c.path("parts", "restic"))
	if err != nil {
		return nil, err
	}
	built, err := images.Build(ctx, images.Options{Cache: c.cache, Restic: restic, Log: lines{c.progress}})
	if err != nil {
		return nil, fmt.Errorf("build images: %w", err)
	}
	return built, nil
}

// lines hands each line written to it to the progress.
type lines struct{ to *progress }

func (l lines) Write(text []byte) (int, error) {
	for line := range strings.Lines(string(text)) {
		l.to.say("%s", strings.TrimSpace(line))
	}
	return len(text), nil
}

// startAll makes what the cluster lacks: nodes, processes, images, objects.
func (c *cluster) startAll(ctx context.Context, built []images.Image) (changed bool, err error) {
	if !c.intact() || c.interrupted() {
		if err := c.stop(ctx); err != nil {
			return false, err
		}
	}
	for _, dir := range []string{"s3", "rest", "etcd", "pool", "run", "log"} {
		if err := os.MkdirAll(c.path(dir), 0o700); err != nil {
			return false, err
		}
	}
	changed, err = c.progress.steps(
		c.issue,
		func() (string, error) { return c.connect(ctx) },
		func() (string, error) { return c.mount(ctx) },
		func() (string, error) { return c.startParts(ctx, "containerd", c.runtimes()) },
	)
	if err != nil {
		return changed, err
	}
	// Unpacking images takes longer than all else and needs containerd only.
	var loaded bool
	pictures := make(chan error, 1)
	go func() {
		var err error
		loaded, err = c.progress.steps(func() (string, error) { return c.loadAll(ctx, built) })
		pictures <- err
	}()
	started, err := c.progress.steps(
		func() (string, error) { return c.startParts(ctx, "the control plane", c.foundation()) },
		// Before csi-provisioner starts: if it does not find the snapshot kinds
		// then, it never lets go of snapshots whose clone failed.
		func() (string, error) { return c.applyAll(ctx) },
		func() (string, error) { return c.startParts(ctx, "all others", c.others()) },
	)
	err = errors.Join(err, <-pictures)
	return changed || started || loaded, err
}

// intact tells whether each node has all of its namespaces, made whole in this
// boot, or none, and none is there without the first. Parts that live in
// namespaces of which one is lost serve nobody.
func (c *cluster) intact() bool {
	var whole, none [maxNodes + 1]bool
	for node := 1; node <= maxNodes; node++ {
		network, mounts := isNamespace(c.netns(node)), isNamespace(c.mountns(node))
		whole[node] = network && mounts && c.made("network", node) && c.made("mounts", node)
		none[node] = !network && !mounts
		if !whole[node] && !none[node] {
			return false
		}
	}
	return !none[1] || none[2]
}

// interrupted tells whether an earlier run was killed after starting a part and
// before writing it down: it may live, and nobody knows its pid.
func (c *cluster) interrupted() bool {
	for _, p := range c.allParts() {
		var id process
		if readJSON(c.pidFile(p.name), &id) == nil && id == (process{}) {
			return true
		}
	}
	return false
}

// startParts starts those of parts that do not run, in order, and waits until
// each is ready.
func (c *cluster) startParts(ctx context.Context, what string, parts []part) (done string, err error) {
	var names []string
	for _, p := range parts {
		started, err := c.start(ctx, p)
		if err != nil {
			return "", err
		}
		if started {
			names = append(names, p.name)
		}
	}
	for _, p := range parts {
		if err := c.await(ctx, p, 3*time.Minute); err != nil {
			return "", err
		}
	}
	switch len(names) {
	case 0:
		return "", nil
	case len(parts):
		return "started " + what, nil
	}
	return "started " + strings.Join(names, ", "), nil
}

// loadAll imports the images that a node has not had yet.
func (c *cluster) loadAll(ctx context.Context, built []images.Image) (done string, err error) {
	for node := 1; node <= c.nodes; node++ {
		stamp := c.path(nodeName(node), "images.json")
		var had []string
		if err := readJSON(stamp, &had); err != nil && !errors.Is(err, os.ErrNotExist) {
			return "", err
		}
		for _, image := range built {
			if slices.Contains(had, image.Tar) {
				continue
			}
			if err := c.importImage(ctx, node, image.Tar); err != nil {
				return "", err
			}
			had = append(had, image.Tar)
			if err := writeJSON(stamp, had); err != nil {
				return "", err
			}
			done = "loaded images"
		}
	}
	return done, nil
}

func (c *cluster) importImage(ctx context.Context, node int, tar string) error {
	if err := c.ctr(ctx, node, "images", "import", tar); err != nil {
		return fmt.Errorf("load %s on %s: %w", tar, nodeName(node), err)
	}
	return nil
}

// load imports the image on every node of the running cluster.
func (c *cluster) load(ctx context.Context, tar string) (err error) {
	if tar, err = resolve(tar); err != nil {
		return err
	}
	if _, err := os.Stat(tar); err != nil {
		return err
	}
	if _, alive, err := c.running("containerd-1"); err != nil || !alive {
		return errors.Join(fmt.Errorf("load %s: no cluster runs at %s", tar, c.state), err)
	}
	for node := 1; node <= c.nodes; node++ {
		if err := c.importImage(ctx, node, tar); err != nil {
			return err
		}
	}
	return nil
}

func hashOf(text []byte) string {
	sum := sha256.Sum256(text)
	return hex.EncodeToString(sum[:])
}
