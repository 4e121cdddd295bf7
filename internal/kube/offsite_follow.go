package kube

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/watch"

	"github.com/backsnap/kubectl-backsnap/internal/catalog"
	"github.com/backsnap/kubectl-backsnap/internal/restic"
)

// FollowMover watches the Job, its pods, and what the cluster complains of.
// That restic has ended well is enough: the Job says so a second later.
func (c *Cluster) FollowMover(ctx context.Context, namespace, name, clone string, seen func(restic.Sight)) (restic.End, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	f := &following{cluster: c, namespace: namespace, name: name, clone: clone, pods: map[string]*corev1.Pod{}}
	events := make(chan watch.Event)
	failed := make(chan error)
	report := func(err error) {
		if ctx.Err() == nil && err != nil {
			select {
			case failed <- err:
			case <-ctx.Done():
			}
		}
	}
	go func() { report(f.watchJob(ctx, events)) }()
	go func() { report(f.watchPods(ctx, events)) }()
	go f.watchComplaints(ctx, events)
	for {
		select {
		case e := <-events:
			f.take(e)
		case err := <-failed:
			return restic.End{}, err
		case <-ctx.Done():
			return restic.End{}, context.Cause(ctx)
		}
		if end, over, err := f.end(ctx); over || err != nil {
			return end, err
		}
		seen(f.sight())
	}
}

// following is what is known of one mover.
type following struct {
	cluster         *Cluster
	namespace, name string
	clone           string

	job  *batchv1.Job // nil before it was seen
	gone bool         // the Job
	// pods are all that there were, by name, as they were last seen.
	pods map[string]*corev1.Pod
	// complaints are the last ones, by kind and name of what they are about.
	complaints map[string]restic.Trouble
}

