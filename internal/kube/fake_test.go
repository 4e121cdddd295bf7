package kube

import (
	"reflect"
	"testing"

	snapshotfake "github.com/kubernetes-csi/external-snapshotter/client/v8/clientset/versioned/fake"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/diff"
	"k8s.io/client-go/kubernetes/fake"
	clienttesting "k8s.io/client-go/testing"
)

// fakes are a Cluster in memory and its two clients.
type fakes struct {
	*Cluster
	core      *fake.Clientset
	snapshots *snapshotfake.Clientset
}

// newFakes holds objects, those of the snapshot API apart.
func newFakes(objects, snapshots []runtime.Object) fakes {
	//lint:ignore SA1019 the snapshot client has no other fake
	f := fakes{core: fake.NewClientset(objects...), snapshots: snapshotfake.NewSimpleClientset(snapshots...)}
	f.Cluster = &Cluster{core: f.core, snapshots: f.snapshots, boards: map[string]*board{}}
	return f
}

// equal compares whole values.
func equal(t *testing.T, what string, want, got any) {
	t.Helper()
	if !reflect.DeepEqual(want, got) {
		t.Errorf("%s: -want +got\n%s", what, diff.Diff(want, got))
	}
}

// refuse answers verb on resource as an authorizer does that says no.
func refuse(client interface {
	PrependReactor(verb, resource string, reaction clienttesting.ReactionFunc)
}, verb, resource string) {
	client.PrependReactor(verb, resource, func(a clienttesting.Action) (bool, runtime.Object, error) {
		return true, nil, denied(verb, a.GetResource().Group, resource)
	})
}

func denied(verb, group, resource string) error {
	e := apierrors.NewForbidden(schema.GroupResource{Group: group, Resource: resource}, "", nil)
	e.ErrStatus.Message = resource + ` is forbidden: User "jo" cannot ` + verb + ` resource "` + resource + `"`
	return e
}
