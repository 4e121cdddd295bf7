package e2e_test

import (
	"encoding/json"
	"fmt"
	"os/exec"
	"path"
	"strings"
	"testing"
	"time"

	"github.com/backsnap/kubectl-backsnap/testdata/e2e/kit"
)

// described is what `describe -o json` prints of a restore point.
type described struct {
	Driver, Handle string
	Pvc            string
	DeleteAfter    string
	Record         struct {
		DumpBegan, Dumped, Requested, Cut, Ready time.Time
		Dumps                                    []kit.Dump
		Tool                                     string
		ServerVersion                            string
	}
	Retention struct{ Until time.Time }
	Events    []struct{ Reason, Object string }
	Unseen    []string
}

func describe(t *testing.T, args ...string) []described {
	t.Helper()
	var list struct{ Items []described }
	if err := json.Unmarshal([]byte(kit.Must(t, append([]string{"describe", "-o", "json"}, args...)...)), &list); err != nil {
		t.Fatal(err)
	}
	return list.Items
}

// TestADumpIsRemovedOnceItIsInASnapshot: the volume holds nothing of ours any
// more, the snapshot holds the dump whole, the next run does without it, and
// describe has the evidence.
func TestADumpIsRemovedOnceItIsInASnapshot(t *testing.T) {
	t.Parallel()
	namespace := kit.Namespace(t)
	postgres := kit.Postgres(t, namespace, "postgres", kit.Options{})
	mariadb := kit.MariaDB(t, namespace, "mariadb", kit.Options{})
	mounts := map[string]string{postgres.Claim(): "/var/lib/postgresql/data", mariadb.Claim(): "/var/lib/mysql"}
	run := kit.Snapshot(t, 0, "-n", namespace, "--repository", "none", "--retain", "12h", "--remove-dump")
	points := describe(t, "run/"+run.Run, "-n", namespace)
	if len(points) != 2 {
		t.Fatalf("%d restore points of run %s", len(points), run.Run)
	}
	for _, db := range []kit.Database{postgres, mariadb} {
		if files := kit.Exec(t, namespace, db.Pod(), "ls -A "+mounts[db.Claim()]); strings.Contains(files, ".backsnap") {
			t.Errorf("left in the volume of %s:\n%s", db.Name, files)
		}
		item := run.Of(t, db.Claim())
		if item.Consistency != "application" {
			t.Errorf("item %+v", item)
		}
		inSnapshot(t, namespace, item)
	}
	for _, p := range points {
		evidence(t, p, run.Of(t, p.Pvc))
	}
	if again := kit.Snapshot(t, 0, "-n", namespace, "--repository", "none", "--remove-dump"); again.Of(t, postgres.Claim()).Consistency != "application" {
		t.Errorf("the next run: %+v", again.Items)
	}

	text := kit.Must(t, "describe", "vs/"+run.Of(t, postgres.Claim()).Snapshot, "-n", namespace)
	for _, section := range []string{"Source", "Consistency", "Snapshot", "Off-site", "Retention", "Proof", "Events"} {
		if !strings.Contains(text, "\n"+section+":\n") {
			t.Errorf("no section %s:\n%s", section, text)
		}
	}
	if r := kit.Backsnap(t, "describe", "vs/nothing", "-n", namespace); r.Code != 1 || !strings.Contains(r.Stderr, "no restore point nothing in namespace "+namespace+" [BS004]") {
		t.Errorf("describe of what is not there: exit %d\n%s", r.Code, r.Stderr)
	}
}

// inSnapshot makes a volume of an item's snapshot and looks for its dumps.
func inSnapshot(t *testing.T, namespace string, item kit.Item) {
	t.Helper()
	name := "copy-of-" + item.Claim
	kit.Apply(t, fmt.Sprintf(`
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {name: %s, namespace: %s}
spec:
  accessModes: [ReadWriteOnce]
  resources: {requests: {storage: 512Mi}}
  dataSource: {apiGroup: snapshot.storage.k8s.io, kind: VolumeSnapshot, name: %s}
`, name, namespace, item.Snapshot), "apply", "-f", "-")
	kit.Pod(t, namespace, name, name)
	for _, part := range item.Dump.Parts {
		if sum := kit.Exec(t, namespace, name, "sha256sum "+kit.Quote(path.Join("/", name, part.Path))); !strings.HasPrefix(sum, part.SHA256+" ") {
			t.Errorf("%s in the snapshot has sum %s, want %s", part.Path, sum, part.SHA256)
		}
	}
	kit.Kubectl(t, "delete", "pod", name, "-n", namespace, "--wait=false")
}

