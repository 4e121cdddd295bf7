package kube

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	snapshotv1 "github.com/kubernetes-csi/external-snapshotter/client/v8/apis/volumesnapshot/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"

	"github.com/backsnap/kubectl-backsnap/internal/catalog"
)

// Policies are the claims of scope and the annotations of its namespaces: all
// that prune asks of an inventory.
func (c *Cluster) Policies(ctx context.Context, scope catalog.Scope) (catalog.Inventory, error) {
	var (
		v      = catalog.Inventory{}
		claims []corev1.PersistentVolumeClaim
		g      = group{}
	)
	ctx, g.cancel = context.WithCancelCause(ctx)
	defer g.cancel(nil)
	g.run(func() (err error) { claims, err = c.listClaims(ctx, scope); return err })
	g.run(func() (err error) { v.Namespaces, v.Lost, err = c.namespaces(ctx, scope); return err })
	if err := g.wait(); err != nil {
		return catalog.Inventory{}, untouched(err)
	}
	for i := range claims {
		v.Claims = append(v.Claims, claim(&claims[i], nil))
	}
	if v.Namespaces == nil {
		v.Namespaces, v.Unread = map[string]map[string]string{}, []string{catalog.KindNamespaces}
	}
	seen(&v)
	v.Sort()
	return v, nil
}

// BackupNS are the VolumeSnapshots in scope that backup-ns looks after and that
// are not ours, by namespace and name. zone is where its days and weeks begin.
func (c *Cluster) BackupNS(ctx context.Context, scope catalog.Scope, zone *time.Location) ([]catalog.Snapshot, error) {
	options := metav1.ListOptions{LabelSelector: catalog.BackupNS + "/retain," + catalog.LabelManagedBy + "!=" + catalog.ManagedBy}
	right := catalog.Right{Group: snapshotGroup, Resource: "volumesnapshots"}
	snapshots, err := each(scope, right, func(namespace string) ([]catalog.Snapshot, error) {
		return list(ctx, options, c.snapshots.SnapshotV1().VolumeSnapshots(namespace).List, func(l *snapshotv1.VolumeSnapshotList) []catalog.Snapshot {
			page := make([]catalog.Snapshot, len(l.Items))
			for i := range l.Items {
				page[i] = fromObject(&l.Items[i])
				// A mark that cannot be read is none: its date is then a person's.
				_, _ = page[i].ReadBackupNS(l.Items[i].Labels, l.Items[i].Annotations, zone)
			}
			return page
		})
	})
	sortSnapshots(snapshots)
	return snapshots, err
}

// Contents are all VolumeSnapshotContents of the cluster, others' among them.
func (c *Cluster) Contents(ctx context.Context) ([]catalog.Content, error) {
	contents, err := list(ctx, metav1.ListOptions{}, c.snapshots.SnapshotV1().VolumeSnapshotContents().List,
		func(l *snapshotv1.VolumeSnapshotContentList) []catalog.Content {
			page := make([]catalog.Content, len(l.Items))
			for i := range l.Items {
				page[i] = toContent(&l.Items[i])
			}
			return page
		})
	return contents, explain(err, "list snapshot contents", contentRight("list"))
}

func toContent(v *snapshotv1.VolumeSnapshotContent) catalog.Content {
	ref := v.Spec.VolumeSnapshotRef
	c := catalog.Content{
		Name: v.Name, UID: string(v.UID), ResourceVersion: v.ResourceVersion,
		Ours: v.Labels[catalog.LabelManagedBy] == catalog.ManagedBy, Role: catalog.Role(v.Labels[catalog.LabelRole]),
		Driver: v.Spec.Driver, Policy: string(v.Spec.DeletionPolicy), Lent: v.Annotations[catalog.AnnotationReclaim] == string(snapshotv1.VolumeSnapshotContentRetain),
		Namespace: ref.Namespace, Snapshot: ref.Name, SnapshotUID: string(ref.UID),
		Labels: catalog.OwnLabels(v.Labels), Recorded: v.Annotations[catalog.AnnotationRecord] != "", Adopted: v.Annotations[catalog.AnnotationAdopted], Created: v.CreationTimestamp.UTC(), Terminating: v.DeletionTimestamp != nil,
	}
	if handle := v.Spec.Source.SnapshotHandle; handle != nil {
		c.Handle = *handle
	}
	if v.Spec.VolumeSnapshotClassName != nil {
		c.Class = *v.Spec.VolumeSnapshotClassName
	}
	if v.Status != nil {
		readContentStatus(&c, v.Status)
	}
	return c
}

func readContentStatus(c *catalog.Content, status *snapshotv1.VolumeSnapshotContentStatus) {
	if status.SnapshotHandle != nil {
		c.Handle = *status.SnapshotHandle
	}
	if status.RestoreSize != nil {
		c.RestoreSize = *status.RestoreSize
	}
	if status.CreationTime != nil && *status.CreationTime > 0 {
		c.Cut = time.Unix(0, *status.CreationTime).UTC()
	}
	if status.Error != nil && status.Error.Message != nil {
		c.Err = *status.Error.Message
	}
}

