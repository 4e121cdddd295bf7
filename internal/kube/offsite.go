package kube

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	snapshotv1 "github.com/kubernetes-csi/external-snapshotter/client/v8/apis/volumesnapshot/v1"
	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/backsnap/kubectl-backsnap/internal/catalog"
)

// labelNode names the node whose sidecar looks after a content, where each
// node has one: a content without it is nobody's (external-snapshotter,
// "distributed snapshotting").
const labelNode = "snapshot.storage.kubernetes.io/managed-by"

func contentRight(verb string) catalog.Right {
	return catalog.Right{Verb: verb, Group: snapshotGroup, Resource: "volumesnapshotcontents"}
}

func claimRight(verb, namespace string) catalog.Right {
	return catalog.Right{Verb: verb, Resource: "persistentvolumeclaims", Namespace: namespace}
}

// Repositories are the restic repositories whose Secrets lie in namespace, by
// name. Where they may not be listed, the named ones are read one by one. Their
// passwords go no further than here.
func (c *Cluster) Repositories(ctx context.Context, namespace string, named ...string) ([]catalog.Repository, error) {
	found := catalog.Inventory{}
	var err error
	found.Repositories, err = c.repositories(ctx, namespace, named)
	found.Sort()
	return found.Repositories, err
}

// StorageClass reads one class.
func (c *Cluster) StorageClass(ctx context.Context, name string) (catalog.StorageClass, error) {
	var class *storagev1.StorageClass
	err := again(ctx, func(ctx context.Context) (err error) {
		class, err = c.core.StorageV1().StorageClasses().Get(ctx, name, metav1.GetOptions{})
		return err
	})
	if apierrors.IsNotFound(err) {
		return catalog.StorageClass{}, fmt.Errorf("read storage class %s: %w", name, catalog.ErrGone)
	}
	if err != nil {
		return catalog.StorageClass{}, explain(err, "read storage class "+name,
			catalog.Right{Verb: "get", Group: "storage.k8s.io", Resource: "storageclasses"})
	}
	binding, reclaim := class.VolumeBindingMode, class.ReclaimPolicy
	return catalog.StorageClass{
		Name:             name,
		Driver:           class.Provisioner,
		WaitsForConsumer: binding != nil && *binding == storagev1.VolumeBindingWaitForFirstConsumer,
		Retains:          reclaim != nil && *reclaim == corev1.PersistentVolumeReclaimRetain,
	}, nil
}

// Expose makes the static copy: the content first, since a snapshot that names
// one that is not there is in error at once.
func (c *Cluster) Expose(ctx context.Context, s, static catalog.Snapshot) error {
	if s.Handle == "" { // nobody has completed it
		content, err := c.content(ctx, s)
		if err != nil {
			return err
		}
		if s = completed(s, content); s.Handle == "" {
			return fmt.Errorf("read content of snapshot %s/%s: %s has no handle", s.Namespace, s.Name, s.Content)
		}
	}
	if err := c.createContent(ctx, staticContent(s, static)); err != nil {
		return err
	}
	if err := c.createStatic(ctx, staticSnapshot(s, static)); err != nil {
		return err
	}
	said := ""
	err := c.Await(ctx, static.Namespace, func(there []catalog.Snapshot) (bool, error) {
		i := slices.IndexFunc(there, func(t catalog.Snapshot) bool { return t.Name == static.Name })
		if i < 0 {
			return false, nil
		}
		said = there[i].Err
		return there[i].Ready, nil
	})
	if err != nil && said != "" {
		return fmt.Errorf("%w: %s", err, said)
	}
	return err
}

