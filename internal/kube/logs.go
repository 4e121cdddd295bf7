package kube

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/watch"

	"github.com/backsnap/kubectl-backsnap/internal/catalog"
	"github.com/backsnap/kubectl-backsnap/internal/restic"
)

// maxLine is the longest line of a log that is read whole.
const maxLine = 64 << 10

// LogLines are what the pods of a Job have logged so far, pod by pod in the
// order in which they were made. A pod whose container has not started, or is
// gone, has logged nothing.
func (c *Cluster) LogLines(ctx context.Context, namespace, job string) ([]catalog.Line, error) {
	pods, err := list(ctx, podsOf(job), c.core.CoreV1().Pods(namespace).List,
		func(l *corev1.PodList) []corev1.Pod { return l.Items })
	if err != nil {
		return nil, explain(err, "list pods of job "+namespace+"/"+job, catalog.Right{Verb: "list", Resource: "pods", Namespace: namespace})
	}
	slices.SortFunc(pods, func(a, b corev1.Pod) int { return a.CreationTimestamp.Compare(b.CreationTimestamp.Time) })
	var lines []catalog.Line
	for _, pod := range pods {
		if status := moverStatus(&pod); status == nil || status.State.Waiting != nil {
			continue
		}
		log, err := c.core.CoreV1().Pods(namespace).GetLogs(pod.Name, &corev1.PodLogOptions{Container: moverContainer, Timestamps: true}).Stream(ctx)
		if err != nil {
			return nil, explain(err, fmt.Sprintf("read log of %s/%s", namespace, pod.Name), catalog.Right{Verb: "get", Resource: "pods/log", Namespace: namespace})
		}
		found, err := readLines(log, "pod/"+pod.Name)
		log.Close()
		if err != nil {
			return nil, fmt.Errorf("read log of %s/%s: %w", namespace, pod.Name, err)
		}
		lines = append(lines, found...)
	}
	return lines, nil
}

// readLines reads lines that begin with their time.
func readLines(log io.Reader, about string) ([]catalog.Line, error) {
	var lines []catalog.Line
	scanner := bufio.NewScanner(log)
	scanner.Buffer(nil, maxLine)
	for scanner.Scan() {
		line := catalog.Line{About: about, Text: scanner.Text()}
		if stamp, text, found := strings.Cut(line.Text, " "); found {
			if at, err := time.Parse(time.RFC3339Nano, stamp); err == nil {
				line.Time, line.Text = at.UTC(), text
			}
		}
		lines = append(lines, line)
	}
	return lines, scanner.Err()
}

// EventLines are the events in namespace about objects of these names and
// about their pods, by time. Who may not see events has none.
func (c *Cluster) EventLines(ctx context.Context, namespace string, names []string) ([]catalog.Line, error) {
	events, err := list(ctx, metav1.ListOptions{}, c.core.CoreV1().Events(namespace).List,
		func(l *corev1.EventList) []corev1.Event { return l.Items })
	err = unlessForbidden(explain(err, "list events in "+namespace, catalog.Right{Verb: "list", Resource: "events", Namespace: namespace}))
	var lines []catalog.Line
	for _, e := range events {
		about := e.InvolvedObject.Name
		ours := slices.ContainsFunc(names, func(name string) bool { return about == name || strings.HasPrefix(about, name+"-") })
		if !ours {
			continue
		}
		lines = append(lines, catalog.Line{
			Time: eventTime(e), About: strings.ToLower(e.InvolvedObject.Kind) + "/" + about, Text: e.Reason + ": " + strings.TrimSpace(e.Message),
		})
	}
	slices.SortStableFunc(lines, func(a, b catalog.Line) int { return a.Time.Compare(b.Time) })
	return lines, err
}

// eventTime is when e was seen last: old and new writers of events fill in
// different fields.
func eventTime(e corev1.Event) time.Time {
	for _, at := range []time.Time{e.LastTimestamp.Time, e.EventTime.Time, e.FirstTimestamp.Time} {
		if !at.IsZero() {
			return at.UTC()
		}
	}
	return e.CreationTimestamp.UTC()
}

// EachMover calls seen with each mover of run that stands in namespace, and
// with each that is started, until ctx is done; that is no error.
func (c *Cluster) EachMover(ctx context.Context, namespace string, run catalog.Run, seen func(restic.Mover)) error {
	s := standing{namespace: namespace, found: map[string]*restic.Mover{}}
	selected := inRole(catalog.RoleMover)
	selected.LabelSelector += "," + catalog.LabelRun + "=" + string(run)
	err := observe(ctx, c.core.BatchV1().Jobs(namespace).Watch, selected, observer{
		opened: func() error { return nil },
		event: func(e watch.Event) error {
			job, ok := e.Object.(*batchv1.Job)
			if !ok || e.Type == watch.Deleted || s.found[job.Name] != nil {
				return nil
			}
			if s.addJob(job); s.found[job.Name] != nil {
				seen(*s.found[job.Name])
			}
			return nil
		},
		done: never,
	})
	if ctx.Err() != nil {
		return nil
	}
	return explain(err, "watch jobs in "+namespace, jobRight("watch", namespace))
}

// errSilent is the cause of a wait that ended because a holder says nothing.
var errSilent = errors.New("its lease is not renewed")

// AwaitRelease returns when the run of h has let go of its namespace, or has
// not renewed its Lease for as long as that lasts: then it is dead.
func (c *Cluster) AwaitRelease(ctx context.Context, h catalog.Holding) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	door := c.core.CoordinationV1().Leases(h.Namespace)
	over := false
	silence := time.AfterFunc(time.Hour, func() { cancel(errSilent) })
	defer silence.Stop()
	look := func(l *coordinationv1.Lease) {
		over = l.Spec.HolderIdentity == nil || *l.Spec.HolderIdentity != string(h.Run)
		if l.Spec.LeaseDurationSeconds != nil {
			silence.Reset(time.Duration(*l.Spec.LeaseDurationSeconds) * time.Second)
		}
	}
	err := observe(ctx, door.Watch, only(catalog.LeaseName), observer{
		opened: func() error {
			l, err := door.Get(ctx, catalog.LeaseName, metav1.GetOptions{})
			if apierrors.IsNotFound(err) {
				over = true
				return nil
			}
			if err == nil {
				look(l)
			}
			return err
		},
		event: func(e watch.Event) error {
			if l, ok := e.Object.(*coordinationv1.Lease); ok && e.Type != watch.Deleted {
				look(l)
			}
			over = over || e.Type == watch.Deleted
			return nil
		},
		done: func() bool { return over },
	})
	if errors.Is(err, errSilent) {
		return nil
	}
	return explain(err, "watch the lease of "+h.Namespace, catalog.Right{Verb: "watch", Group: coordinationv1.GroupName, Resource: "leases", Namespace: h.Namespace})
}
