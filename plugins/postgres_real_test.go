package plugins_test

import (
	"cmp"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/backsnap/kubectl-backsnap/plugins"
)

// pgServer is a real server.
type pgServer struct {
	t        testing.TB
	bin      string
	volume   string // where its data directory lies
	data     string
	socket   string // directory
	password string
	uid      int
}

// newPgServer starts a fresh server; password is its superuser's, and none lets
// everyone in.
func newPgServer(t testing.TB, password string, settings ...string) *pgServer {
	t.Helper()
	p := pgFiles(t)
	p.password = password
	method := "trust"
	if password != "" {
		method = "scram-sha-256"
	}
	file := filepath.Join(p.socket, "password")
	must(t, os.WriteFile(file, []byte(cmp.Or(password, "unused")+"\n"), 0o644))
	p.run("initdb", "-D", p.data, "-U", "postgres", "-A", method, "--pwfile="+file, "-N", "--no-locale", "-E", "UTF8")
	must(t, os.Remove(file))
	p.start(settings...)
	return p
}

// pgFiles makes the directories of a server, all but its data's.
func pgFiles(t testing.TB) *pgServer {
	t.Helper()
	if testing.Short() {
		t.Skip("a real server takes its time")
	}
	found, err := filepath.Glob("/usr/lib/postgresql/*/bin/initdb")
	must(t, err)
	if len(found) == 0 {
		t.Skip("no PostgreSQL server on this machine: apt-get install postgresql")
	}
	p := &pgServer{t: t, bin: filepath.Dir(found[len(found)-1]), volume: tempDir(t), socket: tempDir(t), uid: os.Getuid()}
	p.data = filepath.Join(p.volume, "pgdata")
	if p.uid == 0 {
		p.uid = serverUID
	}
	must(t, os.Chown(p.volume, p.uid, p.uid))
	must(t, os.Chown(p.socket, p.uid, p.uid))
	return p
}

func (p *pgServer) start(settings ...string) {
	p.t.Helper()
	options := "-c listen_addresses= -k " + p.socket
	for _, s := range settings {
		options += " -c " + s
	}
	p.run("pg_ctl", "-D", p.data, "-w", "-l", filepath.Join(p.socket, "log"), "-o", options, "start")
	p.t.Cleanup(func() { p.run("pg_ctl", "-D", p.data, "-m", "immediate", "stop") })
}

// command is a program of the server, run as its user and superuser.
func (p *pgServer) command(program string, args ...string) *exec.Cmd {
	cmd := exec.Command(filepath.Join(p.bin, program), args...)
	cmd.SysProcAttr, cmd.Dir = credential(p.uid), "/"
	cmd.Env = append(os.Environ(), "LC_ALL=C", "PGHOST="+p.socket, "PGUSER=postgres", "PGPASSWORD="+p.password)
	return cmd
}

func (p *pgServer) run(program string, args ...string) string {
	p.t.Helper()
	var stderr strings.Builder
	cmd := p.command(program, args...)
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		p.t.Fatalf("%s %s: %v\n%s%s", program, strings.Join(args, " "), err, out, stderr.String())
	}
	return strings.TrimSpace(string(out))
}

// sql runs statements in a database and returns what they give.
func (p *pgServer) sql(database string, statements ...string) string {
	p.t.Helper()
	args := []string{"-XAtqw", "-v", "ON_ERROR_STOP=1", "-d", pgConnection(database)}
	for _, s := range statements {
		args = append(args, "-c", s)
	}
	return p.run("psql", args...)
}