// staticContent is a content with the handle of s. It is always retained:
// deleting one that is not would delete the original's data in the storage.
func staticContent(s, static catalog.Snapshot) *snapshotv1.VolumeSnapshotContent {
	labels := staticLabels(s, static)
	if s.Node != "" {
		labels[labelNode] = s.Node
	}
	var mode *corev1.PersistentVolumeMode // nil: nobody checks that the clone is of the same
	if s.Record != nil && s.Record.Claim.VolumeMode != "" {
		mode = new(corev1.PersistentVolumeMode(s.Record.Claim.VolumeMode))
	}
	return &snapshotv1.VolumeSnapshotContent{
		ObjectMeta: metav1.ObjectMeta{Name: static.Name, Labels: labels, Annotations: catalog.HandsOff()},
		Spec: snapshotv1.VolumeSnapshotContentSpec{
			DeletionPolicy:    snapshotv1.VolumeSnapshotContentRetain,
			Driver:            s.Driver,
			Source:            snapshotv1.VolumeSnapshotContentSource{SnapshotHandle: &s.Handle},
			SourceVolumeMode:  mode,
			VolumeSnapshotRef: corev1.ObjectReference{Kind: "VolumeSnapshot", Namespace: static.Namespace, Name: static.Name},
		},
	}
}

// staticSnapshot is the snapshot that is bound to that content.
func staticSnapshot(s, static catalog.Snapshot) *snapshotv1.VolumeSnapshot {
	return &snapshotv1.VolumeSnapshot{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: static.Namespace, Name: static.Name,
			Labels: staticLabels(s, static), Annotations: catalog.HandsOff(),
		},
		Spec: snapshotv1.VolumeSnapshotSpec{Source: snapshotv1.VolumeSnapshotSource{VolumeSnapshotContentName: &static.Name}},
	}
}

// staticLabels say of which claim the copy is: the source's, not one in the
// backup namespace.
func staticLabels(s, static catalog.Snapshot) map[string]string {
	labels := catalog.Ours(static.Role, static.Run)
	labels[catalog.LabelNamespace] = s.Namespace
	labels[catalog.LabelClaim] = catalog.ClaimLabel(s.Claim)
	return labels
}

func (c *Cluster) createContent(ctx context.Context, content *snapshotv1.VolumeSnapshotContent) error {
	doing := "create snapshot content " + content.Name
	door := c.snapshots.SnapshotV1().VolumeSnapshotContents()
	err := again(ctx, func(ctx context.Context) error {
		_, err := door.Create(ctx, content, metav1.CreateOptions{})
		return err
	})
	if !apierrors.IsAlreadyExists(err) {
		return explain(err, doing, contentRight("create"))
	}
	there, err := door.Get(ctx, content.Name, metav1.GetOptions{})
	if err != nil {
		return explain(err, doing, contentRight("get"))
	}
	handle := there.Spec.Source.SnapshotHandle
	if !made(there.ObjectMeta, content.ObjectMeta) || handle == nil || *handle != *content.Spec.Source.SnapshotHandle ||
		there.Spec.DeletionPolicy != snapshotv1.VolumeSnapshotContentRetain {
		return fmt.Errorf("%s: %w", doing, catalog.ErrTaken)
	}
	return nil
}

func (c *Cluster) createStatic(ctx context.Context, object *snapshotv1.VolumeSnapshot) error {
	doing := fmt.Sprintf("create snapshot %s/%s", object.Namespace, object.Name)
	door := c.snapshots.SnapshotV1().VolumeSnapshots(object.Namespace)
	var there *snapshotv1.VolumeSnapshot
	err := again(ctx, func(ctx context.Context) (err error) {
		there, err = door.Create(ctx, object, metav1.CreateOptions{})
		return err
	})
	if apierrors.IsAlreadyExists(err) {
		there, err = door.Get(ctx, object.Name, metav1.GetOptions{})
		if err == nil {
			content := there.Spec.Source.VolumeSnapshotContentName
			if !made(there.ObjectMeta, object.ObjectMeta) || content == nil || *content != *object.Spec.Source.VolumeSnapshotContentName {
				err = catalog.ErrTaken
			}
		}
	}
	if err != nil {
		return admitted(err, doing, snapshotRight("create", object.Namespace))
	}
	c.board(object.Namespace).put(there)
	return nil
}

