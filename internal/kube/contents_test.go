package kube

import (
	"testing"

	snapshotv1 "github.com/kubernetes-csi/external-snapshotter/client/v8/apis/volumesnapshot/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/backsnap/kubectl-backsnap/internal/catalog"
)

// Contents that carry labels are read with one list, those that do not one by
// one; what is not there, or another's, changes nothing.
func TestCompleteAll(t *testing.T) {
	content := func(name, uid, handle string, labels map[string]string) *snapshotv1.VolumeSnapshotContent {
		return &snapshotv1.VolumeSnapshotContent{
			ObjectMeta: metav1.ObjectMeta{Name: name, Labels: labels},
			Spec: snapshotv1.VolumeSnapshotContentSpec{
				Driver: "csi.example", VolumeSnapshotRef: corev1.ObjectReference{Namespace: "shop", Name: "data-" + uid, UID: "uid-1"},
			},
			Status: &snapshotv1.VolumeSnapshotContentStatus{SnapshotHandle: &handle},
		}
	}
	of := func(uid, content string) catalog.Snapshot {
		return catalog.Snapshot{Namespace: "shop", Name: "data-" + uid, UID: "uid-1", Content: content}
	}
	full := func(s catalog.Snapshot, handle string) catalog.Snapshot {
		s.Driver, s.Handle = "csi.example", handle
		return s
	}
	labels := catalog.Snapshot{Namespace: "shop", Run: "20261122-011500-x7k2"}.Labels()
	objects := []runtime.Object{
		content("c-1", "1", "handle-1", labels), content("c-2", "2", "handle-2", nil), content("c-3", "other", "handle-3", labels),
	}
	snapshots := []catalog.Snapshot{of("1", "c-1"), of("2", "c-2"), of("3", "c-3"), of("4", "c-4"), of("5", "")}

	f := newFakes(nil, objects)
	got, err := f.CompleteAll(t.Context(), snapshots)
	if err != nil {
		t.Fatal(err)
	}
	equal(t, "snapshots", []catalog.Snapshot{full(snapshots[0], "handle-1"), full(snapshots[1], "handle-2"), snapshots[2], snapshots[3], snapshots[4]}, got)

	f = newFakes(nil, objects)
	refuse(f.snapshots, "list", "volumesnapshotcontents")
	if got, err = f.CompleteAll(t.Context(), snapshots); err != nil {
		t.Fatal(err)
	}
	equal(t, "without the right to list", snapshots, got)

	elsewhere := of("6", "c-6")
	elsewhere.Namespace = "crm"
	equal(t, "selector", "app.kubernetes.io/managed-by=backsnap,!backsnap.sh/role,backsnap.sh/namespace=shop", selectContents(snapshots))
	equal(t, "selector", "app.kubernetes.io/managed-by=backsnap,!backsnap.sh/role", selectContents(append(snapshots, elsewhere)))
}
