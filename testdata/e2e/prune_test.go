package e2e_test

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/backsnap/kubectl-backsnap/testdata/e2e/kit"
)

// pruned is what `prune -o json` prints.
type pruned struct {
	ExitCode int `json:"exitCode"`
	Items    []struct {
		Set, Decision, Reason, KeptAs string
		Snapshots                     []struct {
			Name  string `json:"volumeSnapshot"`
			State string `json:"state"`
			Error string `json:"error"`
			Code  string `json:"code"`
		}
	}
}

// prune runs it and wants that exit code.
func prune(t *testing.T, code int, args ...string) pruned {
	t.Helper()
	r := kit.Backsnap(t, append([]string{"prune", "-o", "json"}, args...)...)
	var p pruned
	if err := json.Unmarshal([]byte(r.Stdout), &p); err != nil || r.Code != code || p.ExitCode != code {
		t.Fatalf("exit %d, want %d, in the document %d: %v", r.Code, code, p.ExitCode, err)
	}
	return p
}

// states are the names of the snapshots that ended so, sorted.
func (p pruned) states(state string) []string {
	var names []string
	for _, item := range p.Items {
		for _, s := range item.Snapshots {
			if s.State == state {
				names = append(names, s.Name)
			}
		}
	}
	slices.Sort(names)
	return names
}

// contentOf is the content of a snapshot.
func contentOf(t *testing.T, namespace, snapshot string) string {
	t.Helper()
	return kit.Kubectl(t, "get", "volumesnapshot", snapshot, "-n", namespace, "-o", "jsonpath={.status.boundVolumeSnapshotContentName}")
}

// standing are the names of the snapshots that there are, sorted.
func standing(t *testing.T, namespace string) []string {
	t.Helper()
	names := strings.Fields(kit.Kubectl(t, "get", "volumesnapshot", "-n", namespace, "-o", "jsonpath={.items[*].metadata.name}"))
	slices.Sort(names)
	return names
}

// TestPruneSixtyNights: of sixty nights of snapshots exactly those stay that
// daily=7,weekly=4,monthly=12 keep, and those that a person has saved by a
// label. A content that is retained goes with its data, and the storage has
// nothing left of it.
func TestPruneSixtyNights(t *testing.T) {
	t.Parallel()
	namespace := kit.Namespace(t)
	kit.Claim(t, namespace, "data", "")
	kit.Bound(t, namespace, "data")
	kit.Nights(t, namespace, "data", time.Date(2025, time.January, 1, 1, 15, 0, 0, time.UTC), 60)
	here := []string{"-n", namespace, "--keep", "daily=7,weekly=4,monthly=12", "--yes"}

	// A brake stops what is too much; nothing has changed then.
	if r := kit.Backsnap(t, append([]string{"prune"}, here...)...); r.Code != 5 || !strings.Contains(r.Stderr, "prune would mark 48 of 60 restore points (limit 25%) [BS041]") {
		t.Fatalf("exit %d\n%s", r.Code, r.Stderr)
	}
	marked := prune(t, 0, append(here, "--grace=1s", "--max-delete=48")...).states("Marked")
	if len(marked) != 48 || len(standing(t, namespace)) != 60 {
		t.Fatalf("marked %v of %v", marked, standing(t, namespace))
	}

	// What a person does to labels then counts.
	label := func(day string, labels ...string) {
		kit.Kubectl(t, append([]string{"label", "volumesnapshot", "data-" + day, "-n", namespace, "--overwrite"}, labels...)...)
	}
	label("2025-01-10", "backsnap.sh/delete-after-")
	label("2025-01-11", "backsnap.sh/pin=audit")
	label("2025-01-12", "backsnap.sh/yearly=2025")
	label("2025-01-13", "backsnap.sh/delete-after=2099-01-01")
	label("2025-01-14", "backsnap.sh/monthly=2024-12")
	kit.Must(t, "prune", "--unmark", "vs/data-2025-01-15", "-n", namespace)
	retained := contentOf(t, namespace, "data-2025-01-02")
	handle := kit.Kubectl(t, "get", "volumesnapshotcontent", retained, "-o", "jsonpath={.status.snapshotHandle}")
	kit.Kubectl(t, "patch", "volumesnapshotcontent", retained, "--type=merge", "-p", `{"spec": {"deletionPolicy": "Retain"}}`)

	var deleted []string
	kit.Until(t, "everything that was marked to be swept", func() string {
		p := prune(t, 0, append(here, "--keep", "daily=7,weekly=4,monthly=12,yearly=1", "--max-delete=48", "--grace=1s")...)
		deleted = append(deleted, p.states("Deleted")...)
		for _, item := range p.Items {
			if item.Decision == "marked" || item.Decision == "mark" {
				return item.Set + ": " + item.Reason
			}
		}
		return ""
	})
	want := []string{"2025-01-01", "2025-01-10", "2025-01-11", "2025-01-12", "2025-01-13", "2025-01-14", "2025-01-15", "2025-02-01", "2025-02-03", "2025-02-10", "2025-02-17",
		"2025-02-23", "2025-02-24", "2025-02-25", "2025-02-26", "2025-02-27", "2025-02-28", "2025-03-01"}
	for i := range want {
		want[i] = "data-" + want[i]
	}
	if got := standing(t, namespace); !slices.Equal(got, want) || len(deleted) != 60-len(want) {
		t.Errorf("left\n got %v\nwant %v\ndeleted %v", got, want, deleted)
	}
	labels := kit.Kubectl(t, "get", "volumesnapshotcontent", contentOf(t, namespace, "data-2025-01-11"), "-o", "jsonpath={.metadata.labels}")
	if !strings.Contains(labels, `"backsnap.sh/pin":"audit"`) || strings.Contains(labels, "delete-after") {
		t.Errorf("labels of a pinned snapshot's content: %s", labels)
	}
	storageHasNot(t, namespace, handle)
}

