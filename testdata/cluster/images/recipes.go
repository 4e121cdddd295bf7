package images

import (
	"bytes"
	"embed"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"sync"
)

//go:embed archive.go debian.go images.go layer.go made.go recipes.go pause/main.go
var program embed.FS

//go:embed scripts/*.sh
var scripts embed.FS

// code is a digest of the code of this package. Everything built is named by
// it, so that there is no version to forget when a recipe changes.
var code = sync.OnceValue(func() string {
	var all bytes.Buffer
	err := fs.WalkDir(program, ".", func(name string, e fs.DirEntry, err error) error {
		if err == nil && !e.IsDir() {
			all.Write(embedded(program, name))
		}
		return err
	})
	if err != nil {
		panic(err) // nothing of it is on disk
	}
	return digest(all.Bytes())
})

func embedded(files embed.FS, name string) []byte {
	b, err := files.ReadFile(name)
	if err != nil {
		panic(err) // nothing of it is on disk
	}
	return b
}

// recipe is all that makes one image.
type recipe struct {
	name   string // of its cache entry
	ref    string
	layers []layer // the lowest first
	config config
}

// key changes with everything that makes the image.
func (r recipe) key() string {
	var keys []string
	for _, l := range r.layers {
		keys = append(keys, l.key())
	}
	return digest([]byte(r.name + "\n" + strings.Join(keys, "\n")))
}

const (
	entrypoint = "usr/local/bin/docker-entrypoint.sh"
	initScript = "docker-entrypoint-initdb.d/"
	searchPath = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

	databaseID = 999 // uid and gid of the server, as in the official images
)

