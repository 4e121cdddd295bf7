// Package faults_test turns the knobs of the test storage, ends programs in
// the middle, and looks at what is left.
package faults_test

import (
	"os"
	"strings"
	"syscall"
	"testing"

	"github.com/backsnap/kubectl-backsnap/testdata/e2e/kit"
)

// claim makes one bound claim in a namespace of its own.
func claim(t *testing.T) string {
	t.Helper()
	namespace := kit.Namespace(t)
	kit.Claim(t, namespace, "data", "")
	kit.Bound(t, namespace, "data")
	return namespace
}

// slowDump is a database whose dump waits for another session's lock on a
// table, for up to a minute, until unlock is called.
func slowDump(t *testing.T) (db kit.Database, unlock func()) {
	t.Helper()
	db = kit.Postgres(t, kit.Namespace(t), "postgres", kit.Options{})
	db.SQL(t, "create table busy (i int)")
	kit.Exec(t, db.Namespace, db.Pod(),
		`psql -XqU postgres -d shop -c 'begin' -c 'lock table busy in access exclusive mode' -c 'select pg_sleep(3600)' >/dev/null 2>&1 </dev/null &`)
	const held = "from pg_locks where relation = 'busy'::regclass and mode = 'AccessExclusiveLock' and granted"
	kit.Until(t, "lock on table busy", func() string {
		if count := db.SQL(t, "select count(*) "+held); count != "1" {
			return count + " locks"
		}
		return ""
	})
	return db, func() { db.SQL(t, "select pg_terminate_backend(pid) "+held) }
}

// dumping waits until a dump is being written.
func dumping(t *testing.T, db kit.Database) {
	t.Helper()
	kit.Until(t, "dump to begin", func() string {
		files := kit.Exec(t, db.Namespace, db.Pod(), "ls -A /var/lib/postgresql/data")
		if strings.Contains(files, ".part") {
			return ""
		}
		return files
	})
}

// undisturbed checks that nothing of a broken run is left in the volume and
// that the database takes writes.
func undisturbed(t *testing.T, db kit.Database) {
	t.Helper()
	db.SQL(t, "create table if not exists alive (i int); insert into alive values (1)")
	kit.Until(t, "dump to be gone", func() string {
		files := kit.Exec(t, db.Namespace, db.Pod(), "ls -A /var/lib/postgresql/data; ps -e -o args 2>/dev/null | grep '[p]g_dump' || true")
		if strings.Contains(files, ".part") || strings.Contains(files, "pg_dump") {
			return files
		}
		return ""
	})
}

func TestAnInterruptedRunCleansUp(t *testing.T) {
	t.Parallel()
	db, _ := slowDump(t)
	for _, signal := range []syscall.Signal{syscall.SIGINT, syscall.SIGTERM} {
		cmd := kit.Start(t, os.Getenv("KUBECONFIG"), "snapshot", "-n", db.Namespace, "--repository", "none")
		dumping(t, db)
		if err := cmd.Process.Signal(signal); err != nil {
			t.Fatal(err)
		}
		cmd.Wait()
		if code := cmd.ProcessState.ExitCode(); code != 130 {
			t.Errorf("%v: exit %d, want 130", signal, code)
		}
		if left := kit.Names(t, db.Namespace, "volumesnapshot,lease"); left != "" {
			t.Errorf("%v left %s", signal, left)
		}
		undisturbed(t, db)
	}
}

func TestNeverLeaveAnApplicationFrozenWhenTheClientIsKilled(t *testing.T) {
	t.Parallel()
	db, unlock := slowDump(t)
	cmd := kit.Start(t, os.Getenv("KUBECONFIG"), "snapshot", "-n", db.Namespace, "--repository", "none")
	dumping(t, db)
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	cmd.Wait()
	undisturbed(t, db)
	unlock()
	// The dead run's lease is taken over; its name is in nobody's way.
	kit.Snapshot(t, 0, "-n", db.Namespace, "--repository", "none", "--lock-timeout", "1m")
}