// storageHasNot fails if the storage still knows a snapshot: a content that
// names it would become ready.
func storageHasNot(t *testing.T, namespace, handle string) {
	t.Helper()
	name := kit.Random("handle")
	kit.Apply(t, fmt.Sprintf(`
apiVersion: snapshot.storage.k8s.io/v1
kind: VolumeSnapshotContent
metadata: {name: %[1]s}
spec: {deletionPolicy: Retain, driver: btrfs.csi.backsnap.test, source: {snapshotHandle: %[3]q}, volumeSnapshotRef: {name: %[1]s, namespace: %[2]s}}
`, name, namespace, handle), "apply", "-f", "-")
	kit.Afterwards(t, "delete", "volumesnapshotcontent", name, "--wait=false", "--ignore-not-found")
	kit.Until(t, "the storage to say what it has", func() string {
		status := kit.Kubectl(t, "get", "volumesnapshotcontent", name, "-o", "jsonpath={.status}")
		if strings.Contains(status, `"readyToUse":true`) {
			t.Fatalf("the storage still has %s: %s", handle, status)
		}
		if !strings.Contains(status, `"error"`) {
			return "nothing: " + status
		}
		return ""
	})
}

// TestPruneGoesOn: what the storage does not let go of is told, and stops
// nothing else; what is in use stays; labels that make no sense strike their
// own snapshot alone.
func TestPruneGoesOn(t *testing.T) {
	t.Parallel()
	namespace := kit.Namespace(t)
	for _, claim := range []string{"data", "stuck"} {
		kit.Claim(t, namespace, claim, "")
	}
	kit.Bound(t, namespace, "data", "stuck")
	first := time.Date(2025, time.January, 1, 1, 15, 0, 0, time.UTC)
	kit.Nights(t, namespace, "data", first, 5)
	kit.Snapshot(t, 0, "stuck", "-n", namespace, "--repository", "none", "--retain", "30d")
	kit.Snapshot(t, 0, "stuck", "-n", namespace, "--repository", "none", "--retain", "30d")
	stuck := standing(t, namespace)[5]
	content := contentOf(t, namespace, stuck)
	for _, name := range []string{"data-2025-01-01", "data-2025-01-02", "data-2025-01-03", stuck} {
		kit.Kubectl(t, "label", "volumesnapshot", name, "-n", namespace, "backsnap.sh/delete-after=2025-02-01", "--overwrite")
	}
	kit.Kubectl(t, "label", "volumesnapshot", "data-2025-01-04", "-n", namespace, "backsnap.sh/daily=soon", "--overwrite")
	kit.Apply(t, fmt.Sprintf(`
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {name: clone, namespace: %s}
spec: {accessModes: [ReadWriteOnce], storageClassName: no-such-class, resources: {requests: {storage: 32Mi}}, dataSource: {apiGroup: snapshot.storage.k8s.io, kind: VolumeSnapshot, name: data-2025-01-03}}
`, namespace), "apply", "-f", "-")
	kit.Faults(t, namespace, kit.Fault{"claim": "stuck", "refuseDelete": kit.Failing("Internal", "the array keeps it", 0)})

	p := prune(t, 3, "-n", namespace, "--keep", "daily=7", "--yes", "--max-delete=5", "--timeout=20s")
	if got := p.states("Deleted"); !slices.Equal(got, []string{"data-2025-01-01", "data-2025-01-02"}) {
		t.Errorf("deleted %v", got)
	}
	if got := p.states("Stuck"); !slices.Equal(got, []string{stuck}) {
		t.Errorf("stuck %v, want %s", got, stuck)
	}
	for _, item := range p.Items {
		name := item.Snapshots[0].Name
		want, found := map[string]string{
			"data-2025-01-03": "in use: claim clone is being filled from data-2025-01-03", "data-2025-01-04": `label backsnap.sh/daily "soon"`,
		}[name]
		if found && (item.Decision != "leave" || !strings.Contains(item.Reason, want)) {
			t.Errorf("%s: %s, %s", name, item.Decision, item.Reason)
		}
		if name == stuck && !strings.Contains(item.Snapshots[0].Error, "SnapshotDeleteError: Failed to delete snapshot") {
			t.Errorf("%s: %s", name, item.Snapshots[0].Error)
		}
	}
	kit.Faults(t, namespace) // now it lets go
	kit.Until(t, "the stuck content to go", func() string {
		return kit.Kubectl(t, "get", "volumesnapshotcontent", content, "--ignore-not-found", "-o", "name")
	})
}
