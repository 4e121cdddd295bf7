package images

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
)

// config is the part of an image's configuration that our recipes set, in the
// spelling of the OCI image specification.
type config struct {
	User         string              `json:",omitempty"`
	ExposedPorts map[string]struct{} `json:",omitempty"`
	Env          []string            `json:",omitempty"`
	Entrypoint   []string            `json:",omitempty"`
	Cmd          []string            `json:",omitempty"`
	Volumes      map[string]struct{} `json:",omitempty"`
	StopSignal   string              `json:",omitempty"`
}

type imageConfig struct {
	Architecture string `json:"architecture"`
	OS           string `json:"os"`
	Config       config `json:"config"`
	RootFS       rootFS `json:"rootfs"`
}

type rootFS struct {
	Type    string   `json:"type"`
	DiffIDs []string `json:"diff_ids"`
}

type manifest struct {
	Config   string
	RepoTags []string
	Layers   []string
}

// writeArchive writes a docker-archive of one image. Layers are paths of
// uncompressed tar files, the lowest first.
func writeArchive(w io.Writer, ref string, c config, layers []string) error {
	image := imageConfig{Architecture: runtime.GOARCH, OS: "linux", Config: c, RootFS: rootFS{Type: "layers"}}
	m := manifest{RepoTags: []string{ref}}
	for _, l := range layers {
		digest, err := fileDigest(l)
		if err != nil {
			return err
		}
		image.RootFS.DiffIDs = append(image.RootFS.DiffIDs, "sha256:"+digest)
		m.Layers = append(m.Layers, digest+"/layer.tar")
	}
	configJSON, err := json.Marshal(image)
	if err != nil {
		return err
	}
	m.Config = digest(configJSON) + ".json"
	manifestJSON, err := json.Marshal([]manifest{m})
	if err != nil {
		return err
	}
	tw := tar.NewWriter(w)
	err = errors.Join(addBytes(tw, "manifest.json", manifestJSON), addBytes(tw, m.Config, configJSON))
	for i, l := range layers {
		err = errors.Join(err, addFile(tw, m.Layers[i], l))
	}
	return errors.Join(err, tw.Close())
}

func addBytes(tw *tar.Writer, name string, b []byte) error {
	return addReader(tw, name, int64(len(b)), bytes.NewReader(b))
}

func addFile(tw *tar.Writer, name, path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	return addReader(tw, name, info.Size(), f)
}

func addReader(tw *tar.Writer, name string, size int64, r io.Reader) error {
	if err := tw.WriteHeader(&tar.Header{Name: name, Mode: 0o644, Size: size, ModTime: epoch}); err != nil {
		return err
	}
	_, err := io.Copy(tw, r)
	return err
}

// digest is the SHA-256 of b in hexadecimal.
func digest(b []byte) string {
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])
}

// fileDigest is the SHA-256 of the file at path, in hexadecimal.
func fileDigest(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", fmt.Errorf("digest file: %w", err)
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return "", fmt.Errorf("digest file: %w", err)
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}
