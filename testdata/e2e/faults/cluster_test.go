package faults_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/backsnap/kubectl-backsnap/testdata/e2e/kit"
)

// made applies an object that belongs to no namespace, until the test ends.
func made(t *testing.T, manifest string) {
	t.Helper()
	kit.Apply(t, manifest, "apply", "-f", "-")
	t.Cleanup(func() { kit.Forget(t, manifest) })
}

// TestBadDaysOfTheCluster: what stands in the way of claims that no pod mounts.
func TestBadDaysOfTheCluster(t *testing.T) {
	t.Parallel()
	namespace := claim(t)
	alone := []string{"-n", namespace, "--repository", "none"}
	t.Run("no CRDs", func(t *testing.T) {
		env := []string{"KUBECONFIG=" + kit.ProxyWithout(t, "snapshot.storage.k8s.io")}
		day := kit.Day{Group: "Cluster", What: "no VolumeSnapshot API", Exit: 4, Code: "BS003", Says: []string{"install the snapshot CRDs"}}
		day.Check(t, nil, kit.BacksnapWith(t, env, append([]string{"snapshot", "-o", "json"}, alone...)...))
	})
	for _, day := range []struct {
		kit.Day
		args []string
		with func(t *testing.T)
	}{
		{
			Day:  kit.Day{What: "unknown claim", Exit: 1, Code: "BS004", Says: []string{"nothing-of-that-name"}},
			args: []string{"nothing-of-that-name"},
		},
		{
			Day:  kit.Day{What: "unbound claim", Exit: 4, Code: "BS024", Says: []string{"it is Pending"}},
			args: []string{"unbound"},
			with: func(t *testing.T) { kit.Claim(t, namespace, "unbound", "btrfs-local") },
		},
		{
			Day:  kit.Day{What: "pod of the database Pending", Exit: 1, Code: "BS015", Says: []string{"the pod is Pending"}},
			args: []string{"pod/waiting", "--consistency", "application"},
			with: func(t *testing.T) { pendingDatabase(t, namespace) },
		},
		{
			Day:  kit.Day{What: "no snapshot class", Exit: 4, Code: "BS021", Says: []string{"plain.csi.backsnap.test"}},
			args: []string{"plain"},
			with: func(t *testing.T) { kit.Claim(t, namespace, "plain", "plain"); kit.Bound(t, namespace, "plain") },
		},
		{
			Day:  kit.Day{What: "class of another driver", Exit: 4, Code: "BS021", Says: []string{"VolumeSnapshotClass btrfs is not one of its driver"}},
			args: []string{"plain", "--snapshot-class", "btrfs"},
		},
		{
			Day:  kit.Day{What: "two default classes", Exit: 4, Code: "BS021", Says: []string{"default VolumeSnapshotClasses"}},
			args: []string{"plain"},
			with: func(t *testing.T) { defaultClass(t); defaultClass(t) },
		},
		{
			Day:  kit.Day{What: "no right to take snapshots", Exit: 4, Code: "BS031", Says: []string{"cannot create volumesnapshots.snapshot.storage.k8s.io in " + namespace, "nothing changed"}},
			args: []string{"data", "--as", reader(t, "persistentvolumeclaims", "pods")},
		},
		{
			Day:  kit.Day{What: "no right to look", Exit: 4, Code: "BS031", Says: []string{"list persistentvolumeclaims", namespace}},
			args: []string{"data", "--as", reader(t, "pods")},
		},
		{
			Day:  kit.Day{What: "quota of snapshots used up", Exit: 1, Code: "BS023", Says: []string{"exceeded quota: none"}},
			args: []string{"data"},
			with: func(t *testing.T) {
				quota(t, namespace, "count/volumesnapshots.snapshot.storage.k8s.io")
				denied(t, "exceeded quota: none", snapshotOf(namespace))
			},
		},
		{
			Day:  kit.Day{What: "admission denies the snapshot", Exit: 1, Code: "BS023", Says: []string{"no snapshots on Sundays"}},
			args: []string{"data"},
			with: func(t *testing.T) { denySnapshots(t, namespace) },
		},
	} {
		day.Group = "Cluster"
		t.Run(day.What, func(t *testing.T) {
			if day.with != nil {
				day.with(t)
			}
			day.Snapshot(t, nil, append(day.args, alone...)...)
			if left := kit.Names(t, namespace, "volumesnapshot,lease"); left != "" {
				t.Errorf("left %s", left)
			}
		})
	}
}

