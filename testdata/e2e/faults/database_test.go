package faults_test

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/backsnap/kubectl-backsnap/testdata/e2e/kit"
)

// postgresData is where PostgreSQL's volume is mounted.
const postgresData = "/var/lib/postgresql/data"

// dumpTool puts a script in the place of pg_dump, that can run the real one as
// "$0.away". Without a script there is no pg_dump.
func dumpTool(t *testing.T, db kit.Database, script string) {
	t.Helper()
	move := `for f in /usr/lib/postgresql/15/bin/pg_dump /usr/bin/pg_dump; do if [ -e $f ] || [ -L $f ]; then mv $f $f.away; fi; done`
	if script != "" {
		script = "#!/bin/sh\ncase $1 in --version | -V) exec \"$0.away\" --version ;; esac\n" + script + "\n"
		move += fmt.Sprintf("; cd /usr/lib/postgresql/15/bin && printf %%s %s >pg_dump && chmod 755 pg_dump", kit.Quote(script))
	}
	kit.Exec(t, db.Namespace, db.Pod(), move)
}

// ownDumpTool puts pg_dump back.
func ownDumpTool(t *testing.T, db kit.Database) {
	t.Helper()
	kit.Exec(t, db.Namespace, db.Pod(), `for f in /usr/lib/postgresql/15/bin/pg_dump /usr/bin/pg_dump; do if [ -e $f.away ] || [ -L $f.away ]; then mv $f.away $f; fi; done`)
}

// answers waits until a client of the server, good or bad, is told text.
func answers(t *testing.T, db kit.Database, text string) {
	t.Helper()
	kit.Until(t, "the server to say "+text, func() string {
		r := kit.Command(t, nil, "", "kubectl", "exec", "-n", db.Namespace, db.Pod(), "--", "sh", "-c", "psql -XqtA -U postgres -d shop -c \"select 'it answers'\" 2>&1")
		if strings.Contains(r.Stdout, text) {
			return ""
		}
		return r.Stdout + r.Stderr
	})
}

// TestBadDaysOfADatabase: one server, day after day.
func TestBadDaysOfADatabase(t *testing.T) {
	t.Parallel()
	db := kit.Postgres(t, kit.Namespace(t), "postgres", kit.Options{})
	writer, top := kit.Write(t, db), t
	shell := func(t *testing.T, script string) {
		kit.Exec(t, db.Namespace, db.Pod(), "cd "+postgresData+" && "+script)
	}
	days := []struct {
		kit.Day
		before, after func(t *testing.T)
	}{
		{
			Day:    kit.Day{What: "dump tool missing", Exit: 1, Code: "BS015", Says: []string{"the image has no pg_dump"}},
			before: func(t *testing.T) { dumpTool(t, db, "") },
			after:  func(t *testing.T) { ownDumpTool(t, db) },
		},
		{
			Day:    kit.Day{What: "dump tool dying half-way", Exit: 1, Code: "BS012", Says: []string{"pg_dump ended with status 137"}},
			before: func(t *testing.T) { dumpTool(t, db, `"$0.away" "$@" | head -c 700; kill -KILL $$`) },
			after:  func(t *testing.T) { ownDumpTool(t, db) },
		},
		{
			Day:    kit.Day{What: "dump empty", Exit: 1, Code: "BS013", Says: []string{"the dump of database postgres is empty"}},
			before: func(t *testing.T) { dumpTool(t, db, `exit 0`) },
			after:  func(t *testing.T) { ownDumpTool(t, db) },
		},
		{
			Day:    kit.Day{What: "full volume", Exit: 1, Code: "BS016", Says: []string{"MiB are free on the volume"}},
			before: func(t *testing.T) { shell(t, `fallocate -l $(($(df -Pk . | awk 'END {print $4}') - 24576))K .full`) },
			after:  func(t *testing.T) { shell(t, `rm .full`) },
		},
		{
			Day: kit.Day{What: "no inodes", Exit: 1, Code: "BS016", Says: []string{"inodes are free on the volume"}},
			before: func(t *testing.T) {
				shell(t, `mkdir .many && cd .many && seq 1 $(($(df -Pi . | awk 'END {print $4}') - 200)) | xargs touch`)
			},
			after: func(t *testing.T) { shell(t, `rm -r .many`) },
		},
		{
			Day:    kit.Day{What: "database in recovery", Exit: 1, Code: "BS015", Says: []string{"the server replays its log"}},
			before: func(t *testing.T) { recovering(t, db) },
			after: func(t *testing.T) {
				shell(t, `for p in $(grep -la 'postgres: [s]tartup' /proc/[0-9]*/cmdline); do p=${p#/proc/}; kill -CONT ${p%%/*}; done`)
				answers(t, db, "it answers")
			},
		},
		{
			Day: kit.Day{What: "database not accepting connections", Exit: 1, Code: "BS015", Says: []string{"the server takes no connection", "shutting down"}},
			before: func(t *testing.T) {
				// When it comes up again it begins an archive recovery, and waits.
				db.SQL(t, `alter system set restore_command = 'while [ -e `+postgresData+`/.hold ]; do sleep 0.2; done; false'`)
				// It shuts down when its last client, the writer, has gone.
				shell(t, `touch .hold pgdata/recovery.signal && chown postgres .hold pgdata/recovery.signal && kill -TERM 1`)
				answers(t, db, "shutting down")
			},
		},
		{
			Day: kit.Day{What: "database starting", Exit: 1, Code: "BS015", Says: []string{"the server is starting up"}},
			before: func(t *testing.T) {
				writer.Stop()
				answers(t, db, "starting up")
			},
			after: func(t *testing.T) {
				shell(t, `rm .hold`)
				answers(t, db, "it answers")
				writer = kit.Write(top, db)
			},
		},
	}
	for _, day := range days {
		day.Group = "Database"
		ok := t.Run(day.What, func(t *testing.T) {
			day.before(t)
			day.Snapshot(t, writer, "-n", db.Namespace, "--repository", "none", "--consistency", "application")
			if left := kit.Names(t, db.Namespace, "volumesnapshot"); left != "" {
				t.Errorf("left %s", left)
			}
			if day.after != nil {
				day.after(t)
			}
			db.NoParts(t)
		})
		if !ok {
			return // one day's mess would be the next one's
		}
	}
	t.Run("long name", func(t *testing.T) { longDatabaseName(t, db, writer) })
}