func pgConnection(database string) string {
	return "dbname='" + strings.NewReplacer(`\`, `\\`, `'`, `\'`).Replace(database) + "'"
}

func pgName(name string) string { return `"` + strings.ReplaceAll(name, `"`, `""`) + `"` }

// shells runs f in each shell, in a box that has the server.
func (p *pgServer) shells(t *testing.T, f func(t *testing.T, b *box)) {
	t.Helper()
	shells(t, func(t *testing.T, b *box) {
		whole := p.t
		defer func() { p.t = whole }()
		p.t, b.volume, b.uid = t, p.volume, p.uid
		b.disk(1<<20, 1<<19, 65536, 60000)
		b.env = []string{"PGDATA=" + p.data}
		if p.password != "" {
			b.env = append(b.env, "POSTGRES_PASSWORD="+p.password)
		}
		f(t, b)
	})
}

// text is a database as pg_dump writes it, without the token that differs each
// time.
func (p *pgServer) text(database string) string {
	p.t.Helper()
	args := []string{"-w", "-d", pgConnection(database)}
	if !strings.Contains(database, "\n") {
		args = append(args, "-C") // psql could not load the statement
	}
	token := regexp.MustCompile(`(?m)^\\(un)?restrict .*$`)
	return token.ReplaceAllString(p.run("pg_dump", args...), "")
}

// pgNames are databases that PostgreSQL itself accepts.
var pgNames = []string{"shop", `it's "b\l" $HOME %s *`, " lead trail ", "-d", "new\nline", "日本", "dbname=evil"}

// What was dumped is what a fresh server has after it was loaded.
func TestPostgresRealRoundTrip(t *testing.T) {
	p := newPgServer(t, hostile[0])
	p.sql("postgres", "CREATE ROLE clerk LOGIN PASSWORD 'x' CREATEDB")
	for _, name := range pgNames {
		p.sql("postgres", "CREATE DATABASE "+pgName(name)+" OWNER clerk")
		p.sql(name, `CREATE TABLE t (i int PRIMARY KEY, b bytea, s text);
			INSERT INTO t SELECT i, decode(md5(i::text), 'hex'), repeat(chr(39) || chr(92) || chr(10), i % 7) FROM generate_series(1, 2000) AS i;
			CREATE VIEW v AS SELECT count(*) FROM t; CREATE FUNCTION f() RETURNS int LANGUAGE sql AS 'SELECT 1';
			SELECT lo_from_bytea(4711, '\x00ff')`)
	}
	p.sql("postgres", "CREATE DATABASE closed ALLOW_CONNECTIONS false", "ALTER DATABASE shop SET work_mem = '5MB'")
	p.shells(t, func(t *testing.T, b *box) {
		seen := watchArguments(t, p.password)
		probe, err := b.probe("postgres")
		must(t, err)
		got, err := b.dump("postgres", run)
		must(t, err)
		same(t, "processes that show the password", seen(), nil)
		same(t, "databases", probe.Databases, len(pgNames)+1)
		same(t, "warnings", got.Warnings, nil)
		same(t, "forced", got.Barrier.Forced, true)
		same(t, "parts", len(got.Parts), len(pgNames)+2)
		r := newPgServer(t, "")
		for _, part := range got.Parts {
			r.load(part, filepath.Join(p.volume, part.Path))
		}
		for _, name := range append([]string{"postgres"}, pgNames...) {
			sameText(t, fmt.Sprintf("database %q", name), r.text(name), p.text(name))
		}
		same(t, "a role's password", r.sql("postgres", "SELECT rolpassword FROM pg_authid WHERE rolname = 'clerk'"), p.sql("postgres", "SELECT rolpassword FROM pg_authid WHERE rolname = 'clerk'"))
	})
}

// load loads one part of a dump, as its sum says it is.
func (p *pgServer) load(part_ plugins.Part, file string) {
	p.t.Helper()
	text, err := os.ReadFile(file)
	must(p.t, err)
	same(p.t, "file", part(part_.What, part_.Path, part_.Format, string(text)), part_)
	switch part_.What {
	case "globals":
		p.run("psql", "-Xqw", "-d", "postgres", "-f", file) // that role postgres exists is no failure
	case "database postgres":
		p.run("pg_restore", "-w", "-e", "-d", "postgres", file)
	case "database new\nline": // which pg_restore will not create
		p.sql("postgres", "CREATE DATABASE "+pgName("new\nline")+" OWNER clerk")
		p.run("pg_restore", "-w", "-e", "-d", pgConnection("new\nline"), file)
	default:
		p.run("pg_restore", "-w", "-e", "-C", "-d", "postgres", file)
	}
}

// watchArguments looks at the arguments of every process until the function it
// returns is called, which says which of them held secret.
func watchArguments(t *testing.T, secret string) func() []string {
	t.Helper()
	stop, done := make(chan struct{}), make(chan struct{})
	var found []string
	go func() {
		defer close(done)
		for {
			select {
			case <-stop:
				return
			case <-time.After(time.Millisecond):
			}
			files, _ := filepath.Glob("/proc/[0-9]*/cmdline")
			for _, file := range files {
				if text, _ := os.ReadFile(file); strings.Contains(string(text), secret) {
					found = append(found, strings.ReplaceAll(string(text), "\x00", " "))
				}
			}
		}
	}()
	return func() []string {
		close(stop)
		<-done
		return found
	}
}

func TestPostgresRealPasswords(t *testing.T) {
	p := newPgServer(t, "first")
	p.shells(t, func(t *testing.T, b *box) {
		for _, password := range hostile {
			p.sql("postgres", "ALTER ROLE postgres PASSWORD '"+strings.ReplaceAll(password, "'", "''")+"'")
			p.password = password
			b.env = []string{b.env[0], "POSTGRES_PASSWORD=" + password}
			_, err := b.probe("postgres")
			must(t, err)
		}
		b.env = []string{b.env[0], "POSTGRES_PASSWORD=stale"}
		_, err := b.probe("postgres")
		same(t, "kind", failure(t, b, err).Kind, plugins.Login)
	})
}

// A user who may not read everything dumps nothing.
func TestPostgresRealLimitedUser(t *testing.T) {
	p := newPgServer(t, "")
	p.sql("postgres", "CREATE ROLE clerk LOGIN", "CREATE TABLE secret (i int)")
	p.shells(t, func(t *testing.T, b *box) {
		b.env = append(b.env, "POSTGRES_USER=clerk")
		probe, err := b.probe("postgres")
		must(t, err)
		same(t, "warnings", probe.Warnings, []string{"clerk is no superuser: the dump fails if it may not read all, and has no passwords of roles"})
		before := b.files("")
		_, err = b.dump("postgres", run)
		same(t, "error", failure(t, b, err), plugins.Error{Kind: plugins.Permission, Message: "dump database postgres: pg_dump: error: query failed: ERROR:  permission denied for table secret"})
		same(t, "the volume", b.files(""), before)
	})
}

// The server's own session ends with the client, be it waiting for a lock.
func TestPostgresRealClientGone(t *testing.T) {
	p := newPgServer(t, "")
	p.sql("postgres", "CREATE TABLE t (i int)")
	holder := p.command("psql", "-Xqw", "-d", "postgres")
	stdin, err := holder.StdinPipe()
	must(t, err)
	must(t, holder.Start())
	t.Cleanup(func() { stdin.Close(); holder.Wait() })
	_, err = stdin.Write([]byte("BEGIN; LOCK TABLE t;\n"))
	must(t, err)
	p.await("SELECT count(*) FROM pg_locks WHERE mode = 'AccessExclusiveLock' AND granted AND relation = 't'::regclass", "1")
	p.shells(t, func(t *testing.T, b *box) {
		s := b.start(lookup(t, "postgres").Dump(nonce, request(run)))
		p.await("SELECT count(*) FROM pg_stat_activity WHERE application_name = 'backsnap-"+nonce+"' AND wait_event_type = 'Lock'", "1")
		must(t, s.stdin.Close())
		out, _ := s.end()
		_, err := plugins.ReadDump(nonce, out)
		same(t, "kind", failure(t, b, err).Kind, plugins.LostClient)
		same(t, "the volume", b.dumps(), nil)
		p.await("SELECT count(*) FROM pg_stat_activity WHERE application_name = 'backsnap-"+nonce+"'", "0")
	})
}

// await returns once query gives want.
func (p *pgServer) await(query, want string) {
	p.t.Helper()
	got := ""
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		if got = p.sql("postgres", query); got == want {
			return
		}
	}
	p.t.Fatalf("%s gives %s, not %s", query, got, want)
}

