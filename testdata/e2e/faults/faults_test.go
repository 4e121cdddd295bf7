// Package faults_test turns the knobs of the test storage, ends programs in
// the middle, and looks at what is left.
package faults_test

import (
	"maps"
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

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

func TestASnapshotThatIsNeverReadyIsNoRestorePoint(t *testing.T) {
	namespace := claim(t)
	kit.Faults(t, namespace, kit.Fault{"neverReady": true})
	run := kit.Snapshot(t, 6, "-n", namespace, "--repository", "none", "--retain", "calendar", "--timeout", "8s")
	item := run.Of(t, "data")
	if item.State != "Failed" || item.Code != "BS022" {
		t.Errorf("item %+v", item)
	}
	labels := slices.Sorted(maps.Keys(kit.Labels(t, namespace, item.Snapshot)))
	want := []string{"app.kubernetes.io/managed-by", "backsnap.sh/namespace", "backsnap.sh/pvc", "backsnap.sh/retain", "backsnap.sh/run"}
	if !slices.Equal(labels, want) {
		t.Errorf("labels\n got %v\nwant %v", labels, want)
	}
}

func TestAStorageThatTakesItsTimeIsWaitedFor(t *testing.T) {
	namespace := claim(t)
	kit.Faults(t, namespace, kit.Fault{"cutDelay": "2s", "readyDelay": "4s"})
	if item := kit.Snapshot(t, 0, "-n", namespace, "--repository", "none").Of(t, "data"); item.State != "Protected" {
		t.Errorf("item %+v", item)
	}
}

func TestErrorsOfTheStorageThatPassAreWaitedFor(t *testing.T) {
	for _, code := range []string{"DeadlineExceeded", "Aborted", "ResourceExhausted"} {
		namespace := claim(t)
		kit.Faults(t, namespace, kit.Fault{"errors": kit.Failing(code, "try again", 2)})
		if item := kit.Snapshot(t, 0, "-n", namespace, "--repository", "none").Of(t, "data"); item.State != "Protected" {
			t.Errorf("%s: item %+v", code, item)
		}
	}
}

func TestAnErrorOfTheStorageThatStaysIsQuoted(t *testing.T) {
	namespace := claim(t)
	kit.Faults(t, namespace, kit.Fault{"finalError": kit.Failing("InvalidArgument", "the array says no", 0)})
	run := kit.Snapshot(t, 6, "-n", namespace, "--repository", "none", "--timeout", "8s")
	if item := run.Of(t, "data"); item.Code != "BS022" || !strings.Contains(item.Error, "the array says no") {
		t.Errorf("item %+v", item)
	}
}

func TestADriverThatGivesNoRestoreSizeIsCopied(t *testing.T) {
	repository := kit.NewRepository(t, "repository password")
	namespace := claim(t)
	kit.Faults(t, namespace, kit.Fault{"noRestoreSize": true})
	run := kit.Snapshot(t, 0, "-n", namespace, "--backup-namespace", repository.Namespace)
	if copies := run.Of(t, "data").Copies; len(copies) != 1 || copies[0].State != "Ok" {
		t.Errorf("copies %+v", copies)
	}
}

// TestASnapshotStandsThoughItsCopyFails: a wrong repository password.
func TestASnapshotStandsThoughItsCopyFails(t *testing.T) {
	repository := kit.NewRepository(t, "repository password")
	namespace := claim(t)
	wrong := repository
	wrong.Password = "not the password"
	wrong.Secret(t)
	run := kit.Snapshot(t, 3, "-n", namespace, "--backup-namespace", repository.Namespace)
	item := run.Of(t, "data")
	if item.State != "Protected" || len(item.Copies) != 1 || item.Copies[0].Code != "BS053" {
		t.Errorf("item %+v", item)
	}
	if left := kit.Names(t, repository.Namespace, "job,pod,pvc,volumesnapshot"); left != "" {
		t.Errorf("left in the backup namespace: %s", left)
	}
}

// slowDump is a database whose dump takes some seconds.
func slowDump(t *testing.T) kit.Database {
	t.Helper()
	db := kit.Postgres(t, kit.Namespace(t), "postgres", kit.Options{Size: "1Gi"})
	db.SQL(t, "create table big as select i, repeat(md5(i::text), 4) as what from generate_series(1, 600000) i")
	return db
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
	for _, signal := range []syscall.Signal{syscall.SIGINT, syscall.SIGTERM} {
		db := slowDump(t)
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
	db := slowDump(t)
	cmd := kit.Start(t, os.Getenv("KUBECONFIG"), "snapshot", "-n", db.Namespace, "--repository", "none")
	dumping(t, db)
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	cmd.Wait()
	undisturbed(t, db)
	// The dead run's lease is taken over; its name is in nobody's way.
	kit.Snapshot(t, 0, "-n", db.Namespace, "--repository", "none", "--lock-timeout", "1m")
}

// TestTwoRunsAtOnce: the second one is told who holds the namespace.
func TestTwoRunsAtOnce(t *testing.T) {
	db := slowDump(t)
	first := kit.Start(t, os.Getenv("KUBECONFIG"), "snapshot", "-n", db.Namespace, "--repository", "none")
	dumping(t, db)
	r := kit.Backsnap(t, "snapshot", "-n", db.Namespace, "--repository", "none")
	if r.Code != 6 || !strings.Contains(r.Stderr, "BS035") {
		t.Errorf("second run: exit %d\n%s", r.Code, r.Stderr)
	}
	done := make(chan error, 1)
	go func() { done <- first.Wait() }()
	select {
	case err := <-done:
		if err != nil {
			t.Errorf("first run: %v", err)
		}
	case <-time.After(kit.Patience):
		t.Fatal("first run does not end")
	}
}
