package catalog_test

import (
	"testing"

	"github.com/backsnap/kubectl-backsnap/internal/catalog"
)

func TestRoles(t *testing.T) {
	got := catalog.Roles([]catalog.Right{
		{Verb: "create", Resource: "persistentvolumeclaims", Namespace: "shop"},
		{Verb: "get", Resource: "persistentvolumes"},
		{Verb: "create", Resource: "pods/exec", Namespace: "shop"},
		{Verb: "delete", Resource: "persistentvolumeclaims", Namespace: "shop"},
		{Verb: "create", Resource: "persistentvolumeclaims", Namespace: "shop"},
		{Verb: "update", Group: "coordination.k8s.io", Resource: "leases", Namespace: "backsnap"},
		{Verb: "get", Resource: "secrets", Namespace: "backsnap", Name: "main"},
	})
	const want = `apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata: {name: backsnap-23c1cae1, namespace: shop}
rules:
  - {apiGroups: [""], resources: [persistentvolumeclaims], verbs: [create, delete]}
  - {apiGroups: [""], resources: [pods/exec], verbs: [create]}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: backsnap-c70b224a}
rules:
  - {apiGroups: [""], resources: [persistentvolumes], verbs: [get]}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata: {name: backsnap-3903ac02, namespace: backsnap}
rules:
  - {apiGroups: ["coordination.k8s.io"], resources: [leases], verbs: [update]}
  - {apiGroups: [""], resources: [secrets], resourceNames: ["main"], verbs: [get]}
`
	if got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}
