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
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"syscall"
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
func Build(ctx context.Context, o Options) ([]Image, error) {
	if o.Log == nil {
		o.Log = io.Discard
	}
	recipes, err := recipes(o.Restic)
	if err != nil {
		return nil, err
	}
	s := store{dir: filepath.Join(o.Cache, "images"), log: o.Log}
	unlock, err := s.lock()
	if err != nil {
		return nil, err
	}
	defer unlock()
	b := builder{store: s, debian: &debian{dir: filepath.Join(s.dir, "apt")}}
	built, err := b.images(ctx, recipes)
	return built, errors.Join(err, b.debian.close())
}

// builder turns recipes into entries of its store.
type builder struct {
	store  store
	debian *debian
}

func (b builder) images(ctx context.Context, recipes []recipe) ([]Image, error) {
	var built []Image
	for _, r := range recipes {
		tar, err := b.store.entry(r.name, r.key(), func(w io.Writer) error { return b.image(ctx, r, w) })
		if err != nil {
			return nil, fmt.Errorf("build image %s: %w", r.ref, err)
		}
		built = append(built, Image{Ref: r.ref, Tar: tar})
	}
	return built, nil
}

func (b builder) image(ctx context.Context, r recipe, w io.Writer) error {
	var layers []string
	for _, l := range r.layers {
		path, err := b.store.entry(l.name, l.key(), func(w io.Writer) error { return l.write(ctx, b.debian, w) })
		if err != nil {
			return fmt.Errorf("build layer %s: %w", l.name, err)
		}
		layers = append(layers, path)
	}
	return writeArchive(w, r.ref, r.config, layers)
}

// store is a directory of finished files, named by what they were made from.
type store struct {
	dir string
	log io.Writer
}

// lock keeps a second Build out until the first has ended: the second then
// finds everything built.
func (s store) lock() (unlock func(), err error) {
	if err := os.MkdirAll(s.dir, 0o755); err != nil {
		return nil, fmt.Errorf("make image cache: %w", err)
	}
	f, err := os.Create(filepath.Join(s.dir, "lock"))
	if err != nil {
		return nil, fmt.Errorf("lock image cache: %w", err)
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX); err != nil {
		return nil, errors.Join(fmt.Errorf("lock image cache: %w", err), f.Close())
	}
	return func() { f.Close() }, nil
}

// entry returns the path of the file for key, and has it written if it is not
// there yet. A file has its name only when it is whole.
func (s store) entry(name, key string, write func(io.Writer) error) (_ string, err error) {
	path := filepath.Join(s.dir, name+"-"+key[:16]+".tar")
	if _, err := os.Stat(path); err == nil {
		return path, nil
	}
	fmt.Fprintf(s.log, "building %s\n", name)
	f, err := os.CreateTemp(s.dir, ".building-*")
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

// key is a name for v's content: the SHA-256 of its JSON, in hexadecimal.
func key(v any) string {
	b, err := json.Marshal(v)
	if err != nil {
		panic(err) // every v is made of strings and numbers
	}
	return digest(b)
}

// digest is the SHA-256 of b in hexadecimal.
func digest(b []byte) string {
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])
}
