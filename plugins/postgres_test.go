package plugins_test

import (
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/backsnap/kubectl-backsnap/plugins"
)

// pgFacts is what psql says of a server with these databases, each of 8 MiB.
func pgFacts(role, super string, databases ...string) string {
	b := fmt.Sprintf("WARNING: bs said nothing\nbs version 99.1 (Debian)\nbs role %s\nbs super %s\nbs fsync on\nbs pages on\nbs position 0/A0\n", role, super)
	for _, name := range databases {
		b += "bs db " + hex.EncodeToString([]byte(name)) + " 8192\n"
	}
	return b
}

// fakePostgres gives b a data directory with a server that seems to run, and
// PostgreSQL's programs as stubs that work.
func fakePostgres(b *box, databases ...string) {
	b.t.Helper()
	data := filepath.Join(b.volume, "pgdata")
	must(b.t, os.Mkdir(data, 0o755))
	must(b.t, os.WriteFile(filepath.Join(data, "PG_VERSION"), []byte("99\n"), 0o644))
	pid := fmt.Sprintf("%d\n%s\n1700000000\n5499\n/sockets\nlocalhost\n  5432001 3\nready   \n", os.Getpid(), data)
	must(b.t, os.WriteFile(filepath.Join(data, "postmaster.pid"), []byte(pid), 0o644))
	b.env = []string{"PGDATA=" + data}
	must(b.t, os.WriteFile(filepath.Join(b.dir, "facts"), []byte(pgFacts("primary", "on", databases...)), 0o644))
	b.stub("psql", `case "$*" in
*emit_message*) echo "bs 0/B0"; echo "bs checkpoint" ;;
*) cat "$DIR/facts" ;;
esac
`)
	b.stub("pg_isready", "exit 2\n")
	b.stub("pg_dumpall", "printf -- '--\\n-- PostgreSQL database cluster dump complete\\n--\\n\\n\\\\unrestrict x\\n'\n")
	b.stub("pg_dump", pgVersion+`for last; do :; done
printf '%s' "archive of $last"
`)
	b.stub("pg_restore", `for last; do :; done
grep -q '^archive of ' "$last"
`)
}

// pgVersion is how a stub of pg_dump begins.
const pgVersion = "[ \"$1\" != --version ] || { echo 'pg_dump (PostgreSQL) 99.1 (Debian 99.1-1)'; exit; }\n"

func archive(connection string) string { return "archive of " + connection }

func TestPostgresProbe(t *testing.T) {
	shells(t, func(t *testing.T, b *box) {
		fakePostgres(b, "postgres", "shop")
		before := b.files("")
		got, err := b.probe("postgres")
		must(t, err)
		same(t, "probe", got, plugins.Probe{
			Engine: "postgres", Version: "99.1", Role: plugins.Primary,
			DataDir: filepath.Join(b.volume, "pgdata"), Mount: b.volume, Dir: b.volume, UID: os.Getuid(), GID: os.Getgid(),
			Tool: "pg_dump", ToolVersion: "99.1", Databases: 2,
			EstimateBytes: (1024 + 2*(512+64)) << 10, SizeBytes: 1 << 30, FreeBytes: 1 << 29, ReserveBytes: 52428 << 10, FreeInodes: 60000,
		})
		same(t, "the volume", b.files(""), before)
	})
}

func TestPostgresProbeWarns(t *testing.T) {
	shells(t, func(t *testing.T, b *box) {
		fakePostgres(b)
		text := strings.NewReplacer("fsync on", "fsync off", "pages on", "pages off").Replace(pgFacts("replica", "off", "shop"))
		must(t, os.WriteFile(filepath.Join(b.dir, "facts"), []byte(text), 0o644))
		b.env = append(b.env, "POSTGRES_USER=app")
		b.volume = filepath.Join(b.volume, "pgdata")
		b.disk(1<<20, 1<<19, 0, 0)
		got, err := b.probe("postgres")
		must(t, err)
		same(t, "role", got.Role, plugins.Replica)
		same(t, "inodes", got.FreeInodes, -1)
		same(t, "warnings", got.Warnings, []string{
			"app is no superuser: the dump fails if it may not read all, and has no passwords of roles",
			"the data directory is the top of its volume: pg_basebackup copies the dump too",
			"fsync is off: after a crash of the machine the data directory can be lost",
			"full_page_writes is off: after a crash of the machine the data directory can be lost",
		})
	})
}