// A commit that the server has acknowledged without waiting for the disk is on
// it once the barrier has passed.
func TestPostgresRealBarrier(t *testing.T) {
	p := newPgServer(t, "", "wal_writer_delay=10s", "synchronous_commit=off")
	p.sql("postgres", "CREATE TABLE t (i int)")
	p.shells(t, func(t *testing.T, b *box) {
		position := p.sql("postgres", "INSERT INTO t VALUES (1)", "SELECT pg_current_wal_insert_lsn()")
		if p.sql("postgres", "SELECT pg_current_wal_flush_lsn() >= '"+position+"'") == "t" {
			t.Log("the commit is on the disk before the barrier: this shows nothing")
		}
		out, _ := b.exec(lookup(t, "postgres").Barrier(nonce))
		got, err := plugins.ReadBarrier(nonce, out)
		must(t, err)
		same(t, "barrier", got, plugins.Barrier{Forced: true, How: "pg_logical_emit_message, CHECKPOINT", Position: got.Position})
		same(t, "on the disk", p.sql("postgres", "SELECT pg_current_wal_flush_lsn() >= '"+position+"', '"+got.Position+"'::pg_lsn >= '"+position+"'"), "t|t")
	})
}

func TestPostgresRealReplica(t *testing.T) {
	p := newPgServer(t, "")
	p.sql("postgres", "CREATE DATABASE shop")
	p.sql("shop", "CREATE TABLE t (i int)", "INSERT INTO t SELECT generate_series(1, 1000)")
	r := pgFiles(t)
	p.run("pg_basebackup", "-w", "-c", "fast", "-R", "-D", r.data)
	r.start()
	r.shells(t, func(t *testing.T, b *box) {
		probe, err := b.probe("postgres")
		must(t, err)
		same(t, "role", probe.Role, plugins.Replica)
		got, err := b.dump("postgres", run)
		must(t, err)
		same(t, "parts", len(got.Parts), 3)
		same(t, "barrier", got.Barrier, &plugins.Barrier{How: "a replica acknowledges nothing of its own", Position: got.Position})
	})
}