// cloneObject is the claim that is filled from the snapshot of that name.
func cloneObject(clone catalog.Claim, snapshot string) *corev1.PersistentVolumeClaim {
	modes := make([]corev1.PersistentVolumeAccessMode, len(clone.AccessModes))
	for i, mode := range clone.AccessModes {
		modes[i] = corev1.PersistentVolumeAccessMode(mode)
	}
	return &corev1.PersistentVolumeClaim{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: clone.Namespace, Name: clone.Name, Labels: clone.Labels, Annotations: clone.Annotations,
		},
		Spec: corev1.PersistentVolumeClaimSpec{
			AccessModes:      modes,
			StorageClassName: &clone.StorageClass,
			VolumeMode:       new(corev1.PersistentVolumeMode(clone.VolumeMode)),
			DataSource:       &corev1.TypedLocalObjectReference{APIGroup: new(snapshotGroup), Kind: "VolumeSnapshot", Name: snapshot},
			Resources: corev1.VolumeResourceRequirements{Requests: corev1.ResourceList{
				corev1.ResourceStorage: *resource.NewQuantity(clone.Request, resource.BinarySI),
			}},
		},
	}
}

// CreateClone makes the claim.
func (c *Cluster) CreateClone(ctx context.Context, clone catalog.Claim, snapshot string) error {
	doing := fmt.Sprintf("create claim %s/%s", clone.Namespace, clone.Name)
	object := cloneObject(clone, snapshot)
	door := c.core.CoreV1().PersistentVolumeClaims(clone.Namespace)
	err := again(ctx, func(ctx context.Context) error {
		_, err := door.Create(ctx, object, metav1.CreateOptions{})
		return err
	})
	if !apierrors.IsAlreadyExists(err) {
		return admitted(err, doing, claimRight("create", clone.Namespace))
	}
	there, err := door.Get(ctx, clone.Name, metav1.GetOptions{})
	if err != nil {
		return explain(err, doing, claimRight("get", clone.Namespace))
	}
	if !made(there.ObjectMeta, object.ObjectMeta) || there.Spec.DataSource == nil || there.Spec.DataSource.Name != snapshot {
		return fmt.Errorf("%s: %w", doing, catalog.ErrTaken)
	}
	return nil
}

// RemoveClone deletes the claim. A volume that its class would retain is made
// to go with it first, if reclaim is true; that it could not be is an error,
// once the claim is gone.
func (c *Cluster) RemoveClone(ctx context.Context, namespace, name string, reclaim bool) error {
	var kept error
	if reclaim {
		kept = c.reclaim(ctx, namespace, name)
	}
	door := c.core.CoreV1().PersistentVolumeClaims(namespace)
	err := remove(ctx, name, removal{
		watch:  door.Watch,
		get:    getter(door.Get),
		delete: func(ctx context.Context) error { return door.Delete(ctx, name, metav1.DeleteOptions{}) },
		keeper: c.silentNode(namespace, inRole(catalog.RoleMover), mounts(name)),
	})
	return errors.Join(kept, explain(err, fmt.Sprintf("delete claim %s/%s", namespace, name), claimRight("delete", namespace)))
}

// reclaim makes the volume of a claim go when the claim goes, unless it has been
// handed to another.
func (c *Cluster) reclaim(ctx context.Context, namespace, name string) error {
	var claim *corev1.PersistentVolumeClaim
	err := again(ctx, func(ctx context.Context) (err error) {
		claim, err = c.core.CoreV1().PersistentVolumeClaims(namespace).Get(ctx, name, metav1.GetOptions{})
		return err
	})
	if apierrors.IsNotFound(err) || err == nil && claim.Spec.VolumeName == "" {
		return nil
	}
	if err != nil {
		return explain(err, fmt.Sprintf("read claim %s/%s", namespace, name), claimRight("get", namespace))
	}
	err = c.changeVolume(ctx, claim.Spec.VolumeName, func(v *corev1.PersistentVolume) (map[string]any, error) {
		owner := v.Spec.ClaimRef
		if v.Spec.PersistentVolumeReclaimPolicy != corev1.PersistentVolumeReclaimRetain || owner == nil || owner.UID != claim.UID {
			return nil, nil
		}
		return map[string]any{"spec": map[string]any{"persistentVolumeReclaimPolicy": corev1.PersistentVolumeReclaimDelete}}, nil
	})
	if apierrors.IsNotFound(err) {
		return nil
	}
	return err
}

