package kube

import (
	"context"
	"fmt"

	snapshotv1 "github.com/kubernetes-csi/external-snapshotter/client/v8/apis/volumesnapshot/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/backsnap/kubectl-backsnap/internal/catalog"
)

// annotationBeingDeleted is the snapshot-controller's, on a content whose
// snapshot has been deleted. Without it csi-snapshotter lets go of no content:
// it is missing where the snapshot has gone while nobody looked.
const annotationBeingDeleted = "snapshot.storage.kubernetes.io/volumesnapshot-being-deleted"

// Standing are all VolumeSnapshots in scope, whoever has made them, by
// namespace/name.
func (c *Cluster) Standing(ctx context.Context, scope catalog.Scope) (map[string]catalog.Standing, error) {
	type named struct {
		name string
		catalog.Standing
	}
	right := catalog.Right{Group: snapshotGroup, Resource: "volumesnapshots"}
	all, err := each(scope, right, func(namespace string) ([]named, error) {
		return list(ctx, metav1.ListOptions{}, c.snapshots.SnapshotV1().VolumeSnapshots(namespace).List, func(l *snapshotv1.VolumeSnapshotList) []named {
			page := make([]named, len(l.Items))
			for i, v := range l.Items {
				page[i] = named{v.Namespace + "/" + v.Name, catalog.Standing{UID: string(v.UID)}}
				if from := v.Spec.Source.VolumeSnapshotContentName; from != nil {
					page[i].From = *from
				}
			}
			return page
		})
	})
	standing := make(map[string]catalog.Standing, len(all))
	for _, n := range all {
		standing[n.name] = n.Standing
	}
	return standing, err
}

// LetGo prepares a content whose snapshot is gone for its deletion, if it is as
// it was read: policy says what becomes of the storage's snapshot then.
func (c *Cluster) LetGo(ctx context.Context, content catalog.Content, policy string) (catalog.Content, error) {
	doing := "let go of snapshot content " + content.Name
	var there *snapshotv1.VolumeSnapshot
	err := again(ctx, func(ctx context.Context) (err error) {
		there, err = c.snapshots.SnapshotV1().VolumeSnapshots(content.Namespace).Get(ctx, content.Snapshot, metav1.GetOptions{})
		return err
	})
	switch {
	case err == nil && (content.SnapshotUID == "" || string(there.UID) == content.SnapshotUID):
		return content, fmt.Errorf("%s: its snapshot is there: %w", doing, catalog.ErrChanged)
	case err != nil && !isGone(gone(err)):
		return content, explain(err, doing, snapshotRight("get", content.Namespace))
	}
	notes := map[string]*string{annotationBeingDeleted: new("yes")}
	switch {
	case policy == string(snapshotv1.VolumeSnapshotContentRetain):
		notes[catalog.AnnotationReclaim] = nil
	case content.Policy == string(snapshotv1.VolumeSnapshotContentRetain):
		notes[catalog.AnnotationReclaim] = &content.Policy
	}
	return c.changeContent(ctx, content, "let go of", map[string]any{
		"metadata": exact(content.UID, content.ResourceVersion, nil, notes),
		"spec":     map[string]any{"deletionPolicy": policy},
	})
}

// Remembered is the snapshot that a content was made for, as its labels,
// record and status tell of it. Without a record that can be read Record is nil.
func (c *Cluster) Remembered(ctx context.Context, content catalog.Content) (catalog.Snapshot, error) {
	doing := "read snapshot content " + content.Name
	var there *snapshotv1.VolumeSnapshotContent
	err := again(ctx, func(ctx context.Context) (err error) {
		there, err = c.snapshots.SnapshotV1().VolumeSnapshotContents().Get(ctx, content.Name, metav1.GetOptions{})
		return err
	})
	if err == nil && string(there.UID) != content.UID {
		err = catalog.ErrGone
	}
	if err != nil {
		return catalog.Snapshot{}, explain(gone(err), doing, contentRight("get"))
	}
	s := catalog.Snapshot{Namespace: content.Namespace, Name: content.Snapshot}
	_ = s.ReadLabels(there.Labels, there.Annotations) // what cannot be read stays nil
	s = completed(s, there)
	s.Handle = content.Handle
	return s, nil
}

// Adopt makes the content that s names, and s bound to it: retained, with the
// handle, labels and annotations of s. from is the content in whose place it
// stands. What an earlier attempt has made is taken.
func (c *Cluster) Adopt(ctx context.Context, s catalog.Snapshot, from string) error {
	notes, err := s.Annotations()
	if err != nil {
		return err
	}
	content := staticContent(s, catalog.Snapshot{Namespace: s.Namespace, Name: s.Content})
	content.Spec.VolumeSnapshotRef.Name = s.Name
	for key, value := range s.Labels() {
		content.Labels[key] = value
	}
	for key, value := range notes {
		content.Annotations[key] = value
	}
	content.Annotations[catalog.AnnotationAdopted] = from
	if err := c.createContent(ctx, content); err != nil {
		return err
	}
	return c.createStatic(ctx, &snapshotv1.VolumeSnapshot{
		ObjectMeta: metav1.ObjectMeta{Namespace: s.Namespace, Name: s.Name, Labels: s.Labels(), Annotations: notes},
		Spec:       snapshotv1.VolumeSnapshotSpec{Source: snapshotv1.VolumeSnapshotSource{VolumeSnapshotContentName: &s.Content}},
	})
}