// exact is the metadata of a merge patch that strikes that object alone, as it
// was read: the server refuses it with a conflict if it has changed since.
func exact(uid, resourceVersion string, labels, annotations map[string]*string) map[string]any {
	metadata := map[string]any{"uid": uid, "resourceVersion": resourceVersion}
	if len(labels) > 0 {
		metadata["labels"] = labels
	}
	if len(annotations) > 0 {
		metadata["annotations"] = annotations
	}
	return metadata
}

// Relabel sets, or where the value is nil takes off, labels and annotations of
// s, if it is as it was read.
func (c *Cluster) Relabel(ctx context.Context, s catalog.Snapshot, labels, annotations map[string]*string) (catalog.Snapshot, error) {
	doing := fmt.Sprintf("label snapshot %s/%s", s.Namespace, s.Name)
	if s.UID == "" || s.ResourceVersion == "" {
		return s, fmt.Errorf("%s: %w", doing, errNoUID)
	}
	change, err := json.Marshal(map[string]any{"metadata": exact(s.UID, s.ResourceVersion, labels, annotations)})
	if err != nil {
		return s, fmt.Errorf("%s: %w", doing, err)
	}
	var changed *snapshotv1.VolumeSnapshot
	tries := 0
	err = again(ctx, func(ctx context.Context) (err error) {
		tries++
		changed, err = c.snapshots.SnapshotV1().VolumeSnapshots(s.Namespace).Patch(ctx, s.Name, types.MergePatchType, change, metav1.PatchOptions{})
		return err
	})
	if otherUID(err) {
		return c.relabelled(ctx, s, labels, tries > 1)
	}
	if err != nil {
		return s, explain(gone(err), doing, snapshotRight("patch", s.Namespace))
	}
	c.board(s.Namespace).put(changed)
	return fromObject(changed), nil
}

// relabelled is s where the answer to an earlier attempt was lost, which has
// done what was asked; else it was changed by others.
func (c *Cluster) relabelled(ctx context.Context, s catalog.Snapshot, labels map[string]*string, lost bool) (catalog.Snapshot, error) {
	there, err := c.snapshot(ctx, s)
	if err != nil {
		return s, err
	}
	for key, value := range labels {
		has, found := there.Labels[key]
		if !lost || found != (value != nil) || found && has != *value {
			return s, fmt.Errorf("label snapshot %s/%s: %w", s.Namespace, s.Name, catalog.ErrChanged)
		}
	}
	return fromObject(there), nil
}

// snapshot reads s as it is now; that it is gone, or another has its name, is
// catalog.ErrGone.
func (c *Cluster) snapshot(ctx context.Context, s catalog.Snapshot) (*snapshotv1.VolumeSnapshot, error) {
	return c.snapshotFor(ctx, fmt.Sprintf("read snapshot %s/%s", s.Namespace, s.Name), s)
}

// snapshotFor is that on the way to doing something.
func (c *Cluster) snapshotFor(ctx context.Context, doing string, s catalog.Snapshot) (*snapshotv1.VolumeSnapshot, error) {
	var there *snapshotv1.VolumeSnapshot
	err := again(ctx, func(ctx context.Context) (err error) {
		there, err = c.snapshots.SnapshotV1().VolumeSnapshots(s.Namespace).Get(ctx, s.Name, metav1.GetOptions{})
		return err
	})
	if err == nil && string(there.UID) != s.UID {
		return nil, fmt.Errorf("%s: %w", doing, catalog.ErrGone)
	}
	return there, explain(gone(err), doing, snapshotRight("get", s.Namespace))
}

// gone is err, but catalog.ErrGone where the object is not there.
func gone(err error) error {
	if apierrors.IsNotFound(err) {
		return catalog.ErrGone
	}
	return err
}

func isGone(err error) bool { return errors.Is(err, catalog.ErrGone) }

// Discard deletes s, if it is as it was read; else it is catalog.ErrChanged.
// That it is gone, or being deleted already, is no error.
func (c *Cluster) Discard(ctx context.Context, s catalog.Snapshot) error {
	doing := fmt.Sprintf("delete snapshot %s/%s", s.Namespace, s.Name)
	if s.UID == "" || s.ResourceVersion == "" {
		return fmt.Errorf("%s: %w", doing, errNoUID)
	}
	uid := types.UID(s.UID)
	err := again(ctx, func(ctx context.Context) error {
		return c.snapshots.SnapshotV1().VolumeSnapshots(s.Namespace).Delete(ctx, s.Name,
			metav1.DeleteOptions{Preconditions: &metav1.Preconditions{UID: &uid, ResourceVersion: &s.ResourceVersion}})
	})
	if !apierrors.IsConflict(err) {
		return explain(ignoreGone(err), doing, snapshotRight("delete", s.Namespace))
	}
	there, err := c.snapshot(ctx, s)
	switch {
	case err == nil && there.DeletionTimestamp == nil:
		return fmt.Errorf("%s: %w", doing, catalog.ErrChanged)
	case err != nil && !isGone(err):
		return err
	}
	return nil
}

