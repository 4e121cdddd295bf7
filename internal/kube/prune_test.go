package kube

import (
	"context"
	"errors"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	snapshotv1 "github.com/kubernetes-csi/external-snapshotter/client/v8/apis/volumesnapshot/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	clienttesting "k8s.io/client-go/testing"

	"github.com/backsnap/kubectl-backsnap/internal/catalog"
)

// marked is a VolumeSnapshot that prune has marked, and its content.
func marked() (*snapshotv1.VolumeSnapshot, *snapshotv1.VolumeSnapshotContent) {
	labels := catalog.Ours("", "20261122-011500-x7k2")
	labels[catalog.LabelDeleteAfter] = "20261123T011500Z"
	v := &snapshotv1.VolumeSnapshot{ObjectMeta: metav1.ObjectMeta{
		Namespace: "shop", Name: "data-1", UID: "u1", ResourceVersion: "7", Labels: labels, Annotations: map[string]string{catalog.AnnotationMarked: "2026-11-22T01:15:00Z"},
	}}
	content := &snapshotv1.VolumeSnapshotContent{
		ObjectMeta: metav1.ObjectMeta{Name: "content-1", UID: "c1", ResourceVersion: "8", Labels: map[string]string{"managed": "by-others", catalog.LabelRun: "x"}},
		Spec: snapshotv1.VolumeSnapshotContentSpec{
			DeletionPolicy: snapshotv1.VolumeSnapshotContentRetain, Driver: "csi.example.com",
			VolumeSnapshotRef: corev1.ObjectReference{Namespace: "shop", Name: "data-1", UID: "u1"},
		},
		Status: &snapshotv1.VolumeSnapshotContentStatus{SnapshotHandle: new("handle-1")},
	}
	return v, content
}

// conflict answers writes of that verb as a server does whose object has
// another resourceVersion.
func conflict(f fakes, verb, resource string) {
	f.snapshots.PrependReactor(verb, resource, func(clienttesting.Action) (bool, runtime.Object, error) {
		return true, nil, apierrors.NewConflict(schema.GroupResource{Group: snapshotGroup, Resource: resource}, "", errors.New("the object has been modified"))
	})
}

func TestRelabelSetsAndTakesOff(t *testing.T) {
	v, _ := marked()
	f := newFakes(nil, []runtime.Object{v})
	got, err := f.Relabel(t.Context(), fromObject(v), map[string]*string{catalog.LabelDeleteAfter: nil, catalog.LabelPin: new("unmarked")}, map[string]*string{catalog.AnnotationMarked: nil})
	if err != nil {
		t.Fatal(err)
	}
	want := fromObject(v)
	want.DeleteAfter, want.Marked, want.Pinned, want.PinnedAs, want.ResourceVersion = "", time.Time{}, true, "unmarked", got.ResourceVersion
	equal(t, "snapshot", want, got)
}

// What has changed since it was read is not written; what is gone is told apart.
func TestAWriteOfPruneStrikesWhatWasRead(t *testing.T) {
	ctx := context.Background()
	v, content := marked()
	other := v.DeepCopy()
	other.UID = "u2"
	ending := v.DeepCopy()
	ending.DeletionTimestamp, ending.Finalizers = &metav1.Time{Time: time.Now()}, []string{"snapshot.storage.kubernetes.io/volumesnapshot-bound-protection"}
	relabel := func(f fakes) error {
		_, err := f.Relabel(ctx, fromObject(v), map[string]*string{catalog.LabelDeleteAfter: nil}, nil)
		return err
	}
	discard := func(f fakes) error { return f.Discard(ctx, fromObject(v)) }
	policy := func(f fakes) error { _, err := f.SetPolicy(ctx, toContent(content), "Delete"); return err }
	for _, c := range []struct {
		name  string
		there []runtime.Object
		verb  string // that meets a conflict
		do    func(fakes) error
		want  error
	}{
		{"a label on one that has changed", []runtime.Object{v}, "patch", relabel, catalog.ErrChanged},
		{"a label on one that another has taken the place of", []runtime.Object{other}, "patch", relabel, catalog.ErrGone},
		{"a label on one that is gone", nil, "", relabel, catalog.ErrGone},
		{"deleting one that has changed", []runtime.Object{v}, "delete", discard, catalog.ErrChanged},
		{"deleting one that another has taken the place of", []runtime.Object{other}, "delete", discard, nil},
		{"deleting one that is being deleted", []runtime.Object{ending}, "delete", discard, nil},
		{"deleting one that is gone", nil, "", discard, nil},
		{"the policy of one that has changed", []runtime.Object{content}, "patch", policy, catalog.ErrChanged},
		{"the policy of one that is gone", nil, "", policy, catalog.ErrGone},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := newFakes(nil, c.there)
			for _, resource := range []string{"volumesnapshots", "volumesnapshotcontents"} {
				if c.verb != "" {
					conflict(f, c.verb, resource)
				}
			}
			if err := c.do(f); !errors.Is(err, c.want) || (c.want == nil) != (err == nil) {
				t.Errorf("%v, want %v", err, c.want)
			}
		})
	}
}