// evidence checks what describe says of a restore point with a dump, which is
// kept for twelve hours.
func evidence(t *testing.T, p described, item kit.Item) {
	t.Helper()
	r := p.Record
	order := []time.Time{r.DumpBegan, r.Dumped, r.Requested, r.Ready}
	for i := range order {
		if order[i].IsZero() || i > 0 && order[i].Before(order[i-1]) {
			t.Errorf("%s: times %v", p.Pvc, order)
		}
	}
	if r.Tool == "" || r.ServerVersion == "" || p.Driver == "" || p.Handle == "" || len(p.Unseen) > 0 {
		t.Errorf("%s: %+v", p.Pvc, p)
	}
	if len(r.Dumps) != len(item.Dump.Parts) || r.Dumps[0] != item.Dump.Parts[0] {
		t.Errorf("%s: dumps %v, the run said %v", p.Pvc, r.Dumps, item.Dump.Parts)
	}
	if until := r.Cut.Add(12 * time.Hour).UTC().Format("20060102T150405Z"); p.DeleteAfter != until || !p.Retention.Until.Equal(r.Cut.Add(12*time.Hour).Truncate(time.Second)) {
		t.Errorf("%s: kept until %s, label %s, want %s", p.Pvc, p.Retention.Until, p.DeleteAfter, until)
	}
	said := false
	for _, e := range p.Events {
		said = said || e.Object == "volumesnapshot/"+item.Snapshot
	}
	if !said {
		t.Errorf("%s: events %v", p.Pvc, p.Events)
	}
}

// TestWhatIsLeftOutAndWhy plans for a namespace with one claim of each kind.
func TestWhatIsLeftOutAndWhy(t *testing.T) {
	t.Parallel()
	namespace := kit.Namespace(t)
	claims := []string{"cron", "going", "marked", "operator", "plain", "shared", "spare"}
	for _, name := range claims {
		class := ""
		if name == "plain" {
			class = "plain"
		}
		kit.Claim(t, namespace, name, class)
	}
	kit.Claim(t, namespace, "pending", "no-such-class")
	annotate := func(claim, note string) { kit.Kubectl(t, "annotate", "pvc", claim, "-n", namespace, note) }
	annotate("cron", "backsnap.sh/schedule=")
	annotate("operator", "backsnap.skyb.it/schedule=")
	annotate("marked", "skyb.it/backsnap-no-backup=yes")
	local(t, namespace)
	kit.Bound(t, namespace, append(claims, "local")...)
	kit.Pod(t, namespace, "one", "shared")
	kit.Pod(t, namespace, "two", "shared", "going")
	kit.Kubectl(t, "delete", "pvc", "going", "-n", namespace, "--wait=false")

	want := map[string]string{
		"cron":     "Skipped  excluded by annotation backsnap.sh/schedule",
		"going":    "Skipped BS024 it is being deleted",
		"local":    "Skipped BS024 its volume " + namespace + " is no CSI volume: it cannot be snapshotted",
		"marked":   "Skipped  excluded by annotation skyb.it/backsnap-no-backup",
		"operator": "Skipped  excluded by annotation backsnap.skyb.it/schedule",
		"pending":  "Skipped BS024 it is Pending, not bound to a volume",
		"plain":    "Skipped BS021 no VolumeSnapshotClass for driver plain.csi.backsnap.test",
		"shared":   "Planned  pod/one+pod/two",
		"spare":    "Planned  pvc/spare",
	}
	run := kit.Snapshot(t, 3, "-n", namespace, "--repository", "none", "--dry-run=client")
	for claim, words := range want {
		i := run.Of(t, claim)
		got := i.State + " " + i.Code + " " + i.Reason
		if i.State == "Planned" {
			got = "Planned  " + i.App
		}
		if got != words {
			t.Errorf("%s:\n got %s\nwant %s", claim, got, words)
		}
	}
	if len(run.Items) != len(want) {
		t.Errorf("%d items, want %d: %+v", len(run.Items), len(want), run.Items)
	}
	if left := kit.Names(t, namespace, "volumesnapshot,lease"); left != "" {
		t.Errorf("a dry run left %s", left)
	}
	tried(t, namespace)
	everywhere(t, namespace)
}

