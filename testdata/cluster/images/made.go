package images

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// englishLocale is the locale of the official image: its databases are in it,
// and so their dumps name it.
func englishLocale(ctx context.Context, d *debian) ([]file, error) {
	dir, err := d.unpack(ctx, "locales")
	if err != nil {
		return nil, err
	}
	out := filepath.Join(dir, "en_US.utf8")
	cmd := exec.CommandContext(ctx, "localedef", "--no-archive", "-c", "-i", "en_US", "-f", "UTF-8", out)
	cmd.Env = append(os.Environ(), "I18NPATH="+filepath.Join(dir, "usr/share/i18n"))
	if err := run(cmd); err != nil {
		return nil, err
	}
	return tree(out, "usr/lib/locale/en_US.utf8")
}

// tree is the files below dir, named below name.
func tree(dir, name string) ([]file, error) {
	var files []file
	err := filepath.WalkDir(dir, func(p string, e os.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		b, err := os.ReadFile(p)
		files = append(files, file{name: name + strings.TrimPrefix(p, dir), mode: 0o644, content: b})
		return err
	})
	return files, err
}

// applets are the links that make busybox a shell and its tools.
func applets(ctx context.Context, d *debian) ([]file, error) {
	dir, err := d.unpack(ctx, "busybox-static")
	if err != nil {
		return nil, err
	}
	list, err := output(exec.CommandContext(ctx, filepath.Join(dir, "bin/busybox"), "--list-full"))
	if err != nil {
		return nil, err
	}
	var files []file
	for name := range strings.FieldsSeq(string(list)) {
		if filepath.Base(name) != "busybox" {
			files = append(files, file{name: name, link: "/bin/busybox"})
		}
	}
	return files, nil
}

// certificates is the bundle that programs in Go read.
func certificates(ctx context.Context, d *debian) ([]file, error) {
	dir, err := d.unpack(ctx, "ca-certificates")
	if err != nil {
		return nil, err
	}
	names, err := filepath.Glob(filepath.Join(dir, "usr/share/ca-certificates/mozilla/*.crt"))
	if err != nil {
		return nil, err
	}
	var bundle bytes.Buffer
	for _, n := range names {
		b, err := os.ReadFile(n)
		if err != nil {
			return nil, err
		}
		bundle.Write(b)
	}
	return []file{{name: "etc/ssl/certs/ca-certificates.crt", mode: 0o644, content: bundle.Bytes()}}, nil
}

// pauseBinary is the program of the directory pause, linked statically.
func pauseBinary(ctx context.Context, _ *debian) ([]file, error) {
	dir, err := os.MkdirTemp("", "pause-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	if err := os.WriteFile(filepath.Join(dir, "main.go"), embedded(program, "pause/main.go"), 0o644); err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-ldflags=-s -w", "-o", "pause", "main.go")
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOWORK=off", "GOFLAGS=")
	if err := run(cmd); err != nil {
		return nil, err
	}
	binary, err := os.ReadFile(filepath.Join(dir, "pause"))
	return []file{{name: "pause", mode: 0o755, content: binary}}, err
}
