package plugins_test

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/backsnap/kubectl-backsnap/plugins"
)

// loads is a load of text that was dumped as what.
func loads(what, text string) plugins.LoadRequest {
	sum := sha256.Sum256([]byte(text))
	r := plugins.LoadRequest{
		What: what, Bytes: int64(len(text)), SHA256: hex.EncodeToString(sum[:]), Timeout: patience,
		Head: []byte(text), Tail: []byte(text[max(0, len(text)-plugins.Withheld):]),
	}
	if name, ok := plugins.DatabaseOf(what); ok {
		r.From, r.Into = name, name
	}
	return r
}

// load loads text, which comes over standard input.
func (b *box) load(plugin string, r plugins.LoadRequest, text string) (plugins.Server, error) {
	b.t.Helper()
	s := b.start(lookup(b.t, plugin).Load(nonce, r))
	_, err := io.WriteString(s.stdin, text[:max(0, len(text)-plugins.Withheld)])
	if err != nil {
		b.t.Log(err) // a script that has stopped takes no more
	}
	out, stderr := s.end()
	b.t.Logf("%s%s", out, stderr)
	return plugins.ReadServer(nonce, out)
}

// look looks at databases.
func (b *box) look(plugin string, names ...string) plugins.Server {
	b.t.Helper()
	out, stderr := b.exec(lookup(b.t, plugin).Look(nonce, names))
	s, err := plugins.ReadServer(nonce, out)
	b.t.Logf("%s%s", out, stderr)
	must(b.t, err)
	return s
}

// wants wants the load to have failed in that way.
func (b *box) wants(err error, kind plugins.Kind, message string) {
	b.t.Helper()
	var said *plugins.Error
	if !errors.As(err, &said) || said.Kind != kind || !strings.Contains(said.Message, message) {
		b.t.Errorf("error %v, want %s: %s", err, kind, message)
	}
}

// parts are the files of a dump by what they are.
func (b *box) parts(d plugins.Dump) map[string]string {
	b.t.Helper()
	parts := map[string]string{}
	for _, p := range d.Parts {
		text, err := os.ReadFile(filepath.Join(b.volume, p.Path))
		must(b.t, err)
		parts[p.What] = string(text)
	}
	return parts
}

