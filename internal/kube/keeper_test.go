package kube

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	clienttesting "k8s.io/client-go/testing"

	"github.com/backsnap/kubectl-backsnap/internal/catalog"
)

// ending is a pod that its node was told to end, so long ago by the server's
// clock, within a minute.
func ending(ago time.Duration) *corev1.Pod {
	pod := moverPod("p1", corev1.PodRunning, running())
	pod.Labels[catalog.LabelManagedBy], pod.Labels[catalog.LabelRole] = catalog.ManagedBy, string(catalog.RoleMover)
	pod.UID, pod.Spec.NodeName = "1", "node-2"
	pod.Spec.Volumes = []corev1.Volume{{Name: "data", VolumeSource: corev1.VolumeSource{
		PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: copyName},
	}}}
	pod.DeletionTimestamp, pod.DeletionGracePeriodSeconds = new(metav1.NewTime(time.Now().Add(time.Minute-ago))), new(int64(60))
	return pod
}

// What a node keeps that says nothing is not waited for for ever, whatever the
// clocks say; what its pod may yet let go of is.
func TestRemoveIsKeptByASilentNode(t *testing.T) {
	const never = time.Hour
	for _, test := range []struct {
		name string
		pod  func() *corev1.Pod
		took time.Duration
	}{
		{"deleted now: it has its grace, and some minutes", func() *corev1.Pod { return ending(0) }, time.Minute + silentFor},
		{"deleted long ago", func() *corev1.Pod { return ending(time.Hour) }, heldFor},
		{"by our clock it is deleted tomorrow", func() *corev1.Pod { return ending(-24 * time.Hour) }, time.Minute + heldFor + silentFor},
		{"deleted now, on a node that the cluster takes for lost", func() *corev1.Pod {
			pod := ending(0)
			pod.Status.Conditions = []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionFalse}}
			for i := range pod.Status.ContainerStatuses {
				pod.Status.ContainerStatuses[i].Ready = true
			}
			return pod
		}, time.Minute + heldFor},
		{"deleted now, not ready since it is ending", func() *corev1.Pod {
			pod := ending(0)
			pod.Status.Conditions = []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionFalse}}
			return pod
		}, time.Minute + silentFor},
		{"not deleted", func() *corev1.Pod {
			pod := ending(0)
			pod.DeletionTimestamp = nil
			return pod
		}, never},
		{"a controller holds it", func() *corev1.Pod {
			pod := ending(time.Hour)
			pod.Finalizers = []string{"batch.kubernetes.io/job-tracking"}
			return pod
		}, never},
	} {
		for what, remove := range map[string]func(*testing.T, fakes) error{
			"mover": func(t *testing.T, f fakes) error { return f.RemoveMover(t.Context(), "backsnap", copyName) },
			"clone": func(t *testing.T, f fakes) error { return f.RemoveClone(t.Context(), "backsnap", copyName, false) },
		} {
			t.Run(what+", "+test.name, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					f := newFakes([]runtime.Object{moverJob(), test.pod()}, nil)
					s := newStage(f)
					claims := player{FakeWatcher: s.jobs.FakeWatcher}
					f.core.PrependWatchReactor("persistentvolumeclaims", clienttesting.DefaultWatchReactor(claims, nil))
					stays := func(clienttesting.Action) (bool, runtime.Object, error) { return true, nil, nil }
					f.core.PrependReactor("delete", "jobs", stays)
					f.core.PrependReactor("delete", "persistentvolumeclaims", stays)
					gone := time.AfterFunc(never, func() { s.jobs.FakeWatcher.Delete(moverJob()) })
					defer gone.Stop()
					began := time.Now()
					err := remove(t, f)
					equal(t, "took", test.took, time.Since(began))
					var held *catalog.Held
					equal(t, "held", test.took != never, errors.As(err, &held))
					if held != nil {
						equal(t, "by", &catalog.Held{Pod: "p1", Node: "node-2"}, held)
					}
				})
			})
		}
	}
}
