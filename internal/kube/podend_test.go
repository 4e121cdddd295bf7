package kube

import (
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"
	clienttesting "k8s.io/client-go/testing"
)

// A Job is not deleted between the end of its restic and that of its pod: that
// would take longer. But neither is it waited for without end.
func TestRemoveMoverLetsItsPodEnd(t *testing.T) {
	pod := func(phase corev1.PodPhase, state corev1.ContainerState) *corev1.Pod {
		return moverPod("pod-1", phase, state)
	}
	over := corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{}}
	for _, test := range []struct {
		name  string
		pod   *corev1.Pod
		later *corev1.Pod // a second later; nil if nothing more is heard
		want  time.Duration
	}{
		{name: "its restic works", pod: pod(corev1.PodRunning, running())},
		{name: "it has ended", pod: pod(corev1.PodSucceeded, over)},
		{name: "its restic has ended", pod: pod(corev1.PodRunning, over), later: pod(corev1.PodSucceeded, over), want: time.Second},
		{name: "its node is silent", pod: pod(corev1.PodRunning, over), want: podEnds},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newFakes([]runtime.Object{moverJob(), test.pod}, nil)
				s := newStage(f)
				began, waited := time.Now(), time.Duration(-1)
				f.core.PrependReactor("delete", "jobs", func(clienttesting.Action) (bool, runtime.Object, error) {
					waited = time.Since(began)
					return false, nil, nil
				})
				go func() {
					time.Sleep(time.Second)
					if test.later != nil {
						s.pods.Modify(test.later)
					}
					time.Sleep(time.Minute)
					s.jobs.Delete(moverJob())
				}()
				if err := f.RemoveMover(t.Context(), "backsnap", copyName); err != nil {
					t.Fatal(err)
				}
				equal(t, "waited", test.want, waited)
			})
		})
	}
}