func TestPostgresRealLoad(t *testing.T) {
	p := newPgServer(t, "sesame-of-load")
	p.sql("postgres", "CREATE ROLE clerk LOGIN PASSWORD 'first' CREATEDB", `CREATE ROLE "o'dd ""; role" LOGIN`, `GRANT clerk TO "o'dd ""; role"`,
		"ALTER ROLE clerk SET work_mem = '5MB'", "CREATE DATABASE crm")
	for i, name := range pgNames {
		p.sql("postgres", "CREATE DATABASE "+pgName(name)+" OWNER clerk")
		p.sql(name, fmt.Sprintf(`CREATE TABLE t (i int PRIMARY KEY, b bytea, s text);
			INSERT INTO t SELECT i, decode(md5(i::text), 'hex'), repeat(chr(39) || chr(92) || chr(10), i %% 7) FROM generate_series(1, 2000 + %d) AS i;
			ALTER TABLE t OWNER TO "o'dd ""; role"; CREATE VIEW v AS SELECT count(*) FROM t; SELECT lo_from_bytea(4711, '\x00ff')`, i))
	}
	p.shells(t, func(t *testing.T, b *box) {
		seen := watchArguments(t, p.password)
		dump, err := b.dump("postgres", run)
		must(t, err)
		parts := b.parts(dump)
		before := map[string]string{}
		for _, name := range pgNames {
			before[name] = p.text(name)
			p.sql(name, "DELETE FROM t WHERE i > 100", "DROP VIEW v")
		}
		for _, name := range pgNames { // into themselves, as they are or gone
			if name == "dbname=evil" {
				p.sql("postgres", "DROP DATABASE "+pgName(name))
			}
			_, err := b.load("postgres", loads("database "+name, parts["database "+name]), parts["database "+name])
			must(t, err)
			got, want := p.text(name), before[name]
			if name == "dbname=evil" { // it was made anew, by postgres
				owner := regexp.MustCompile(`(?m)^(-- Name: dbname=evil;|ALTER DATABASE).*$`)
				got, want = owner.ReplaceAllString(got, ""), owner.ReplaceAllString(want, "")
			}
			sameText(t, fmt.Sprintf("database %q", name), got, want)
		}

		shop := parts["database shop"]
		r := loads("database shop", shop)
		r.Into, r.Fresh = strings.Repeat("é\"' =", 9), true
		same(t, "before", b.look("postgres", r.Into, "shop").Targets[r.Into], plugins.Stand{})
		_, err = b.load("postgres", r, shop)
		must(t, err)
		rows := "SELECT md5(string_agg(t::text, ',' ORDER BY i)) FROM t"
		same(t, "rows", p.sql(r.Into, rows), p.sql("shop", rows))
		stand := b.look("postgres", r.Into).Targets[r.Into]
		same(t, "objects", stand.Objects, 2)
		_, err = b.load("postgres", r, shop)
		b.wants(err, plugins.NotEmpty, "not empty")
		p.sql("postgres", "DROP DATABASE "+pgName(r.Into))
		r.Into = strings.Repeat(`'" `, 67)
		_, err = b.load("postgres", r, shop)
		b.wants(err, plugins.Unsupported, "has 201 bytes")

		// What fails leaves the database as it was, and a new one not at all.
		r = loads("database shop", shop)
		now := p.text("shop")
		there := p.sql("postgres", "SELECT count(*) FROM pg_database")
		for _, fresh := range []bool{false, true} {
			r := r
			if fresh {
				r.Into, r.Fresh = "new", true
			}
			bad := r
			bad.SHA256 = strings.Repeat("0", 64)
			_, err = b.load("postgres", bad, shop)
			b.wants(err, plugins.VerifyFailed, "cut off or changed")
			wrong := "DROP TABLE IF EXISTS t CASCADE;\nCREATE TABLE u (i int);\nINSERT INTO u VALUES ('x');\nSELECT 1;\n"
			w := loads("database shop", wrong)
			w.Into, w.Fresh = r.Into, r.Fresh
			_, err = b.load("postgres", w, wrong)
			b.wants(err, plugins.LoadFailed, `psql:<stdin>:4`)
			b.wants(err, plugins.LoadFailed, `invalid input syntax for type integer: "x"`)
			s := b.start(lookup(t, "postgres").Load(nonce, r))
			_, err := io.WriteString(s.stdin, shop[:len(shop)/2])
			must(t, err)
			must(t, s.stdin.Close())
			out, stderr := s.end()
			t.Logf("%s%s", out, stderr)
			if _, err := plugins.ReadServer(nonce, out); err == nil {
				t.Error("half a dump was loaded")
			}
			sameText(t, "database shop", p.text("shop"), now)
			same(t, "databases", p.sql("postgres", "SELECT count(*) FROM pg_database"), there)
		}

		// From a file beside the server.
		file := filepath.Join(b.volume, dump.Parts[1].Path)
		r = loads(dump.Parts[1].What, parts[dump.Parts[1].What])
		r.Path = file
		out, _ := b.exec(lookup(t, "postgres").Load(nonce, r))
		_, err = plugins.ReadServer(nonce, out)
		must(t, err)
		r.SHA256 = strings.Repeat("0", 64)
		out, _ = b.exec(lookup(t, "postgres").Load(nonce, r))
		_, err = plugins.ReadServer(nonce, out)
		b.wants(err, plugins.VerifyFailed, "is not the dump that the record tells of")
		r.Path += ".gone"
		out, _ = b.exec(lookup(t, "postgres").Load(nonce, r))
		_, err = plugins.ReadServer(nonce, out)
		b.wants(err, plugins.NoDump, "not there any more")
		same(t, "processes that show the password", seen(), nil)

		// Into the next server, which has none of the roles.
		roles, err := plugins.Roles([]byte(parts["globals"]))
		must(t, err)
		next := newPgServer(t, "another")
		next.t = t
		b.env = []string{"PGDATA=" + next.data, "POSTGRES_PASSWORD=another"}
		r = loads("database shop", shop)
		r.Roles = roles
		for range 2 { // the second time they are there
			_, err = b.load("postgres", r, shop)
			must(t, err)
			same(t, "rows", next.sql("shop", rows), p.sql("shop", rows))
		}
		query := "SELECT r.rolname, r.rolcreatedb, r.rolpassword, (SELECT setconfig FROM pg_db_role_setting AS s WHERE s.setrole = r.oid AND s.setdatabase = 0), (SELECT count(*) FROM pg_auth_members AS m WHERE m.member = r.oid) FROM pg_authid AS r WHERE rolname !~ '^(pg_|postgres)' ORDER BY 1"
		same(t, "roles", next.sql("postgres", query), p.sql("postgres", query))
		same(t, "the superuser's login", b.look("postgres").Role, plugins.Primary)
	})
}

