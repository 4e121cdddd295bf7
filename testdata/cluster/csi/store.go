package main

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// store is the driver's folder in the pool. It is shared by the processes of
// all nodes, so nothing of it is kept in memory.
type store struct {
	dir       string
	volumes   shelf[volume]
	snapshots shelf[snapshot]
}

type claim struct {
	Namespace string `json:"namespace,omitempty"`
	Name      string `json:"name,omitempty"`
}

type volume struct {
	ID       string `json:"id"`
	Name     string `json:"name"`
	Size     int64  `json:"size"`
	Block    bool   `json:"block,omitempty"`    // made for raw block access: no file system
	Snapshot string `json:"snapshot,omitempty"` // what it was cloned from
	Node     string `json:"node,omitempty"`     // where it can be used; empty: everywhere
	Claim    claim  `json:"claim"`
}

type snapshot struct {
	ID     string    `json:"id"`
	Name   string    `json:"name"`
	Volume string    `json:"volume"`
	Size   int64     `json:"size"`
	Cut    time.Time `json:"cut"`
	Node   string    `json:"node,omitempty"` // as the volume's
	Claim  claim     `json:"claim"`          // of the volume
}

func openStore(pool, driver string) (*store, error) {
	pool, err := filepath.EvalSymlinks(pool)
	if err != nil {
		return nil, err
	}
	pool, err = filepath.Abs(pool)
	if err != nil {
		return nil, err
	}
	var fsInfo unix.Statfs_t
	if err := unix.Statfs(pool, &fsInfo); err != nil {
		return nil, fmt.Errorf("stat pool %s: %w", pool, err)
	}
	if fsInfo.Type != unix.BTRFS_SUPER_MAGIC {
		return nil, fmt.Errorf("open pool %s: no btrfs is mounted there", pool)
	}
	s := &store{dir: filepath.Join(pool, driver)}
	s.volumes.dir = filepath.Join(s.dir, "volumes")
	s.snapshots.dir = filepath.Join(s.dir, "snapshots")
	for _, dir := range []string{s.volumes.dir, s.snapshots.dir, s.path("locks"), s.path("errors")} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return nil, err
		}
	}
	return s, nil
}

func (s *store) path(elem ...string) string {
	return filepath.Join(append([]string{s.dir}, elem...)...)
}

// idOf derives the id from the name, so that a repeated call finds what the
// first one made.
func idOf(prefix, name string) string {
	return fmt.Sprintf("%s-%x", prefix, sha256.Sum256([]byte(name)))[:len(prefix)+33]
}

// isID reports whether idOf can have made id.
func isID(id string) bool {
	prefix, digest, ok := strings.Cut(id, "-")
	return ok && (prefix == "vol" || prefix == "snap") && len(digest) == 32 && strings.Trim(digest, "0123456789abcdef") == ""
}

// lock waits until no other call, of any process, works on id. A killed
// process holds no lock.
func (s *store) lock(ctx context.Context, id string) (unlock func(), err error) {
	path := s.path("locks", idOf("lock", id))
	for {
		f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
		if err != nil {
			return nil, err
		}
		if unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB) == nil && isStill(f, path) {
			return func() { os.Remove(path); f.Close() }, nil
		}
		f.Close()
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(5 * time.Millisecond):
		}
	}
}

// isStill reports whether path still is the open file: the holder before may
// have removed it.
func isStill(f *os.File, path string) bool {
	open, err := f.Stat()
	if err != nil {
		return false
	}
	there, err := os.Stat(path)
	return err == nil && os.SameFile(open, there)
}

// shelf holds subvolumes, each with an image file, and beside each one what
// is known of it. A thing exists when its JSON does: a subvolume without one
// is what a killed call left, and the repeated call deals with it.
type shelf[T any] struct{ dir string }

func (s shelf[T]) subvolume(id string) string { return filepath.Join(s.dir, id) }
func (s shelf[T]) image(id string) string     { return filepath.Join(s.dir, id, "image") }
func (s shelf[T]) json(id string) string      { return filepath.Join(s.dir, id+".json") }

// errAbsent is the error of a call that names what does not exist.
var errAbsent = errors.New("there is no such volume or snapshot")

// get reads what is known of id, which comes from outside and may be anything.
// The error is errAbsent if there is no such thing.
func (s shelf[T]) get(id string) (T, error) {
	var value T
	if !isID(id) {
		return value, fmt.Errorf("find %q: %w", id, errAbsent)
	}
	text, err := os.ReadFile(s.json(id))
	if errors.Is(err, fs.ErrNotExist) {
		return value, fmt.Errorf("find %s: %w", id, errAbsent)
	}
	if err != nil {
		return value, err
	}
	if err := json.Unmarshal(text, &value); err != nil {
		return value, fmt.Errorf("read %s: %w", s.json(id), err)
	}
	return value, nil
}

func (s shelf[T]) put(id string, value T) error {
	text, err := json.Marshal(value)
	if err != nil {
		return err
	}
	return writeAside(s.json(id), text)
}

// list returns all things in the order of their ids.
func (s shelf[T]) list() ([]T, error) {
	files, err := filepath.Glob(s.json("*"))
	if err != nil {
		return nil, err
	}
	var all []T
	for _, file := range files {
		value, err := s.get(strings.TrimSuffix(filepath.Base(file), ".json"))
		if errors.Is(err, errAbsent) {
			continue // removed since
		}
		if err != nil {
			return nil, err
		}
		all = append(all, value)
	}
	return all, nil
}

// remove takes the thing away, and also what a killed call left of it.
func (s shelf[T]) remove(id string) error {
	if !isID(id) {
		return nil
	}
	if err := os.Remove(s.json(id)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return deleteSubvolume(s.subvolume(id))
}

func writeAside(path string, text []byte) error {
	f, err := os.Create(path + ".new")
	if err != nil {
		return err
	}
	_, err = f.Write(text)
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	return os.Rename(path+".new", path)
}
