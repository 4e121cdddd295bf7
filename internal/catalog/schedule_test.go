package catalog_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/backsnap/kubectl-backsnap/internal/catalog"
)

func TestScheduleOf(t *testing.T) {
	const ours, theirs = catalog.AnnotationSchedule, catalog.AnnotationOperatorSchedule
	type notes = map[string]string
	type answer struct {
		Schedule, Annotation string
		Said                 bool
	}
	for _, test := range []struct {
		name             string
		claim, namespace notes
		want             answer
	}{
		{"nothing is said", nil, nil, answer{}},
		{"the claim's", notes{ours: "@daily"}, notes{ours: "@weekly"}, answer{"@daily", ours, true}},
		{"its namespace's", notes{"other": ""}, notes{ours: "@weekly"}, answer{"@weekly", ours, true}},
		{"an empty one leaves out", notes{ours: ""}, notes{ours: "@weekly"}, answer{"", ours, true}},
		{"the operator's", notes{theirs: "@daily"}, notes{ours: "@weekly"}, answer{"@daily", theirs, true}},
		{"ours before the operator's", notes{theirs: "@daily", ours: "@hourly"}, nil, answer{"@hourly", ours, true}},
	} {
		var got answer
		got.Schedule, got.Annotation, got.Said = catalog.ScheduleOf(catalog.Claim{Annotations: test.claim}, test.namespace)
		if diff := cmp.Diff(test.want, got); diff != "" {
			t.Errorf("%s: -want +got\n%s", test.name, diff)
		}
	}
}

func TestRightsOfScope(t *testing.T) {
	for _, test := range []struct {
		name  string
		scope catalog.Scope
		want  []string
	}{
		{
			"one namespace, all repositories", catalog.Scope{Namespaces: []string{"shop"}, BackupNamespace: "backsnap"},
			[]string{
				"list persistentvolumeclaims in shop", "list pods in shop", "get namespaces in shop",
				"list persistentvolumes", "list volumesnapshotclasses.snapshot.storage.k8s.io", "list secrets in backsnap",
			},
		},
		{
			"all namespaces, one repository", catalog.Scope{All: true, BackupNamespace: "backsnap", Repositories: []string{"main"}},
			[]string{
				"list persistentvolumeclaims", "list pods", "list namespaces",
				"list persistentvolumes", "list volumesnapshotclasses.snapshot.storage.k8s.io", "get secrets main in backsnap",
			},
		},
		{
			"nothing but the namespace, no repository", catalog.Scope{Namespaces: []string{"shop"}, InNamespace: true, BackupNamespace: "backsnap", Repositories: []string{}},
			[]string{"list persistentvolumeclaims in shop", "list pods in shop", "get namespaces in shop"},
		},
	} {
		var got []string
		for _, right := range test.scope.Rights() {
			got = append(got, right.String())
		}
		if diff := cmp.Diff(test.want, got); diff != "" {
			t.Errorf("%s: -want +got\n%s", test.name, diff)
		}
	}
}
