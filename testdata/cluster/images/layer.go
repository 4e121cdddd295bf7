package images

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"path"
	"slices"
	"strings"
	"time"
)

// epoch is the time of every file that no Debian package dates.
var epoch = time.Unix(0, 0)

// file is one entry that a layer has beside those of its packages. A name that
// ends in "/" is a directory, one with a link is a symbolic link.
type file struct {
	name    string
	mode    int64
	id      int // of owner and group
	link    string
	content []byte
}

// layer is one file-system layer: files of its own, and what is in its packages.
type layer struct {
	name     string
	packages []string // Debian packages; what they depend on comes with them
	below    []string // packages of the layer below, which this one leaves out
	drop     []string // patterns as of path.Match for names to leave out, with all below them
	files    []file
	made     func(context.Context, *debian) ([]file, error) // files that are computed
}

// key changes with everything that makes the layer: the code of this package,
// and the files that come from elsewhere.
func (l layer) key() string {
	parts := []string{code(), l.name}
	for _, f := range l.files {
		parts = append(parts, digest(f.content))
	}
	return digest([]byte(strings.Join(parts, "\n")))
}

// write writes the layer as a tar. Its own files come first, and win over those
// of a package.
func (l layer) write(ctx context.Context, d *debian, w io.Writer) error {
	debs, err := d.fetch(ctx, l.packages, l.below)
	if err != nil {
		return err
	}
	lw := newLayerWriter(w, l.drop)
	files := l.files
	if l.made != nil {
		made, err := l.made(ctx, d)
		if err != nil {
			return err
		}
		files = slices.Concat(files, made)
	}
	for _, f := range files {
		if err := lw.file(f); err != nil {
			return err
		}
	}
	for _, deb := range debs {
		if err := d.read(ctx, deb, lw.copy); err != nil {
			return err
		}
	}
	return lw.tar.Close()
}

// layerWriter writes the tar of a layer, and holds it to the rules that
// unpacking relies on: a directory comes before what is in it, and nothing
// comes twice.
type layerWriter struct {
	tar  *tar.Writer
	drop []string
	seen map[string]bool
}

func newLayerWriter(w io.Writer, drop []string) *layerWriter {
	return &layerWriter{tar: tar.NewWriter(w), drop: drop, seen: map[string]bool{".": true}}
}

// file adds f, unless its name is there already.
func (w *layerWriter) file(f file) error {
	h := &tar.Header{Name: f.name, Mode: f.mode, Uid: f.id, Gid: f.id, ModTime: epoch, Typeflag: tar.TypeReg}
	switch {
	case strings.HasSuffix(f.name, "/"):
		h.Typeflag = tar.TypeDir
	case f.link != "":
		h.Typeflag, h.Linkname, h.Mode = tar.TypeSymlink, f.link, 0o777
	default:
		h.Size = int64(len(f.content))
	}
	return w.add(h, bytes.NewReader(f.content))
}

// copy adds every entry of another tar that is neither dropped nor there already.
func (w *layerWriter) copy(tr *tar.Reader) error {
	for {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if err := w.add(h, tr); err != nil {
			return err
		}
	}
}

func (w *layerWriter) add(h *tar.Header, content io.Reader) error {
	name := canonical(h.Name)
	if h.Typeflag == tar.TypeDir && slices.Contains(merged, name) {
		name = "usr/" + name // the directory itself would hide the link
	}
	if w.seen[name] || w.drops(name) {
		return nil
	}
	if err := w.parents(name); err != nil {
		return err
	}
	w.seen[name] = true
	plain := tar.Header{
		Name: name, Typeflag: h.Typeflag, Mode: h.Mode & 0o7777, Uid: h.Uid, Gid: h.Gid,
		Size: h.Size, ModTime: h.ModTime, Linkname: h.Linkname,
	}
	switch h.Typeflag {
	case tar.TypeDir:
		plain.Name += "/"
	case tar.TypeLink:
		plain.Linkname = canonical(h.Linkname)
	}
	if err := w.tar.WriteHeader(&plain); err != nil {
		return fmt.Errorf("write %s: %w", name, err)
	}
	if _, err := io.Copy(w.tar, content); err != nil {
		return fmt.Errorf("write %s: %w", name, err)
	}
	return nil
}

// parents adds the directories above name that nothing has brought yet.
func (w *layerWriter) parents(name string) error {
	dir := path.Dir(name)
	if w.seen[dir] {
		return nil
	}
	return w.add(&tar.Header{Name: dir, Typeflag: tar.TypeDir, Mode: 0o755, ModTime: epoch}, bytes.NewReader(nil))
}

func (w *layerWriter) drops(name string) bool {
	for ; name != "."; name = path.Dir(name) {
		for _, pattern := range w.drop {
			if ok, _ := path.Match(pattern, name); ok {
				return true
			}
		}
	}
	return false
}

// merged are the directories that are links into /usr on a Debian system, while
// packages may still name them.
var merged = []string{"bin", "sbin", "lib", "lib64"}

// canonical is the name of an entry without the leading "./", and below /usr
// where Debian has it.
func canonical(name string) string {
	name = path.Clean(strings.TrimLeft(strings.TrimPrefix(name, "./"), "/"))
	top, rest, found := strings.Cut(name, "/")
	if found && slices.Contains(merged, top) {
		return "usr/" + top + "/" + rest
	}
	return name
}
