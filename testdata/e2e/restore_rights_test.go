package e2e_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/backsnap/kubectl-backsnap/internal/catalog"
	verb "github.com/backsnap/kubectl-backsnap/internal/restore"
	"github.com/backsnap/kubectl-backsnap/testdata/e2e/kit"
)

// TestRestoreUnderNoMoreRightsThanItAsksFor: whoever may look, and has what the
// plan of a restore asks for, restores, each way there is. Without any one of
// these rights nothing is made, and the message names the one that is missing.
func TestRestoreUnderNoMoreRightsThanItAsksFor(t *testing.T) {
	t.Parallel()
	repository := kit.NewRepository(t, "repository password")
	for _, way := range []verb.Way{verb.Clone, verb.Static, verb.Fill} {
		t.Run(string(way), func(t *testing.T) {
			t.Parallel()
			namespace := kit.Namespace(t)
			kit.Claim(t, namespace, "data", "")
			kit.Bound(t, namespace, "data")
			where := []string{"-n", namespace, "--backup-namespace", repository.Namespace}
			to, args := namespace, append([]string{"data", "-o", "json"}, where...)
			switch way {
			case verb.Static:
				to = kit.Namespace(t)
				args = append(args, "--to-namespace", to, "--from", "snapshot")
			case verb.Fill:
				args = append(args, "--from", "copy")
			}
			kit.Snapshot(t, 0, where...)
			rights := append(reading(way, namespace, to, repository.Namespace), verb.Plan{
				Request: verb.Request{ToNamespace: to, BackupNamespace: repository.Namespace},
				Volumes: []verb.Volume{{
					Way: way, Claim: catalog.Claim{Namespace: to}, Point: verb.Point{Snapshot: catalog.Snapshot{Namespace: namespace}},
				}},
			}.Rights()...)
			users := usersWithoutOne(t, rights)
			for i, right := range rights {
				r := kit.Backsnap(t, append([]string{"restore", "--as", users[i]}, args...)...)
				if r.Code != 4 || !strings.Contains(r.Stderr, "[BS031]") || !strings.Contains(r.Stderr, " "+right.String()) {
					t.Errorf("without %s: exit %d, want 4 and BS031 that names it", right, r.Code)
				}
			}
			if made := kit.Names(t, to, "pvc,volumesnapshot,lease"); strings.Contains(made, "restored") || strings.Contains(made, "lease") {
				t.Errorf("made %s", made)
			}
			doc := restore(t, 0, append([]string{"--as", users[len(rights)]}, args...)...)
			kit.NothingLeft(t, doc.Run, "persistentvolumeclaim")
		})
	}
}

// reading are the rights to look at what a restore is planned from.
func reading(way verb.Way, from, to, backup string) []catalog.Right {
	const snapshots = "snapshot.storage.k8s.io"
	rights := []catalog.Right{
		{Verb: "list", Group: snapshots, Resource: "volumesnapshots", Namespace: from},
		{Verb: "get", Group: "storage.k8s.io", Resource: "storageclasses"},
	}
	for _, namespace := range slices.Compact([]string{from, to}) {
		rights = append(rights,
			catalog.Right{Verb: "list", Resource: "persistentvolumeclaims", Namespace: namespace},
			catalog.Right{Verb: "list", Resource: "pods", Namespace: namespace})
	}
	if way == verb.Fill {
		rights = append(rights, catalog.Right{Verb: "list", Resource: "secrets", Namespace: backup})
	}
	return rights
}

// usersWithoutOne are a user for each of rights who has all others, and after
// them one who has all.
func usersWithoutOne(t *testing.T, rights []catalog.Right) []string {
	t.Helper()
	name := kit.Random("user")
	var users []string
	for i := range len(rights) + 1 {
		users = append(users, fmt.Sprintf("%s-%d", name, i))
	}
	var inNamespaces, everywhere strings.Builder
	for i, right := range rights {
		var subjects []string
		for j, user := range users {
			if j != i {
				subjects = append(subjects, fmt.Sprintf("{apiGroup: rbac.authorization.k8s.io, kind: User, name: %s}", user))
			}
		}
		kind, text := "Role", &inNamespaces
		if right.Namespace == "" {
			kind, text = "ClusterRole", &everywhere
		}
		fmt.Fprintf(text, role, kind, users[i], right.Namespace, right.Group, right.Resource, right.Verb, strings.Join(subjects, ", "))
	}
	kit.Apply(t, inNamespaces.String()+everywhere.String(), "create", "-f", "-")
	t.Cleanup(func() { kit.Forget(t, everywhere.String()) })
	// Who decides over rights comes to know of them a moment later.
	for _, right := range rights {
		kit.Until(t, "the right to "+right.String(), func() string {
			resource, sub, _ := strings.Cut(right.Resource, "/")
			r := kit.Command(t, nil, "", "kubectl", "auth", "can-i", right.Verb, strings.TrimSuffix(resource+"."+right.Group, "."), "--subresource", sub,
				"--namespace", right.Namespace, "--as", users[len(rights)])
			return strings.TrimPrefix(r.Stdout, "yes\n")
		})
	}
	return users
}

const role = `
---
apiVersion: rbac.authorization.k8s.io/v1
kind: %[1]s
metadata: {name: %[2]s, namespace: %[3]q}
rules: [{apiGroups: [%[4]q], resources: [%[5]q], verbs: [%[6]q]}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: %[1]sBinding
metadata: {name: %[2]s, namespace: %[3]q}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: %[1]s, name: %[2]s}
subjects: [%[7]s]
`
