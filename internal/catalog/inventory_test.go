package catalog_test

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/backsnap/kubectl-backsnap/internal/catalog"
)

func TestRedact(t *testing.T) {
	for address, want := range map[string]string{
		"/srv/restic":                                     "/srv/restic",
		"sftp:backup@host:/srv/restic":                    "sftp:backup@host:/srv/restic",
		"s3:s3.eu-central-1.amazonaws.com/acme":           "s3:s3.eu-central-1.amazonaws.com/acme",
		"s3:https://s3.example.com:9000/acme/prod":        "s3:https://s3.example.com:9000/acme/prod",
		"rest:https://host":                               "rest:https://host",
		"rest:https://host/":                              "rest:https://host/",
		"rest:https://user@host/path":                     "rest:https://host/path",
		"rest:https://user:secret@host/path":              "rest:https://host/path",
		"rest:https://user:secret@host:8000/{namespace}/": "rest:https://host:8000/{namespace}/",
		"rest:https://user:secret@host":                   "rest:https://host",
		"rest:https://user:secret@[2001:db8::1]:8/":       "rest:https://[2001:db8::1]:8/",
		"rest:https://user:se:cret@host/":                 "rest:https://host/",
		"rest:https://user:se@cret@host/":                 "rest:https://host/",
		"rest:https://user:se%2Fcret@host/":               "rest:https://host/",
		"rest:https://user:se?cret@host/":                 "rest:https://host/",
		"rest:https://user:se#cret@host/":                 "rest:https://host/",
		"rest:https://user:://secret@host/":               "rest:https://***@host/",
		"rest:https://user:se/cret@host/path":             "rest:https://***@host/path",
		"rest:https://user:se@c/secret@host/path":         "rest:https://***@host/path",
		"rest:https://user:123/secret@host/path":          "rest:https://***@host/path",
		"sftp://backup@host:2222//srv/restic":             "sftp://host:2222//srv/restic",
		"":                                                "",
	} {
		got := catalog.Redact(address)
		if got != want {
			t.Errorf("%q: got %q, want %q", address, got, want)
		}
		if strings.Contains(got, "cret") {
			t.Errorf("%q is shown with its password: %q", address, got)
		}
	}
}

func TestPodClaims(t *testing.T) {
	pod := catalog.Pod{Containers: []catalog.Container{
		{Name: "mysql", Mounts: []catalog.Mount{{Claim: "data", Path: "/var/lib/mysql"}, {Claim: "logs", Path: "/logs"}}},
		{Name: "exporter"},
		{Name: "backup", Mounts: []catalog.Mount{{Claim: "binlog", Path: "/b"}, {Claim: "data", Path: "/d", SubPath: "x", ReadOnly: true}}},
	}}
	if diff := cmp.Diff([]string{"binlog", "data", "logs"}, pod.Claims()); diff != "" {
		t.Errorf("claims (-want +got):\n%s", diff)
	}
	if got := (catalog.Pod{}).Claims(); len(got) != 0 {
		t.Errorf("a pod without volumes mounts %v", got)
	}
}

func TestInventorySort(t *testing.T) {
	pod := func(namespace, name string) catalog.Pod { return catalog.Pod{Namespace: namespace, Name: name} }
	claim := func(namespace, name string) catalog.Claim { return catalog.Claim{Namespace: namespace, Name: name} }
	got := catalog.Inventory{
		Claims:       []catalog.Claim{claim("shop", "b"), claim("shop", "a"), claim("crm", "z")},
		Pods:         []catalog.Pod{pod("shop", "web"), pod("shop", "mysql-10"), pod("shop", "mysql-2"), pod("shop", "mysql-1"), pod("crm", "web")},
		Classes:      []catalog.SnapshotClass{{Name: "b"}, {Name: "a"}},
		Repositories: []catalog.Repository{{Name: "main"}, {Name: "cold"}},
	}
	got.Sort()
	want := catalog.Inventory{
		Claims:       []catalog.Claim{claim("crm", "z"), claim("shop", "a"), claim("shop", "b")},
		Pods:         []catalog.Pod{pod("crm", "web"), pod("shop", "mysql-1"), pod("shop", "mysql-2"), pod("shop", "mysql-10"), pod("shop", "web")},
		Classes:      []catalog.SnapshotClass{{Name: "a"}, {Name: "b"}},
		Repositories: []catalog.Repository{{Name: "cold"}, {Name: "main"}},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("sorted (-want +got):\n%s", diff)
	}
}

func TestSpellings(t *testing.T) {
	for _, c := range []struct{ got, want string }{
		{catalog.Workload{Kind: "statefulset", Name: "mysql"}.String(), "statefulset/mysql"},
		{catalog.ContainerRef{Namespace: "shop", Pod: "mysql-0", Container: "mysql"}.String(), "pod shop/mysql-0, container mysql"},
		{(&catalog.ExitError{Code: 137}).Error(), "exit 137"},
		{catalog.Right{Verb: "create", Group: "snapshot.storage.k8s.io", Resource: "volumesnapshots", Namespace: "shop"}.String(), "create volumesnapshots.snapshot.storage.k8s.io in shop"},
		{catalog.Right{Verb: "get", Resource: "pods/exec", Namespace: "shop"}.String(), "get pods/exec in shop"},
		{catalog.Right{Verb: "get", Group: "storage.k8s.io", Resource: "storageclasses"}.String(), "get storageclasses.storage.k8s.io"},
	} {
		if c.got != c.want {
			t.Errorf("got %q, want %q", c.got, c.want)
		}
	}
}
