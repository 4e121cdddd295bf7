package faults_test

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/backsnap/kubectl-backsnap/testdata/e2e/kit"
)

// podIn is a pod as movers are, for the API server to look at.
func podIn(namespace string) string {
	return fmt.Sprintf(`
apiVersion: v1
kind: Pod
metadata: {name: probe, namespace: %s}
spec: {securityContext: {runAsUser: 0}, containers: [{name: probe, image: probe}]}
`, namespace)
}

func jobIn(namespace string) string {
	return fmt.Sprintf(`
apiVersion: batch/v1
kind: Job
metadata: {name: probe, namespace: %s}
spec: {template: {spec: {restartPolicy: Never, containers: [{name: probe, image: probe}]}}}
`, namespace)
}

// nobodyIsRoot makes a policy that writes runAsNonRoot into every pod of
// namespace, as clusters have it, and waits until it does.
func nobodyIsRoot(t *testing.T, namespace string) {
	t.Helper()
	made(t, fmt.Sprintf(`
apiVersion: admissionregistration.k8s.io/v1
kind: MutatingAdmissionPolicy
metadata: {name: %[1]s}
spec:
  failurePolicy: Fail
  reinvocationPolicy: Never
  matchConstraints:
    resourceRules: [{apiGroups: [""], apiVersions: [v1], operations: [CREATE], resources: [pods]}]
  mutations:
    - patchType: ApplyConfiguration
      applyConfiguration: {expression: "Object{spec: Object.spec{securityContext: Object.spec.securityContext{runAsNonRoot: true}}}"}
---
apiVersion: admissionregistration.k8s.io/v1
kind: MutatingAdmissionPolicyBinding
metadata: {name: %[1]s}
spec:
  policyName: %[1]s
  matchResources: {namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: %[2]s}}}
`, kit.Random("policy"), namespace))
	kit.Until(t, "the policy to be obeyed", func() string {
		r := kit.Command(t, nil, podIn(namespace), "kubectl", "create", "--dry-run=server", "-f", "-", "-o", "jsonpath={.spec.securityContext.runAsNonRoot}")
		return strings.TrimPrefix(r.Stdout+r.Stderr+" is there", "true is there")
	})
}

// TestBadDaysOfAMover: the backup namespace lets it be made in no way. The
// snapshot stands.
func TestBadDaysOfAMover(t *testing.T) {
	t.Parallel()
	repository := kit.NewRepository(t, "repository password")
	for _, day := range []struct {
		kit.Day
		with func(t *testing.T, namespace string)
	}{
		{
			Day: kit.Day{What: "admission denies the mover's Job", Exit: 3, Code: "BS055", Says: []string{"no work on Sundays"}},
			with: func(t *testing.T, namespace string) {
				deny(t, namespace, "batch", "jobs", "no work on Sundays")
				denied(t, "no work on Sundays", jobIn(namespace))
			},
		},
		{
			Day: kit.Day{What: "admission denies the mover's pod", Exit: 3, Code: "BS055", Says: []string{"no pods on Sundays"}},
			with: func(t *testing.T, namespace string) {
				deny(t, namespace, "", "pods", "no pods on Sundays")
				denied(t, "no pods on Sundays", podIn(namespace))
			},
		},
		{
			Day: kit.Day{What: "Pod Security restricted in the backup namespace", Exit: 3, Code: "BS032", Says: []string{`violates PodSecurity "restricted`, "enforce=baseline"}},
			with: func(t *testing.T, namespace string) {
				kit.Kubectl(t, "label", "namespace", namespace, "pod-security.kubernetes.io/enforce=restricted")
				denied(t, "violates PodSecurity", podIn(namespace))
			},
		},
		{
			Day:  kit.Day{What: "a policy lets nobody be root (CreateContainerConfigError)", Exit: 3, Code: "BS055", Says: []string{"CreateContainerConfigError: ", "--run-as-user="}},
			with: nobodyIsRoot,
		},
	} {
		day.Group = "Mover"
		t.Run(day.What, func(t *testing.T) {
			t.Parallel()
			namespace, place := claim(t), repository.In(t, kit.Namespace(t)).Namespace
			day.with(t, place)
			item := day.Snapshot(t, nil, "-n", namespace, "--backup-namespace", place).Of(t, "data")
			if item.State != "Protected" || len(item.Copies) != 1 || item.Copies[0].State != "Failed" {
				t.Errorf("item %+v", item)
			}
		})
	}
}

// killRestic kills restic in the mover that works in namespace: what it would
// tidy up it leaves.
func killRestic(t *testing.T, namespace string) {
	t.Helper()
	pod := kit.Kubectl(t, "get", "pod", "-n", namespace, "-l", "backsnap.sh/role=mover", "-o", "jsonpath={.items[0].metadata.name}")
	kit.Exec(t, namespace, pod, `for p in /proc/[0-9]*; do case $(tr '\0' ' ' <$p/cmdline) in "restic backup "*) kill -9 ${p#/proc/} && exit;; esac; done; exit 1`)
}

// TestLocksOfAbortedRuns: a run that is aborted while it uploads leaves no lock.
// Where its restic was killed before, the lock is a dead mover's, and goes with
// the first work that it is in the way of.
func TestLocksOfAbortedRuns(t *testing.T) {
	t.Parallel()
	kit.All(t)
	repository := kit.NewRepository(t, "repository password")
	namespace := claim(t)
	kit.Pod(t, namespace, "app", "data")
	kit.Exec(t, namespace, "app", "head -c 3000000 /dev/urandom >/data/file; sync")
	where := []string{"-n", namespace, "--backup-namespace", repository.Namespace}
	locks := func() int { return len(strings.Fields(repository.Restic(t, "list", "locks", "--no-lock"))) }
	upload := func(t *testing.T) (run string, process *os.Process, wait func() kit.Result) {
		t.Helper()
		process, wait = kit.Background(t, append([]string{"snapshot", "-o", "json", "--limit-upload", "20", "--lock-timeout", "3m"}, where...)...)
		kit.Until(t, "a lock", func() string {
			if locks() == 0 {
				return "none"
			}
			return ""
		})
		return kit.Kubectl(t, "get", "jobs", "-n", repository.Namespace, "-o", `jsonpath={.items[0].metadata.labels.backsnap\.sh/run}`), process, wait
	}

	run, _, wait := upload(t)
	kit.Must(t, append([]string{"abort", "run/" + run, "--yes"}, where...)...)
	r := wait()
	if n := locks(); n != 0 {
		t.Errorf("%d locks are left of a run that was aborted", n)
	}
	kit.NothingLeft(t, run, "")
	kit.Day{Group: "Repository", What: "run aborted while it uploads", Exit: r.Code, Code: "BS035"}.Seen(t, nil, r.Stderr)

	run, process, wait := upload(t)
	if err := process.Kill(); err != nil {
		t.Fatal(err)
	}
	wait()
	killRestic(t, repository.Namespace)
	kit.Must(t, append([]string{"abort", "run/" + run, "--yes"}, where...)...)
	kit.NothingLeft(t, run, "")
	if locks() == 0 {
		t.Error("a restic that is killed leaves no lock")
	}
	check := kit.Backsnap(t, "repo", "check", repository.Name, "--backup-namespace", repository.Namespace, "--progress", "plain")
	if check.Code != 0 || !strings.Contains(check.Stderr, "removed the lock of host ") || locks() != 0 {
		t.Errorf("check: exit %d, %d locks are left", check.Code, locks())
	}
	kit.Day{Group: "Repository", What: "lock left by a mover that was killed, then repo check"}.Seen(t, nil, check.Stderr)
}
