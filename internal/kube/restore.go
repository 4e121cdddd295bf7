package kube

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"

	"github.com/backsnap/kubectl-backsnap/internal/catalog"
	"github.com/backsnap/kubectl-backsnap/internal/restic"
)

// annotationBoundByController says that the volume controller chose the claim
// of a volume, and may take it away again.
const annotationBoundByController = "pv.kubernetes.io/bound-by-controller"

func volumeRight(verb string) catalog.Right {
	return catalog.Right{Verb: verb, Resource: "persistentvolumes"}
}

// restoredObject is the claim that is filled from that snapshot, is empty, or
// is the next owner of claim.Volume.
func restoredObject(claim catalog.Claim, snapshot string) *corev1.PersistentVolumeClaim {
	object := cloneObject(claim, snapshot)
	if snapshot == "" {
		object.Spec.DataSource = nil
	}
	object.Spec.VolumeName = claim.Volume
	return object
}

// TryClaim makes the claim in the server's own dry run.
func (c *Cluster) TryClaim(ctx context.Context, claim catalog.Claim) error {
	doing := fmt.Sprintf("create claim %s/%s", claim.Namespace, claim.Name)
	object := restoredObject(claim, "")
	err := again(ctx, func(ctx context.Context) error {
		_, err := c.core.CoreV1().PersistentVolumeClaims(claim.Namespace).Create(ctx, object, metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}})
		return err
	})
	if apierrors.IsAlreadyExists(err) {
		return fmt.Errorf("%s: %w", doing, catalog.ErrTaken)
	}
	return admitted(err, doing, claimRight("create", claim.Namespace))
}

// MakeClaim makes the claim. ctx's end does not interrupt a request under way:
// what it made would be there, and nobody would know its UID.
func (c *Cluster) MakeClaim(ctx context.Context, claim catalog.Claim, snapshot string) (string, error) {
	doing := fmt.Sprintf("create claim %s/%s", claim.Namespace, claim.Name)
	object := restoredObject(claim, snapshot)
	door := c.core.CoreV1().PersistentVolumeClaims(claim.Namespace)
	var there *corev1.PersistentVolumeClaim
	err := again(ctx, func(ctx context.Context) (err error) {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), answerTimeout)
		defer cancel()
		there, err = door.Create(ctx, object, metav1.CreateOptions{})
		return err
	})
	if apierrors.IsAlreadyExists(err) {
		if there, err = c.claim(ctx, claim.Namespace, claim.Name); err == nil && !sameClaim(there, object) {
			err = catalog.ErrTaken
		}
	}
	if err != nil {
		return "", admitted(err, doing, claimRight("create", claim.Namespace))
	}
	return string(there.UID), nil
}

// sameClaim reports whether there is what asked for has become.
func sameClaim(there, asked *corev1.PersistentVolumeClaim) bool {
	source := func(p *corev1.PersistentVolumeClaim) string {
		if p.Spec.DataSource == nil {
			return ""
		}
		return p.Spec.DataSource.Name
	}
	return made(there.ObjectMeta, asked.ObjectMeta) && source(there) == source(asked)
}

func (c *Cluster) claim(ctx context.Context, namespace, name string) (claim *corev1.PersistentVolumeClaim, err error) {
	err = again(ctx, func(ctx context.Context) (err error) {
		claim, err = c.core.CoreV1().PersistentVolumeClaims(namespace).Get(ctx, name, metav1.GetOptions{})
		return err
	})
	return claim, err
}

// AwaitBound watches the claim, and what the cluster complains of it.
func (c *Cluster) AwaitBound(ctx context.Context, namespace, name string, trouble func(restic.Trouble)) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	complaints := make(chan restic.Trouble)
	ended := make(chan error, 1)
	go c.complaints(ctx, namespace, name, complaints)
	go func() { ended <- c.bound(ctx, namespace, name) }()
	for {
		select {
		case t := <-complaints:
			trouble(t)
		case err := <-ended:
			return explain(err, fmt.Sprintf("watch claim %s/%s", namespace, name), claimRight("watch", namespace))
		}
	}
}

// bound returns when the claim is bound, or gone.
func (c *Cluster) bound(ctx context.Context, namespace, name string) error {
	door := c.core.CoreV1().PersistentVolumeClaims(namespace)
	bound := false
	gone := fmt.Errorf("claim %s/%s: %w", namespace, name, catalog.ErrGone)
	return observe(ctx, door.Watch, only(name), observer{
		opened: func() error {
			there, err := c.claim(ctx, namespace, name)
			if apierrors.IsNotFound(err) {
				return gone
			}
			bound = err == nil && there.Status.Phase == corev1.ClaimBound
			return err
		},
		event: func(e watch.Event) error {
			if e.Type == watch.Deleted {
				return gone
			}
			there, ok := e.Object.(*corev1.PersistentVolumeClaim)
			bound = bound || ok && there.Status.Phase == corev1.ClaimBound
			return nil
		},
		done: func() bool { return bound },
	})
}