// pass hands the events of a watch on until ctx is done.
func pass(ctx context.Context, to chan<- watch.Event) func(watch.Event) error {
	return func(e watch.Event) error {
		select {
		case to <- e:
			return nil
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

func never() bool { return false }

// watchJob hands on the Job's events. A watch that broke may have missed that
// the Job was deleted: then it is looked for.
func (f *following) watchJob(ctx context.Context, to chan<- watch.Event) error {
	door := f.cluster.core.BatchV1().Jobs(f.namespace)
	opened := 0
	err := observe(ctx, door.Watch, only(f.name), observer{
		opened: func() error {
			if opened++; opened == 1 {
				return nil
			}
			err := again(ctx, func(ctx context.Context) error { return getter(door.Get)(ctx, f.name) })
			if apierrors.IsNotFound(err) {
				return fmt.Errorf("job %s/%s: %w", f.namespace, f.name, catalog.ErrGone)
			}
			return err
		},
		event: pass(ctx, to),
		done:  never,
	})
	return explain(err, fmt.Sprintf("watch job %s/%s", f.namespace, f.name), jobRight("watch", f.namespace))
}

func (f *following) watchPods(ctx context.Context, to chan<- watch.Event) error {
	err := observe(ctx, f.cluster.core.CoreV1().Pods(f.namespace).Watch, podsOf(f.name), observer{
		opened: func() error { return nil }, event: pass(ctx, to), done: never,
	})
	right := catalog.Right{Verb: "watch", Resource: "pods", Namespace: f.namespace}
	return explain(err, fmt.Sprintf("watch pods of job %s/%s", f.namespace, f.name), right)
}

// podsOf selects the pods of the Job of that name.
func podsOf(job string) metav1.ListOptions {
	return metav1.ListOptions{LabelSelector: batchv1.JobNameLabel + "=" + job}
}

// watchComplaints hands on the warnings of the namespace. Without the right to
// see them a mover's troubles have fewer words.
func (f *following) watchComplaints(ctx context.Context, to chan<- watch.Event) {
	warnings := metav1.ListOptions{FieldSelector: "type=" + corev1.EventTypeWarning}
	_ = observe(ctx, f.cluster.core.CoreV1().Events(f.namespace).Watch, warnings, observer{
		opened: func() error { return nil }, event: pass(ctx, to), done: never,
	})
}

// take takes in one event of any watch.
func (f *following) take(e watch.Event) {
	switch object := e.Object.(type) {
	case *batchv1.Job:
		f.job, f.gone = object, e.Type == watch.Deleted
	case *corev1.Pod:
		f.pods[object.Name] = object
	case *corev1.Event:
		if e.Type != watch.Deleted {
			f.complain(object)
		}
	}
}

// complain keeps what is said of the Job, its pods and its clone, of what
// their own status does not say.
func (f *following) complain(e *corev1.Event) {
	switch e.Reason {
	case "FailedMount", "FailedAttachVolume", "FailedCreatePodSandBox", "ProvisioningFailed", "FailedCreate":
	default:
		return
	}
	if f.complaints == nil {
		f.complaints = map[string]restic.Trouble{}
	}
	trouble := restic.Trouble{Reason: e.Reason, Message: e.Message}
	if e.Reason == "FailedCreate" {
		trouble = refusal(e.Message)
	}
	f.complaints[e.InvolvedObject.Kind+"/"+e.InvolvedObject.Name] = trouble
}

// sight is the mover as it stands.
func (f *following) sight() restic.Sight {
	pod := f.last()
	if pod == nil {
		return restic.Sight{Trouble: f.complaint("PersistentVolumeClaim/"+f.clone, "Job/"+f.name)}
	}
	sight := restic.Sight{Pod: pod.Name, Trouble: unheard(pod)}
	if sight.Trouble != nil {
		return sight
	}
	if status := moverStatus(pod); status != nil {
		switch state := status.State; {
		case state.Running != nil:
			sight.Running = true
			return sight
		case state.Terminated != nil:
			sight.Trouble = failedAttempt(pod, state.Terminated)
			return sight
		case state.Waiting != nil && state.Waiting.Reason != "ContainerCreating" && state.Waiting.Reason != "PodInitializing":
			sight.Trouble = &restic.Trouble{Reason: state.Waiting.Reason, Message: state.Waiting.Message}
			return sight
		}
	}
	if pod.Status.Phase == corev1.PodFailed { // evicted, before its container was there or with it
		sight.Trouble = &restic.Trouble{Reason: pod.Status.Reason, Message: pod.Status.Message + "; the Job tries again"}
		return sight
	}
	for _, condition := range pod.Status.Conditions {
		if condition.Type == corev1.PodScheduled && condition.Status == corev1.ConditionFalse {
			sight.Trouble = &restic.Trouble{Reason: condition.Reason, Message: condition.Message}
		}
	}
	if complaint := f.complaint("Pod/"+pod.Name, "PersistentVolumeClaim/"+f.clone); complaint != nil {
		sight.Trouble = complaint
	}
	return sight
}

// unheard is the trouble of a pod that has not ended for all that is known, and
// whose node cannot be asked; nil for none. The Job starts no other pod before
// the node says that this one is over, which a lost node never does.
func unheard(pod *corev1.Pod) *restic.Trouble {
	status := moverStatus(pod)
	if status != nil && status.State.Terminated != nil || pod.Status.Phase == corev1.PodFailed {
		return nil
	}
	condition := func(of corev1.PodConditionType) corev1.PodCondition {
		i := slices.IndexFunc(pod.Status.Conditions, func(c corev1.PodCondition) bool { return c.Type == of })
		if i < 0 {
			return corev1.PodCondition{}
		}
		return pod.Status.Conditions[i]
	}
	// A kubelet lets both conditions fall together. The first alone is what the
	// node lifecycle controller takes back, without a reason, of a node that
	// has not said anything for a while.
	if condition(corev1.PodReady).Status == corev1.ConditionFalse && condition(corev1.ContainersReady).Status == corev1.ConditionTrue {
		return &restic.Trouble{
			Reason: restic.NodeNotReady, Object: pod.Spec.NodeName,
			Message: fmt.Sprintf("node %s does not answer; whether restic runs there still is not known", pod.Spec.NodeName),
		}
	}
	if c := condition(corev1.DisruptionTarget); pod.DeletionTimestamp != nil && c.Reason == "DeletionByTaintManager" {
		return &restic.Trouble{Reason: c.Reason, Message: c.Message}
	}
	return nil
}

// failedAttempt is the trouble of an attempt that failed, nil for one that the
// Job ends with. The next one has no more memory than the one before.
func failedAttempt(pod *corev1.Pod, how *corev1.ContainerStateTerminated) *restic.Trouble {
	if how.Reason == restic.OutOfMemory {
		message := "restic needs more memory than there is"
		for _, c := range pod.Spec.Containers {
			if limit, found := c.Resources.Limits[corev1.ResourceMemory]; found && c.Name == moverContainer {
				message = "restic needs more memory than its limit of " + limit.String()
			}
		}
		return &restic.Trouble{Reason: how.Reason, Message: message, Lasting: true}
	}
	if slices.Contains(restic.Final, restic.Exit(how.ExitCode)) {
		return nil
	}
	return &restic.Trouble{Reason: how.Reason, Message: fmt.Sprintf("exit %d; the Job tries again", how.ExitCode)}
}

// complaint is the first there is about one of those.
func (f *following) complaint(about ...string) *restic.Trouble {
	for _, object := range about {
		if trouble, ok := f.complaints[object]; ok {
			return &trouble
		}
	}
	return nil
}

// last is the newest pod, nil for none.
func (f *following) last() *corev1.Pod {
	pods := slices.SortedFunc(maps.Values(f.pods), func(a, b *corev1.Pod) int {
		return cmp.Or(a.CreationTimestamp.Compare(b.CreationTimestamp.Time), cmp.Compare(a.Name, b.Name))
	})
	if len(pods) == 0 {
		return nil
	}
	return pods[len(pods)-1]
}

// end is how the mover ended, if it has.
func (f *following) end(ctx context.Context) (end restic.End, over bool, err error) {
	if pod := f.last(); pod != nil && succeeded(pod) {
		return podEnd(pod), true, nil
	}
	var how batchv1.JobConditionType
	var condition batchv1.JobCondition
	if f.job != nil {
		how, condition = finished(f.job)
	}
	if how == "" && f.gone {
		return end, true, fmt.Errorf("job %s/%s: %w", f.namespace, f.name, catalog.ErrGone)
	}
	if how == "" {
		return end, false, nil
	}
	if err := f.catchUp(ctx); err != nil {
		return end, true, err
	}
	if pod := f.last(); pod != nil {
		end = podEnd(pod)
	}
	if how == batchv1.JobFailed {
		end.Reason, end.Message = condition.Reason, condition.Message
	}
	return end, true, nil
}

// catchUp lists the pods where their watch is behind the Job's.
func (f *following) catchUp(ctx context.Context) error {
	if pod := f.last(); pod != nil && pod.Status.Phase == corev1.PodFailed {
		return nil
	}
	pods, err := f.cluster.podsOfJob(ctx, f.namespace, f.name)
	if err != nil {
		return err
	}
	for i := range pods {
		f.pods[pods[i].Name] = &pods[i]
	}
	return nil
}

// podsOfJob are the pods of the Job of that name.
func (c *Cluster) podsOfJob(ctx context.Context, namespace, name string) ([]corev1.Pod, error) {
	pods, err := list(ctx, podsOf(name), c.core.CoreV1().Pods(namespace).List, func(l *corev1.PodList) []corev1.Pod { return l.Items })
	right := catalog.Right{Verb: "list", Resource: "pods", Namespace: namespace}
	return pods, explain(err, fmt.Sprintf("list pods of job %s/%s", namespace, name), right)
}

// podEnd is how the pod ended.
func podEnd(pod *corev1.Pod) restic.End {
	end := restic.End{Pod: pod.Name, Exit: int(restic.ExitFailed), Killed: pod.Status.Reason, Text: pod.Status.Message}
	status := moverStatus(pod)
	if status == nil || status.State.Terminated == nil {
		return end
	}
	how := status.State.Terminated
	end.Exit, end.Finished = int(how.ExitCode), how.FinishedAt.Time
	if how.Message != "" {
		end.Text = how.Message
	}
	if how.Reason != "Completed" && how.Reason != "Error" {
		end.Killed = how.Reason
	}
	return end
}

// succeeded reports whether the pod's container has ended well. The pod's
// phase says so a moment later.
func succeeded(pod *corev1.Pod) bool {
	status := moverStatus(pod)
	return status != nil && status.State.Terminated != nil && status.State.Terminated.ExitCode == 0
}

// moverStatus is that of the pod's container, nil before it has one.
func moverStatus(pod *corev1.Pod) *corev1.ContainerStatus {
	i := slices.IndexFunc(pod.Status.ContainerStatuses, func(s corev1.ContainerStatus) bool { return s.Name == moverContainer })
	if i < 0 {
		return nil
	}
	return &pod.Status.ContainerStatuses[i]
}