func TestPostgresDump(t *testing.T) {
	shells(t, func(t *testing.T, b *box) {
		fakePostgres(b, "postgres", "shop")
		got, err := b.dump("postgres", run)
		must(t, err)
		globals := "--\n-- PostgreSQL database cluster dump complete\n--\n\n\\unrestrict x\n"
		parts := []plugins.Part{
			part("globals", ".backsnap-"+run+"-1.dump", "sql", globals),
			part("database postgres", ".backsnap-"+run+"-2.dump", "custom", archive("dbname='postgres'")),
			part("database shop", ".backsnap-"+run+"-3.dump", "custom", archive("dbname='shop'")),
		}
		same(t, "dump", got, plugins.Dump{
			Engine: "postgres", ServerVersion: "99.1", Tool: "pg_dump", ToolVersion: "99.1", Mount: b.volume, Dir: b.volume, Position: "0/A0",
			Parts:   parts,
			Barrier: &plugins.Barrier{Forced: true, How: "pg_logical_emit_message, CHECKPOINT", Position: "0/B0"},
		})
		files := b.files("")
		list := readList(t, files)
		if list.Finished == "" {
			t.Error("the list has no time")
		}
		list.Finished = ""
		same(t, "list", list, dumpList{
			Version: 1, Run: run, Engine: "postgres", ServerVersion: "99.1", Tool: "pg_dump", ToolVersion: "99.1", Position: "0/A0",
			EstimateKiB: 1024 + 2*(512+64), Parts: listParts(parts),
		})
		delete(files, ".backsnap-dump.json")
		same(t, "files", files, map[string]string{parts[0].Path: globals, parts[1].Path: archive("dbname='postgres'"), parts[2].Path: archive("dbname='shop'")})
		info, err := os.Stat(filepath.Join(b.volume, ".backsnap-dump.json"))
		must(t, err)
		same(t, "mode", info.Mode(), os.FileMode(0o600))
	})
}

// dumpList is the form of .backsnap-dump.json.
type dumpList struct {
	Version       int        `json:"version"`
	Run           string     `json:"run"`
	Finished      string     `json:"finished"`
	Engine        string     `json:"engine"`
	ServerVersion string     `json:"serverVersion"`
	Tool          string     `json:"tool"`
	ToolVersion   string     `json:"toolVersion"`
	Position      string     `json:"position"`
	EstimateKiB   int64      `json:"estimateKiB"`
	Parts         []listPart `json:"parts"`
}

type listPart struct {
	What   string `json:"what"`
	File   string `json:"file"`
	Format string `json:"format"`
	Bytes  int64  `json:"bytes"`
	SHA256 string `json:"sha256"`
}

func readList(t *testing.T, files map[string]string) dumpList {
	t.Helper()
	var list dumpList
	must(t, json.Unmarshal([]byte(files[".backsnap-dump.json"]), &list))
	return list
}

// listParts are parts as the list beside them has them.
func listParts(parts []plugins.Part) []listPart {
	var listed []listPart
	for _, p := range parts {
		listed = append(listed, listPart{p.What, filepath.Base(p.Path), p.Format, p.Bytes, p.SHA256})
	}
	return listed
}