// A dump inside the data directory does not hinder a base backup.
func TestPostgresRealDumpInDataDirectory(t *testing.T) {
	p := newPgServer(t, "")
	p.shells(t, func(t *testing.T, b *box) {
		b.volume = p.data
		b.disk(1<<20, 1<<19, 65536, 60000)
		got, err := b.dump("postgres", run)
		must(t, err)
		same(t, "directory", got.Dir, p.data)
		target := filepath.Join(p.volume, "base-"+b.shell)
		p.run("pg_basebackup", "-w", "-c", "fast", "-D", target)
		if !slices.Contains(b.dumps(), filepath.Base(got.Parts[0].Path)) {
			t.Error("the dump has gone")
		}
	})
}

// As root, where the server trusts only its own user, the script becomes it.
func TestPostgresRealPeer(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("only root becomes another user")
	}
	p := newPgServer(t, "")
	must(t, os.WriteFile(filepath.Join(p.data, "pg_hba.conf"), []byte("local all all peer map=m\n"), 0o600))
	must(t, os.WriteFile(filepath.Join(p.data, "pg_ident.conf"), []byte("m nobody postgres\n"), 0o600))
	p.run("pg_ctl", "-D", p.data, "reload")
	p.shells(t, func(t *testing.T, b *box) {
		if b.shell == "busybox" {
			t.Skip("busybox has nothing that becomes another user for one program")
		}
		b.uid = 0
		got, err := b.dump("postgres", run)
		must(t, err)
		same(t, "parts", len(got.Parts), 2)
	})
}
