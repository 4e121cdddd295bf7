package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/gofrs/flock"
)

// cluster is one Kubernetes with all that belongs to it.
type cluster struct {
	root     string // of the product's module
	cache    string // built programs and images, shared by all clusters
	state    string // absolute, without symbolic links
	id       string // derived from state; part of every name that the kernel sees
	net      addresses
	nodes    int // how many there are; 0 before the first up
	progress *progress
}

const productModule = "github.com/backsnap/kubectl-backsnap"

// open finds the cluster whose state is in dir, empty for .cluster at the root
// of the module. It changes nothing.
func open(dir string) (*cluster, error) {
	root, err := moduleRoot()
	if err != nil {
		return nil, err
	}
	if dir == "" {
		dir = filepath.Join(root, ".cluster")
	}
	if dir, err = resolve(dir); err != nil {
		return nil, err
	}
	cache, err := cacheDir()
	if err != nil {
		return nil, err
	}
	id := clusterID(dir)
	c := &cluster{root: root, cache: cache, state: dir, id: id, net: deriveAddresses(id)}
	return c, c.readShape()
}

// moduleRoot is the folder of the product's go.mod, looked for from the
// working directory upwards.
func moduleRoot() (string, error) {
	start, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for dir := start; ; dir = filepath.Dir(dir) {
		text, err := os.ReadFile(filepath.Join(dir, "go.mod"))
		if err == nil && strings.HasPrefix(string(text), "module "+productModule+"\n") {
			return dir, nil
		}
		if dir == filepath.Dir(dir) {
			return "", fmt.Errorf("find the module %s: not above %s", productModule, start)
		}
	}
}

// resolve makes dir absolute and follows the symbolic links of what exists of
// it, so that one directory has one name.
func resolve(dir string) (string, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return "", err
	}
	real, err := filepath.EvalSymlinks(dir)
	if errors.Is(err, fs.ErrNotExist) && dir != filepath.Dir(dir) {
		parent, err := resolve(filepath.Dir(dir))
		return filepath.Join(parent, filepath.Base(dir)), err
	}
	return real, err
}

// cacheDir is $BACKSNAP_CACHE, else kubectl-backsnap in the user's cache.
func cacheDir() (string, error) {
	if dir := os.Getenv("BACKSNAP_CACHE"); dir != "" {
		return filepath.Abs(dir)
	}
	dir, err := os.UserCacheDir()
	return filepath.Join(dir, "kubectl-backsnap"), err
}

func clusterID(state string) string {
	sum := sha256.Sum256([]byte(state))
	return hex.EncodeToString(sum[:4])
}

func (c *cluster) path(parts ...string) string {
	return filepath.Join(append([]string{c.state}, parts...)...)
}

// shape is what a cluster remembers of how it was asked for.
type shape struct {
	Nodes int `json:"nodes"`
}

func (c *cluster) readShape() error {
	var s shape
	err := readJSON(c.path("cluster.json"), &s)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	c.nodes = s.Nodes
	return err
}

// lock keeps a second run of this program away from the cluster.
func (c *cluster) lock(ctx context.Context) (unlock func() error, err error) {
	if err := os.MkdirAll(c.state, 0o755); err != nil {
		return nil, err
	}
	lock := flock.New(c.path("lock"))
	ok, err := lock.TryLock()
	if err == nil && !ok {
		c.progress.say("waiting for another run to end on %s", c.state)
		_, err = lock.TryLockContext(ctx, 100*time.Millisecond)
	}
	if err != nil {
		return nil, fmt.Errorf("lock %s: %w", lock.Path(), err)
	}
	return lock.Unlock, nil
}

// writeFile puts text at path, aside first, so that no reader and no crash
// sees half of it.
func writeFile(path string, text []byte, mode fs.FileMode) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	part := path + ".part"
	if err := os.WriteFile(part, text, mode); err != nil {
		return err
	}
	return os.Rename(part, path)
}

func writeJSON(path string, v any) error {
	text, err := json.Marshal(v)
	if err != nil {
		return err
	}
	return writeFile(path, append(text, '\n'), 0o644)
}

func readJSON(path string, v any) error {
	text, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(text, v); err != nil {
		return fmt.Errorf("read %s: %w", path, err)
	}
	return nil
}
