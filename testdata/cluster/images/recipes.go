package images

import (
	"bytes"
	"context"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
)

//go:embed archive.go debian.go images.go layer.go recipes.go
var code embed.FS

//go:embed scripts/postgres.sh
var postgresScript []byte

//go:embed scripts/mariadb.sh
var mariadbScript []byte

//go:embed pause/main.go
var pauseSource []byte

// recipe is all that makes one image.
type recipe struct {
	name   string // of its cache entry
	ref    string
	layers []layer
	config config
}

func (r recipe) key() string {
	keys := []string{r.ref, key(r.config)}
	for _, l := range r.layers {
		keys = append(keys, l.key())
	}
	return key(keys)
}

const entrypoint = "usr/local/bin/docker-entrypoint.sh"

const defaultPath = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

func recipes(restic string) ([]recipe, error) {
	resticBinary, err := os.ReadFile(restic)
	if err != nil {
		return nil, fmt.Errorf("read restic: %w", err)
	}
	all := []recipe{postgres(), mariadb(), resticImage(resticBinary), busybox(), pause()}
	source := source()
	for _, r := range all {
		for i := range r.layers {
			r.layers[i].Source = source
		}
	}
	return all, nil
}

// source is a digest of the code that builds: a layer is built anew when it
// changes, and there is no version to forget.
func source() string {
	h := sha256.New()
	entries, err := code.ReadDir(".")
	if err != nil {
		panic(err) // embedded
	}
	for _, e := range entries {
		b, err := code.ReadFile(e.Name())
		if err != nil {
			panic(err) // embedded
		}
		h.Write(b)
	}
	return hex.EncodeToString(h.Sum(nil))
}

// prose is what no container reads.
var prose = []string{
	"usr/share/doc", "usr/share/man", "usr/share/info", "usr/share/locale", "usr/share/lintian", "usr/share/bug",
	"usr/share/doc-base", "usr/lib/*/gconv", "usr/share/bash-completion", "usr/lib/systemd", "usr/lib/udev",
	"etc/init.d", "etc/cron.*", "etc/apparmor.d", "etc/logrotate.d",
}

var basePackages = []string{
	"base-files", "base-passwd", "bash", "coreutils", "dash", "debianutils", "diffutils", "findutils", "grep", "gzip",
	"hostname", "libc-bin", "mawk", "sed", "tar", "tzdata", "util-linux", "xz-utils", "zstd",
}

// base is the layer that the database images share.
func base() layer {
	return layer{
		name:     "base",
		Packages: basePackages,
		Drop:     prose,
		Files: []file{
			{Name: "bin", Link: "usr/bin"},
			{Name: "sbin", Link: "usr/sbin"},
			{Name: "lib", Link: "usr/lib"},
			{Name: "lib64", Link: "usr/lib64"},
			{Name: "usr/bin/sh", Link: "dash"},
			{Name: "usr/bin/awk", Link: "mawk"},
			{Name: "tmp/", Mode: 0o1777},
			{Name: "var/tmp/", Mode: 0o1777},
			{Name: "var/run", Link: "/run"},
			{Name: "var/lock", Link: "/run/lock"},
			{Name: "run/lock/", Mode: 0o1777},
			{Name: "etc/nsswitch.conf", Mode: 0o644, Content: []byte("passwd: files\ngroup: files\nhosts: files dns\n")},
		},
	}
}

// users are the files that name root, nobody and one more user with its group.
func users(name string, id int, home string) []file {
	passwd, group := "root:x:0:0:root:/root:/bin/bash\n", "root:x:0:\n"
	if name != "" {
		passwd += fmt.Sprintf("%s:x:%d:%d::%s:/bin/bash\n", name, id, id, home)
		group += fmt.Sprintf("%s:x:%d:\n", name, id)
	}
	return []file{
		{Name: "etc/passwd", Mode: 0o644, Content: []byte(passwd + "nobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin\n")},
		{Name: "etc/group", Mode: 0o644, Content: []byte(group + "nogroup:x:65534:\n")},
	}
}

func postgres() recipe {
	const uid = 999
	return recipe{
		name: "postgres-15",
		ref:  "docker.io/library/postgres:15",
		layers: []layer{
			base(),
			{
				name:     "postgres-packages",
				Packages: []string{"libnss-wrapper", "postgresql-15"},
				Below:    basePackages,
				Drop: append(slices.Clone(prose), "usr/lib/postgresql/*/lib/bitcode", "usr/lib/postgresql/*/lib/llvmjit*",
					"usr/share/postgresql/*/man"),
				made: englishLocale,
			},
			{
				name: "postgres-files",
				Files: append(users("postgres", uid, "/var/lib/postgresql"),
					file{Name: entrypoint, Mode: 0o755, Content: postgresScript},
					file{Name: "docker-entrypoint-initdb.d/", Mode: 0o755},
					file{Name: "run/postgresql/", Mode: 0o3777, UID: uid},
					file{Name: "var/lib/postgresql/", Mode: 0o1777, UID: uid},
					file{Name: "var/lib/postgresql/data/", Mode: 0o1777, UID: uid},
				),
			},
		},
		config: config{
			Env:          []string{defaultPath + ":/usr/lib/postgresql/15/bin", "LANG=en_US.utf8", "PG_MAJOR=15", "PGDATA=/var/lib/postgresql/data"},
			Entrypoint:   []string{"docker-entrypoint.sh"},
			Cmd:          []string{"postgres"},
			ExposedPorts: map[string]struct{}{"5432/tcp": {}},
			Volumes:      map[string]struct{}{"/var/lib/postgresql/data": {}},
			StopSignal:   "SIGINT", // a fast shutdown: SIGTERM would wait for every client
		},
	}
}