// recovering kills a process of the server, and halts the recovery that begins
// then. The recovery has enough to do for the halt to come in time; where it
// does not, the server is killed again.
func recovering(t *testing.T, db kit.Database) {
	t.Helper()
	db.SQL(t, "create table big as select i, repeat(md5(i::text), 4) as what from generate_series(1, 300000) i")
	const script = `
psql -XqtA -U postgres -d shop -c 'select 1' >/dev/null 2>&1 || exit 0
kill -KILL $(psql -XqtA -U postgres -d shop -c "select pid from pg_stat_activity where backend_type = 'background writer'")
for i in $(seq 1 2000); do
	p=$(grep -la 'postgres: [s]tartup' /proc/[0-9]*/cmdline) || continue
	p=${p#/proc/}
	kill -STOP ${p%%/*} && exit 0
done`
	kit.Until(t, "the server to be in recovery", func() string {
		kit.Command(t, nil, "", "kubectl", "exec", "-n", db.Namespace, db.Pod(), "--", "sh", "-c", script)
		r := kit.Command(t, nil, "", "kubectl", "exec", "-n", db.Namespace, db.Pod(), "--", "sh", "-c", "psql -U postgres -d shop -c 'select 1' 2>&1")
		if strings.Contains(r.Stdout, "recovery mode") {
			return ""
		}
		return r.Stdout + r.Stderr
	})
}

// longDatabaseName: PostgreSQL itself cuts a name at 63 bytes.
func longDatabaseName(t *testing.T, db kit.Database, writer *kit.Writer) {
	name := strings.Repeat(`o'clock "and" more, `, 10)
	db.SQL(t, "drop table if exists big; create database "+`"`+strings.ReplaceAll(name, `"`, `""`)+`"`)
	day := kit.Day{Group: "Database", What: "database name of 200 characters with spaces and quotes"}
	run := day.Snapshot(t, writer, "-n", db.Namespace, "--repository", "none", "--consistency", "application")
	for _, part := range run.Of(t, db.Claim()).Dump.Parts {
		if part.What == "database "+name[:63] {
			return
		}
	}
	t.Errorf("no dump of %q: %+v", name[:63], run.Of(t, db.Claim()).Dump)
}

