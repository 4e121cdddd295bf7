package images_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// hostile is a password with everything that a shell, a URL or SQL may trip over.
const hostile = `p'w"$x\ y%`

// engine is how the tests talk to one of the databases.
type engine struct {
	name    string
	ref     string
	data    string // data directory
	server  string // name of the process
	secret  string // variable of the superuser's password
	user    string // the superuser
	setting string // an argument for the server, with its effect
	shows   string
	query   func(user, database, sql string) []string // command that connects to the container's address
	env     string                                    // variable in which the command takes the password
	refusal string                                    // what a start without a password says
}

var engines = []engine{
	{
		name: "postgres", ref: "docker.io/library/postgres:15", data: "/var/lib/postgresql/data", server: "postgres",
		secret: "POSTGRES_PASSWORD", user: "postgres", setting: "-cwork_mem=7MB", shows: "SHOW work_mem",
		env: "PGPASSWORD", refusal: "set POSTGRES_PASSWORD",
		query: func(user, database, sql string) []string {
			return []string{"psql", "-XAtw", "-h", address, "-U", user, "-d", database, "-c", sql}
		},
	},
	{
		name: "mariadb", ref: "docker.io/library/mariadb:10.11", data: "/var/lib/mysql", server: "mariadbd",
		secret: "MARIADB_ROOT_PASSWORD", user: "root", setting: "--sort-buffer-size=7M", shows: "SELECT CONCAT(@@sort_buffer_size DIV 1048576, 'MB')",
		env: "MYSQL_PWD", refusal: "set MARIADB_ROOT_PASSWORD",
		query: func(user, database, sql string) []string {
			return []string{"mariadb", "-NB", "-h", address, "-u", user, "-D", database, "-e", sql}
		},
	},
}

// system is a database that every server of the engine has.
func (e engine) system() string {
	if e.name == "postgres" {
		return "postgres"
	}
	return "mysql"
}

// ask runs a query as the superuser with the hostile password.
func (e engine) ask(c *container, sql string) (string, error) {
	return c.exec([]string{e.env + "=" + hostile}, e.query(e.user, e.system(), sql)...)
}

// up starts a container and waits until it answers the superuser.
func (e engine) up(t *testing.T, r run) *container {
	t.Helper()
	r.ref = e.ref
	c := start(t, r)
	c.serve(func() error {
		out, err := e.ask(c, "SELECT 1")
		if err != nil {
			return fmt.Errorf("%w: %s", err, out)
		}
		return nil
	})
	return c
}

// check fails the test unless asking gives want.
func (e engine) check(t *testing.T, c *container, sql, want string) {
	t.Helper()
	got, err := e.ask(c, sql)
	if err != nil || got != want {
		t.Errorf("%s: got %q, %v, want %q", sql, got, err, want)
	}
}

func eachEngine(t *testing.T, test func(*testing.T, engine)) {
	for _, e := range engines {
		t.Run(e.name, func(t *testing.T) {
			t.Parallel()
			test(t, e)
		})
	}
}

