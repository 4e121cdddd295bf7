package schedule_test

import (
	"context"
	"errors"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/backsnap/kubectl-backsnap/internal/catalog"
	"github.com/backsnap/kubectl-backsnap/internal/schedule"
)

// cluster holds objects of one schedule, by namespace/kind/name.
type cluster struct {
	schedule.Cluster // what these tests do not call
	objects          []*unstructured.Unstructured
	stuck            string // kind that cannot be removed
}

var errStuck = errors.New("it is stuck")

func (c *cluster) ManifestsOf(_ context.Context, _, _ string, namespaces []string) (found []*unstructured.Unstructured, err error) {
	for _, o := range c.objects {
		if slices.Contains(namespaces, o.GetNamespace()) {
			found = append(found, o)
		}
	}
	return found, nil
}

func (c *cluster) RemoveManifest(_ context.Context, o *unstructured.Unstructured) error {
	if o.GetKind() == c.stuck {
		return errStuck
	}
	c.objects = slices.DeleteFunc(c.objects, func(p *unstructured.Unstructured) bool { return p == o })
	return nil
}

func (c *cluster) MakeManifest(_ context.Context, o *unstructured.Unstructured, dry bool) error {
	if slices.ContainsFunc(c.objects, func(p *unstructured.Unstructured) bool { return spell(p) == spell(o) }) {
		return catalog.ErrTaken
	}
	if !dry {
		c.objects = append(c.objects, o)
	}
	return nil
}

func spell(o *unstructured.Unstructured) string {
	return o.GetNamespace() + "/" + o.GetKind() + "/" + o.GetName()
}

// nightly are the manifests of a schedule that copies to another namespace.
func nightly(t *testing.T) []*unstructured.Unstructured {
	t.Helper()
	objects, err := schedule.Manifests(schedule.Request{
		Namespace: "shop", Name: "nightly", Zone: "Etc/UTC", Parts: []schedule.Part{{Name: "nightly", Cron: table(t, "@daily")}},
		Rights: []catalog.Right{
			{Verb: "list", Resource: "pods", Namespace: "shop"}, {Verb: "get", Resource: "secrets", Namespace: "vault", Name: "main"}, {Verb: "list", Resource: "persistentvolumes"},
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	return objects
}

// All that create has made is found again, wherever it lies; what could not be
// removed is left with the ServiceAccount, for the next time.
func TestDelete(t *testing.T) {
	c := &cluster{}
	if err := schedule.Create(t.Context(), c, nightly(t), false, func(*unstructured.Unstructured) {}); err != nil {
		t.Fatal(err)
	}
	var removed []string
	note := func(o *unstructured.Unstructured) { removed = append(removed, spell(o)) }
	c.stuck = "ServiceAccount"
	if err := schedule.Delete(t.Context(), c, "shop", "nightly", note); !errors.Is(err, errStuck) {
		t.Errorf("error %v, want that of the ServiceAccount", err)
	}
	c.stuck = ""
	if err := schedule.Delete(t.Context(), c, "shop", "nightly", note); err != nil || len(c.objects) != 0 {
		t.Errorf("error %v, %d objects left", err, len(c.objects))
	}
	want := []string{
		"/ClusterRole/backsnap:shop:nightly", "/ClusterRoleBinding/backsnap:shop:nightly",
		"shop/Role/backsnap:shop:nightly", "shop/RoleBinding/backsnap:shop:nightly", "vault/Role/backsnap:shop:nightly", "vault/RoleBinding/backsnap:shop:nightly",
		"shop/CronJob/nightly", "shop/ServiceAccount/backsnap-nightly",
	}
	if diff := cmp.Diff(want, removed); diff != "" {
		t.Errorf("removed: -want +got\n%s", diff)
	}
	if err := schedule.Delete(t.Context(), c, "shop", "nightly", note); catalog.CodeOf(err) != catalog.CodeNotFound {
		t.Errorf("a third time: %v", err)
	}
}

// What is there already is left as it is, and the message says what was made.
func TestCreateOverAnother(t *testing.T) {
	c := &cluster{}
	objects := nightly(t)
	c.objects = []*unstructured.Unstructured{objects[len(objects)-1]}
	err := schedule.Create(t.Context(), c, nightly(t), false, func(*unstructured.Unstructured) {})
	var f *catalog.Failure
	if !errors.As(err, &f) || f.Code != catalog.CodeExists || f.State != "7 objects of the schedule are made" {
		t.Errorf("got %#v", f)
	}
}
