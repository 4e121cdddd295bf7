package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"
)

// down ends the cluster and keeps its state.
func (c *cluster) down(ctx context.Context) (err error) {
	if _, err := os.Stat(c.state); errors.Is(err, os.ErrNotExist) {
		return nil
	}
	unlock, err := c.lock(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, unlock()) }()
	return c.progress.step(func() (string, error) { return "down: " + c.state, c.stop(ctx) })
}

// kept is what a wipe leaves: repositories outlive the cluster they are of.
var kept = []string{"s3", "rest", "lock"}

// wipe loses everything of the cluster that a new one would not expect to find.
func (c *cluster) wipe(ctx context.Context) (err error) {
	if _, err := os.Stat(c.state); errors.Is(err, os.ErrNotExist) {
		return nil
	}
	unlock, err := c.lock(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, unlock()) }()
	return c.progress.step(func() (string, error) {
		if err := c.stop(ctx); err != nil {
			return "", err
		}
		return "wiped: " + c.state, c.removeState()
	})
}

func (c *cluster) removeState() error {
	// Nothing of ours is mounted any more; if it were, removing would reach
	// what is mounted.
	if points, err := mountPoints(c.state); err != nil || len(points) > 0 {
		return errors.Join(fmt.Errorf("remove %s: still mounted: %v", c.state, points), err)
	}
	entries, err := os.ReadDir(c.state)
	if err != nil {
		return err
	}
	for _, entry := range entries {
		if slices.Contains(kept, entry.Name()) {
			continue
		}
		if err := os.RemoveAll(c.path(entry.Name())); err != nil {
			return err
		}
	}
	return nil
}

// stop ends all processes of the cluster and removes what the kernel holds for
// it, and what a test may have left to make it fail.
func (c *cluster) stop(ctx context.Context) error {
	if err := c.endParts(ctx); err != nil {
		return err
	}
	if err := c.killAll(ctx); err != nil {
		return err
	}
	return errors.Join(c.unmount(ctx), c.removeCgroups(), c.disconnect(ctx), os.RemoveAll(c.faults()))
}

// endParts ends every part that a pid file names: the API server and etcd last,
// so that the others can say goodbye.
func (c *cluster) endParts(ctx context.Context) error {
	files, err := filepath.Glob(c.pidFile("*"))
	if err != nil {
		return err
	}
	var first []string
	last := map[string]bool{"kube-apiserver": false, "etcd": false}
	for _, file := range files {
		name := strings.TrimSuffix(filepath.Base(file), ".json")
		if _, ok := last[name]; ok {
			last[name] = true
		} else {
			first = append(first, name)
		}
	}
	errs := make([]error, len(first))
	var all sync.WaitGroup
	for i, name := range first {
		all.Go(func() { errs[i] = c.endPart(ctx, name) })
	}
	all.Wait()
	for _, name := range []string{"kube-apiserver", "etcd"} {
		if last[name] {
			errs = append(errs, c.endPart(ctx, name))
		}
	}
	return errors.Join(errs...)
}

func (c *cluster) endPart(ctx context.Context, name string) error {
	p, alive, err := c.running(name)
	if err != nil {
		return err
	}
	if alive {
		if err := p.end(ctx, 5*time.Second); err != nil {
			return fmt.Errorf("end %s: %w", name, err)
		}
	}
	return os.Remove(c.pidFile(name))
}