// volume is an empty volume. A file system of its own has the directory
// lost+found in it.
func volume(t *testing.T) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "volume")
	for _, d := range []string{dir, filepath.Join(dir, "lost+found")} {
		if err := os.Mkdir(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func TestDatabaseRunsAsItsOwnUser(t *testing.T) {
	eachEngine(t, func(t *testing.T, e engine) {
		c := e.up(t, run{env: []string{e.secret + "=" + hostile}, args: []string{e.setting}})
		e.check(t, c, e.shows, "7MB")
		got, err := c.exec(nil, "sh", "-c", "cat /proc/1/comm; stat -c %u:%g /proc/1")
		if want := e.server + "\n999:999"; err != nil || got != want {
			t.Errorf("process 1: got %q, %v, want %q", got, err, want)
		}
		if out, err := c.exec([]string{e.env + "=wrong"}, e.query(e.user, e.system(), "SELECT 1")...); err == nil {
			t.Errorf("a wrong password is let in: %s", out)
		}
	})
}

func TestDatabaseKeepsDataOverCleanStop(t *testing.T) {
	eachEngine(t, func(t *testing.T, e engine) {
		r := run{env: []string{e.secret + "=" + hostile, "PGDATA=/var/lib/postgresql/data/pgdata"}, volumes: map[string]string{e.data: volume(t)}}
		c := e.up(t, r)
		if out, err := e.ask(c, "CREATE TABLE kept AS SELECT 42 AS n"); err != nil {
			t.Fatal(err, out)
		}
		if code, _ := c.end(); code != 0 {
			t.Errorf("stop: exit code %d", code)
		}
		c = e.up(t, r)
		e.check(t, c, "SELECT n FROM kept", "42")
		code, log := c.end()
		if code != 0 || strings.Contains(log, "recovery") {
			t.Errorf("second stop: exit code %d; the first was not clean if this says recovery: %s", code, log)
		}
	})
}

func TestDatabaseRunsAsAnyUser(t *testing.T) {
	eachEngine(t, func(t *testing.T, e engine) {
		dir := volume(t)
		if err := os.Chown(dir, 0, fsGroup); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(dir, 0o2775|os.ModeSetgid); err != nil {
			t.Fatal(err)
		}
		c := e.up(t, run{
			env:     []string{e.secret + "=" + hostile, "PGDATA=/var/lib/postgresql/data/pgdata"},
			uid:     12345,
			volumes: map[string]string{e.data: dir},
		})
		got, err := c.exec(nil, "sh", "-c", "cat /proc/1/comm; stat -c %u:%g /proc/1")
		if want := e.server + "\n12345:0"; err != nil || got != want {
			t.Errorf("process 1: got %q, %v, want %q", got, err, want)
		}
	})
}

func TestDatabaseRefusesStartWithoutPassword(t *testing.T) {
	eachEngine(t, func(t *testing.T, e engine) {
		code, log := start(t, run{ref: e.ref}).wait()
		if code != 1 || !strings.Contains(log, e.refusal) {
			t.Errorf("exit code %d, want 1 and %q: %s", code, e.refusal, log)
		}
	})
}

func TestDatabaseRefusesPasswordGivenTwice(t *testing.T) {
	eachEngine(t, func(t *testing.T, e engine) {
		code, log := start(t, run{ref: e.ref, env: []string{e.secret + "=a", e.secret + "_FILE=/b"}}).wait()
		if want := fmt.Sprintf("error: both %s and %[1]s_FILE are set, and only one may be\n", e.secret); code != 1 || log != want {
			t.Errorf("exit code %d, %q, want 1, %q", code, log, want)
		}
	})
}

func TestDatabaseImageRunsOtherCommands(t *testing.T) {
	eachEngine(t, func(t *testing.T, e engine) {
		code, log := start(t, run{ref: e.ref, args: []string{"sh", "-c", "echo $0 $#; readlink -f /bin/sh; for t in bash gzip zstd sort find gosu setpriv; do command -v $t; done"}}).wait()
		want := "sh 0\n/usr/bin/dash\n/usr/bin/bash\n/usr/bin/gzip\n/usr/bin/zstd\n/usr/bin/sort\n/usr/bin/find\n/usr/sbin/gosu\n/usr/bin/setpriv\n"
		if code != 0 || log != want {
			t.Errorf("exit code %d, %q, want %q", code, log, want)
		}
	})
}

// secrets is a directory as a Secret's volume, which only root can read.
func secrets(t *testing.T, content map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, c := range content {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(c), 0o400); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func TestDatabaseTakesSettingsFromFiles(t *testing.T) {
	env := map[string][]string{
		"postgres": {"POSTGRES_PASSWORD_FILE=/secret/password", "POSTGRES_DB_FILE=/secret/database"},
		"mariadb":  {"MARIADB_ROOT_PASSWORD_FILE=/secret/password", "MYSQL_DATABASE_FILE=/secret/database"},
	}
	eachEngine(t, func(t *testing.T, e engine) {
		dir := secrets(t, map[string]string{"password": hostile + "\n", "database": "from_file\n"})
		c := e.up(t, run{env: env[e.name], volumes: map[string]string{"/secret": dir}})
		got, err := c.exec([]string{e.env + "=" + hostile}, e.query(e.user, "from_file", "SELECT 1")...)
		if err != nil || got != "1" {
			t.Errorf("got %q, %v", got, err)
		}
	})
}

func TestDatabaseRunsInitializationFiles(t *testing.T) {
	eachEngine(t, func(t *testing.T, e engine) {
		dir := t.TempDir()
		client := map[string]string{
			"postgres": `psql -U "$POSTGRES_USER" -d "$POSTGRES_DB"`,
			"mariadb":  `mariadb --protocol=socket -u root -D "$MARIADB_DATABASE"`,
		}[e.name]
		for name, content := range map[string]string{
			"1.sql":        "CREATE TABLE seen (step int); INSERT INTO seen VALUES (1);",
			"2-sourced.sh": client + ` <<<'INSERT INTO seen VALUES (2)'`,
			"3-run.sh":     "#!/bin/sh\necho 'INSERT INTO seen VALUES (3)' | " + client,
			"4.sql":        "INSERT INTO seen VALUES (4);",
			"ignored.txt":  "DROP TABLE seen;",
		} {
			mode := os.FileMode(0o644)
			if name == "3-run.sh" {
				mode = 0o755
			}
			if err := os.WriteFile(filepath.Join(dir, name), []byte(content), mode); err != nil {
				t.Fatal(err)
			}
		}
		must(t, "gzip", filepath.Join(dir, "4.sql"))
		if err := os.Chmod(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		c := e.up(t, run{
			env:     []string{e.secret + "=" + hostile, "POSTGRES_DB=app", "MARIADB_DATABASE=app"},
			volumes: map[string]string{"/docker-entrypoint-initdb.d": dir},
		})
		got, err := c.exec([]string{e.env + "=" + hostile}, e.query(e.user, "app", "SELECT step FROM seen ORDER BY 1")...)
		if want := "1\n2\n3\n4"; err != nil || got != want {
			t.Errorf("got %q, %v, want %q", got, err, want)
		}
	})
}

func TestDatabaseStopsWhenAnInitializationFileFails(t *testing.T) {
	eachEngine(t, func(t *testing.T, e engine) {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, "1.sql"), []byte("SELECT nonsense FROM nowhere;"), 0o644); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		c := start(t, run{ref: e.ref, env: []string{e.secret + "=" + hostile}, volumes: map[string]string{"/docker-entrypoint-initdb.d": dir}})
		if code, log := c.wait(); code == 0 || !strings.Contains(log, "nowhere") {
			t.Errorf("exit code %d: %s", code, log)
		}
	})
}

func TestPostgresMakesUserAndDatabase(t *testing.T) {
	t.Parallel()
	e := engines[0]
	e.user = "the user"
	env := []string{"POSTGRES_USER=" + e.user, "POSTGRES_DB=my \"db\" $x", "POSTGRES_PASSWORD=" + hostile, "POSTGRES_INITDB_ARGS=--data-checksums --auth-local=scram-sha-256"}
	c := e.up(t, run{env: env})
	got, err := c.exec([]string{"PGPASSWORD=" + hostile}, e.query(e.user, `my "db" $x`,
		"SELECT current_user, rolsuper, current_setting('data_checksums'), current_setting('lc_collate') FROM pg_roles WHERE rolname = current_user")...)
	if want := e.user + "|t|on|en_US.utf8"; err != nil || got != want {
		t.Errorf("got %q, %v, want %q", got, err, want)
	}
}

func TestPostgresTrustsWhomItIsTold(t *testing.T) {
	t.Parallel()
	e := engines[0]
	c := e.up(t, run{env: []string{"POSTGRES_HOST_AUTH_METHOD=trust"}})
	if out, err := c.exec([]string{"PGPASSWORD=any"}, e.query("postgres", "postgres", "SELECT 1")...); err != nil || out != "1" {
		t.Errorf("got %q, %v", out, err)
	}
}

func TestPostgresWantsDirectoryBelowMountPoint(t *testing.T) {
	t.Parallel()
	e := engines[0]
	c := start(t, run{ref: e.ref, env: []string{e.secret + "=" + hostile}, volumes: map[string]string{e.data: volume(t)}})
	if code, log := c.wait(); code != 1 || !strings.Contains(log, "lost+found") {
		t.Errorf("exit code %d: %s", code, log)
	}
}

func TestMariaDBMakesUserAndDatabase(t *testing.T) {
	t.Parallel()
	e := engines[1]
	c := e.up(t, run{env: []string{
		"MYSQL_ROOT_PASSWORD=" + hostile, "MARIADB_DATABASE=my_`db` $x", "MYSQL_USER=o'ne", "MARIADB_PASSWORD=" + hostile, "MARIADB_INITDB_SKIP_TZINFO=1",
	}})
	got, err := c.exec([]string{"MYSQL_PWD=" + hostile}, e.query("o'ne", "my_`db` $x", "CREATE TABLE t (n int); SELECT CURRENT_USER(); SHOW TABLES")...)
	if want := "o'ne@%\nt"; err != nil || got != want {
		t.Errorf("got %q, %v, want %q", got, err, want)
	}
	e.check(t, c, "SELECT CONCAT(user, '@', host) FROM user ORDER BY 1", "mariadb.sys@localhost\no'ne@%\nroot@%\nroot@localhost")
}

func TestMariaDBRootPassword(t *testing.T) {
	for _, c := range []struct {
		name     string
		env      string
		password func(log string) string
	}{
		{"may be empty", "MARIADB_ALLOW_EMPTY_ROOT_PASSWORD=yes", func(string) string { return "" }},
		{"may be empty, as MySQL spells it", "MYSQL_ALLOW_EMPTY_PASSWORD=yes", func(string) string { return "" }},
		{"is made up and logged", "MARIADB_RANDOM_ROOT_PASSWORD=1", func(log string) string {
			_, after, _ := strings.Cut(log, "GENERATED ROOT PASSWORD: ")
			password, _, _ := strings.Cut(after, "\n")
			return password
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			e := engines[1]
			box := start(t, run{ref: e.ref, env: []string{c.env, "MARIADB_INITDB_SKIP_TZINFO=1"}})
			box.serve(func() error {
				out, err := box.exec([]string{"MYSQL_PWD=" + c.password(box.log())}, e.query("root", "mysql", "SELECT 1")...)
				if err != nil {
					return fmt.Errorf("%w: %s", err, out)
				}
				return nil
			})
		})
	}
}

func TestResticImage(t *testing.T) {
	for _, c := range []struct {
		name string
		run  run
		want string
	}{
		{"its entrypoint is restic", run{args: []string{"version"}}, "restic version\n"},
		{"it has a shell and tools", run{shell: "for t in awk cat dd sed sha256sum sh sleep tail; do readlink $(which $t); done | sort | uniq -c"}, "      8 /bin/busybox\n"},
		{"it has certificates", run{shell: "grep -c BEGIN /etc/ssl/certs/ca-certificates.crt | sed 's/^1..$/over a hundred/'"}, "over a hundred\n"},
		{"it has a directory for temporary files", run{uid: 12345, shell: "echo hello >/tmp/file; cat /tmp/file"}, "hello\n"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			c.run.ref = "docker.io/restic/restic:0.19.1"
			if code, log := start(t, c.run).wait(); code != 0 || log != c.want {
				t.Errorf("exit code %d, %q, want %q", code, log, c.want)
			}
		})
	}
}

func TestBusyboxImageStartsShell(t *testing.T) {
	t.Parallel()
	code, log := start(t, run{ref: "docker.io/library/busybox:1.36", args: []string{"sh", "-c", "id -u; echo $PATH"}}).wait()
	if want := "0\n/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin\n"; code != 0 || log != want {
		t.Errorf("exit code %d, %q, want %q", code, log, want)
	}
}

func TestPauseEndsWhenTold(t *testing.T) {
	t.Parallel()
	c := start(t, run{ref: "registry.k8s.io/pause:3.10"})
	c.serve(func() error { return nil })
	if code, log := c.end(); code != 0 || log != "" {
		t.Errorf("exit code %d, %q", code, log)
	}
}