// SetPolicy makes that the deletion policy of a content, if it is as it was
// read. Where Delete takes the place of Retain an annotation says so, until
// Retain is back. The content is returned as it is then.
func (c *Cluster) SetPolicy(ctx context.Context, content catalog.Content, policy string) (catalog.Content, error) {
	var note *string
	if policy == string(snapshotv1.VolumeSnapshotContentDelete) {
		note = &content.Policy
	}
	return c.changeContent(ctx, content, "set deletion policy of", map[string]any{
		"metadata": exact(content.UID, content.ResourceVersion, nil, map[string]*string{catalog.AnnotationReclaim: note}),
		"spec":     map[string]any{"deletionPolicy": policy},
	})
}

// Mirror sets, or where the value is nil takes off, labels and annotations of a
// content, if it is as it was read.
func (c *Cluster) Mirror(ctx context.Context, content catalog.Content, labels, annotations map[string]*string) (catalog.Content, error) {
	return c.changeContent(ctx, content, "mirror labels to", map[string]any{"metadata": exact(content.UID, content.ResourceVersion, labels, annotations)})
}

func (c *Cluster) changeContent(ctx context.Context, content catalog.Content, what string, change map[string]any) (catalog.Content, error) {
	doing := what + " snapshot content " + content.Name
	text, err := json.Marshal(change)
	if err != nil {
		return content, fmt.Errorf("%s: %w", doing, err)
	}
	var changed *snapshotv1.VolumeSnapshotContent
	err = again(ctx, func(ctx context.Context) (err error) {
		changed, err = c.snapshots.SnapshotV1().VolumeSnapshotContents().Patch(ctx, content.Name, types.MergePatchType, text, metav1.PatchOptions{})
		return err
	})
	if otherUID(err) {
		err = catalog.ErrChanged
	}
	if err != nil {
		return content, explain(gone(err), doing, contentRight("patch"))
	}
	return toContent(changed), nil
}

// Content reads one content.
func (c *Cluster) Content(ctx context.Context, name string) (catalog.Content, error) {
	var there *snapshotv1.VolumeSnapshotContent
	err := again(ctx, func(ctx context.Context) (err error) {
		there, err = c.snapshots.SnapshotV1().VolumeSnapshotContents().Get(ctx, name, metav1.GetOptions{})
		return err
	})
	if err != nil {
		return catalog.Content{}, explain(gone(err), "read snapshot content "+name, contentRight("get"))
	}
	return toContent(there), nil
}

// DiscardContent deletes a content that is as it was read and whose snapshot is
// gone. That the snapshot is there still, or the content gone, is no error.
func (c *Cluster) DiscardContent(ctx context.Context, content catalog.Content) error {
	_, err := c.snapshot(ctx, catalog.Snapshot{Namespace: content.Namespace, Name: content.Snapshot, UID: content.SnapshotUID})
	if !isGone(err) {
		return err
	}
	uid := types.UID(content.UID)
	err = again(ctx, func(ctx context.Context) error {
		return c.snapshots.SnapshotV1().VolumeSnapshotContents().Delete(ctx, content.Name,
			metav1.DeleteOptions{Preconditions: &metav1.Preconditions{UID: &uid, ResourceVersion: &content.ResourceVersion}})
	})
	if apierrors.IsConflict(err) { // somebody does something with it: it is looked at again
		return nil
	}
	return explain(ignoreGone(err), "delete snapshot content "+content.Name, contentRight("delete"))
}

// FollowContents calls seen, never twice at once, with each content that
// changes until ctx is done, which is no error. A watch that has broken may
// have missed something: standing are the names of those that are then read.
func (c *Cluster) FollowContents(ctx context.Context, standing func() []string, seen func(content catalog.Content, gone bool)) error {
	door := c.snapshots.SnapshotV1().VolumeSnapshotContents()
	err := observe(ctx, door.Watch, metav1.ListOptions{ResourceVersion: "0"}, observer{
		opened: func() error {
			for _, name := range standing() {
				there, err := c.Content(ctx, name)
				switch {
				case isGone(err):
					seen(catalog.Content{Name: name}, true)
				case err != nil:
					return err
				default:
					seen(there, false)
				}
			}
			return nil
		},
		event: func(e watch.Event) error {
			if v, ok := e.Object.(*snapshotv1.VolumeSnapshotContent); ok {
				seen(toContent(v), e.Type == watch.Deleted)
			}
			return nil
		},
		done: never,
	})
	if ctx.Err() != nil {
		return nil
	}
	return explain(err, "watch snapshot contents", contentRight("watch"))
}
