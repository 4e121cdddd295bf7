package e2e_test

import (
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/backsnap/kubectl-backsnap/testdata/e2e/kit"
)

// loaded is what `restore --load -o json` prints.
type loaded struct {
	Run      string `json:"run"`
	Result   string `json:"result"`
	ExitCode int    `json:"exitCode"`
	Code     string `json:"code"`
	Error    string `json:"error"`
	Live     bool   `json:"live"`
	Items    []struct {
		What, Database, State, Error string
	} `json:"items"`
}

// load runs `restore --load -o json` and wants that exit code.
func load(t *testing.T, code int, args ...string) loaded {
	t.Helper()
	r := kit.Backsnap(t, append([]string{"restore", "--load", "-o", "json"}, args...)...)
	if r.Code != code {
		t.Fatalf("exit %d, want %d", r.Code, code)
	}
	var doc loaded
	if err := json.Unmarshal([]byte(r.Stdout), &doc); err != nil {
		t.Fatalf("read result: %v", err)
	}
	if doc.ExitCode != code || code == 0 && len(doc.Items) == 0 {
		t.Fatalf("document %+v", doc)
	}
	return doc
}

// sums are queries that tell one content of table quiet from another.
const (
	postgresSum = `select count(*), md5(string_agg(q::text, ',' order by id)) from quiet q`
	mariadbSum  = `select count(*), md5(group_concat(concat(id, what) order by id)) from %s.quiet`
)

// forge puts other statements in the place of a dump that lies in the volume of
// a database, and writes that into the record of its snapshot: what is wrong in
// a dump itself.
func forge(t *testing.T, db kit.Database, run kit.Run, what, statements string) {
	t.Helper()
	item := run.Of(t, db.Claim())
	note := kit.Kubectl(t, "get", "volumesnapshot", item.Snapshot, "-n", db.Namespace, "-o", `jsonpath={.metadata.annotations.backsnap\.sh/record}`)
	var record map[string]any
	if err := json.Unmarshal([]byte(note), &record); err != nil {
		t.Fatal(err)
	}
	found := false
	for _, d := range record["dumps"].([]any) {
		dump := d.(map[string]any)
		if dump["what"] != what {
			continue
		}
		found = true
		dump["sha256"], dump["bytes"] = fmt.Sprintf("%x", sha256.Sum256([]byte(statements))), len(statements)
		kit.Apply(t, statements, "exec", "-i", "-n", db.Namespace, db.Pod(), "--", "sh", "-c", `cat >"$0"/`+dump["path"].(string), db.Mount())
	}
	text, err := json.Marshal(record)
	if err != nil || !found {
		t.Fatalf("record %s has no %s: %v", note, what, err)
	}
	kit.Kubectl(t, "annotate", "--overwrite", "volumesnapshot", item.Snapshot, "-n", db.Namespace, "backsnap.sh/record="+string(text))
}

