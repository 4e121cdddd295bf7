package kube

import (
	"context"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/backsnap/kubectl-backsnap/internal/catalog"
)

// silentFor is how long a node may take beyond a pod's grace to end it. One that
// works ends a pod late, too: not before it has given up pulling an image for
// it, and it pulls one after the other.
const silentFor = 5 * time.Minute

// keeper says who keeps an object that was deleted; nil while that is not
// known, and for how long to wait before it is asked again, zero for no more.
type keeper func(context.Context) (held *catalog.Held, wait time.Duration)

// ask asks while the object stays, and gives up once it is known who keeps it.
func (k keeper) ask(ctx context.Context, giveUp context.CancelCauseFunc) {
	for wait := heldFor; wait > 0; {
		if sleep(ctx, wait) != nil {
			return // the object is gone
		}
		var held *catalog.Held
		if held, wait = k(ctx); held != nil {
			giveUp(held)
			return
		}
	}
}

// silentNode is the keeper of what goes with one of those pods: a node that
// was told to end it, and does not say that it has. A lost node never does, and
// only the node's return or its removal from the cluster lets the pod go; until
// then its restic may be alive, and what it reads must not be taken from it.
func (c *Cluster) silentNode(namespace string, selected metav1.ListOptions, concerns func(*corev1.Pod) bool) keeper {
	since := map[types.UID]time.Time{}
	return func(ctx context.Context) (*catalog.Held, time.Duration) {
		pods, err := list(ctx, selected, c.core.CoreV1().Pods(namespace).List, func(l *corev1.PodList) []corev1.Pod { return l.Items })
		if err != nil {
			return nil, 0 // who may not see pods waits without knowing for whom
		}
		now, wait := time.Now(), time.Duration(0)
		for i := range pods {
			pod := &pods[i]
			if !concerns(pod) {
				continue
			}
			if _, known := since[pod.UID]; !known {
				since[pod.UID] = now
			}
			late := overdue(pod, now, since[pod.UID])
			limit := silentFor
			if lost(pod) {
				limit = heldFor
			}
			if late >= limit {
				return &catalog.Held{Pod: pod.Name, Node: pod.Spec.NodeName}, 0
			}
			wait = max(wait, limit-late)
		}
		return nil, wait
	}
}

// overdue is for how long the pod's node should have ended it; less than zero
// while it has time. The server's clock is believed only where it makes the
// wait shorter: ours may be wrong, and then our own watching decides.
func overdue(pod *corev1.Pod, now, since time.Time) time.Duration {
	if pod.DeletionTimestamp == nil || len(pod.Finalizers) > 0 || pod.Spec.NodeName == "" {
		return 0 // controllers are not done with it
	}
	grace := time.Duration(0)
	if seconds := pod.DeletionGracePeriodSeconds; seconds != nil {
		grace = time.Duration(*seconds) * time.Second
	}
	return max(now.Sub(pod.DeletionTimestamp.Time), now.Sub(since)-grace)
}

// lost reports whether the cluster takes the pod's node for lost: the node
// controller then says that the pod is not ready, while its containers are as
// ready as the kubelet, which alone speaks for them, has last called them. It is
// read off the pod since not everybody may read nodes.
func lost(pod *corev1.Pod) bool {
	unready := func(c corev1.PodCondition) bool {
		return c.Type == corev1.PodReady && c.Status == corev1.ConditionFalse
	}
	stopped := func(s corev1.ContainerStatus) bool { return !s.Ready }
	return slices.ContainsFunc(pod.Status.Conditions, unready) &&
		len(pod.Status.ContainerStatuses) > 0 && !slices.ContainsFunc(pod.Status.ContainerStatuses, stopped)
}

// anyPod concerns every pod.
func anyPod(*corev1.Pod) bool { return true }

// mounts concerns the pods that use a claim.
func mounts(claim string) func(*corev1.Pod) bool {
	return func(pod *corev1.Pod) bool {
		for _, mount := range claimVolumes(pod) {
			if mount.Claim == claim {
				return true
			}
		}
		return false
	}
}