// tried has the server check a plan: it stores nothing, and a quota is said.
func tried(t *testing.T, namespace string) {
	t.Helper()
	if item := kit.Snapshot(t, 0, "spare", "-n", namespace, "--repository", "none", "--dry-run=server").Of(t, "spare"); item.State != "Planned" {
		t.Errorf("--dry-run=server: %+v", item)
	}
	kit.Kubectl(t, "create", "quota", "none", "-n", namespace, "--hard=count/volumesnapshots.snapshot.storage.k8s.io=0")
	kit.Until(t, "quota", func() string {
		r := kit.Backsnap(t, "snapshot", "spare", "-n", namespace, "--repository", "none", "--dry-run=server", "-o", "json")
		item := kit.ReadRun(t, r.Code, r).Of(t, "spare")
		if item.State == "Failed" && item.Code == "BS023" && strings.Contains(item.Error, "quota") {
			return ""
		}
		return fmt.Sprintf("%+v", item)
	})
	if left := kit.Names(t, namespace, "volumesnapshot,lease"); left != "" {
		t.Errorf("a dry run by the server left %s", left)
	}
}

// local makes a claim that is bound to a folder of the node.
func local(t *testing.T, namespace string) {
	t.Helper()
	kit.Apply(t, fmt.Sprintf(`
apiVersion: v1
kind: PersistentVolume
metadata: {name: %[1]s}
spec:
  capacity: {storage: 1Mi}
  accessModes: [ReadWriteOnce]
  storageClassName: %[1]s
  claimRef: {namespace: %[1]s, name: local}
  hostPath: {path: /tmp}
---
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {name: local, namespace: %[1]s}
spec: {accessModes: [ReadWriteOnce], storageClassName: %[1]s, volumeName: %[1]s, resources: {requests: {storage: 1Mi}}}
`, namespace), "apply", "-f", "-")
	removeAfter(t, "pv", namespace)
}

// removeAfter removes an object when the test, and with it its context, is over.
func removeAfter(t *testing.T, args ...string) {
	t.Cleanup(func() {
		if out, err := exec.Command("kubectl", append([]string{"delete", "--wait=false"}, args...)...).CombinedOutput(); err != nil {
			t.Logf("delete %v: %v\n%s", args, err, out)
		}
	})
}

// everywhere plans for the whole cluster, kube-system and all.
func everywhere(t *testing.T, namespace string) {
	t.Helper()
	name := kit.Random("system")
	kit.Claim(t, "kube-system", name, "")
	removeAfter(t, "pvc", name, "-n", "kube-system")
	kit.Bound(t, "kube-system", name)
	plan := func(args ...string) map[string]kit.Item {
		r := kit.Command(t, nil, "", "kubectl", append([]string{"backsnap", "snapshot", "-A", "--repository", "none", "--dry-run=client", "-o", "json"}, args...)...)
		var run kit.Run
		if err := json.Unmarshal([]byte(r.Stdout), &run); err != nil {
			t.Fatalf("exit %d: %v\n%s", r.Code, err, r.Stderr)
		}
		items := map[string]kit.Item{}
		for _, i := range run.Items {
			items[i.Namespace+"/"+i.Claim] = i
		}
		return items
	}
	all := plan()
	for _, claim := range []string{"kube-system/" + name, namespace + "/spare"} {
		if all[claim].State != "Planned" {
			t.Errorf("-A: %s is %+v", claim, all[claim])
		}
	}
	some := plan("--exclude-namespace", "kube-*")
	if i := some["kube-system/"+name]; i.State != "Skipped" || i.Code != "" || i.Reason != "its namespace is left out by --exclude-namespace=kube-*" {
		t.Errorf("--exclude-namespace: %+v", i)
	}
	if i := some[namespace+"/spare"]; i.State != "Planned" {
		t.Errorf("--exclude-namespace: %+v", i)
	}
}