// RemoveStatic deletes the snapshot, and the content once the snapshot is
// gone, or held by others: the controllers let go of a content only when its
// snapshot has gone before.
func (c *Cluster) RemoveStatic(ctx context.Context, namespace, name string) error {
	err := again(ctx, func(ctx context.Context) error {
		return c.snapshots.SnapshotV1().VolumeSnapshots(namespace).Delete(ctx, name, metav1.DeleteOptions{})
	})
	if err == nil {
		err = c.awaitGone(ctx, namespace, name)
	}
	err = explain(ignoreGone(err), fmt.Sprintf("delete snapshot %s/%s", namespace, name), snapshotRight("delete", namespace))
	var held *catalog.Held
	if err != nil && !errors.As(err, &held) {
		return err
	}
	removed := again(ctx, func(ctx context.Context) error {
		return c.snapshots.SnapshotV1().VolumeSnapshotContents().Delete(ctx, name, metav1.DeleteOptions{})
	})
	return errors.Join(err, explain(ignoreGone(removed), "delete snapshot content "+name, contentRight("delete")))
}

// awaitGone waits until the snapshot of that name is gone, or held by others.
func (c *Cluster) awaitGone(ctx context.Context, namespace, name string) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	hold := &hold{giveUp: cancel}
	defer hold.forget()
	return c.Await(ctx, namespace, func(there []catalog.Snapshot) (bool, error) {
		i := slices.IndexFunc(there, func(s catalog.Snapshot) bool { return s.Name == name })
		if i < 0 {
			return true, nil
		}
		hold.see(there[i].Held)
		return false, nil
	})
}

// AddCopy writes copy onto s. What s.Copies and s.ResourceVersion say is tried
// first; if s has changed since, it is read again, as often as it takes.
func (c *Cluster) AddCopy(ctx context.Context, s catalog.Snapshot, copy catalog.Copy) error {
	doing := fmt.Sprintf("record copy of snapshot %s/%s", s.Namespace, s.Name)
	return c.changeCopies(ctx, doing, s, func(copies []catalog.Copy) ([]catalog.Copy, bool) {
		others := slices.DeleteFunc(slices.Clone(copies), func(old catalog.Copy) bool { return old.Repository == copy.Repository })
		return append(others, copy), true
	})
}

// DropCopies takes copies in the repository of that name off the record of s.
// One that was made since, under another id, stays. That s is gone, or is
// another by now, is no error.
func (c *Cluster) DropCopies(ctx context.Context, s catalog.Snapshot, repository string, ids []string) error {
	doing := fmt.Sprintf("take forgotten copies off the record of %s/%s", s.Namespace, s.Name)
	s.ResourceVersion = "" // it was listed long ago
	err := c.changeCopies(ctx, doing, s, func(copies []catalog.Copy) ([]catalog.Copy, bool) {
		left := slices.DeleteFunc(slices.Clone(copies), func(old catalog.Copy) bool {
			return old.Repository == repository && slices.Contains(ids, old.Snapshot)
		})
		return left, len(left) < len(copies)
	})
	if isGone(err) {
		return nil
	}
	return err
}

