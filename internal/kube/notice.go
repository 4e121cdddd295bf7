package kube

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/backsnap/kubectl-backsnap/internal/catalog"
)

// Notices are what controllers and drivers have said of snapshots and of their
// contents, by the snapshot's UID, oldest first. What may be read is returned
// beside a catalog.Failure of CodeForbidden for what may not.
//
// It lists once a namespace, however many snapshots there are.
func (c *Cluster) Notices(ctx context.Context, snapshots []catalog.Snapshot) (map[string][]catalog.Notice, error) {
	owners := map[string]string{} // `namespace/kind/name` of an object -> UID of the snapshot
	kinds := map[string]string{}  // namespace -> kind
	for _, s := range snapshots {
		owners[s.Namespace+"/VolumeSnapshot/"+s.Name] = s.UID
		kinds[s.Namespace] = "VolumeSnapshot"
	}
	found := map[string][]catalog.Notice{}
	var errs []error
	add := func(namespace, kind string) {
		events, err := c.events(ctx, namespace, kind)
		errs = append(errs, err)
		for i := range events {
			o := events[i].InvolvedObject
			if uid, ok := owners[o.Namespace+"/"+o.Kind+"/"+o.Name]; ok && (kind != "VolumeSnapshot" || string(o.UID) == uid) {
				found[uid] = append(found[uid], notice(&events[i]))
			}
		}
	}
	for namespace, kind := range kinds {
		add(namespace, kind)
	}
	bound := false
	for _, s := range snapshots {
		if s.Content != "" {
			owners["/VolumeSnapshotContent/"+s.Content], bound = s.UID, true
		}
	}
	if bound {
		add(metav1.NamespaceDefault, "VolumeSnapshotContent") // what is in no namespace is told of there
	}
	for _, notices := range found {
		slices.SortStableFunc(notices, func(a, b catalog.Notice) int {
			return cmp.Or(a.Time.Compare(b.Time), cmp.Compare(a.Object, b.Object), cmp.Compare(a.Reason, b.Reason))
		})
	}
	return found, errors.Join(errs...)
}

func (c *Cluster) events(ctx context.Context, namespace, kind string) ([]corev1.Event, error) {
	events, err := list(ctx, metav1.ListOptions{FieldSelector: "involvedObject.kind=" + kind}, c.core.CoreV1().Events(namespace).List,
		func(l *corev1.EventList) []corev1.Event { return l.Items })
	return events, explain(err, "list events in "+namespace, catalog.Right{Verb: "list", Resource: "events", Namespace: namespace})
}

// notice reads an event in either form: that of the old recorder, with first
// and last time, or that of the new one, with a time and a series.
func notice(e *corev1.Event) catalog.Notice {
	n := catalog.Notice{
		Time: e.LastTimestamp.Time, Type: e.Type, Reason: e.Reason, Message: e.Message, Count: max(int(e.Count), 1),
		Object: strings.ToLower(e.InvolvedObject.Kind) + "/" + e.InvolvedObject.Name, Source: cmp.Or(e.ReportingController, e.Source.Component),
	}
	if e.Series != nil {
		n.Time, n.Count = e.Series.LastObservedTime.Time, int(e.Series.Count)
	}
	for _, t := range []metav1.Time{e.FirstTimestamp, {Time: e.EventTime.Time}, e.CreationTimestamp} {
		if n.Time.IsZero() {
			n.Time = t.Time
		}
	}
	n.Time = n.Time.UTC()
	return n
}