// TestBadDaysOfAPod: its pod goes while the dump is written, and another run
// comes meanwhile.
func TestBadDaysOfAPod(t *testing.T) {
	t.Parallel()
	db := kit.Postgres(t, kit.Namespace(t), "postgres", kit.Options{})
	writer := kit.Write(t, db)
	snapshot := []string{"snapshot", "-o", "json", "-n", db.Namespace, "--repository", "none", "--consistency", "application"}
	gone := map[string]func(t *testing.T){
		"pod restarted during the dump": func(t *testing.T) { kit.Kubectl(t, "delete", "pod", db.Pod(), "-n", db.Namespace, "--wait=false") },
		"pod evicted during the dump": func(t *testing.T) {
			eviction := fmt.Sprintf(`{"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": %q, "namespace": %q}}`, db.Pod(), db.Namespace)
			kit.Apply(t, eviction, "create", "--raw", "/api/v1/namespaces/"+db.Namespace+"/pods/"+db.Pod()+"/eviction", "-f", "-")
		},
	}
	for _, what := range []string{"pod restarted during the dump", "pod evicted during the dump"} {
		t.Run(what, func(t *testing.T) {
			uid := kit.Kubectl(t, "get", "pod", db.Pod(), "-n", db.Namespace, "-o", "jsonpath={.metadata.uid}")
			dumpTool(t, db, `"$0.away" "$@" | head -c 700; sleep 100000`)
			// What the pod before has left must not be taken for this one's.
			kit.Exec(t, db.Namespace, db.Pod(), "rm -f "+postgresData+"/.backsnap-*.part")
			_, wait := kit.Background(t, snapshot...)
			halfWay(t, db)
			if what == "pod evicted during the dump" { // once is enough
				busy := kit.Day{Group: "Cluster", What: "two runs at once", Exit: 6, Code: "BS035", Says: []string{"run "}}
				busy.Check(t, nil, kit.Backsnap(t, snapshot...))
			}
			gone[what](t)
			r := wait()
			comesBack(t, db, uid)
			kit.Day{Group: "Database", What: what, Exit: 1, Code: "BS013", Left: "half a dump in the volume, until the next run"}.Check(t, writer, r)
			if left := kit.Names(t, db.Namespace, "volumesnapshot"); left != "" {
				t.Errorf("left %s", left)
			}
		})
	}
	// Nobody could remove the half dump of a pod that was killed. The next run does.
	kit.Snapshot(t, 0, snapshot[3:]...)
	db.NoParts(t)
}

// halfWay waits until some of a database, and not only of the globals before
// it, has been dumped.
func halfWay(t *testing.T, db kit.Database) {
	t.Helper()
	kit.Until(t, "half a dump", func() string {
		if kit.Exec(t, db.Namespace, db.Pod(), "find "+postgresData+" -maxdepth 1 -name '.backsnap-*-2.dump.part' -size +0c") == "" {
			return "nothing yet"
		}
		return ""
	})
}

// comesBack waits until the database has a pod that is not the one with uid.
func comesBack(t *testing.T, db kit.Database, uid string) {
	t.Helper()
	kit.Until(t, "a new pod", func() string {
		r := kit.Command(t, nil, "", "kubectl", "get", "pod", db.Pod(), "-n", db.Namespace, "-o", `jsonpath={.metadata.uid} {.status.conditions[?(@.type=="Ready")].status}`)
		if now, ready, _ := strings.Cut(r.Stdout, " "); r.Code != 0 || now == uid || ready != "True" {
			return r.Stdout + r.Stderr
		}
		return ""
	})
}

// TestBadDaysOfAStream: a proxy between client and API server cuts, resets or
// delays an exec. Whatever it does, a dump that is called good is good.
func TestBadDaysOfAStream(t *testing.T) {
	t.Parallel()
	db := kit.Postgres(t, kit.Namespace(t), "postgres", kit.Options{})
	writer := kit.Write(t, db)
	seeds := 1
	if os.Getenv("BACKSNAP_FAULTS") == "all" {
		seeds = 50
	}
	for _, kind := range []string{kit.Cut, kit.Reset, kit.Delay} {
		for seed := range seeds {
			t.Run(fmt.Sprintf("%s %d", kind, seed), func(t *testing.T) { badStream(t, db, writer, kind, uint64(seed)) })
		}
	}
}

func badStream(t *testing.T, db kit.Database, writer *kit.Writer, kind string, seed uint64) {
	proxy := kit.NewBadProxy(t, kind, seed)
	r := kit.BacksnapWith(t, []string{"KUBECONFIG=" + proxy.Kubeconfig}, "snapshot", "-o", "json", "-n", db.Namespace, "--repository", "none", "--consistency", "application")
	t.Logf("the proxy: %s", proxy.Did())
	day := kit.Day{Group: "Exec stream", What: "stream " + kind}
	if r.Code != 0 {
		day.Exit, day.Code = 1, "BS013"
	}
	switch {
	case kind == kit.Delay:
		day.Exit, day.Code = 0, ""
	case r.Code == 0:
		day.What += " after the last word"
	}
	run := day.Check(t, writer, r)
	db.NoParts(t)
	item := run.Of(t, db.Claim())
	if day.Exit != 0 {
		if proxy.Did() == "" {
			t.Error("it failed though nothing was done to it")
		}
		return
	}
	// The harm came when all had been said, or there was none: then the files
	// are what they are said to be.
	sums := kit.Exec(t, db.Namespace, db.Pod(), "cd "+postgresData+" && sha256sum .backsnap-*.dump")
	for _, part := range item.Dump.Parts {
		if !strings.Contains(sums, part.SHA256+"  "+part.Path) {
			t.Errorf("%s is not what its sum says:\n%s", part.Path, sums)
		}
	}
}
