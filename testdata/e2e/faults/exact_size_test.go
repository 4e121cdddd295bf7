package faults_test

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/backsnap/kubectl-backsnap/testdata/e2e/kit"
)

// TestRestoreWhereTheStorageMakesOneSizeOnly: the claim had asked for more than
// its snapshot needs, and the storage makes a clone in the snapshot's size only.
// The claim is asked for once more, in that; with --size it is not.
func TestRestoreWhereTheStorageMakesOneSizeOnly(t *testing.T) {
	t.Parallel()
	namespace := kit.Namespace(t)
	kit.Claim(t, namespace, "data", "btrfs")
	kit.Bound(t, namespace, "data")
	run := kit.Snapshot(t, 0, "-n", namespace, "--repository", "none", "data")
	snapshot := run.Of(t, "data").Snapshot
	asksForMore(t, namespace, snapshot)
	kit.Faults(t, namespace, kit.Fault{"exactSize": true})

	kit.Must(t, "restore", "data", "-n", namespace, "--to-pvc", "exact", "--yes")
	size := kit.Kubectl(t, "get", "volumesnapshot", snapshot, "-n", namespace, "-o", "jsonpath={.status.restoreSize}")
	const sizes = "jsonpath={.status.phase} {.spec.resources.requests.storage} {.status.capacity.storage}"
	if got := kit.Kubectl(t, "get", "pvc", "exact", "-n", namespace, "-o", sizes); got != "Bound "+size+" "+size {
		t.Errorf("the claim is %q, its snapshot %s", got, size)
	}
	r := kit.Backsnap(t, "restore", "data", "-n", namespace, "--to-pvc", "larger", "--size", "2Gi", "--timeout", "10s")
	if r.Code != 6 || !strings.Contains(r.Stderr, "OutOfRange") {
		t.Errorf("with a size that a person has named: exit %d, want 6 and what the storage says", r.Code)
	}
	if left := kit.Names(t, namespace, "pvc"); strings.Contains(left, "larger") {
		t.Errorf("left: %s", left)
	}
}

// asksForMore writes into the record that the claim had asked for 1 GiB.
func asksForMore(t *testing.T, namespace, snapshot string) {
	t.Helper()
	const key = "backsnap.sh/record"
	var object struct {
		Metadata struct{ Annotations map[string]string }
	}
	if err := json.Unmarshal([]byte(kit.Kubectl(t, "get", "volumesnapshot", snapshot, "-n", namespace, "-o", "json")), &object); err != nil {
		t.Fatal(err)
	}
	var record map[string]any
	if err := json.Unmarshal([]byte(object.Metadata.Annotations[key]), &record); err != nil {
		t.Fatal(err)
	}
	claim, ok := record["claim"].(map[string]any)
	if !ok || claim["request"] == nil {
		t.Fatalf("the record has no request: %v", record)
	}
	claim["request"] = 1 << 30
	text, err := json.Marshal(record)
	if err != nil {
		t.Fatal(err)
	}
	kit.Kubectl(t, "annotate", "--overwrite", "volumesnapshot", snapshot, "-n", namespace, key+"="+string(text))
}
