package faults_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/backsnap/kubectl-backsnap/testdata/e2e/kit"
)

// TestBadDaysOfARestoreInPlace: the cluster does not let it be, before the app
// is touched. It runs on, on its own volume.
func TestBadDaysOfARestoreInPlace(t *testing.T) {
	t.Parallel()
	namespace := kit.Namespace(t)
	kit.Claim(t, namespace, "data", "")
	kit.App(t, namespace)
	kit.AppReady(t, namespace)
	kit.Snapshot(t, 0, "-n", namespace, "--repository", "none")
	volume := kit.Kubectl(t, "get", "pvc", "data", "-n", namespace, "-o", "jsonpath={.spec.volumeName}")
	state := func() string {
		return kit.Kubectl(t, "get", "deployment", "app", "-n", namespace, "-o", "jsonpath={.metadata.generation} {.status.readyReplicas} {.metadata.annotations}") +
			kit.Kubectl(t, "get", "pvc", "data", "-n", namespace, "-o", "jsonpath={.metadata.uid} {.spec.volumeName}") +
			kit.Kubectl(t, "get", "pv", volume, "-o", "jsonpath={.spec.persistentVolumeReclaimPolicy} {.metadata.labels} {.spec.claimRef.uid}")
	}
	before := state()
	for _, day := range []restoreDay{
		{
			Day:  kit.Day{Group: "In place", What: "the old volume cannot be retained", Exit: 1, Code: "BS023", Says: []string{"volumes are not kept here", "everything is as it was before"}},
			with: func(t *testing.T) { keepsNoVolume(t, volume) },
		},
		// Last: a rule that has gone is obeyed for a moment still.
		{
			Day: kit.Day{Group: "In place", What: "quota of claims used up", Exit: 1, Code: "BS023", Says: []string{"exceeded quota: none"}},
			with: func(t *testing.T) {
				quota(t, namespace, "persistentvolumeclaims")
				denied(t, "exceeded quota: none", claimIn(namespace))
			},
		},
	} {
		t.Run(day.What, func(t *testing.T) {
			day.with(t)
			day.Restore(t, "deployment/app", "-n", namespace, "--in-place", "--yes")
		})
		if now := state(); now != before {
			t.Errorf("%s: it is now %s, and was %s", day.What, now, before)
		}
	}
}

// keepsNoVolume lets nobody make that volume outlive its claim.
func keepsNoVolume(t *testing.T, volume string) {
	t.Helper()
	const says = "volumes are not kept here"
	made(t, fmt.Sprintf(`
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicy
metadata: {name: %[1]s}
spec:
  failurePolicy: Fail
  matchConstraints:
    resourceRules: [{apiGroups: [""], apiVersions: [v1], operations: [UPDATE], resources: [persistentvolumes], resourceNames: [%[2]s]}]
  validations: [{expression: "object.spec.persistentVolumeReclaimPolicy != 'Retain'", message: %[3]q}]
---
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicyBinding
metadata: {name: %[1]s}
spec: {policyName: %[1]s, validationActions: [Deny]}
`, kit.Random("policy"), volume, says))
	kit.Until(t, "the refusal "+says, func() string {
		r := kit.Command(t, nil, "", "kubectl", "patch", "pv", volume, "--dry-run=server", "-p", `{"spec":{"persistentVolumeReclaimPolicy":"Retain"}}`)
		if strings.Contains(r.Stderr, says) {
			return ""
		}
		return r.Stdout + r.Stderr
	})
}
