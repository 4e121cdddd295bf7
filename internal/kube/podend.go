package kube

import (
	"context"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/watch"
)

// podEnds is how long a pod may take to have ended once its restic has.
const podEnds = 3 * time.Second

// awaitPodEnd waits until no pod of the Job is between the end of its restic and its
// own. The server deletes a pod that has ended at once; one that was told to go
// before only when its node has looked after it twice more. It is a matter of a
// second, and where it cannot be seen nothing waits.
func (c *Cluster) awaitPodEnd(ctx context.Context, namespace, job string) {
	ctx, cancel := context.WithTimeout(ctx, podEnds)
	defer cancel()
	pods, err := list(ctx, podsOf(job), c.core.CoreV1().Pods(namespace).List, func(l *corev1.PodList) []corev1.Pod { return l.Items })
	if err != nil {
		return
	}
	between := map[string]bool{}
	note := func(pod *corev1.Pod, gone bool) {
		delete(between, pod.Name)
		if !gone && restless(pod) {
			between[pod.Name] = true
		}
	}
	for i := range pods {
		note(&pods[i], false)
	}
	if len(between) == 0 {
		return
	}
	_ = observe(ctx, c.core.CoreV1().Pods(namespace).Watch, podsOf(job), observer{
		opened: func() error { return nil },
		event: func(e watch.Event) error {
			if pod, ok := e.Object.(*corev1.Pod); ok {
				note(pod, e.Type == watch.Deleted)
			}
			return nil
		},
		done: func() bool { return len(between) == 0 },
	})
}

// restless reports whether the pod's restic is over, and the pod is not.
func restless(pod *corev1.Pod) bool {
	status := moverStatus(pod)
	return status != nil && status.State.Terminated != nil && pod.DeletionTimestamp == nil &&
		pod.Status.Phase != corev1.PodSucceeded && pod.Status.Phase != corev1.PodFailed
}