const myCnf = `[client-server]
socket = /run/mysqld/mysqld.sock
!includedir /etc/mysql/conf.d/
!includedir /etc/mysql/mariadb.conf.d/

[mariadbd]
character-set-server = utf8mb4
collation-server = utf8mb4_general_ci
expire_logs_days = 10
host-cache-size = 0
pid-file = /run/mysqld/mysqld.pid
skip-name-resolve
`

func mariadb() recipe {
	const uid = 999
	return recipe{
		name: "mariadb-10.11",
		ref:  "docker.io/library/mariadb:10.11",
		layers: []layer{
			base(),
			{
				name:     "mariadb-packages",
				Packages: []string{"mariadb-client", "mariadb-server-core"},
				Below:    basePackages,
				Drop:     prose,
			},
			{
				name: "mariadb-files",
				Files: append(users("mysql", uid, "/var/lib/mysql"),
					file{Name: entrypoint, Mode: 0o755, Content: mariadbScript},
					file{Name: "docker-entrypoint-initdb.d/", Mode: 0o755},
					file{Name: "etc/mysql/my.cnf", Mode: 0o644, Content: []byte(myCnf)},
					file{Name: "etc/mysql/conf.d/", Mode: 0o755},
					file{Name: "etc/mysql/mariadb.conf.d/", Mode: 0o755},
					file{Name: "run/mysqld/", Mode: 0o1777, UID: uid},
					file{Name: "var/lib/mysql/", Mode: 0o1777, UID: uid},
				),
			},
		},
		config: config{
			Env:          []string{defaultPath, "LANG=C.UTF-8"},
			Entrypoint:   []string{"docker-entrypoint.sh"},
			Cmd:          []string{"mariadbd"},
			ExposedPorts: map[string]struct{}{"3306/tcp": {}},
			Volumes:      map[string]struct{}{"/var/lib/mysql": {}},
		},
	}
}

func busyboxLayer() layer {
	return layer{
		name:     "busybox",
		Packages: []string{"busybox-static"},
		Drop:     append(slices.Clone(prose), "etc/*", "usr/share/initramfs-tools"),
		Files: append(users("", 0, ""),
			file{Name: "bin", Link: "usr/bin"},
			file{Name: "sbin", Link: "usr/sbin"},
			file{Name: "root/", Mode: 0o700},
			file{Name: "tmp/", Mode: 0o1777},
			file{Name: "var/tmp/", Mode: 0o1777},
		),
		made: applets,
	}
}

func busybox() recipe {
	return recipe{
		name:   "busybox-1.36",
		ref:    "docker.io/library/busybox:1.36",
		layers: []layer{busyboxLayer()},
		config: config{Env: []string{defaultPath}, Cmd: []string{"sh"}},
	}
}

func resticImage(binary []byte) recipe {
	return recipe{
		name: "restic-0.19.1",
		ref:  "docker.io/restic/restic:0.19.1",
		layers: []layer{
			busyboxLayer(),
			{
				name:  "restic-files",
				Files: []file{{Name: "usr/bin/restic", Mode: 0o755, Content: binary}},
				made:  certificates,
			},
		},
		config: config{Env: []string{defaultPath}, Entrypoint: []string{"/usr/bin/restic"}},
	}
}

func pause() recipe {
	return recipe{
		name:   "pause-3.10",
		ref:    "registry.k8s.io/pause:3.10",
		layers: []layer{{name: "pause", Below: []string{string(pauseSource)}, made: pauseBinary}},
		config: config{Env: []string{defaultPath}, User: "65535:65535", Entrypoint: []string{"/pause"}},
	}
}

// englishLocale is the locale of the official image, in which its databases are.
func englishLocale(ctx context.Context, u unpacked) ([]file, error) {
	dir, err := u.dir(ctx, "locales")
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

// applets are the links that make busybox a shell and its tools.
func applets(ctx context.Context, u unpacked) ([]file, error) {
	dir, err := u.dir(ctx, "busybox-static")
	if err != nil {
		return nil, err
	}
	list, err := exec.CommandContext(ctx, filepath.Join(dir, "bin/busybox"), "--list-full").Output()
	if err != nil {
		return nil, fmt.Errorf("list applets: %w", commandError(err))
	}
	var files []file
	for name := range strings.FieldsSeq(string(list)) {
		if name = canonical(name); filepath.Base(name) != "busybox" {
			files = append(files, file{Name: name, Link: "/bin/busybox"})
		}
	}
	return files, nil
}

// certificates is the bundle of certificates that Go programs read.
func certificates(ctx context.Context, u unpacked) ([]file, error) {
	dir, err := u.dir(ctx, "ca-certificates")
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
	return []file{{Name: "etc/ssl/certs/ca-certificates.crt", Mode: 0o644, Content: bundle.Bytes()}}, nil
}

func pauseBinary(ctx context.Context, u unpacked) ([]file, error) {
	dir, err := os.MkdirTemp("", "pause-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	if err := os.WriteFile(filepath.Join(dir, "main.go"), pauseSource, 0o644); err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-ldflags=-s -w", "-o", "pause", "main.go")
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOWORK=off", "GOFLAGS=")
	if err := run(cmd); err != nil {
		return nil, err
	}
	binary, err := os.ReadFile(filepath.Join(dir, "pause"))
	return []file{{Name: "pause", Mode: 0o755, Content: binary}}, err
}

// tree is the files below a directory, renamed to be below name.
func tree(dir, name string) ([]file, error) {
	var files []file
	err := filepath.WalkDir(dir, func(p string, e os.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		rel, err := filepath.Rel(dir, p)
		if err != nil {
			return err
		}
		b, err := os.ReadFile(p)
		files = append(files, file{Name: filepath.Join(name, rel), Mode: 0o644, Content: b})
		return err
	})
	return files, err
}