// TestOutputPipeClosed: nobody reads what it says. A run is not given up for
// that, and ends as it would have.
func TestOutputPipeClosed(t *testing.T) {
	t.Parallel()
	namespace := claim(t)
	code := filepath.Join(t.TempDir(), "code")
	kit.Command(t, nil, "", "sh", "-c", `{ kubectl-backsnap snapshot -n "$0" --repository none; echo $? >"$1"; } 2>&1 | true`, namespace, code)
	if text, err := os.ReadFile(code); err != nil || string(text) != "0\n" {
		t.Errorf("exit %q, %v; want 0", text, err)
	}
	run := strings.TrimSpace(kit.Kubectl(t, "get", "volumesnapshot", "-n", namespace, "-o", `jsonpath={.items[*].metadata.labels.backsnap\.sh/run}`))
	kit.NothingLeft(t, run, "")
	kit.Day{Group: "Cluster", What: "output pipe closed"}.Seen(t, nil, "")
}

// reader is a user who may look at these and at snapshots, and do nothing.
func reader(t *testing.T, resources ...string) string {
	t.Helper()
	user := kit.Random("user")
	made(t, fmt.Sprintf(`
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: %[1]s}
rules:
  - {apiGroups: [""], resources: [%[2]s], verbs: [get, list]}
  - {apiGroups: [snapshot.storage.k8s.io], resources: [volumesnapshotclasses, volumesnapshots], verbs: [get, list]}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: %[1]s}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: %[1]s}
subjects: [{apiGroup: rbac.authorization.k8s.io, kind: User, name: %[1]s}]
`, user, strings.Join(resources, ", ")))
	return user
}

// defaultClass makes a default VolumeSnapshotClass for the driver that takes no
// snapshots, so that no other test minds.
func defaultClass(t *testing.T) {
	t.Helper()
	made(t, fmt.Sprintf(`
apiVersion: snapshot.storage.k8s.io/v1
kind: VolumeSnapshotClass
metadata: {name: %s, annotations: {snapshot.storage.kubernetes.io/is-default-class: "true"}}
driver: plain.csi.backsnap.test
deletionPolicy: Delete
`, kit.Random("class")))
}

// pendingDatabase is a database whose pod fits on no node.
func pendingDatabase(t *testing.T, namespace string) {
	t.Helper()
	kit.Claim(t, namespace, "waiting", "")
	kit.Bound(t, namespace, "waiting")
	kit.Apply(t, fmt.Sprintf(`
apiVersion: v1
kind: Pod
metadata: {name: waiting, namespace: %s}
spec:
  nodeSelector: {there: is-none}
  containers: [{name: db, image: "docker.io/library/postgres:15", volumeMounts: [{name: data, mountPath: %s}]}]
  volumes: [{name: data, persistentVolumeClaim: {claimName: waiting}}]
`, namespace, postgresData), "apply", "-f", "-")
}

// deny makes the API server refuse to create a resource of group in namespace.
func deny(t *testing.T, namespace, group, resource, message string) {
	t.Helper()
	made(t, fmt.Sprintf(`
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicy
metadata: {name: %[1]s}
spec:
  failurePolicy: Fail
  matchConstraints:
    resourceRules: [{apiGroups: [%[3]q], apiVersions: [v1], operations: [CREATE], resources: [%[4]s]}]
  validations: [{expression: "false", message: %[5]q}]
---
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicyBinding
metadata: {name: %[1]s}
spec:
  policyName: %[1]s
  validationActions: [Deny]
  matchResources: {namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: %[2]s}}}
`, kit.Random("policy"), namespace, group, resource, message))
}

// denySnapshots makes the API server refuse VolumeSnapshots in namespace.
func denySnapshots(t *testing.T, namespace string) {
	t.Helper()
	deny(t, namespace, "snapshot.storage.k8s.io", "volumesnapshots", "no snapshots on Sundays")
	denied(t, "no snapshots on Sundays", snapshotOf(namespace))
}

func snapshotOf(namespace string) string {
	return fmt.Sprintf(`
apiVersion: snapshot.storage.k8s.io/v1
kind: VolumeSnapshot
metadata: {name: probe, namespace: %s}
spec: {source: {persistentVolumeClaimName: data}}
`, namespace)
}

func claimIn(namespace string) string {
	return fmt.Sprintf(`
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {name: probe, namespace: %s}
spec: {accessModes: [ReadWriteOnce], resources: {requests: {storage: 32Mi}}}
`, namespace)
}