// A delete names UID and resourceVersion: the fakes do not look at them.
func TestDiscardNamesWhatWasRead(t *testing.T) {
	v, _ := marked()
	f := newFakes(nil, []runtime.Object{v})
	if err := f.Discard(t.Context(), fromObject(v)); err != nil {
		t.Fatal(err)
	}
	for _, a := range f.snapshots.Actions() {
		if a, ok := a.(clienttesting.DeleteActionImpl); ok {
			equal(t, "UID", "u1", string(*a.DeleteOptions.Preconditions.UID))
			equal(t, "resourceVersion", "7", *a.DeleteOptions.Preconditions.ResourceVersion)
			return
		}
	}
	t.Error("nothing was deleted")
}

// A retained content is lent to a sweep, and given back.
func TestAPolicyIsLent(t *testing.T) {
	_, object := marked()
	f := newFakes(nil, []runtime.Object{object})
	want := catalog.Content{
		Name: "content-1", UID: "c1", ResourceVersion: "8", Driver: "csi.example.com", Handle: "handle-1", Policy: "Retain",
		Namespace: "shop", Snapshot: "data-1", SnapshotUID: "u1", Labels: map[string]string{catalog.LabelRun: "x"}, Created: object.CreationTimestamp.UTC(),
	}
	all, err := f.Contents(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	equal(t, "contents", []catalog.Content{want}, all)
	lent, err := f.SetPolicy(t.Context(), all[0], "Delete")
	if err != nil {
		t.Fatal(err)
	}
	want.Policy, want.Lent, want.ResourceVersion = "Delete", true, lent.ResourceVersion
	equal(t, "lent", want, lent)
	back, err := f.SetPolicy(t.Context(), lent, "Retain")
	if err != nil {
		t.Fatal(err)
	}
	want.Policy, want.Lent, want.ResourceVersion = "Retain", false, back.ResourceVersion
	equal(t, "given back", want, back)
}

// What goes while a watch is away is seen to be gone.
func TestContentsAreFollowed(t *testing.T) {
	_, object := marked()
	synctest.Test(t, func(t *testing.T) {
		f := newFakes(nil, []runtime.Object{object})
		var mu sync.Mutex
		gone := map[string]bool{}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() {
			done <- f.FollowContents(ctx, func() []string { return []string{"content-0", "content-1"} }, func(c catalog.Content, went bool) {
				mu.Lock()
				defer mu.Unlock()
				gone[c.Name] = went
			})
		}()
		synctest.Wait()
		if err := f.snapshots.SnapshotV1().VolumeSnapshotContents().Delete(t.Context(), "content-1", metav1.DeleteOptions{}); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		mu.Lock()
		equal(t, "gone", map[string]bool{"content-0": true, "content-1": true}, gone)
		mu.Unlock()
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

// The claims of a plan say what they are filled from.
func TestPoliciesSayWhatAClaimIsFilledFrom(t *testing.T) {
	claim := func(name string, source *corev1.TypedLocalObjectReference) *corev1.PersistentVolumeClaim {
		return &corev1.PersistentVolumeClaim{
			ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: name}, Spec: corev1.PersistentVolumeClaimSpec{DataSource: source}, Status: corev1.PersistentVolumeClaimStatus{Phase: corev1.ClaimPending},
		}
	}
	f := newFakes([]runtime.Object{
		claim("clone", &corev1.TypedLocalObjectReference{Kind: "VolumeSnapshot", Name: "data-1"}),
		claim("copy", &corev1.TypedLocalObjectReference{Kind: "PersistentVolumeClaim", Name: "data"}), claim("data", nil),
		&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "shop", Annotations: map[string]string{catalog.AnnotationKeep: "daily=3"}}},
	}, nil)
	v, err := f.Policies(t.Context(), catalog.Scope{Namespaces: []string{"shop"}})
	if err != nil {
		t.Fatal(err)
	}
	var from []string
	for _, c := range v.Claims {
		from = append(from, c.Name+" "+c.FilledFrom)
	}
	equal(t, "sources", []string{"clone shop/data-1", "copy ", "data "}, slices.Clone(from))
	equal(t, "annotations", map[string]map[string]string{"shop": {catalog.AnnotationKeep: "daily=3"}}, v.Namespaces)
}
