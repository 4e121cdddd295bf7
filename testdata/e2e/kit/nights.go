package kit

import (
	"cmp"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/backsnap/kubectl-backsnap/internal/catalog"
)

// Nights are the restore points of one claim, one a night from first, with
// labels and record as the runs would have set them; each name is its day. They
// are real: the storage has made a snapshot for each.
func Nights(t testing.TB, namespace, claim string, first time.Time, count int) {
	t.Helper()
	uid := Kubectl(t, "get", "pvc", claim, "-n", namespace, "-o", "jsonpath={.metadata.uid}")
	Points(t, Taken(namespace, claim, uid, first, count))
}

// Points are restore points in one namespace, with labels, marks and records
// as they are given. They are real: the storage has made a snapshot for each.
func Points(t testing.TB, snapshots []catalog.Snapshot) {
	t.Helper()
	var manifests strings.Builder
	for _, s := range snapshots {
		notes, err := s.Annotations()
		if err != nil {
			t.Fatal(err)
		}
		if !s.Marked.IsZero() {
			notes[catalog.AnnotationMarked] = s.Marked.UTC().Format(time.RFC3339)
		}
		manifests.WriteString(VolumeSnapshot(t, s.Namespace, s.Name, s.Claim, s.Labels(), notes))
	}
	MakeReady(t, snapshots[0].Namespace, manifests.String(), len(snapshots))
}

// VolumeSnapshot is the manifest of one of that claim.
func VolumeSnapshot(t testing.TB, namespace, name, claim string, labels, annotations map[string]string) string {
	t.Helper()
	metadata, err := json.Marshal(map[string]any{"namespace": namespace, "name": name, "labels": labels, "annotations": annotations})
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("---\n"+`{apiVersion: snapshot.storage.k8s.io/v1, kind: VolumeSnapshot, metadata: %s, spec: {volumeSnapshotClassName: btrfs, source: {persistentVolumeClaimName: %s}}}`+"\n", metadata, claim)
}

// MakeReady applies manifests of VolumeSnapshots, and waits until so many of
// the namespace are ready.
func MakeReady(t testing.TB, namespace, manifests string, count int) {
	t.Helper()
	Apply(t, manifests, "apply", "--server-side", "-f", "-")
	Until(t, "snapshots to be ready", func() string {
		ready := strings.Count(Kubectl(t, "get", "volumesnapshot", "-n", namespace, "-o", "jsonpath={.items[*].status.readyToUse}"), "true")
		if ready != count {
			return fmt.Sprintf("%d of %d", ready, count)
		}
		return ""
	})
}

// Taken are such restore points as the runs of those nights would have left
// them; nothing is made.
func Taken(namespace, claim, uid string, first time.Time, count int) []catalog.Snapshot {
	var taken []catalog.Snapshot
	for night := range count {
		cut := first.AddDate(0, 0, night)
		s := catalog.Snapshot{
			Namespace: namespace, Name: claim + "-" + cut.Format(time.DateOnly), Claim: claim, Run: catalog.Run(cut.Format("20060102-150405") + "-aaaa"),
			Consistency: catalog.Crash, Retain: "calendar", Ready: true,
		}
		s.Periods = catalog.FreePeriods(cut, []string{claim}, taken)
		s.Record = &catalog.Record{
			Version: catalog.RecordVersion, Run: s.Run, App: "pvc/" + claim, Members: []string{claim}, TimeZone: "UTC", Consistency: catalog.Crash, Cut: cut,
			Claim: catalog.ClaimRecord{Name: claim, UID: uid},
		}
		taken = append(taken, s)
	}
	return taken
}

// Copied is a copy that a test puts into a repository by hand.
type Copied struct {
	Cluster, Host, Namespace, Claim string // Host is what restic is told; "" for what the others say
	UID, VSUID                      string // of the claim and of the snapshot; "" for any
	Cut                             time.Time
	// Run is that of Nights for Cut, if it is "".
	Run catalog.Run
}