// complaints hands on the warnings about a claim until ctx is done. Without
// the right to see them there are none.
func (c *Cluster) complaints(ctx context.Context, namespace, name string, to chan<- restic.Trouble) {
	about := metav1.ListOptions{FieldSelector: "type=" + corev1.EventTypeWarning +
		",involvedObject.kind=PersistentVolumeClaim,involvedObject.name=" + name}
	_ = observe(ctx, c.core.CoreV1().Events(namespace).Watch, about, observer{
		opened: func() error { return nil },
		event: func(e watch.Event) error {
			said, ok := e.Object.(*corev1.Event)
			if !ok || e.Type == watch.Deleted || said.InvolvedObject.Name != name {
				return nil
			}
			select {
			case to <- restic.Trouble{Reason: said.Reason, Message: said.Message}:
			case <-ctx.Done():
			}
			return nil
		},
		done: never,
	})
}

// RemoveClaim deletes the claim with that UID. Another of that name is left
// alone.
func (c *Cluster) RemoveClaim(ctx context.Context, namespace, name, uid string) error {
	door := c.core.CoreV1().PersistentVolumeClaims(namespace)
	id := types.UID(uid)
	err := remove(ctx, name, removal{
		watch: door.Watch,
		get:   getter(door.Get),
		delete: func(ctx context.Context) error {
			err := door.Delete(ctx, name, metav1.DeleteOptions{Preconditions: &metav1.Preconditions{UID: &id}})
			if apierrors.IsConflict(err) {
				return apierrors.NewNotFound(corev1.Resource("persistentvolumeclaims"), name)
			}
			return err
		},
	})
	return explain(err, fmt.Sprintf("delete claim %s/%s", namespace, name), claimRight("delete", namespace))
}

// Current reads s again.
func (c *Cluster) Current(ctx context.Context, s catalog.Snapshot) (catalog.Snapshot, error) {
	there, err := c.snapshot(ctx, s)
	if err != nil {
		return s, err
	}
	if there.DeletionTimestamp != nil {
		return s, fmt.Errorf("read snapshot %s/%s: %w", s.Namespace, s.Name, catalog.ErrGone)
	}
	return c.Complete(ctx, fromObject(there))
}

// KeepVolume sets the volume's reclaim policy to Retain; what it was stands as
// an annotation.
func (c *Cluster) KeepVolume(ctx context.Context, claim catalog.Claim, labels map[string]string) (catalog.Volume, error) {
	doing := fmt.Sprintf("keep volume of claim %s/%s", claim.Namespace, claim.Name)
	there, err := c.claim(ctx, claim.Namespace, claim.Name)
	if apierrors.IsNotFound(err) || err == nil && (string(there.UID) != claim.UID || there.Spec.VolumeName == "") {
		return catalog.Volume{}, fmt.Errorf("%s: %w", doing, catalog.ErrGone)
	}
	if err != nil {
		return catalog.Volume{}, explain(err, doing, claimRight("get", claim.Namespace))
	}
	kept := catalog.Volume{Name: there.Spec.VolumeName, Run: catalog.Run(labels[catalog.LabelRun])}
	err = c.changeVolume(ctx, kept.Name, func(v *corev1.PersistentVolume) (map[string]any, error) {
		if ref := v.Spec.ClaimRef; ref == nil || string(ref.UID) != claim.UID {
			return nil, fmt.Errorf("volume %s is not bound to it", v.Name)
		}
		policy := string(v.Spec.PersistentVolumeReclaimPolicy)
		if before, kept := v.Annotations[catalog.AnnotationReclaim]; kept { // an answer was lost
			policy = before
		}
		kept.Reclaim, kept.Claim = policy, catalog.Claim{Namespace: claim.Namespace, Name: claim.Name, UID: claim.UID}
		return map[string]any{
			"metadata": map[string]any{"labels": labels, "annotations": map[string]any{catalog.AnnotationReclaim: policy}},
			"spec":     map[string]any{"persistentVolumeReclaimPolicy": corev1.PersistentVolumeReclaimRetain},
		}, nil
	})
	if err != nil {
		return kept, fmt.Errorf("%s: %w", doing, err)
	}
	return kept, nil
}

