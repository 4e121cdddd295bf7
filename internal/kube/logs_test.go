package kube

import (
	"context"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/watch"
	clienttesting "k8s.io/client-go/testing"

	"github.com/backsnap/kubectl-backsnap/internal/catalog"
	"github.com/backsnap/kubectl-backsnap/internal/restic"
)

func TestReadLines(t *testing.T) {
	text := "2026-11-22T01:16:00.123456789Z {\"message_type\":\"status\"}\n2026-11-22T01:16:01Z\nno time here\n"
	got, err := readLines(strings.NewReader(text), "pod/a")
	if err != nil {
		t.Fatal(err)
	}
	equal(t, "lines", []catalog.Line{
		{Time: time.Date(2026, 11, 22, 1, 16, 0, 123456789, time.UTC), About: "pod/a", Text: `{"message_type":"status"}`},
		{About: "pod/a", Text: "2026-11-22T01:16:01Z"},
		{About: "pod/a", Text: "no time here"},
	}, got)
}

// A pod that has not begun has no log: asking for one would be an error.
func TestLogLines(t *testing.T) {
	pod := func(name string, age time.Duration, state corev1.ContainerState) *corev1.Pod {
		return &corev1.Pod{
			ObjectMeta: metav1.ObjectMeta{
				Namespace: "backsnap", Name: name, Labels: map[string]string{batchv1.JobNameLabel: "a"},
				CreationTimestamp: metav1.NewTime(time.Date(2026, 11, 22, 1, 0, 0, 0, time.UTC).Add(-age)),
			},
			Status: corev1.PodStatus{ContainerStatuses: []corev1.ContainerStatus{{Name: moverContainer, State: state}}},
		}
	}
	running := corev1.ContainerState{Running: &corev1.ContainerStateRunning{}}
	f := newFakes([]runtime.Object{
		pod("second", time.Minute, running), pod("first", time.Hour, running),
		pod("third", 0, corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: "ImagePullBackOff"}}),
	}, nil)
	got, err := f.LogLines(t.Context(), "backsnap", "a")
	if err != nil {
		t.Fatal(err)
	}
	equal(t, "lines", []catalog.Line{{About: "pod/first", Text: "fake logs"}, {About: "pod/second", Text: "fake logs"}}, got)
}

func TestEventLines(t *testing.T) {
	at := time.Date(2026, 11, 22, 1, 16, 0, 0, time.UTC)
	event := func(name, kind, about string, last, first time.Time) *corev1.Event {
		return &corev1.Event{
			ObjectMeta:     metav1.ObjectMeta{Namespace: "backsnap", Name: name, CreationTimestamp: metav1.NewTime(at)},
			InvolvedObject: corev1.ObjectReference{Kind: kind, Name: about}, Reason: "Because", Message: "it is " + name + "\n",
			LastTimestamp: metav1.NewTime(last), EventTime: metav1.NewMicroTime(first),
		}
	}
	f := newFakes([]runtime.Object{
		event("old", "Job", "a", at.Add(time.Minute), time.Time{}), event("new", "Pod", "a-x7k2", time.Time{}, at.Add(time.Second)),
		event("bare", "VolumeSnapshot", "a", time.Time{}, time.Time{}), event("other", "Pod", "ab", at, at),
	}, nil)
	got, err := f.EventLines(t.Context(), "backsnap", []string{"a"})
	if err != nil {
		t.Fatal(err)
	}
	want := []catalog.Line{
		{Time: at, About: "volumesnapshot/a", Text: "Because: it is bare"},
		{Time: at.Add(time.Second), About: "pod/a-x7k2", Text: "Because: it is new"},
		{Time: at.Add(time.Minute), About: "job/a", Text: "Because: it is old"},
	}
	equal(t, "lines", want, got)
	refuse(f.core, "list", "events")
	got, err = f.EventLines(t.Context(), "backsnap", []string{"a"})
	equal(t, "without the right", []catalog.Line(nil), got)
	equal(t, "error", error(nil), err)
}

func TestEachMover(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFakes(nil, nil)
		w := watch.NewFake()
		var selector string
		f.core.PrependWatchReactor("jobs", func(a clienttesting.Action) (bool, watch.Interface, error) {
			selector = a.(clienttesting.WatchActionImpl).ListOptions.LabelSelector
			return true, w, nil
		})
		job := func(name string) *batchv1.Job {
			return &batchv1.Job{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: catalog.Ours(catalog.RoleMover, copyRun)}}
		}
		ctx, cancel := context.WithCancel(t.Context())
		go func() {
			for _, name := range []string{"a", "b", "a"} {
				w.Add(job(name))
			}
			w.Delete(job("c"))
			cancel()
		}()
		var seen []string
		if err := f.EachMover(ctx, "backsnap", copyRun, func(m restic.Mover) { seen = append(seen, m.Name) }); err != nil {
			t.Error(err)
		}
		equal(t, "seen", []string{"a", "b"}, seen)
		equal(t, "selector", true, strings.Contains(selector, catalog.LabelRun+"="+string(copyRun)))
	})
}

// A run has let go when its lease is gone, another's, or not renewed.
func TestAwaitRelease(t *testing.T) {
	lease := func(holder catalog.Run) *coordinationv1.Lease {
		return &coordinationv1.Lease{
			ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: catalog.LeaseName},
			Spec:       coordinationv1.LeaseSpec{HolderIdentity: new(string(holder)), LeaseDurationSeconds: new(int32(30))},
		}
	}
	for name, c := range map[string]struct {
		there []runtime.Object
		play  func(w *watch.FakeWatcher)
		took  time.Duration
	}{
		"there is none":     {nil, func(*watch.FakeWatcher) {}, 0},
		"it is another's":   {[]runtime.Object{lease("20261122-020000-zzzz")}, func(*watch.FakeWatcher) {}, 0},
		"it is not renewed": {[]runtime.Object{lease(copyRun)}, func(*watch.FakeWatcher) {}, 30 * time.Second},
		"it is renewed and then deleted": {[]runtime.Object{lease(copyRun)}, func(w *watch.FakeWatcher) {
			for range 4 {
				time.Sleep(20 * time.Second)
				w.Modify(lease(copyRun))
			}
			w.Delete(lease(copyRun))
		}, 80 * time.Second},
		"it is taken over": {[]runtime.Object{lease(copyRun)}, func(w *watch.FakeWatcher) {
			time.Sleep(10 * time.Second)
			w.Modify(lease("20261122-020000-zzzz"))
		}, 10 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newFakes(c.there, nil)
				w := watch.NewFake()
				f.core.PrependWatchReactor("leases", func(clienttesting.Action) (bool, watch.Interface, error) { return true, w, nil })
				began := time.Now()
				go c.play(w)
				if err := f.AwaitRelease(t.Context(), catalog.Holding{Namespace: "shop", Run: copyRun}); err != nil {
					t.Error(err)
				}
				equal(t, "took", c.took, time.Since(began))
			})
		})
	}
}

func TestKubernetesOwn(t *testing.T) {
	own := []string{"foregroundDeletion", "orphan", "kubernetes.io/pvc-protection", "batch.kubernetes.io/job-tracking", "external-attacher.csi.storage.k8s.io/x"}
	for _, finalizer := range append(own, "example.com/hold", "backup.velero.io/x") {
		equal(t, finalizer, slices.Contains(own, finalizer), kubernetesOwn(finalizer))
	}
}