// TestLoadPostgres: rows that are deleted come back into the running server, or
// into a database or a server beside it, and a dump with a wrong statement
// changes nothing.
func TestLoadPostgres(t *testing.T) {
	t.Parallel()
	namespace := kit.Namespace(t)
	postgres := kit.Postgres(t, namespace, "postgres", kit.Options{})
	postgres.SQL(t, `create role clerk login password 'x'; create table quiet as select i as id, md5(i::text) as what from generate_series(1, 20000) i; alter table quiet owner to clerk`)
	want := postgres.SQL(t, postgresSum)
	kit.Snapshot(t, 0, "-n", namespace, "--repository", "none", "statefulset/postgres")
	postgres.SQL(t, `delete from quiet where id > 10000`)
	half := postgres.SQL(t, postgresSum)

	if doc := load(t, 5, "statefulset/postgres", "-n", namespace); doc.Code != "BS071" {
		t.Errorf("nobody has said yes: %+v", doc)
	}
	// A database beside it: the one that there is stays as it was.
	in := func(database string) string {
		return postgres.SQL(t, `\connect "`+database+"\"\n"+postgresSum)
	}
	beside := load(t, 0, "statefulset/postgres", "-n", namespace, "--database", "shop monday")
	if got := in("shop monday"); got != want || postgres.SQL(t, postgresSum) != half || !beside.Live || beside.Items[0].State != "Loaded" {
		t.Errorf("in the new database %q, want %q; document %+v", got, want, beside)
	}
	if doc := load(t, 4, "statefulset/postgres", "-n", namespace, "--database", "shop=shop monday"); doc.Code != "BS067" {
		t.Errorf("into a database that is not empty: %+v", doc)
	}
	// The database itself, from the live volume and from the snapshot.
	load(t, 0, "statefulset/postgres", "-n", namespace, "--yes")
	if got := postgres.SQL(t, postgresSum); got != want {
		t.Errorf("loaded: %q, want %q", got, want)
	}
	postgres.SQL(t, `drop table quiet`)
	kit.Kubectl(t, "exec", "-n", namespace, postgres.Pod(), "--", "sh", "-c", "rm /var/lib/postgresql/data/.backsnap*")
	if doc := load(t, 0, postgres.Claim(), "-n", namespace, "--yes", "--database", "shop"); doc.Live || postgres.SQL(t, postgresSum) != want {
		t.Errorf("from the snapshot: %+v", doc)
	}
	// The next server has none of the roles.
	next := kit.Postgres(t, namespace, "next", kit.Options{Password: "another"})
	load(t, 0, "statefulset/postgres", "-n", namespace, "--yes", "--into", "sts/next")
	if got := next.SQL(t, postgresSum+`; select tableowner from pg_tables where tablename = 'quiet'`); got != want+"\nclerk" {
		t.Errorf("in the next server: %q, want %q", got, want)
	}

	// A statement that is wrong: all is as it was.
	run := kit.Snapshot(t, 0, "-n", namespace, "--repository", "none", "statefulset/postgres")
	forge(t, postgres, run, "database shop", "drop table if exists quiet;\ncreate table other (id int);\ninsert into other values ('wrong');\n"+strings.Repeat("select 1;\n", 100))
	for _, database := range []string{"shop", "shop=fresh"} {
		failed := load(t, 1, "statefulset/postgres", "-n", namespace, "--yes", "--database", database)
		if failed.Code != "BS066" || failed.Items[0].State != "Untouched" || !strings.Contains(failed.Error, `psql:<stdin>:4: ERROR:  invalid input syntax for type integer: "wrong"`) {
			t.Errorf("a wrong statement: %+v", failed)
		}
	}
	if got := postgres.SQL(t, postgresSum+`; select count(*) from pg_database where datname = 'fresh'`); got != want+"\n0" {
		t.Errorf("after a wrong statement: %q, want %q", got, want)
	}
	if left := kit.Names(t, namespace, "job,lease,pvc"); strings.Contains(left, "backsnap") || strings.Contains(left, "clone") {
		t.Errorf("left: %s", left)
	}
}

// TestLoadMariaDB is the same of a server without a transaction: a database
// that is loaded in part is named.
func TestLoadMariaDB(t *testing.T) {
	t.Parallel()
	namespace := kit.Namespace(t)
	mariadb := kit.MariaDB(t, namespace, "mariadb", kit.Options{})
	mariadb.SQL(t, "create table quiet (id int primary key, what varchar(40)); insert into quiet select seq, md5(seq) from seq_1_to_5000; set session group_concat_max_len = 10000000")
	sum := func(database string) string {
		return mariadb.SQL(t, "set session group_concat_max_len = 10000000; "+fmt.Sprintf(mariadbSum, "`"+database+"`"))
	}
	want := sum("shop")
	run := kit.Snapshot(t, 0, "-n", namespace, "--repository", "none", "statefulset/mariadb")
	mariadb.SQL(t, "delete from quiet where id > 100")
	half := sum("shop")

	load(t, 0, "statefulset/mariadb", "-n", namespace, "--database", "shop monday")
	if got := sum("shop monday"); got != want || sum("shop") != half {
		t.Errorf("in the new database %q, want %q", got, want)
	}
	doc := load(t, 0, "statefulset/mariadb", "-n", namespace, "--yes", "--database", "shop")
	if got := sum("shop"); got != want || !doc.Live {
		t.Errorf("loaded: %q, want %q; document %+v", got, want, doc)
	}
	mariadb.SQL(t, "drop table quiet")
	load(t, 0, "statefulset/mariadb", "-n", namespace, "--yes", "--from", "snapshot")
	if got := sum("shop"); got != want {
		t.Errorf("all of it, from the snapshot: %q, want %q", got, want)
	}

	forge(t, mariadb, run, "databases", "USE shop;\nCREATE TABLE other (id int);\nINSERT INTO nothing VALUES (1);\nCREATE TABLE third (id int);\n-- Dump completed\n")
	failed := load(t, 1, "statefulset/mariadb", "-n", namespace, "--yes")
	if failed.Code != "BS066" || failed.Items[0].State != "Partial" || failed.Items[1].State != "Untouched" ||
		!strings.Contains(failed.Error, "ERROR 1146 (42S02) at line 3: Table 'shop.nothing' doesn't exist") {
		t.Errorf("a wrong statement: %+v", failed)
	}
	if got := mariadb.SQL(t, "show tables like '%th%r%'"); got != "other" {
		t.Errorf("tables %q, want other", got)
	}
}