func TestMariadbRealLoad(t *testing.T) {
	m := newMariadb(t, "sesame-of-load")
	odd := "o`dd 'na\"me\\ $x /*&"
	names := []string{"shop", odd, "crm"}
	quoted := func(name string) string { return "`" + strings.ReplaceAll(name, "`", "``") + "`" }
	m.sql("CREATE USER clerk IDENTIFIED BY 'x'; GRANT SELECT ON shop.* TO clerk")
	for i, name := range names {
		m.sql(fmt.Sprintf(`CREATE DATABASE %[1]s DEFAULT CHARACTER SET latin1; USE %[1]s;
			CREATE TABLE t (i int PRIMARY KEY, b blob, s text);
			INSERT INTO t SELECT seq, UNHEX(MD5(seq)), REPEAT(CONCAT(CHAR(39), CHAR(92), CHAR(10)), seq %% 7) FROM mysql.help_topic JOIN (SELECT 1 + help_topic_id + %[2]d AS seq, help_topic_id AS id FROM mysql.help_topic) AS q ON q.id = help_topic_id;
			CREATE VIEW v AS SELECT COUNT(*) FROM t;
			CREATE PROCEDURE p() COMMENT 'not me'
/*
USE `+"`crm`"+`;
-- Current Database: `+"`crm`"+`
*/ SELECT 1`, quoted(name), i))
	}
	m.shells(t, func(t *testing.T, b *box) {
		seen := watchArguments(t, m.password)
		dump, err := b.dump("mysql", run)
		must(t, err)
		parts := b.parts(dump)
		before := m.text(names)
		damage := func() {
			m.sql("DROP TABLE shop.t; DELETE FROM " + quoted(odd) + ".t WHERE i > 3; DROP DATABASE crm")
		}
		damage()
		_, err = b.load("mysql", loads("databases", parts["databases"]), parts["databases"])
		must(t, err)
		sameText(t, "databases", m.text(names), before)

		// One of them, into a new one and into itself.
		rows := func(name string) string { return m.sql("SELECT i, HEX(b), s FROM " + quoted(name) + ".t ORDER BY i") }
		want := rows(odd)
		damage()
		half := rows(odd)
		for _, into := range []string{"new & \\ / one", "crm"} {
			r := loads("databases", parts["databases"])
			r.From, r.Into, r.Fresh = odd, into, true
			_, err = b.load("mysql", r, parts["databases"])
			must(t, err)
			same(t, "rows of the new one", rows(into), want)
			same(t, "rows of the old one", rows(odd), half)
			same(t, "character set", m.sql("SELECT default_character_set_name FROM information_schema.schemata WHERE schema_name = '"+strings.ReplaceAll(into, `\`, `\\`)+"'"), "latin1")
			same(t, "objects", b.look("mysql", into).Targets[into].Objects, 3)
			_, err = b.load("mysql", r, parts["databases"])
			b.wants(err, plugins.NotEmpty, "not empty")
		}
		same(t, "what else is there", m.sql("SELECT COUNT(*) FROM information_schema.schemata WHERE schema_name IN ('shop', 'crm')"), "2")
		same(t, "tables of shop", m.sql("SELECT COUNT(*) FROM information_schema.tables WHERE table_schema = 'shop' AND table_type = 'BASE TABLE'"), "0")
		r := loads("databases", parts["databases"])
		r.From, r.Into = odd, odd
		_, err = b.load("mysql", r, parts["databases"])
		must(t, err)
		same(t, "rows", rows(odd), want)
		r.From, r.Into = "never", "never"
		_, err = b.load("mysql", r, parts["databases"])
		b.wants(err, plugins.NoDump, "no database of that name")
		r.Into = strings.Repeat("'` ", 67)
		_, err = b.load("mysql", r, parts["databases"])
		b.wants(err, plugins.LoadFailed, "database name")

		// What goes wrong is said, with its place.
		wrong := "CREATE DATABASE /*!32312 IF NOT EXISTS*/ `bad` /*!40100 DEFAULT CHARACTER SET utf8mb4 */;\nUSE `bad`;\nCREATE TABLE a (i int);\nINSERT INTO b VALUES (1);\nCREATE TABLE c (i int);\n"
		_, err = b.load("mysql", loads("databases", wrong), wrong)
		b.wants(err, plugins.PartlyLoaded, "ERROR 1146 (42S02) at line 4: Table 'bad.b' doesn't exist")
		same(t, "tables", m.sql("SHOW TABLES FROM bad"), "a")
		bad := loads("databases", parts["databases"])
		bad.SHA256 = strings.Repeat("0", 64)
		_, err = b.load("mysql", bad, parts["databases"])
		b.wants(err, plugins.PartlyLoaded, "cut off or changed")
		s := b.start(lookup(t, "mysql").Load(nonce, loads("databases", parts["databases"])))
		_, err = io.WriteString(s.stdin, parts["databases"][:len(parts["databases"])/2])
		must(t, err)
		must(t, s.stdin.Close())
		out, stderr := s.end()
		t.Logf("%s%s", out, stderr)
		if _, err := plugins.ReadServer(nonce, out); err == nil {
			t.Error("half a dump was loaded")
		}
		same(t, "processes that show the password", seen(), nil)

		// Into the next server: users that are missing, and no others.
		next := newMariadb(t, "another")
		next.t = t
		b.env = []string{"MYSQL_UNIX_PORT=" + next.socket, "MARIADB_ROOT_PASSWORD=another"}
		for range 2 {
			for _, what := range []string{"databases", "users"} {
				_, err = b.load("mysql", loads(what, parts[what]), parts[what])
				must(t, err)
			}
		}
		next.sql("DROP DATABASE IF EXISTS test")
		sameText(t, "the next server", next.text(names), before)
		same(t, "root's login", b.look("mysql").Role, plugins.Primary)
		m.sql("DROP DATABASE IF EXISTS bad; DROP DATABASE IF EXISTS never; DROP DATABASE IF EXISTS `new & \\ / one`")
		b.env = []string{"MYSQL_UNIX_PORT=" + m.socket, "MARIADB_ROOT_PASSWORD=sesame-of-load"}
		_, err = b.load("mysql", loads("databases", parts["databases"]), parts["databases"])
		must(t, err)
	})
}

// A client that is gone takes its load with it, whether it sends the dump or
// waits for the server.
func TestPostgresRealLoadClientGone(t *testing.T) {
	p := newPgServer(t, "")
	p.sql("postgres", "CREATE TABLE t AS SELECT 1 AS i")
	p.shells(t, func(t *testing.T, b *box) {
		text := "DELETE FROM t;\nSELECT pg_sleep(600);\n" + strings.Repeat("\n", plugins.Withheld)
		s := b.start(lookup(t, "postgres").Load(nonce, loads("database postgres", text)))
		_, err := io.WriteString(s.stdin, text[:len(text)-plugins.Withheld])
		must(t, err)
		p.await("SELECT count(*) FROM pg_stat_activity WHERE query ~ '^SELECT pg_sleep'", "1")
		must(t, s.stdin.Close())
		out, _ := s.end()
		_, err = plugins.ReadServer(nonce, out)
		b.wants(err, plugins.LostClient, "the client is gone")
		p.await("SELECT count(*) FROM pg_stat_activity WHERE query ~ '^SELECT pg_sleep'", "0")
		same(t, "rows", p.sql("postgres", "SELECT count(*) FROM t"), "1")
	})
}

func TestFind(t *testing.T) {
	shells(t, func(t *testing.T, b *box) {
		file := filepath.Join(b.volume, "a file")
		must(t, os.WriteFile(file, []byte("a\x00\nb\n\n"), 0o644))
		for _, c := range []struct {
			path string
			text bool
			want plugins.File
		}{
			{file, true, plugins.File{Bytes: 6, Text: []byte("a\x00\nb\n\n")}},
			{file, false, plugins.File{Bytes: 6}},
			{file + ".gone", true, plugins.File{Bytes: -1}},
		} {
			out, _ := b.exec(lookup(t, "mysql").Find(nonce, c.path, c.text))
			got, err := plugins.ReadFile(nonce, out)
			must(t, err)
			same(t, c.path, got, c.want)
		}
	})
}

func TestLoadRefuses(t *testing.T) {
	good := loads("database shop", "x")
	for name, change := range map[string]func(*plugins.LoadRequest){
		"no time":             func(r *plugins.LoadRequest) { r.Timeout = time.Millisecond },
		"no sum":              func(r *plugins.LoadRequest) { r.SHA256 = "" },
		"no bytes":            func(r *plugins.LoadRequest) { r.Bytes = 0 },
		"a path of two lines": func(r *plugins.LoadRequest) { r.Path = "a\nb" },
		"roles with a NUL":    func(r *plugins.LoadRequest) { r.Roles = "\x00" },
		"globals":             func(r *plugins.LoadRequest) { r.What = "globals" },
	} {
		r := good
		change(&r)
		if _, err := lookup(t, "postgres").Load(nonce, r); err == nil {
			t.Errorf("%s is taken", name)
		}
	}
}

// Of the globals only what makes a role that is missing is left.
func TestRoles(t *testing.T) {
	got, err := plugins.Roles([]byte("--\n-- PostgreSQL database cluster dump\n--\n\n\\restrict x\n\nSET client_encoding = 'UTF8';\n\n" +
		"CREATE ROLE postgres;\nALTER ROLE postgres WITH SUPERUSER PASSWORD 'a;''b';\nCREATE ROLE \"o'dd;\n\"\"\";\nALTER ROLE \"o'dd;\n\"\"\" WITH LOGIN;\n" +
		"ALTER ROLE postgres SET \"a.b\" TO 'x';\nGRANT postgres TO \"o'dd;\n\"\"\" GRANTED BY postgres;\nCREATE TABLESPACE far OWNER postgres LOCATION '/far';\n"))
	must(t, err)
	sameText(t, "statements", got, `SET standard_conforming_strings = on;
SELECT to_regrole('postgres') IS NULL AS bs_new_0 \gset
\if :bs_new_0
CREATE ROLE postgres;
\endif
SELECT to_regrole('"o''dd;
"""') IS NULL AS bs_new_1 \gset
\if :bs_new_1
CREATE ROLE "o'dd;
""";
\endif
\if :bs_new_0
ALTER ROLE postgres WITH SUPERUSER PASSWORD 'a;''b';
ALTER ROLE postgres SET "a.b" TO 'x';
\endif
\if :bs_new_1
ALTER ROLE "o'dd;
""" WITH LOGIN;
GRANT postgres TO "o'dd;
""" GRANTED BY postgres;
\endif
`)
	if _, err := plugins.Roles([]byte("CREATE ROLE \"x;\n")); err == nil {
		t.Error("globals that were cut off are taken")
	}
}