// changeVolume patches a volume as it stands, as often as it takes until nobody
// else changes it in between.
func (c *Cluster) changeVolume(ctx context.Context, name string, change func(*corev1.PersistentVolume) (map[string]any, error)) error {
	door := c.core.CoreV1().PersistentVolumes()
	for {
		var volume *corev1.PersistentVolume
		err := again(ctx, func(ctx context.Context) (err error) {
			volume, err = door.Get(ctx, name, metav1.GetOptions{})
			return err
		})
		if err != nil {
			return explain(err, "read volume "+name, volumeRight("get"))
		}
		patch, err := change(volume)
		if err != nil || patch == nil {
			return err
		}
		metadata, _ := patch["metadata"].(map[string]any)
		metadata = maps.Clone(metadata)
		if metadata == nil {
			metadata = map[string]any{}
		}
		metadata["uid"], metadata["resourceVersion"] = volume.UID, volume.ResourceVersion
		patch["metadata"] = metadata
		text, err := json.Marshal(patch)
		if err != nil {
			return fmt.Errorf("change volume %s: %w", name, err)
		}
		err = again(ctx, func(ctx context.Context) error {
			_, err := door.Patch(ctx, name, types.MergePatchType, text, metav1.PatchOptions{})
			return err
		})
		if !apierrors.IsConflict(err) {
			return explain(err, "change volume "+name, volumeRight("patch"))
		}
	}
}

// KeptVolumes are those with our labels that carry the annotation of KeepVolume.
func (c *Cluster) KeptVolumes(ctx context.Context, namespace string) ([]catalog.Volume, error) {
	selector := ours + "," + catalog.LabelRole + "=" + string(catalog.RoleClone) + "," + catalog.LabelNamespace + "=" + namespace
	volumes, err := list(ctx, metav1.ListOptions{LabelSelector: selector}, c.core.CoreV1().PersistentVolumes().List,
		func(l *corev1.PersistentVolumeList) []corev1.PersistentVolume { return l.Items })
	if apierrors.IsForbidden(err) {
		return nil, nil
	}
	if err != nil {
		return nil, explain(err, "list volumes", volumeRight("list"))
	}
	var kept []catalog.Volume
	for _, v := range volumes {
		policy, found := v.Annotations[catalog.AnnotationReclaim]
		if !found || v.DeletionTimestamp != nil {
			continue
		}
		volume := catalog.Volume{Name: v.Name, Run: catalog.Run(v.Labels[catalog.LabelRun]), Reclaim: policy}
		if ref := v.Spec.ClaimRef; ref != nil {
			volume.Claim = catalog.Claim{Namespace: ref.Namespace, Name: ref.Name, UID: string(ref.UID)}
		}
		kept = append(kept, volume)
	}
	return kept, nil
}

// HandVolume replaces the volume's claimRef.
func (c *Cluster) HandVolume(ctx context.Context, v catalog.Volume, claim catalog.Claim) error {
	doing := fmt.Sprintf("hand volume %s to claim %s/%s", v.Name, claim.Namespace, claim.Name)
	err := c.changeVolume(ctx, v.Name, func(there *corev1.PersistentVolume) (map[string]any, error) {
		ref := there.Spec.ClaimRef
		switch {
		case ref != nil && ref.Namespace == claim.Namespace && ref.Name == claim.Name: // an answer was lost
			return nil, nil
		case ref == nil || string(ref.UID) != v.Claim.UID:
			return nil, errors.New("another claim has it")
		}
		return reserved(claim), nil
	})
	if err != nil {
		return fmt.Errorf("%s: %w", doing, err)
	}
	return nil
}

// reserved is the change of a volume that only a claim of that name, which is
// yet to be made, may be bound to.
func reserved(claim catalog.Claim) map[string]any {
	return map[string]any{
		"metadata": map[string]any{"annotations": map[string]any{annotationBoundByController: nil}},
		"spec": map[string]any{"claimRef": map[string]any{
			"apiVersion": "v1", "kind": "PersistentVolumeClaim",
			"namespace": claim.Namespace, "name": claim.Name, "uid": nil, "resourceVersion": nil,
		}},
	}
}

// LetVolume sets the reclaim policy and takes role and annotation off. A volume
// that waits for a claim is never reclaimed: if it is to go it is given to a
// claim that nobody has, with the volume's own UID.
func (c *Cluster) LetVolume(ctx context.Context, name, policy string) error {
	err := c.changeVolume(ctx, name, func(v *corev1.PersistentVolume) (map[string]any, error) {
		spec := map[string]any{"persistentVolumeReclaimPolicy": policy}
		if ref := v.Spec.ClaimRef; policy == string(corev1.PersistentVolumeReclaimDelete) && ref != nil && ref.UID == "" {
			spec["claimRef"] = map[string]any{"uid": v.UID}
		}
		labels := map[string]any{catalog.LabelRole: nil}
		if _, swapped := v.Annotations[catalog.AnnotationClaim]; swapped { // the app's own: nothing of it is ours
			for key := range (catalog.SwapVolume{}).Labels() {
				labels[key] = nil
			}
			labels[catalog.LabelDeleteAfter] = nil
		}
		return map[string]any{
			"metadata": map[string]any{
				"labels":      labels,
				"annotations": map[string]any{catalog.AnnotationReclaim: nil, catalog.AnnotationClaim: nil, catalog.AnnotationTurn: nil},
			},
			"spec": spec,
		}, nil
	})
	if apierrors.IsNotFound(err) {
		return nil
	}
	return err
}
