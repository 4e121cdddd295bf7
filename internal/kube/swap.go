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
	"k8s.io/apimachinery/pkg/watch"

	"github.com/backsnap/kubectl-backsnap/internal/catalog"
)

// ReadClaim reads a claim, and the manifest with which it can be made again.
func (c *Cluster) ReadClaim(ctx context.Context, namespace, name string) (catalog.Claim, string, error) {
	doing := fmt.Sprintf("read claim %s/%s", namespace, name)
	there, err := c.claim(ctx, namespace, name)
	if apierrors.IsNotFound(err) {
		return catalog.Claim{}, "", fmt.Errorf("%s: %w", doing, catalog.ErrGone)
	}
	if err != nil {
		return catalog.Claim{}, "", explain(err, doing, claimRight("get", namespace))
	}
	text, err := json.Marshal(manifestOf(there))
	if err != nil {
		return catalog.Claim{}, "", fmt.Errorf("%s: %w", doing, err)
	}
	return claim(there, nil), string(text), nil
}

// bindings are the annotations with which controllers note how a claim got its
// volume: another claim gets its own.
var bindings = []string{
	"pv.kubernetes.io/bind-completed", annotationBoundByController,
	"volume.kubernetes.io/storage-provisioner", "volume.beta.kubernetes.io/storage-provisioner",
	"volume.kubernetes.io/selected-node",
}

// manifestOf is the claim without what belongs to this one object alone: what
// is made of it has the same name, labels, annotations and owners.
func manifestOf(p *corev1.PersistentVolumeClaim) *corev1.PersistentVolumeClaim {
	next := &corev1.PersistentVolumeClaim{
		TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "PersistentVolumeClaim"},
		ObjectMeta: metav1.ObjectMeta{
			Namespace: p.Namespace, Name: p.Name, Labels: p.Labels, Annotations: maps.Clone(p.Annotations), OwnerReferences: p.OwnerReferences,
		},
		Spec: *p.Spec.DeepCopy(),
	}
	for _, key := range bindings {
		delete(next.Annotations, key)
	}
	next.Spec.VolumeName, next.Spec.DataSource, next.Spec.DataSourceRef = "", nil, nil
	return next
}

// RemakeClaim makes the claim of that manifest with that volume.
func (c *Cluster) RemakeClaim(ctx context.Context, manifest, volume string) error {
	object := &corev1.PersistentVolumeClaim{}
	if err := json.Unmarshal([]byte(manifest), object); err != nil {
		return fmt.Errorf("read manifest of the claim: %w", err)
	}
	object.Spec.VolumeName = volume
	tidy(object.Annotations, volume)
	doing := fmt.Sprintf("make claim %s/%s again", object.Namespace, object.Name)
	err := again(ctx, func(ctx context.Context) error {
		_, err := c.core.CoreV1().PersistentVolumeClaims(object.Namespace).Create(ctx, object, metav1.CreateOptions{})
		return err
	})
	if apierrors.IsAlreadyExists(err) {
		there, err := c.claim(ctx, object.Namespace, object.Name)
		if err == nil && (there.Spec.VolumeName != volume || there.DeletionTimestamp != nil) {
			err = catalog.ErrTaken
		}
		return explain(err, doing, claimRight("get", object.Namespace))
	}
	return explain(err, doing, claimRight("create", object.Namespace))
}

// SwapVolumes are those of restores in place in namespace, "" for all.
func (c *Cluster) SwapVolumes(ctx context.Context, namespace string) ([]catalog.SwapVolume, error) {
	selector := fmt.Sprintf("%s,%s in (%s,%s)", ours, catalog.LabelRole, catalog.RoleOld, catalog.RoleNew)
	if namespace != "" {
		selector += "," + catalog.LabelNamespace + "=" + namespace
	}
	volumes, err := list(ctx, metav1.ListOptions{LabelSelector: selector}, c.core.CoreV1().PersistentVolumes().List,
		func(l *corev1.PersistentVolumeList) []corev1.PersistentVolume { return l.Items })
	if err != nil {
		return nil, explain(err, "list volumes", volumeRight("list"))
	}
	var found []catalog.SwapVolume
	for i := range volumes {
		if volumes[i].DeletionTimestamp == nil {
			found = append(found, swapVolume(&volumes[i]))
		}
	}
	return found, nil
}

