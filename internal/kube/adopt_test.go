package kube

import (
	"errors"
	"testing"
	"time"

	snapshotv1 "github.com/kubernetes-csi/external-snapshotter/client/v8/apis/volumesnapshot/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/backsnap/kubectl-backsnap/internal/catalog"
)

// orphaned is a content whose snapshot is gone, and that mirrors it.
func orphaned(t *testing.T) (*snapshotv1.VolumeSnapshotContent, catalog.Snapshot) {
	t.Helper()
	s := catalog.Snapshot{
		Namespace: "shop", Name: "data-1", Claim: "data", Run: "20261122-011500-x7k2", Consistency: catalog.Crash, Retain: "calendar",
		Periods: map[catalog.Period]string{catalog.Daily: "2026-11-22"}, Driver: "csi.example.com", Handle: "handle-1", Node: "node-1", RestoreSize: 1 << 30, Cut: time.Unix(5, 7).UTC(),
		Record: &catalog.Record{Version: 1, App: "pvc/data", Claim: catalog.ClaimRecord{Name: "data", VolumeMode: "Block"}},
	}
	notes, err := s.Annotations()
	if err != nil {
		t.Fatal(err)
	}
	labels := s.Labels()
	labels[labelNode] = "node-1"
	return &snapshotv1.VolumeSnapshotContent{
		ObjectMeta: metav1.ObjectMeta{Name: "content-1", UID: "c1", ResourceVersion: "8", Labels: labels, Annotations: notes},
		Spec: snapshotv1.VolumeSnapshotContentSpec{
			DeletionPolicy: snapshotv1.VolumeSnapshotContentRetain, Driver: "csi.example.com",
			VolumeSnapshotRef: corev1.ObjectReference{Namespace: "shop", Name: "data-1", UID: "u1"},
		},
		Status: &snapshotv1.VolumeSnapshotContentStatus{SnapshotHandle: new("handle-1"), RestoreSize: new(int64(1 << 30)), CreationTime: new(int64(5e9 + 7))},
	}, s
}

// What a content remembers is what its snapshot was.
func TestAContentRemembersItsSnapshot(t *testing.T) {
	object, want := orphaned(t)
	f := newFakes(nil, []runtime.Object{object})
	got, err := f.Remembered(t.Context(), toContent(object))
	if err != nil {
		t.Fatal(err)
	}
	equal(t, "snapshot", want, got)
	other := toContent(object)
	other.UID = "c2"
	if _, err := f.Remembered(t.Context(), other); !errors.Is(err, catalog.ErrGone) {
		t.Errorf("another of that name: %v", err)
	}
}

// The content that takes the place of another is retained, has its handle,
// labels and record, and says whose place it has. A second attempt takes what
// the first has made; what others have made it does not.
func TestAdopt(t *testing.T) {
	object, s := orphaned(t)
	f := newFakes(nil, []runtime.Object{object})
	s.Content, s.Pinned, s.PinnedAs = "adopted-c1", true, catalog.Adopted
	for range 2 {
		if err := f.Adopt(t.Context(), s, "content-1"); err != nil {
			t.Fatal(err)
		}
	}
	made, err := f.snapshots.SnapshotV1().VolumeSnapshotContents().Get(t.Context(), "adopted-c1", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	want := object.DeepCopy()
	want.Name, want.UID, want.ResourceVersion, want.Status = "adopted-c1", "", made.ResourceVersion, nil
	want.Labels[catalog.LabelPin], want.Annotations[catalog.AnnotationAdopted] = catalog.Adopted, "content-1"
	want.Spec.Source.SnapshotHandle, want.Spec.SourceVolumeMode = new("handle-1"), new(corev1.PersistentVolumeBlock)
	want.Spec.VolumeSnapshotRef = corev1.ObjectReference{Kind: "VolumeSnapshot", Namespace: "shop", Name: "data-1"}
	equal(t, "content", want, made)
	bound, err := f.snapshots.SnapshotV1().VolumeSnapshots("shop").Get(t.Context(), "data-1", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	equal(t, "source", snapshotv1.VolumeSnapshotSource{VolumeSnapshotContentName: new("adopted-c1")}, bound.Spec.Source)
	equal(t, "labels", s.Labels(), bound.Labels)
	equal(t, "record", object.Annotations[catalog.AnnotationRecord], bound.Annotations[catalog.AnnotationRecord])

	standing, err := f.Standing(t.Context(), catalog.Scope{All: true})
	if err != nil {
		t.Fatal(err)
	}
	equal(t, "standing", map[string]catalog.Standing{"shop/data-1": {UID: string(bound.UID), From: "adopted-c1"}}, standing)

	s.Run = "20261122-011500-othe"
	if err := f.Adopt(t.Context(), s, "content-1"); !errors.Is(err, catalog.ErrTaken) {
		t.Errorf("another's content: %v", err)
	}
}

// A content is let go of only when its snapshot is gone; the note that it was
// retained is set, kept, or taken off.
func TestLetGo(t *testing.T) {
	object, _ := orphaned(t)
	lent := object.DeepCopy()
	lent.Spec.DeletionPolicy, lent.Annotations[catalog.AnnotationReclaim] = snapshotv1.VolumeSnapshotContentDelete, "Retain"
	free := object.DeepCopy()
	free.Spec.DeletionPolicy = snapshotv1.VolumeSnapshotContentDelete
	there := &snapshotv1.VolumeSnapshot{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "data-1", UID: "u1"}}
	other := there.DeepCopy()
	other.UID = "u2"
	unbound := object.DeepCopy()
	unbound.Spec.VolumeSnapshotRef.UID = ""
	for _, c := range []struct {
		name    string
		content *snapshotv1.VolumeSnapshotContent
		beside  []runtime.Object
		policy  string
		want    error
		lent    bool
	}{
		{"a retained one goes with its data", object, nil, "Delete", nil, true},
		{"one that goes anyway", free, nil, "Delete", nil, false},
		{"one that a dead sweep has left", lent, nil, "Delete", nil, true},
		{"the same is kept", lent, nil, "Retain", nil, false},
		{"another snapshot has the name", object, []runtime.Object{other}, "Delete", nil, true},
		{"its snapshot is there", object, []runtime.Object{there}, "Delete", catalog.ErrChanged, false},
		{"it is about to be bound", unbound, []runtime.Object{other}, "Delete", catalog.ErrChanged, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := newFakes(nil, append([]runtime.Object{c.content.DeepCopy()}, c.beside...))
			got, err := f.LetGo(t.Context(), toContent(c.content), c.policy)
			if !errors.Is(err, c.want) || (c.want == nil) != (err == nil) {
				t.Fatal(err)
			}
			now, err := f.snapshots.SnapshotV1().VolumeSnapshotContents().Get(t.Context(), "content-1", metav1.GetOptions{})
			if err != nil {
				t.Fatal(err)
			}
			if c.want != nil {
				equal(t, "content", c.content, now)
				return
			}
			if got.Policy != c.policy || got.Lent != c.lent || now.Annotations[annotationBeingDeleted] != "yes" {
				t.Errorf("%+v, annotations %v", got, now.Annotations)
			}
		})
	}
}