// changeCopies writes what change makes of the copies on record, where it says
// that this is another. An s without a ResourceVersion is read first. That s is
// gone, or is another by now, wraps catalog.ErrGone.
func (c *Cluster) changeCopies(ctx context.Context, doing string, s catalog.Snapshot, change func([]catalog.Copy) ([]catalog.Copy, bool)) error {
	door := c.snapshots.SnapshotV1().VolumeSnapshots(s.Namespace)
	for {
		if s.ResourceVersion == "" {
			there, err := c.snapshotFor(ctx, doing, s)
			if err != nil {
				return err
			}
			s.ResourceVersion, s.Copies = there.ResourceVersion, fromObject(there).Copies
		}
		copies, another := change(s.Copies)
		if !another {
			return nil
		}
		patch, err := copiesPatch(s, copies)
		if err != nil {
			return fmt.Errorf("%s: %w", doing, err)
		}
		var changed *snapshotv1.VolumeSnapshot
		err = again(ctx, func(ctx context.Context) (err error) {
			changed, err = door.Patch(ctx, s.Name, types.MergePatchType, patch, metav1.PatchOptions{})
			return err
		})
		switch {
		case err == nil:
			c.board(s.Namespace).put(changed)
			return nil
		case apierrors.IsNotFound(err):
			return fmt.Errorf("%s: %w", doing, catalog.ErrGone)
		case !apierrors.IsConflict(err):
			return explain(err, doing, snapshotRight("patch", s.Namespace))
		}
		s.ResourceVersion = ""
	}
}

// copiesPatch is the JSON merge patch that makes these the copies on record;
// with none of them the annotation goes. The server refuses it with a conflict
// if s is another object or has changed.
func copiesPatch(s catalog.Snapshot, copies []catalog.Copy) ([]byte, error) {
	var record any
	if len(copies) > 0 {
		text, err := json.Marshal(copies)
		if err != nil {
			return nil, err
		}
		record = string(text)
	}
	return json.Marshal(map[string]any{"metadata": map[string]any{
		"uid": s.UID, "resourceVersion": s.ResourceVersion,
		"annotations": map[string]any{catalog.AnnotationCopies: record},
	}})
}

// ClusterUID is the UID of the namespace kube-system.
func (c *Cluster) ClusterUID(ctx context.Context) (string, error) {
	var namespace *corev1.Namespace
	err := again(ctx, func(ctx context.Context) (err error) {
		namespace, err = c.core.CoreV1().Namespaces().Get(ctx, metav1.NamespaceSystem, metav1.GetOptions{})
		return err
	})
	if err != nil {
		return "", explain(err, "read namespace "+metav1.NamespaceSystem, catalog.Right{Verb: "get", Resource: "namespaces"})
	}
	return string(namespace.UID), nil
}

// NameCluster writes the cluster's name onto the repository's Secret, if none
// stands there.
func (c *Cluster) NameCluster(ctx context.Context, r catalog.Repository, name string) (string, error) {
	doing := fmt.Sprintf("annotate Secret %s/%s", r.Namespace, r.Secret)
	door := c.core.CoreV1().Secrets(r.Namespace)
	for {
		var secret *corev1.Secret
		err := again(ctx, func(ctx context.Context) (err error) {
			secret, err = door.Get(ctx, r.Secret, metav1.GetOptions{})
			return err
		})
		if err != nil {
			return "", explain(err, doing, catalog.Right{Verb: "get", Resource: "secrets", Namespace: r.Namespace})
		}
		if there := secret.Annotations[catalog.AnnotationCluster]; there != "" {
			return there, nil
		}
		change, err := json.Marshal(map[string]any{"metadata": map[string]any{
			"resourceVersion": secret.ResourceVersion,
			"annotations":     map[string]string{catalog.AnnotationCluster: name},
		}})
		if err != nil {
			return "", fmt.Errorf("%s: %w", doing, err)
		}
		err = again(ctx, func(ctx context.Context) error {
			_, err := door.Patch(ctx, r.Secret, types.MergePatchType, change, metav1.PatchOptions{})
			return err
		})
		if err == nil {
			return name, nil
		}
		if !apierrors.IsConflict(err) {
			return "", explain(err, doing, catalog.Right{Verb: "patch", Resource: "secrets", Namespace: r.Namespace})
		}
	}
}
