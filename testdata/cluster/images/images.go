// Package images builds the container images that the test cluster runs: the
// two databases, restic, busybox and pause. They come from Debian packages and
// from programs of ours, because a test machine reaches no container registry;
// the databases start through entrypoints that honour the environment of the
// official images.
//
// Packages are unpacked, not installed: no maintainer script runs, nothing is
// mounted and root is not needed. What such scripts would have made (users, the
// link to sh, a locale, the bundle of certificates) is in the recipes. The
// package needs apt-get, dpkg-deb and localedef of a Debian 12 machine, takes
// the mirror from that machine's own sources, and never touches its apt state.
package images

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"syscall"
	"time"
)

// Options are what Build needs of its caller.
type Options struct {
	Cache  string    // directory for finished images, made if absent; others may use it at the same time
	Restic string    // path of a static restic binary
	Log    io.Writer // progress, one line a step; nil is silence
}

// Image is one built image.
type Image struct {
	Ref string // full reference, such as "docker.io/library/postgres:15"
	Tar string // path of a docker-archive: manifest.json, configuration, layers
}

// Build returns every image of the cluster, always in the same order. An image
// that the cache holds is not built again; its entry is named by everything
// that makes it: recipe, scripts, programs. It is not named by the versions of
// the Debian packages, so an entry keeps those of the day it was built.
func Build(ctx context.Context, o Options) (_ []Image, err error) {
	if o.Log == nil {
		o.Log = io.Discard
	}
	restic, err := os.ReadFile(o.Restic)
	if err != nil {
		return nil, fmt.Errorf("read restic: %w", err)
	}
	work := filepath.Join(o.Cache, "images", "work")
	finished := store{dir: filepath.Dir(work), tmp: work, log: o.Log}
	unlock, err := finished.lock(ctx)
	if err != nil {
		return nil, fmt.Errorf("lock image cache: %w", err)
	}
	defer func() { err = errors.Join(err, unlock()) }()
	if err := os.RemoveAll(work); err != nil { // what a killed Build left
		return nil, fmt.Errorf("clear image cache: %w", err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(work)) }()
	layers := store{dir: filepath.Join(work, "layers"), tmp: work, log: o.Log}
	if err := os.MkdirAll(layers.dir, 0o755); err != nil {
		return nil, fmt.Errorf("make image cache: %w", err)
	}
	b := builder{finished: finished, layers: layers, debian: &debian{dir: filepath.Join(work, "apt")}}
	return b.images(ctx, []recipe{postgres(), mariadb(), resticTools(restic), busybox(), pause()})
}

// builder turns recipes into images. The layers are kept until the last image
// is finished: two may share one.
type builder struct {
	finished store
	layers   store
	debian   *debian
}

func (b builder) images(ctx context.Context, recipes []recipe) ([]Image, error) {
	var built []Image
	for _, r := range recipes {
		tar, err := b.finished.entry(r.name, r.key(), func(w io.Writer) error { return b.image(ctx, r, w) })
		if err != nil {
			return nil, fmt.Errorf("build image %s: %w", r.ref, err)
		}
		built = append(built, Image{Ref: r.ref, Tar: tar})
	}
	return built, nil
}

func (b builder) image(ctx context.Context, r recipe, w io.Writer) error {
	var paths []string
	for _, l := range r.layers {
		path, err := b.layers.entry(l.name, l.key(), func(w io.Writer) error { return l.write(ctx, b.debian, w) })
		if err != nil {
			return fmt.Errorf("build layer %s: %w", l.name, err)
		}
		paths = append(paths, path)
	}
	return writeArchive(w, r.ref, r.config, paths)
}

// store is a directory of finished files, named by what they were made from.
type store struct {
	dir string
	tmp string // for unfinished ones, on the same file system
	log io.Writer
}

// lockInterval is how often a Build looks whether another one has ended.
const lockInterval = 200 * time.Millisecond

// lock keeps a second Build out until the first has ended: the second then
// finds everything built.
func (s store) lock(ctx context.Context) (unlock func() error, err error) {
	if err := os.MkdirAll(s.dir, 0o755); err != nil {
		return nil, err
	}
	f, err := os.Create(filepath.Join(s.dir, "lock"))
	if err != nil {
		return nil, err
	}
	for {
		err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		if err == nil {
			return f.Close, nil
		}
		if !errors.Is(err, syscall.EWOULDBLOCK) {
			return nil, errors.Join(err, f.Close())
		}
		select {
		case <-ctx.Done():
			return nil, errors.Join(ctx.Err(), f.Close())
		case <-time.After(lockInterval):
		}
	}
}

// entry returns the path of the file for key, and has it written if it is not
// there yet. A file has its name only when it is whole.
func (s store) entry(name, key string, write func(io.Writer) error) (_ string, err error) {
	path := filepath.Join(s.dir, name+"-"+key[:16]+".tar")
	if _, err := os.Stat(path); err == nil {
		return path, nil
	}
	fmt.Fprintf(s.log, "building %s\n", name)
	f, err := os.CreateTemp(s.tmp, name+"-*")
	if err != nil {
		return "", err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.Remove(f.Name()))
		}
	}()
	if err := errors.Join(write(f), f.Chmod(0o644), f.Close()); err != nil {
		return "", err
	}
	return path, os.Rename(f.Name(), path)
}
