package e2e_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/backsnap/kubectl-backsnap/testdata/e2e/kit"
)

// TestPruneRemovesWhatDeadRunsLeft: a prune that has nothing to prune removes a
// clone, an unfinished snapshot and the leases of a run that died, and leaves
// what belongs to another namespace.
func TestPruneRemovesWhatDeadRunsLeft(t *testing.T) {
	t.Parallel()
	namespace, place := claims(t, "data"), kit.Namespace(t)
	const dead = "20260101-010101-dead"
	object := func(kind, version, in, name, labels, spec string) string {
		return fmt.Sprintf("---\n{apiVersion: %s, kind: %s, metadata: {namespace: %s, name: %s, labels: {app.kubernetes.io/managed-by: backsnap, backsnap.sh/run: %s%s}}, spec: %s}\n",
			version, kind, in, name, dead, labels, spec)
	}
	clone := func(name, of string) string {
		return object("PersistentVolumeClaim", "v1", place, name, ", backsnap.sh/role: clone, backsnap.sh/pvc: data, backsnap.sh/namespace: "+of,
			"{accessModes: [ReadWriteOnce], storageClassName: none, resources: {requests: {storage: 1Mi}}}")
	}
	lease := func(in, name string) string {
		return object("Lease", "coordination.k8s.io/v1", in, name, "",
			"{holderIdentity: "+dead+`, leaseDurationSeconds: 2, acquireTime: "2026-01-01T01:01:01.000000Z", renewTime: "2026-01-01T01:01:01.000000Z"}`)
	}
	kit.Apply(t, clone("left", namespace)+clone("elsewhere", "another")+lease(namespace, "backsnap")+lease(place, "backsnap-repository-main")+
		object("VolumeSnapshot", "snapshot.storage.k8s.io/v1", namespace, "unfinished", ", backsnap.sh/pvc: data, backsnap.sh/namespace: "+namespace,
			"{source: {persistentVolumeClaimName: data}}"), "apply", "-f", "-")
	args := []string{"prune", "-n", namespace, "--backup-namespace", place, "--repository", "none", "--yes"}
	plan := kit.Must(t, append(args, "--dry-run")...)
	for _, note := range []string{"clone " + place + "/left", "lease " + namespace + "/backsnap, which is over", "lease " + place + "/backsnap-repository-main, which is over"} {
		if !strings.Contains(plan, "note: run "+dead+" has left: "+note+"\n") {
			t.Errorf("%q is not in the plan", note)
		}
	}
	kit.Must(t, args...)
	kit.Until(t, "what was left to be gone", func() string {
		left := kit.Names(t, namespace, "volumesnapshot,lease") + kit.Names(t, place, "pvc,lease")
		return strings.TrimPrefix(left, "persistentvolumeclaim/elsewhere")
	})
}
