package kube

import (
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	snapshotv1 "github.com/kubernetes-csi/external-snapshotter/client/v8/apis/volumesnapshot/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
	clienttesting "k8s.io/client-go/testing"

	"github.com/backsnap/kubectl-backsnap/internal/catalog"
	"github.com/backsnap/kubectl-backsnap/internal/prune"
	"github.com/backsnap/kubectl-backsnap/internal/retention"
)

// silent watches without a word.
type silent struct{}

func (silent) Event(catalog.Event) {}

// backup-ns starts six processes for each snapshot, each of which asks the API
// server anew. Number 19 of the study of the programs before ours: a sweep of n
// snapshots is n requests and a number of others that does not depend on n. (They
// are more than the two that the study has: what is deleted was listed twice, the
// second time under the lock, of five kinds, and is watched until it is gone.)
func TestSeed19OneRequestASnapshot(t *testing.T) {
	few, many := requestsOfASweep(t, 50), requestsOfASweep(t, 1000)
	if few-50 != many-1000 || few-50 > 16 {
		t.Errorf("%d requests for 50 snapshots, %d for 1000", few, many)
	}
}

// requestsOfASweep is how many requests a plan and a sweep of n snapshots are.
func requestsOfASweep(t *testing.T, n int) (requests int) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		var objects []runtime.Object
		cut := time.Date(2026, 1, 1, 1, 15, 0, 0, time.UTC)
		for i := range n + 1 {
			objects = append(objects, ready(t, fmt.Sprintf("data-%04d", i), cut.Add(time.Duration(i)*time.Hour), i < n)...)
		}
		f := newFakes([]runtime.Object{&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "shop"}}}, objects)
		going := watch.NewFakeWithChanSize(n, false) // the fakes' own hold a hundred
		f.snapshots.PrependWatchReactor("volumesnapshotcontents", func(clienttesting.Action) (bool, watch.Interface, error) { return true, going, nil })
		f.snapshots.PrependReactor("delete", "volumesnapshots", func(a clienttesting.Action) (bool, runtime.Object, error) {
			name := "content-" + a.(clienttesting.DeleteAction).GetName()
			going.Delete(&snapshotv1.VolumeSnapshotContent{ObjectMeta: metav1.ObjectMeta{Name: name}})
			return false, nil, nil
		})
		r := prune.Request{
			Run: "20261122-090000-x7k2", Scope: catalog.Scope{Namespaces: []string{"shop"}}, Policy: retention.Policy{catalog.Daily: 1}, Grace: time.Hour, MinKeep: 1,
			Limit: prune.Limit{Percent: 100}, Now: cut.AddDate(1, 0, 0), Parallel: 8, Timeout: time.Minute,
		}
		plan, err := prune.MakePlan(t.Context(), f.Cluster, r)
		if err != nil {
			t.Fatal(err)
		}
		result, err := prune.Run(t.Context(), f.Cluster, func() time.Time { return r.Now }, plan, silent{})
		if err != nil {
			t.Fatal(err)
		}
		if len(result.Items) != n || slices.ContainsFunc(result.Items, func(i prune.Item) bool { return i.Outcome != prune.Deleted }) {
			t.Fatalf("%d of %d swept", len(result.Items), n)
		}
		isRead := func(a clienttesting.Action) bool { return a.GetVerb() == "get" } // of contents that the watch may have missed
		requests = len(slices.DeleteFunc(append(f.snapshots.Actions(), f.core.Actions()...), isRead))
	})
	return requests
}

// ready is a restore point, whose day to go has passed where it is due, and its
// content.
func ready(t *testing.T, name string, cut time.Time, due bool) []runtime.Object {
	t.Helper()
	s := catalog.Snapshot{
		Namespace: "shop", Name: name, Claim: "data", Run: catalog.Run(cut.Format("20060102-150405") + "-aaaa"), Consistency: catalog.Crash, Retain: "days",
		Record: &catalog.Record{Version: 1, App: "pvc/data", Members: []string{"data"}, TimeZone: "UTC", Cut: cut, Claim: catalog.ClaimRecord{Name: "data", UID: "1"}},
	}
	if due {
		s.DeleteAfter = "2026-06-01"
	}
	notes, err := s.Annotations()
	if err != nil {
		t.Fatal(err)
	}
	content, uid := "content-"+name, types.UID("uid-"+name)
	return []runtime.Object{
		&snapshotv1.VolumeSnapshot{
			ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: name, UID: uid, ResourceVersion: "1", Labels: s.Labels(), Annotations: notes, CreationTimestamp: metav1.NewTime(cut)},
			Status:     &snapshotv1.VolumeSnapshotStatus{BoundVolumeSnapshotContentName: &content, ReadyToUse: new(true), CreationTime: new(metav1.NewTime(cut))},
		},
		&snapshotv1.VolumeSnapshotContent{
			ObjectMeta: metav1.ObjectMeta{Name: content, UID: "c-" + uid, ResourceVersion: "1", Labels: s.Labels(), Annotations: notes},
			Spec: snapshotv1.VolumeSnapshotContentSpec{
				DeletionPolicy: snapshotv1.VolumeSnapshotContentDelete, Driver: "csi.example.com", VolumeSnapshotRef: corev1.ObjectReference{Namespace: "shop", Name: name, UID: uid},
			},
			Status: &snapshotv1.VolumeSnapshotContentStatus{SnapshotHandle: new("handle-" + name)},
		},
	}
}
