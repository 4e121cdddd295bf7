package e2e_test

import (
	"encoding/json"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

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
	Notes    []string
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
			inPlace(t, name, start)
		})
	}
}

func inPlace(t *testing.T, name string, start func(testing.TB, string, string, kit.Options) kit.Database) {
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
	calm(t, namespace, "statefulset/shop", back)
	swap(t, 0, "RolledBack", "--rollback", doc.Run, "-n", namespace) // again: nothing to do
	inGrace(t, namespace, doc.Run)
	swap(t, 0, "Committed", "--commit", doc.Run, "--grace", "0", "-n", namespace)
	if name == "mariadb" {
		committed(t, namespace, doc.Run)
		return
	}

	kept := swap(t, 0, "Restored", append(in, db.Claim(), "--in-place", "--from", "copy")...)
	calm(t, namespace, "statefulset/shop", kept)
	if got := db.SQL(t, "select * from quiet order by id"); got != want {
		t.Errorf("restored table %q, want %q", got, want)
	}
	swap(t, 0, "Committed", "--commit", kept.Run, "--grace", "0", "-n", namespace)
	if doc := swap(t, 1, "", "--rollback", kept.Run, "-n", namespace); doc.Code != "BS004" {
		t.Errorf("rolled back what was committed: %+v", doc)
	}
	committed(t, namespace, kept.Run, doc.Run)
}

// inGrace wants what run has replaced to be left alone for a day, and that to
// be said.
func inGrace(t *testing.T, namespace, run string) {
	t.Helper()
	volumes := func() string {
		return kit.Kubectl(t, "get", "pv", "-l", "backsnap.sh/run="+run, "-o", `jsonpath={range .items[*]}{.metadata.name} {.status.phase} {.metadata.labels.backsnap\.sh/delete-after}{"\n"}{end}`)
	}
	before := volumes()
	date := regexp.MustCompile(`(?m) Released (\d{8}T\d{6}Z)$`).FindStringSubmatch(before)
	if date == nil {
		t.Fatalf("no volume is kept until a time:\n%s", before)
	}
	until, err := time.Parse("20060102T150405Z", date[1])
	if left := time.Until(until); err != nil || left < 20*time.Hour || left > 24*time.Hour {
		t.Errorf("kept until %s: %v", date[1], err)
	}
	r := kit.Backsnap(t, "restore", "--commit", run, "-n", namespace, "--yes")
	for _, want := range []string{"[BS086]", "until " + until.Format(time.RFC3339), "restore --commit " + run + " -n " + namespace + " --grace 0"} {
		if r.Code != 5 || !strings.Contains(r.Stderr, want) {
			t.Errorf("committed at once: exit %d, want 5 and %q", r.Code, want)
		}
	}
	if after := volumes(); after != before {
		t.Errorf("volumes are\n%s\nwant\n%s", after, before)
	}
}