func postgres() recipe {
	return recipe{
		name: "postgres-15",
		ref:  "docker.io/library/postgres:15",
		layers: []layer{base(), {
			name:     "postgres-packages",
			packages: []string{"libnss-wrapper", "postgresql-15"},
			below:    basePackages,
			drop: append(slices.Clone(unread),
				"usr/lib/postgresql/*/lib/bitcode", "usr/lib/postgresql/*/lib/llvmjit*", "usr/share/postgresql/*/man"),
			made: englishLocale,
		}, {
			name: "postgres-files",
			files: append(users("/bin/bash", "postgres", "/var/lib/postgresql"),
				file{name: entrypoint, mode: 0o755, content: embedded(scripts, "scripts/postgres.sh")},
				file{name: initScript, mode: 0o755},
				file{name: "run/postgresql/", mode: 0o3777, id: databaseID},
				file{name: "var/lib/postgresql/", mode: 0o1777, id: databaseID},
				file{name: "var/lib/postgresql/data/", mode: 0o1777, id: databaseID},
			),
		}},
		config: config{
			Env:          []string{searchPath + ":/usr/lib/postgresql/15/bin", "LANG=en_US.utf8", "PG_MAJOR=15", "PGDATA=/var/lib/postgresql/data"},
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
	return recipe{
		name: "mariadb-10.11",
		ref:  "docker.io/library/mariadb:10.11",
		layers: []layer{base(), {
			name:     "mariadb-packages",
			packages: []string{"mariadb-client", "mariadb-server-core"},
			below:    basePackages,
			// Programs of 5 MB each that nobody runs in a container.
			drop: append(slices.Clone(unread), "usr/bin/*slap", "usr/bin/*waitpid", "usr/bin/mariadb-conv", "usr/bin/mariadb-plugin",
				"usr/bin/perror", "usr/bin/replace", "usr/bin/resolve_stack_dump"),
		}, {
			name: "mariadb-files",
			files: append(users("/bin/bash", "mysql", "/var/lib/mysql"),
				file{name: entrypoint, mode: 0o755, content: embedded(scripts, "scripts/mariadb.sh")},
				file{name: initScript, mode: 0o755},
				file{name: "etc/mysql/my.cnf", mode: 0o644, content: []byte(myCnf)},
				file{name: "etc/mysql/conf.d/", mode: 0o755},
				file{name: "etc/mysql/mariadb.conf.d/", mode: 0o755},
				file{name: "run/mysqld/", mode: 0o1777, id: databaseID},
				file{name: "var/lib/mysql/", mode: 0o1777, id: databaseID},
			),
		}},
		config: config{
			Env:          []string{searchPath, "LANG=C.UTF-8"},
			Entrypoint:   []string{"docker-entrypoint.sh"},
			Cmd:          []string{"mariadbd"},
			ExposedPorts: map[string]struct{}{"3306/tcp": {}},
			Volumes:      map[string]struct{}{"/var/lib/mysql": {}},
		},
	}
}

func resticTools(binary []byte) recipe {
	return recipe{
		name: "restic-0.19.1",
		ref:  "docker.io/restic/restic:0.19.1",
		layers: []layer{tools(), {
			name:  "restic-files",
			files: []file{{name: "usr/bin/restic", mode: 0o755, content: binary}},
			made:  certificates,
		}},
		config: config{Env: []string{searchPath}, Entrypoint: []string{"/usr/bin/restic"}},
	}
}

func busybox() recipe {
	return recipe{
		name:   "busybox-1.36",
		ref:    "docker.io/library/busybox:1.36",
		layers: []layer{tools()},
		config: config{Env: []string{searchPath}, Cmd: []string{"sh"}},
	}
}

func pause() recipe {
	return recipe{
		name:   "pause-3.10",
		ref:    "registry.k8s.io/pause:3.10",
		layers: []layer{{name: "pause", made: pauseBinary}},
		config: config{Env: []string{searchPath}, User: "65535:65535", Entrypoint: []string{"/pause"}},
	}
}

// unread is what packages have and no container reads.
var unread = []string{
	"usr/share/bash-completion", "usr/share/bug", "usr/share/doc", "usr/share/doc-base", "usr/share/info",
	"usr/share/lintian", "usr/share/locale", "usr/share/man", "usr/lib/*/gconv", "usr/lib/systemd", "usr/lib/udev",
	"etc/apparmor.d", "etc/cron.*", "etc/init.d", "etc/logrotate.d",
}

var basePackages = []string{
	"base-files", "base-passwd", "bash", "coreutils", "dash", "debianutils", "diffutils", "findutils", "gosu", "grep",
	"gzip", "hostname", "libc-bin", "mawk", "sed", "tar", "tzdata", "util-linux", "xz-utils", "zstd",
}

// base is the layer that the database images share.
func base() layer {
	return layer{
		name:     "base",
		packages: basePackages,
		drop:     unread,
		files: append(links(merged),
			file{name: "usr/bin/sh", link: "dash"},
			file{name: "usr/bin/awk", link: "mawk"},
			file{name: "tmp/", mode: 0o1777},
			file{name: "var/tmp/", mode: 0o1777},
			file{name: "var/run", link: "/run"},
			file{name: "run/lock/", mode: 0o1777},
			file{name: "var/lock", link: "/run/lock"},
			file{name: "etc/nsswitch.conf", mode: 0o644, content: []byte("passwd: files\ngroup: files\nhosts: files dns\n")},
		),
	}
}

// tools is a layer with a static shell and its tools.
func tools() layer {
	return layer{
		name:     "busybox",
		packages: []string{"busybox-static"},
		drop:     append(slices.Clone(unread), "etc/*", "usr/share/initramfs-tools"),
		files: append(append(links([]string{"bin", "sbin"}), users("/bin/sh", "", "")...),
			file{name: "root/", mode: 0o700},
			file{name: "tmp/", mode: 0o1777},
			file{name: "var/tmp/", mode: 0o1777},
		),
		made: applets,
	}
}

// links are the links of these names into /usr.
func links(names []string) []file {
	var files []file
	for _, n := range names {
		files = append(files, file{name: n, link: "usr/" + n})
	}
	return files
}

// users are the files that name root, nobody and, unless it is empty, the
// database's user with its group.
func users(shell, name, home string) []file {
	passwd := "root:x:0:0:root:/root:" + shell + "\nnobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin\n"
	group := "root:x:0:\nnogroup:x:65534:\n"
	if name != "" {
		passwd += fmt.Sprintf("%s:x:%d:%[2]d::%s:%s\n", name, databaseID, home, shell)
		group += fmt.Sprintf("%s:x:%d:\n", name, databaseID)
	}
	return []file{
		{name: "etc/passwd", mode: 0o644, content: []byte(passwd)},
		{name: "etc/group", mode: 0o644, content: []byte(group)},
	}
}