func swapVolume(v *corev1.PersistentVolume) catalog.SwapVolume {
	policy := string(v.Spec.PersistentVolumeReclaimPolicy)
	s := catalog.SwapVolume{
		Volume:    catalog.Volume{Name: v.Name, Run: catalog.Run(v.Labels[catalog.LabelRun]), Reclaim: policy},
		Role:      catalog.Role(v.Labels[catalog.LabelRole]),
		Policy:    policy,
		Phase:     string(v.Status.Phase),
		Turn:      catalog.Turn(v.Annotations[catalog.AnnotationTurn]),
		Namespace: v.Labels[catalog.LabelNamespace],
		Of:        v.Labels[catalog.LabelClaim],
		Manifest:  v.Annotations[catalog.AnnotationClaim],

		DeleteAfter: v.Labels[catalog.LabelDeleteAfter],
	}
	if before, kept := v.Annotations[catalog.AnnotationReclaim]; kept {
		s.Reclaim = before
	}
	claim := metav1.PartialObjectMetadata{}
	if json.Unmarshal([]byte(s.Manifest), &claim) == nil && claim.Name != "" { // the label may be shortened
		s.Of = claim.Name
	}
	if ref := v.Spec.ClaimRef; ref != nil {
		s.Claim = catalog.Claim{Namespace: ref.Namespace, Name: ref.Name, UID: string(ref.UID)}
	}
	return s
}

// MarkVolume writes v's labels and annotations onto the volume and makes it
// outlive its claims; what its reclaim policy was stands beside them.
func (c *Cluster) MarkVolume(ctx context.Context, v catalog.SwapVolume) error {
	err := c.changeVolume(ctx, v.Name, func(there *corev1.PersistentVolume) (map[string]any, error) {
		now := swapVolume(there)
		if now.Claim.UID != v.Claim.UID {
			return nil, errors.New("it is another claim's now")
		}
		return map[string]any{
			"metadata": map[string]any{
				"labels": v.Labels(),
				"annotations": map[string]any{
					catalog.AnnotationReclaim: now.Reclaim, catalog.AnnotationClaim: v.Manifest, catalog.AnnotationTurn: string(v.Turn),
				},
			},
			"spec": map[string]any{"persistentVolumeReclaimPolicy": corev1.PersistentVolumeReclaimRetain},
		}, nil
	})
	if err != nil {
		return fmt.Errorf("mark volume %s: %w", v.Name, err)
	}
	return nil
}

// OfferVolume leaves the volume to the next claim of that name, which is not
// there yet, or has another volume.
func (c *Cluster) OfferVolume(ctx context.Context, v catalog.SwapVolume, claim catalog.Claim) error {
	err := c.changeVolume(ctx, v.Name, func(there *corev1.PersistentVolume) (map[string]any, error) {
		ref := there.Spec.ClaimRef
		switch {
		case there.Spec.PersistentVolumeReclaimPolicy != corev1.PersistentVolumeReclaimRetain:
			return nil, fmt.Errorf("its reclaim policy is %s, not Retain", there.Spec.PersistentVolumeReclaimPolicy)
		case ref != nil && ref.Namespace == claim.Namespace && ref.Name == claim.Name && ref.UID == "":
			return nil, nil
		case ref == nil || string(ref.UID) != v.Claim.UID:
			return nil, errors.New("it is another claim's now")
		}
		return reserved(claim), nil
	})
	if err != nil {
		return fmt.Errorf("leave volume %s to claim %s/%s: %w", v.Name, claim.Namespace, claim.Name, err)
	}
	return nil
}

// SettleVolume notes that nothing is under way any more. One that is in use
// gets its reclaim policy back; one that is not stays until it is let go, and
// says until when that is not done.
func (c *Cluster) SettleVolume(ctx context.Context, name string, inUse bool, until string) error {
	err := c.changeVolume(ctx, name, func(there *corev1.PersistentVolume) (map[string]any, error) {
		notes := map[string]any{catalog.AnnotationTurn: nil}
		labels := map[string]any{catalog.LabelDeleteAfter: nil}
		if until != "" {
			labels[catalog.LabelDeleteAfter] = until
		}
		change := map[string]any{"metadata": map[string]any{"annotations": notes, "labels": labels}}
		if before, kept := there.Annotations[catalog.AnnotationReclaim]; kept && inUse {
			notes[catalog.AnnotationReclaim] = nil
			change["spec"] = map[string]any{"persistentVolumeReclaimPolicy": before}
		}
		return change, nil
	})
	return ignoreGone(err)
}

// AwaitVolumeGone returns when the volume is gone.
func (c *Cluster) AwaitVolumeGone(ctx context.Context, name string) error {
	door := c.core.CoreV1().PersistentVolumes()
	gone := false
	said := ""
	err := observe(ctx, door.Watch, only(name), observer{
		opened: func() error {
			err := again(ctx, func(ctx context.Context) error { return getter(door.Get)(ctx, name) })
			gone = apierrors.IsNotFound(err)
			return ignoreGone(err)
		},
		event: func(e watch.Event) error {
			gone = gone || e.Type == watch.Deleted
			if v, ok := e.Object.(*corev1.PersistentVolume); ok {
				said = v.Status.Message
			}
			return nil
		},
		done: func() bool { return gone },
	})
	if err != nil && said != "" {
		err = fmt.Errorf("%w: %s", err, said)
	}
	return explain(err, "watch volume "+name, volumeRight("watch"))
}
