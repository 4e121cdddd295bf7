package e2e_test

import (
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"testing"

	"github.com/backsnap/kubectl-backsnap/testdata/e2e/kit"
)

// swapped is what a restore in place, --rollback and --commit print with -o json.
type swapped struct {
	Run       string
	Action    string
	Result    string
	ExitCode  int
	Code      string
	Workloads []struct {
		Kind, Name string
		Replicas   int
	}
	Items []struct {
		Claim        string `json:"pvc"`
		State        string
		Volume, Kept string
		Safety       string `json:"safetySnapshot"`
		From         struct{ Run string }
	}
	Downtime float64 `json:"downtimeSeconds"`
}

// swap runs `restore -o json`, wants that exit code, and without a failure an
// item that ended in that state.
func swap(t *testing.T, code int, state string, args ...string) swapped {
	t.Helper()
	r := kit.Backsnap(t, append([]string{"restore", "-o", "json", "--yes"}, args...)...)
	if r.Code != code {
		t.Fatalf("exit %d, want %d", r.Code, code)
	}
	var doc swapped
	if err := json.Unmarshal([]byte(r.Stdout), &doc); err != nil {
		t.Fatalf("read result: %v", err)
	}
	if doc.ExitCode != code || code == 0 && (len(doc.Items) == 0 || doc.Items[0].State != state) {
		t.Fatalf("document %+v", doc)
	}
	return doc
}

// claimOf is what must not change of a claim when its volume does.
func claimOf(t *testing.T, namespace, claim string) string {
	t.Helper()
	return kit.Kubectl(t, "get", "pvc", claim, "-n", namespace, "-o", "jsonpath={.status.phase} {.metadata.labels} {.metadata.ownerReferences} {.spec.resources} {.spec.storageClassName} {.spec.accessModes}")
}

// volumeOfClaim is its volume.
func volumeOfClaim(t *testing.T, namespace, claim string) string {
	t.Helper()
	return kit.Kubectl(t, "get", "pvc", claim, "-n", namespace, "-o", "jsonpath={.spec.volumeName}")
}

// calm wants nothing of a swap to be under way, and the volumes as they should
// be: those in use as their class has them, kept ones retained.
func calm(t *testing.T, namespace, workload string, doc swapped) {
	t.Helper()
	notes := kit.Kubectl(t, "get", workload, "-n", namespace, "-o", `jsonpath={.metadata.annotations.backsnap\.sh/replicas}{.metadata.annotations.backsnap\.sh/in-place}`)
	if notes != "" {
		t.Errorf("%s is still annotated: %s", workload, notes)
	}
	for _, item := range doc.Items {
		if got := volumeOfClaim(t, namespace, item.Claim); got != item.Volume {
			t.Errorf("%s has volume %s, want %s", item.Claim, got, item.Volume)
		}
		for volume, want := range map[string]string{item.Volume: "Delete Bound ", item.Kept: "Retain Released "} {
			got := kit.Kubectl(t, "get", "pv", volume, "-o", `jsonpath={.spec.persistentVolumeReclaimPolicy} {.status.phase} {.metadata.annotations.backsnap\.sh/turn}`)
			if got != want {
				t.Errorf("volume %s is %q, want %q", volume, got, want)
			}
		}
	}
	if left := kit.Names(t, namespace, "lease,job"); left != "" {
		t.Errorf("left: %s", left)
	}
	if left := strings.TrimSpace(kit.Kubectl(t, "get", "pvc,pod", "-n", namespace, "-l", "app.kubernetes.io/managed-by=backsnap", "-o", "name")); left != "" {
		t.Errorf("left: %s", left)
	}
}

// TestRestoreInPlace: a table is dropped under a committing writer. The
// database gets back exactly what the set holds, behind the same claim; rolled
// back it has all that was written before the restore; restored again and
// committed nothing but the safety snapshots is left.
func TestRestoreInPlace(t *testing.T) {
	t.Parallel()
	for name, start := range map[string]func(testing.TB, string, string, kit.Options) kit.Database{"postgres": kit.Postgres, "mariadb": kit.MariaDB} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			inPlace(t, start)
		})
	}
}

