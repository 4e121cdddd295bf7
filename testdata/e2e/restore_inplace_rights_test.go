package e2e_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/backsnap/kubectl-backsnap/internal/catalog"
	verb "github.com/backsnap/kubectl-backsnap/internal/restore"
	"github.com/backsnap/kubectl-backsnap/testdata/e2e/kit"
)

// TestRestoreInPlaceUnderNoMoreRightsThanItAsksFor is the same of a restore in
// place, of a rollback and of a commit. Without any one of the rights the app is
// not touched, and the roles that are printed grant what is missing.
func TestRestoreInPlaceUnderNoMoreRightsThanItAsksFor(t *testing.T) {
	t.Parallel()
	namespace := kit.Namespace(t)
	kit.Claim(t, namespace, "data", "")
	kit.App(t, namespace)
	kit.AppReady(t, namespace)
	kit.Snapshot(t, 0, "-n", namespace, "--repository", "none")

	apps := []catalog.App{{Workload: catalog.Workload{Kind: "deployment", Name: "app"}}}
	plan := verb.SwapPlan{
		Plan: verb.Plan{
			Request: verb.Request{Target: verb.Target{Namespace: namespace}, ToNamespace: namespace},
			Volumes: []verb.Volume{{Way: verb.Clone, Claim: catalog.Claim{Namespace: namespace}, Point: verb.Point{Snapshot: catalog.Snapshot{Namespace: namespace}}}},
		},
		Apps: apps, Safety: []catalog.Snapshot{{}},
	}
	rights := reading(verb.Clone, namespace, namespace, "")
	for _, kind := range [][2]string{{"apps", "statefulsets"}, {"apps", "deployments"}, {"apps", "daemonsets"}, {"batch", "cronjobs"}, {"autoscaling", "horizontalpodautoscalers"}} {
		rights = append(rights, catalog.Right{Verb: "list", Group: kind[0], Resource: kind[1], Namespace: namespace})
	}
	back := verb.Swap{Namespace: namespace, Apps: apps}.Rights()
	for _, right := range append(plan.Rights(), back...) {
		if !slices.Contains(rights, right) {
			rights = append(rights, right)
		}
	}
	users := usersWithoutOne(t, rights)
	all := users[len(rights)]
	refused := func(i int, args ...string) {
		t.Helper()
		r := kit.Backsnap(t, append([]string{"restore", "-n", namespace, "--yes", "--as", users[i]}, args...)...)
		if r.Code != 4 || !strings.Contains(r.Stderr, "[BS031]") || !strings.Contains(r.Stderr, " "+rights[i].String()) ||
			!strings.Contains(r.Stderr, "resources: ["+rights[i].Resource+"], verbs: ["+rights[i].Verb+"]") {
			t.Errorf("%v without %s: exit %d, want 4, BS031 that names it, and a role that grants it", args, rights[i], r.Code)
		}
	}
	before := kit.Kubectl(t, "get", "deployment", "app", "-n", namespace, "-o", "jsonpath={.metadata.generation}") + kit.Names(t, namespace, "pvc,pod,lease,volumesnapshot")
	for i, right := range rights {
		if !slices.Contains(back, right) || slices.Contains(plan.Rights(), right) {
			refused(i, "data", "--in-place")
		}
	}
	if now := kit.Kubectl(t, "get", "deployment", "app", "-n", namespace, "-o", "jsonpath={.metadata.generation}") + kit.Names(t, namespace, "pvc,pod,lease,volumesnapshot"); now != before {
		t.Errorf("it is now\n%s\nwant\n%s", now, before)
	}
	doc := swap(t, 0, "Restored", "--as", all, "data", "-n", namespace, "--in-place")
	for i, right := range rights {
		if slices.Contains(back, right) && right.Namespace == "" { // what else there is was seen above
			refused(i, "--rollback", doc.Run)
			refused(i, "--commit", doc.Run, "--grace", "0")
		}
	}
	swap(t, 0, "RolledBack", "--as", all, "--rollback", doc.Run, "-n", namespace)
	swap(t, 0, "Committed", "--as", all, "--commit", doc.Run, "--grace", "0", "-n", namespace)
	committed(t, namespace, doc.Run)
}