// denied waits until the API server refuses the object with that text: what
// decides over it comes to know of new rules a moment after they were made.
func denied(t *testing.T, text, manifest string) {
	t.Helper()
	kit.Until(t, "the refusal "+text, func() string {
		r := kit.Command(t, nil, manifest, "kubectl", "create", "--dry-run=server", "-f", "-")
		if strings.Contains(r.Stderr, text) {
			return ""
		}
		return r.Stdout + r.Stderr
	})
}

// quota allows nothing of that resource, until the test ends.
func quota(t *testing.T, namespace, resource string) {
	t.Helper()
	made(t, fmt.Sprintf(`
apiVersion: v1
kind: ResourceQuota
metadata: {name: none, namespace: %s}
spec: {hard: {%s: "0"}}
`, namespace, resource))
}

// TestBadDaysOfABackupNamespace: it lets no copy be made. The snapshot stands.
func TestBadDaysOfABackupNamespace(t *testing.T) {
	t.Parallel()
	repository := kit.NewRepository(t, "repository password")
	namespace := claim(t)
	// First: a rule that has gone is obeyed for a moment still.
	t.Run("long names", func(t *testing.T) { longNames(t, repository) })
	for _, day := range []struct {
		kit.Day
		with func(t *testing.T)
	}{
		{
			Day: kit.Day{What: "quota of claims used up in the backup namespace", Exit: 3, Code: "BS055", Says: []string{"exceeded quota: none"}},
			with: func(t *testing.T) {
				quota(t, repository.Namespace, "persistentvolumeclaims")
				denied(t, "exceeded quota: none", claimIn(repository.Namespace))
			},
		},
		{
			Day: kit.Day{What: "LimitRange forbids the clone", Exit: 3, Code: "BS055", Says: []string{"maximum storage usage"}},
			with: func(t *testing.T) {
				made(t, fmt.Sprintf(`
apiVersion: v1
kind: LimitRange
metadata: {name: small, namespace: %s}
spec: {limits: [{type: PersistentVolumeClaim, max: {storage: 16Mi}}]}
`, repository.Namespace))
				denied(t, "maximum storage usage", claimIn(repository.Namespace))
			},
		},
	} {
		day.Group = "Cluster"
		t.Run(day.What, func(t *testing.T) {
			day.with(t)
			item := day.Snapshot(t, nil, "-n", namespace, "--backup-namespace", repository.Namespace).Of(t, "data")
			if item.State != "Protected" || len(item.Copies) != 1 || item.Copies[0].State != "Failed" {
				t.Errorf("item %+v", item)
			}
		})
	}
}

// longNames: two claims whose names are as long as names can be, and differ at
// the very end.
func longNames(t *testing.T, repository kit.Repository) {
	namespace := kit.Namespace(t)
	names := []string{strings.Repeat("a", 252) + "1", strings.Repeat("a", 252) + "2"}
	for _, name := range names {
		kit.Claim(t, namespace, name, "")
	}
	kit.Bound(t, namespace, names...)
	day := kit.Day{Group: "Cluster", What: "claim names of 253 characters that collide when shortened"}
	run := day.Snapshot(t, nil, "-n", namespace, "--backup-namespace", repository.Namespace)
	seen := map[string]bool{}
	for _, name := range names {
		item := run.Of(t, name)
		if item.State != "Protected" || len(item.Copies) != 1 || item.Copies[0].State != "Ok" {
			t.Fatalf("item %+v", item)
		}
		seen[item.Snapshot], seen[item.Copies[0].Snapshot] = true, true
	}
	if len(seen) != 4 {
		t.Errorf("snapshots and copies of the two are %v, want four", seen)
	}
}

// TestANamespaceThatGoesIsLeftAlone: its claim is held by a finalizer.
func TestANamespaceThatGoesIsLeftAlone(t *testing.T) {
	t.Parallel()
	namespace := claim(t)
	held := `{"metadata": {"finalizers": ["backsnap.test/held"]}}`
	kit.Kubectl(t, "patch", "pvc", "data", "-n", namespace, "--type", "merge", "-p", held)
	t.Cleanup(func() { kit.Release(t, "pvc", "data", namespace) })
	kit.Kubectl(t, "delete", "namespace", namespace, "--wait=false")
	kit.Kubectl(t, "wait", "-n", namespace, "pvc/data", "--for=jsonpath={.metadata.deletionTimestamp}", "--timeout", kit.Patience.String())
	day := kit.Day{Group: "Cluster", What: "namespace terminating", Exit: 4, Code: "BS024", Says: []string{"it is being deleted"}}
	day.Snapshot(t, nil, "-n", namespace, "--repository", "none")
}