// told wants `describe` and `logs` to tell of a run with one claim what doc does.
func told(t *testing.T, namespace string, doc swapped, standing string) {
	t.Helper()
	type claim struct {
		Claim        string `json:"pvc"`
		Volume, Kept string
	}
	var list struct {
		Items []struct {
			Run, Standing string
			Claims        []claim
			Safety        []struct{ Ready bool } `json:"safetySnapshots"`
			Undo, Keep    string
		}
	}
	text := kit.Must(t, "describe", "run/"+doc.Run, "-n", namespace, "-o", "json")
	if err := json.Unmarshal([]byte(text), &list); err != nil || len(list.Items) != 1 {
		t.Fatalf("read %s: %v", text, err)
	}
	got := list.Items[0]
	if got.Run != doc.Run || got.Standing != standing || len(got.Safety) != 1 || !got.Safety[0].Ready {
		t.Errorf("described %+v, want %s", got, standing)
	}
	var want []claim
	for _, item := range doc.Items {
		want = append(want, claim{item.Claim, item.Volume, item.Kept})
	}
	if !slices.Equal(got.Claims, want) {
		t.Errorf("claims %+v, want %+v", got.Claims, want)
	}
	undo, keep := fmt.Sprintf("kubectl backsnap restore --rollback %s -n %s", doc.Run, namespace), fmt.Sprintf("kubectl backsnap restore --commit %s -n %s", doc.Run, namespace)
	if (got.Undo == undo) != (standing == "Restored") || (got.Keep == keep) != (standing != "Removed") {
		t.Errorf("undo %q, keep %q of %s", got.Undo, got.Keep, standing)
	}
	log := kit.Must(t, "logs", "run/"+doc.Run, "-n", namespace)
	for _, item := range doc.Items {
		if !strings.Contains(log, item.Kept+" is kept") {
			t.Errorf("the log says nothing of %s:\n%s", item.Kept, log)
		}
	}
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

// TestRestoreInPlaceEdges: an app that does not stop is put back; a Deployment
// with an autoscaler that is ignored and a disruption budget gets its data back,
// in a class that waits for the first consumer too, and so does a claim that
// nobody mounts.
func TestRestoreInPlaceEdges(t *testing.T) {
	t.Parallel()
	namespace := kit.Namespace(t)
	kit.Claim(t, namespace, "data", "btrfs-local")
	kit.Claim(t, namespace, "alone", "")
	kit.App(t, namespace)
	kit.Apply(t, fmt.Sprintf(`
apiVersion: policy/v1
kind: PodDisruptionBudget
metadata: {name: app, namespace: %s}
spec: {minAvailable: 1, selector: {matchLabels: {app: app}}}
`, namespace), "apply", "-f", "-")
	rolled := func() { kit.AppReady(t, namespace) }
	in := func(script string) string {
		return kit.Kubectl(t, "exec", "-n", namespace, "deployment/app", "--", "sh", "-c", script)
	}
	rolled()
	kit.Bound(t, namespace, "data", "alone")
	in("echo set >/data/what && sync")
	kit.Snapshot(t, 0, "-n", namespace, "--repository", "none")
	in("echo live >/data/what && sync")

	// A pod that does not end: everything is put back.
	pod := strings.TrimSpace(kit.Kubectl(t, "get", "pod", "-n", namespace, "-l", "app=app", "-o", "name"))
	kit.Kubectl(t, "patch", pod, "-n", namespace, "--type", "merge", "-p", `{"metadata":{"finalizers":["example.com/held"]}}`)
	held := swap(t, 6, "", "deployment/app", "-n", namespace, "--in-place", "--app-timeout", "10s")
	kit.Kubectl(t, "patch", pod, "-n", namespace, "--type", "merge", "-p", `{"metadata":{"finalizers":null}}`)
	rolled()
	if got := in("cat /data/what"); held.Code != "BS081" || got != "live\n" {
		t.Errorf("document %+v, the app serves %q", held, got)
	}
	if left := kit.Kubectl(t, "get", "pv", "-l", "backsnap.sh/namespace="+namespace, "-o", "name") + kit.Kubectl(t, "get", "pvc,lease,volumesnapshot", "-n", namespace, "-l", "backsnap.sh/run="+held.Run, "-o", "name"); left != "" {
		t.Errorf("left: %s", left)
	}

	kit.Kubectl(t, "autoscale", "deployment", "app", "-n", namespace, "--max", "3")
	doc := swap(t, 0, "Restored", "data", "-n", namespace, "--in-place", "--ignore-controller")
	if got := in("cat /data/what"); got != "set\n" {
		t.Errorf("the app serves %q", got)
	}
	notes := []string{"HorizontalPodAutoscaler app scales deployment/app: ignored", "PodDisruptionBudget app does not hold back that deployment/app is scaled"}
	if !slices.Equal(doc.Notes, notes) {
		t.Errorf("notes %q, want %q", doc.Notes, notes)
	}
	calm(t, namespace, "deployment/app", doc)
	swap(t, 0, "Committed", "--commit", doc.Run, "--grace", "0", "-n", namespace)

	alone := swap(t, 0, "Restored", "alone", "-n", namespace, "--in-place")
	if len(alone.Workloads) != 0 || alone.Downtime != 0 {
		t.Errorf("document %+v", alone)
	}
	calm(t, namespace, "deployment/app", alone)
	told(t, namespace, alone, "Restored")
	back := swap(t, 0, "RolledBack", "--rollback", alone.Run, "-n", namespace)
	calm(t, namespace, "deployment/app", back)
	told(t, namespace, back, "RolledBack")
	swap(t, 0, "Committed", "--commit", alone.Run, "--grace", "0", "-n", namespace)
	told(t, namespace, swapped{Run: alone.Run}, "Removed")
	committed(t, namespace, doc.Run, alone.Run)
}
