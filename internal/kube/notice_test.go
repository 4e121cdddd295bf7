package kube

import (
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	clienttesting "k8s.io/client-go/testing"

	"github.com/backsnap/kubectl-backsnap/internal/catalog"
)

func event(namespace, name, kind, of string, uid types.UID, change func(*corev1.Event)) *corev1.Event {
	e := &corev1.Event{
		ObjectMeta:     metav1.ObjectMeta{Namespace: namespace, Name: name, CreationTimestamp: created},
		InvolvedObject: corev1.ObjectReference{Kind: kind, Namespace: namespace, Name: of, UID: uid},
		Type:           "Normal", Reason: "Said", Message: name, Source: corev1.EventSource{Component: "snapshot-controller"},
	}
	if kind == "VolumeSnapshotContent" {
		e.InvolvedObject.Namespace = ""
	}
	if change != nil {
		change(e)
	}
	return e
}

func saidAfter(d time.Duration, object, source, message string, count int) catalog.Notice {
	return catalog.Notice{Time: created.Add(d), Type: "Normal", Reason: "Said", Object: object, Source: source, Message: message, Count: count}
}

func TestNotices(t *testing.T) {
	later := func(d time.Duration) metav1.Time { return metav1.NewTime(created.Add(d)) }
	f := newFakes([]runtime.Object{
		event("shop", "old-form", "VolumeSnapshot", "a", "uid-a", func(e *corev1.Event) {
			e.FirstTimestamp, e.LastTimestamp, e.Count = later(time.Second), later(3*time.Second), 7
		}),
		event("shop", "new-form", "VolumeSnapshot", "a", "uid-a", func(e *corev1.Event) {
			e.EventTime, e.ReportingController = metav1.NewMicroTime(created.Add(time.Second)), "sidecar"
			e.Series = &corev1.EventSeries{Count: 3, LastObservedTime: metav1.NewMicroTime(created.Add(2 * time.Second))}
		}),
		event("shop", "without-time", "VolumeSnapshot", "b", "uid-b", nil),
		event("shop", "of-one-before", "VolumeSnapshot", "b", "uid-older", nil),
		event("shop", "of-another", "VolumeSnapshot", "c", "uid-c", nil),
		event("crm", "elsewhere", "VolumeSnapshot", "a", "uid-crm", nil),
		event("default", "content", "VolumeSnapshotContent", "content-a", "uid-content", func(e *corev1.Event) { e.EventTime = metav1.NewMicroTime(created.Add(time.Minute)) }),
	}, nil)
	f.core.PrependReactor("list", "events", func(a clienttesting.Action) (bool, runtime.Object, error) {
		t.Logf("list events in %s of %s", a.GetNamespace(), a.(clienttesting.ListAction).GetListRestrictions().Fields)
		return false, nil, nil
	})
	got, err := f.Notices(t.Context(), []catalog.Snapshot{
		{Namespace: "shop", Name: "a", UID: "uid-a", Content: "content-a"}, {Namespace: "shop", Name: "b", UID: "uid-b"}, {Namespace: "crm", Name: "a", UID: "uid-crm"},
	})
	if err != nil {
		t.Fatal(err)
	}
	equal(t, "notices", map[string][]catalog.Notice{
		"uid-a": {
			saidAfter(2*time.Second, "volumesnapshot/a", "sidecar", "new-form", 3),
			saidAfter(3*time.Second, "volumesnapshot/a", "snapshot-controller", "old-form", 7),
			saidAfter(time.Minute, "volumesnapshotcontent/content-a", "snapshot-controller", "content", 1),
		},
		"uid-b":   {saidAfter(0, "volumesnapshot/b", "snapshot-controller", "without-time", 1)},
		"uid-crm": {saidAfter(0, "volumesnapshot/a", "snapshot-controller", "elsewhere", 1)},
	}, got)
	lists := 0
	for _, a := range f.core.Actions() {
		if a.Matches("list", "events") {
			lists++
		}
	}
	equal(t, "lists", 3, lists) // one a namespace, one for contents
}

// What may not be read is an error beside what may.
func TestNoticesThatMayNotBeRead(t *testing.T) {
	f := newFakes([]runtime.Object{event("shop", "said", "VolumeSnapshot", "a", "uid-a", nil)}, nil)
	f.core.PrependReactor("list", "events", func(a clienttesting.Action) (bool, runtime.Object, error) {
		return a.GetNamespace() == "default", nil, denied("list", "", "events")
	})
	got, err := f.Notices(t.Context(), []catalog.Snapshot{{Namespace: "shop", Name: "a", UID: "uid-a", Content: "content-a"}})
	if !catalog.Has(err, catalog.CodeForbidden) {
		t.Errorf("error %v", err)
	}
	equal(t, "notices", map[string][]catalog.Notice{"uid-a": {saidAfter(0, "volumesnapshot/a", "snapshot-controller", "said", 1)}}, got)
}