// Names of databases may hold any byte but NUL.
func TestPostgresHostileNames(t *testing.T) {
	names := []string{
		`two words`, `it's`, `say "x"`, `back\slash`, `$HOME`, "`id`", `$(id)`, `;rm -rf /`, `%s%d%%`, `*`, `?[a-z]`, `-d`, `--help`, ` lead`, `trail `,
		"new\nline", "end\n", "tab\there", "\x01\x7f", "naïve", "日本", "\xff\xfe", `dbname=evil`, `postgres://x`, `\'`, `\\`, `'`, `"`, `{"json":1}`, `,`, `~`, `!x`, `#hash`,
		`bs db 41 1`, strings.Repeat("é", 31),
	}
	shells(t, func(t *testing.T, b *box) {
		fakePostgres(b, names...)
		got, err := b.dump("postgres", run)
		must(t, err)
		files := b.files("")
		list := readList(t, files)
		for i, name := range names {
			connection := "dbname='" + strings.NewReplacer(`\`, `\\`, `'`, `\'`).Replace(name) + "'"
			want := part("database "+name, fmt.Sprintf(".backsnap-%s-%d.dump", run, i+2), "custom", archive(connection))
			same(t, "part", got.Parts[i+1], want)
			same(t, "file", files[want.Path], archive(connection))
			same(t, "name in the list", list.Parts[i+1].What, string([]rune("database "+name)))
		}
	})
}

// Whatever fails, the kind says what it was, and the last good dump stands,
// alone.
func TestPostgresDumpFails(t *testing.T) {
	for _, c := range []struct {
		name   string
		change func(b *box)
		want   plugins.Error
	}{
		{"the tool half-way", func(b *box) {
			b.stub("pg_dump", pgVersion+"printf 'archive of half'\necho 'pg_dump: warning: x' >&2\necho 'pg_dump: error: first' >&2\necho 'pg_dump: detail: server gone' >&2\nexit 1\n")
		}, plugins.Error{Kind: plugins.DumpFailed, Message: "dump database postgres: pg_dump: error: first"}},
		{"the tool for the second database", func(b *box) {
			b.stub("pg_dump", pgVersion+"case $* in *postgres*) echo archive of postgres; exit ;; esac\necho refused >&2\nexit 1\n")
		}, plugins.Error{Kind: plugins.DumpFailed, Message: "dump database shop: refused"}},
		{"the tool is killed", func(b *box) {
			b.stub("pg_dump", pgVersion+"printf 'archive of half'\nkill -s KILL $$\n")
		}, plugins.Error{Kind: plugins.DumpFailed, Message: "dump database postgres: pg_dump ended with status 137"}},
		{"it may not read", func(b *box) {
			b.stub("pg_dump", pgVersion+"echo 'pg_dump: error: permission denied for table t' >&2\nexit 1\n")
		}, plugins.Error{Kind: plugins.Permission, Message: "dump database postgres: pg_dump: error: permission denied for table t"}},
		{"nothing comes out", func(b *box) {
			b.stub("pg_dump", pgVersion+"")
		}, plugins.Error{Kind: plugins.VerifyFailed, Message: "the dump of database postgres is empty"}},
		{"it cannot be read back", func(b *box) { b.stub("pg_restore", "echo 'pg_restore: error: unexpected end of file' >&2\nexit 1\n") },
			plugins.Error{Kind: plugins.VerifyFailed, Message: "the dump of database postgres cannot be read back: pg_restore: error: unexpected end of file"}},
		{"the globals", func(b *box) { b.stub("pg_dumpall", "echo 'pg_dumpall: error: query failed' >&2\nexit 1\n") },
			plugins.Error{Kind: plugins.DumpFailed, Message: "dump globals: pg_dumpall: error: query failed"}},
		{"the globals are cut off", func(b *box) { b.stub("pg_dumpall", "echo CREATE ROLE x\n") },
			plugins.Error{Kind: plugins.VerifyFailed, Message: "the dump of globals has no trailer: it was cut off"}},
		{"the sum", func(b *box) { b.stub("sha256sum", "exit 1\n") },
			plugins.Error{Kind: plugins.VerifyFailed, Message: ".backsnap-new-1.dump has no SHA-256"}},
		{"no file can be made", func(b *box) { must(b.t, os.Mkdir(filepath.Join(b.volume, ".backsnap-new-1.dump.part"), 0o755)) },
			plugins.Error{Kind: plugins.Permission, Message: "VOLUME/.backsnap-new-1.dump.part cannot be written"}},
		{"a program is missing", func(b *box) { b.remove("pg_restore") },
			plugins.Error{Kind: plugins.NoTool, Message: "the image has no pg_restore"}},
		{"nothing computes sums", func(b *box) {
			b.remove("sha256sum", "openssl", "busybox")
		}, plugins.Error{Kind: plugins.NoTool, Message: "the image has nothing that computes SHA-256"}},
		{"df does not work", func(b *box) { b.stub("df", "exit 1\n") },
			plugins.Error{Kind: plugins.NoTool, Message: "df does not work on VOLUME/pgdata"}},
		{"the data lie on no volume", func(b *box) { b.stub("df", "echo 'overlay 1000000 1 1000000 1% /'\n") },
			plugins.Error{Kind: plugins.NoVolume, Message: "VOLUME/pgdata lies on no volume"}},
		{"no space", func(b *box) { b.disk(1<<20, 52428, 65536, 60000) },
			plugins.Error{Kind: plugins.NoSpace, Message: "the dump needs about 1 MiB and the database 51 MiB in reserve, but only 51 MiB are free on the volume at VOLUME"}},
		{"no space on a small volume", func(b *box) { b.disk(256<<10, 32<<10, 65536, 60000) },
			plugins.Error{Kind: plugins.NoSpace, Message: "the dump needs about 1 MiB and the database 32 MiB in reserve, but only 32 MiB are free on the volume at VOLUME"}},
		{"no inodes", func(b *box) { b.disk(1<<20, 1<<19, 65536, 600) },
			plugins.Error{Kind: plugins.NoInodes, Message: "the dump needs 4 files and the database 671 in reserve, but only 600 inodes are free on the volume at VOLUME"}},
		{"the dump comes to the cap", func(b *box) {
			b.disk(1<<20, 52428+1200, 65536, 60000)
			b.stub("pg_dump", pgVersion+"exec head -c 3000000 /dev/zero\n")
		}, plugins.Error{Kind: plugins.NoSpace, Message: "the dump of database postgres came to the cap of 1 MiB, which leaves the database its reserve"}},
		{"the volume runs full beside it", func(b *box) {
			b.stub("df", fmt.Sprintf("free=500000\n[ ! -e $DIR/full ] || free=20000\necho \"/dev/a 1000000 1 $free 1%% %s\"\n", b.volume))
			b.stub("pg_dump", pgVersion+": >$DIR/full\nsleep 1000\n")
		}, plugins.Error{Kind: plugins.NoSpace, Message: "the volume at VOLUME ran full while the dump was written"}},
		{"the login", func(b *box) {
			b.stub("psql", "echo 'psql: error: FATAL:  password authentication failed for user \"postgres\"' >&2\nexit 2\n")
		}, plugins.Error{Kind: plugins.Login, Message: `no login as postgres: psql: error: FATAL:  password authentication failed for user "postgres"`}},
		{"the server starts", func(b *box) {
			b.stub("psql", "echo 'psql: error: FATAL:  the database system is starting up' >&2\nexit 2\n")
		}, plugins.Error{Kind: plugins.Starting, Message: "the server is starting up"}},
		{"the server replays", func(b *box) {
			b.stub("psql", "echo 'FATAL:  the database system is not yet accepting connections\nDETAIL:  Consistent recovery state has not been yet reached.' >&2\nexit 2\n")
		}, plugins.Error{Kind: plugins.Recovery, Message: "the server replays its log"}},
		{"the server recovers", func(b *box) { b.stub("psql", "echo 'FATAL:  the database system is in recovery mode' >&2\nexit 2\n") },
			plugins.Error{Kind: plugins.Recovery, Message: "the server replays its log"}},
		{"the server is full", func(b *box) { b.stub("psql", "echo 'FATAL:  sorry, too many clients already' >&2\nexit 2\n") },
			plugins.Error{Kind: plugins.Unavailable, Message: "the server takes no connection: FATAL:  sorry, too many clients already"}},
		{"the server refuses in another language", func(b *box) {
			b.stub("psql", "echo 'FATAL:  das Datenbanksystem startet' >&2\nexit 2\n")
			b.stub("pg_isready", "exit 1\n")
		}, plugins.Error{Kind: plugins.Unavailable, Message: "the server takes no connection: FATAL:  das Datenbanksystem startet"}},
		{"no server yet", func(b *box) { must(b.t, os.Remove(filepath.Join(b.volume, "pgdata", "postmaster.pid"))) },
			plugins.Error{Kind: plugins.Starting, Message: "no server runs in VOLUME/pgdata yet"}},
		{"the tool says nothing", func(b *box) { b.stub("pg_dump", pgVersion+"printf 'archive of half'\nexit 7\n") },
			plugins.Error{Kind: plugins.DumpFailed, Message: "dump database postgres: pg_dump ended with status 7"}},
		{"a server elsewhere", func(b *box) {
			must(b.t, os.WriteFile(filepath.Join(b.volume, "pgdata", "postmaster.pid"), []byte("99999999\n"), 0o644))
		}, plugins.Error{Kind: plugins.NoServer, Message: "the server of VOLUME/pgdata is not in this container (no process 99999999)"}},
		{"an old server", func(b *box) {
			must(b.t, os.WriteFile(filepath.Join(b.volume, "pgdata", "PG_VERSION"), []byte("9.6\n"), 0o644))
		}, plugins.Error{Kind: plugins.Unsupported, Message: "PostgreSQL 9.6 is older than 10"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			shells(t, func(t *testing.T, b *box) {
				fakePostgres(b, "postgres", "shop")
				b.older()
				before := b.files("")
				c.change(b)
				_, err := b.dump("postgres", "new")
				same(t, "error", failure(t, b, err), plugins.Error{Kind: c.want.Kind, Message: c.want.Message})
				same(t, "the volume", b.files(""), before)
			})
		})
	}
}

// failure is err as a script's error, the volume's path as VOLUME and without
// its hint, which every kind has.
func failure(t *testing.T, b *box, err error) plugins.Error {
	t.Helper()
	var e *plugins.Error
	if !errors.As(err, &e) {
		t.Fatalf("error %v is no *Error", err)
	}
	if e.Hint == "" {
		t.Errorf("error %v has no hint", err)
	}
	return plugins.Error{Kind: e.Kind, Message: strings.ReplaceAll(e.Message, b.volume, "VOLUME")}
}

func TestPostgresWithoutRightToPasswords(t *testing.T) {
	shells(t, func(t *testing.T, b *box) {
		fakePostgres(b, "shop")
		b.stub("pg_dumpall", `case $* in *--no-role-passwords*) echo "-- PostgreSQL database cluster dump complete" ;; *) echo "permission denied for table pg_authid" >&2; exit 1 ;; esac
`)
		got, err := b.dump("postgres", run)
		must(t, err)
		same(t, "globals", got.Parts[0], part("globals", ".backsnap-"+run+"-1.dump", "sql", "-- PostgreSQL database cluster dump complete\n"))
		same(t, "warnings", got.Warnings, []string{"the dump has no passwords of roles: postgres may not read them"})
	})
}

func TestPostgresBarrier(t *testing.T) {
	shells(t, func(t *testing.T, b *box) {
		fakePostgres(b, "shop")
		barrier := func() plugins.Barrier {
			t.Helper()
			out, _ := b.exec(lookup(t, "postgres").Barrier(nonce))
			got, err := plugins.ReadBarrier(nonce, out)
			must(t, err)
			return got
		}
		same(t, "a primary", barrier(), plugins.Barrier{Forced: true, How: "pg_logical_emit_message, CHECKPOINT", Position: "0/B0"})
		b.stub("psql", `case "$*" in *emit_message*) echo "bs 0/B0"; echo "ERROR:  must be superuser" >&2; exit 3 ;; *) cat $DIR/facts ;; esac
`)
		same(t, "without a right to CHECKPOINT", barrier(), plugins.Barrier{Forced: true, How: "pg_logical_emit_message", Position: "0/B0"})
		b.stub("psql", `case "$*" in *emit_message*) echo "ERROR:  no" >&2; exit 1 ;; *) cat $DIR/facts ;; esac
`)
		same(t, "refused", barrier(), plugins.Barrier{How: "ERROR:  no"})
		must(t, os.WriteFile(filepath.Join(b.dir, "facts"), []byte(pgFacts("replica", "on", "shop")), 0o644))
		same(t, "a replica", barrier(), plugins.Barrier{How: "a replica acknowledges nothing of its own", Position: "0/A0"})
	})
}

// hostile are passwords that a shell, a connection string or an option file
// would take apart.
var hostile = []string{`p'w"d $x\ #;`, `#start`, `"quoted"`, `'single'`, `end\`, ` lead and trail `, "`id`$(id)", `a=b;c`, `%s`, `\n`, `-p`, `ünï`}

func TestPostgresPassword(t *testing.T) {
	shells(t, func(t *testing.T, b *box) {
		fakePostgres(b, "shop")
		b.stub("psql", `printf '%s|%s' "$PGUSER" "${PGPASSWORD-none}" >"$DIR/login"
printf '%s\n' "$@" >>"$DIR/arguments"
cat "$DIR/facts"
`)
		data := b.env[0]
		login := func(env ...string) string {
			t.Helper()
			b.env = append([]string{data}, env...)
			_, err := b.probe("postgres")
			must(t, err)
			return b.content("login")
		}
		secret := filepath.Join(b.dir, "secret")
		for _, password := range hostile {
			same(t, "by value", login("POSTGRES_PASSWORD="+password), "postgres|"+password)
			must(t, os.WriteFile(secret, []byte(password+"\n"), 0o644))
			same(t, "by file", login("POSTGRES_PASSWORD_FILE="+secret), "postgres|"+password)
			if strings.Contains(b.content("arguments"), password) && len(password) > 3 {
				t.Errorf("password %q is among the arguments", password)
			}
		}
		same(t, "none", login(), "postgres|none")
		same(t, "the official image's superuser", login("POSTGRES_USER=me", "POSTGRES_PASSWORD=x"), "me|x")
		same(t, "Bitnami's superuser", login("POSTGRESQL_USERNAME=app", "POSTGRESQL_PASSWORD=x", "POSTGRESQL_POSTGRES_PASSWORD=y"), "postgres|y")
		same(t, "Bitnami's user", login("POSTGRESQL_USERNAME=app", "POSTGRESQL_PASSWORD=x"), "app|x")
	})
}