// tags are what a run would have set.
func (c Copied) tags(t testing.TB) []string {
	t.Helper()
	record := catalog.Record{
		Version: catalog.RecordVersion, Run: c.Run, App: "pvc/" + c.Claim, Members: []string{c.Claim}, TimeZone: "UTC", Consistency: catalog.Crash, Cut: c.Cut,
		Claim: catalog.ClaimRecord{Name: c.Claim, UID: c.UID, Driver: "csi"},
	}
	packed, err := record.Tag()
	if err != nil {
		t.Fatal(err)
	}
	return []string{
		"backsnap", "ns=" + c.Namespace, "pvc=" + c.Claim, "uid=" + c.UID, "snapshot=" + c.Claim + "-" + c.Cut.Format(time.DateOnly), "vsuid=" + c.VSUID,
		"run=" + string(c.Run), "app=pvc/" + c.Claim, "set=1", "consistency=crash", "retain=calendar", "record=" + packed,
	}
}

// Put puts copies into the repository, one after the other, as runs would have
// made them. restic runs outside of the cluster.
func (r Repository) Put(t testing.TB, copies ...Copied) {
	t.Helper()
	var script strings.Builder
	script.WriteString("set -e\n")
	for i, c := range copies {
		c.Host = cmp.Or(c.Host, c.Cluster+"/"+c.Namespace+"/"+c.Claim)
		c.UID, c.Run = cmp.Or(c.UID, "gone"), cmp.Or(c.Run, catalog.Run(c.Cut.Format("20060102-150405")+"-aaaa"))
		c.VSUID = cmp.Or(c.VSUID, "gone-"+string(c.Run))
		fmt.Fprintf(&script, "echo %d | \"$1\" backup -q --stdin --stdin-filename /data --host %s --time '%s'", i, Quote(c.Host), c.Cut.UTC().Format(time.DateTime))
		for _, tag := range c.tags(t) {
			fmt.Fprintf(&script, " --tag %s", Quote(tag))
		}
		script.WriteString("\n")
	}
	file := filepath.Join(t.TempDir(), "copies.sh")
	if err := os.WriteFile(file, []byte(script.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	if done := Command(t, append(r.Environment(t), "TZ=UTC"), "", "sh", file, Env(t, "BACKSNAP_CLUSTER_RESTIC")); done.Code != 0 {
		t.Fatalf("put copies: exit %d\n%s%s", done.Code, done.Stdout, done.Stderr)
	}
}

// Days are the ids of what lies in the repository of that host, by the day of
// its time.
func (r Repository) Days(t testing.TB, host string) map[string]string {
	t.Helper()
	days := map[string]string{}
	for _, s := range r.Snapshots(t) {
		if s.Hostname == host {
			days[s.Time.UTC().Format(time.DateOnly)] = s.ID
		}
	}
	return days
}

// CopiedNights are Nights of which each has a copy in the repository, and that
// on record. It returns their ids, by day.
func CopiedNights(t testing.TB, r Repository, namespace, claim string, first time.Time, count int) map[string]string {
	t.Helper()
	Nights(t, namespace, claim, first, count)
	uid := Kubectl(t, "get", "pvc", claim, "-n", namespace, "-o", "jsonpath={.metadata.uid}")
	uids := map[string]string{}
	for line := range strings.Lines(Kubectl(t, "get", "volumesnapshot", "-n", namespace, "-o", `jsonpath={range .items[*]}{.metadata.name} {.metadata.uid}{"\n"}{end}`)) {
		name, of, _ := strings.Cut(strings.TrimSpace(line), " ")
		uids[name] = of
	}
	var copies []Copied
	for night := range count {
		cut := first.AddDate(0, 0, night)
		copies = append(copies, Copied{Cluster: "e2e", Namespace: namespace, Claim: claim, UID: uid, VSUID: uids[claim+"-"+cut.Format(time.DateOnly)], Cut: cut})
	}
	r.Put(t, copies...)
	ids := r.Days(t, "e2e/"+namespace+"/"+claim)
	for day, id := range ids {
		record, err := json.Marshal([]catalog.Copy{{Repository: r.Name, Snapshot: id, Finished: first}})
		if err != nil {
			t.Fatal(err)
		}
		Kubectl(t, "annotate", "volumesnapshot", claim+"-"+day, "-n", namespace, catalog.AnnotationCopies+"="+string(record))
	}
	return ids
}