func inPlace(t *testing.T, start func(testing.TB, string, string, kit.Options) kit.Database) {
	repository := kit.NewRepository(t, "repository password")
	namespace := kit.Namespace(t)
	db := start(t, namespace, "shop", kit.Options{})
	db.SQL(t, "create table quiet (id int primary key, what varchar(64)); insert into quiet values (1, 'one'), (2, 'two'), (3, 'three')")
	writer := kit.Write(t, db)
	in := []string{"-n", namespace, "--backup-namespace", repository.Namespace}
	kit.Snapshot(t, 0, in...)
	want := db.SQL(t, "select * from quiet order by id")
	// What the set holds, another server says.
	restore(t, 0, append(in, "statefulset/shop", "--to-pvc", "data-second-0")...)
	second := start(t, namespace, "second", kit.Options{})
	rows := second.SQL(t, "select count(*), max(id) from busy")
	count, last := numbers(t, rows)
	kit.Kubectl(t, "delete", "-n", namespace, "statefulset/second", "pvc/data-second-0")

	claim, volume := claimOf(t, namespace, db.Claim()), volumeOfClaim(t, namespace, db.Claim())
	db.SQL(t, "drop table quiet")
	before := writer.Acknowledged()
	doc := swap(t, 0, "Restored", append(in, "statefulset/shop", "--in-place", "--at", "latest")...)
	writer.Stop()
	if doc.Downtime <= 0 || len(doc.Workloads) != 1 || doc.Workloads[0].Replicas != 1 || doc.Items[0].Kept != volume || doc.Items[0].Safety == "" {
		t.Errorf("document %+v, want volume %s kept", doc, volume)
	}
	if got := db.SQL(t, "select * from quiet order by id"); got != want {
		t.Errorf("restored table %q, want %q", got, want)
	}
	if got := db.SQL(t, fmt.Sprintf("select count(*), max(id) from busy where id <= %d", last)); got != rows {
		t.Errorf("restored rows %q, want %q", got, rows)
	}
	if got := db.SQL(t, fmt.Sprintf("select count(*) from busy where id > %d and id <= %d", last, before)); count == 0 || before > last && got != "0" {
		t.Errorf("%s rows of after the set are served", got)
	}
	if got := claimOf(t, namespace, db.Claim()); got != claim {
		t.Errorf("claim is %s, want %s", got, claim)
	}
	calm(t, namespace, "statefulset/shop", doc)

	back := swap(t, 0, "RolledBack", "--rollback", doc.Run, "-n", namespace)
	if got := volumeOfClaim(t, namespace, db.Claim()); got != volume {
		t.Errorf("rolled back to volume %s, want %s", got, volume)
	}
	if got := db.SQL(t, fmt.Sprintf("select count(*) from busy where id <= %d", before)); got != strconv.Itoa(before) {
		t.Errorf("%s rows after the rollback, want %d", got, before)
	}
	if tables := kit.Command(t, nil, "", "kubectl", "exec", "-n", namespace, db.Pod(), "--", "true"); tables.Code != 0 {
		t.Errorf("pod %s: %s", db.Pod(), tables.Stderr)
	}
	calm(t, namespace, "statefulset/shop", back)
	swap(t, 0, "RolledBack", "--rollback", doc.Run, "-n", namespace) // again: nothing to do
	swap(t, 0, "Committed", "--commit", doc.Run, "-n", namespace)

	kept := swap(t, 0, "Restored", append(in, db.Claim(), "--in-place", "--from", "copy")...)
	calm(t, namespace, "statefulset/shop", kept)
	if got := db.SQL(t, "select * from quiet order by id"); got != want {
		t.Errorf("restored table %q, want %q", got, want)
	}
	swap(t, 0, "Committed", "--commit", kept.Run, "-n", namespace)
	if doc := swap(t, 1, "", "--rollback", kept.Run, "-n", namespace); doc.Code != "BS004" {
		t.Errorf("rolled back what was committed: %+v", doc)
	}
	committed(t, namespace, kept.Run, doc.Run)
}

// committed wants nothing of those runs to be left but safety snapshots.
func committed(t *testing.T, namespace string, runs ...string) {
	t.Helper()
	for _, run := range runs {
		selector := "app.kubernetes.io/managed-by=backsnap,backsnap.sh/run=" + run
		left := kit.Kubectl(t, "get", "pv", "-o", "name", "-l", selector) + kit.Kubectl(t, "get", "pvc,pod,job,lease", "-A", "-o", "name", "-l", selector) +
			kit.Kubectl(t, "get", "volumesnapshot", "-n", namespace, "-o", "name", "-l", selector+",backsnap.sh/role!=safety")
		if left != "" {
			t.Errorf("left of run %s: %s", run, left)
		}
	}
}

// numbers reads two numbers as databases print them.
func numbers(t *testing.T, text string) (first, second int) {
	t.Helper()
	if _, err := fmt.Sscanf(strings.NewReplacer("|", " ", "\t", " ").Replace(text), "%d %d", &first, &second); err != nil {
		t.Fatalf("read %q: %v", text, err)
	}
	return first, second
}
