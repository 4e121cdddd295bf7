package kube

import (
	"context"
	"encoding/json"
	"fmt"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/backsnap/kubectl-backsnap/internal/catalog"
)

// note is v as the value of an annotation; nil, which takes it off, for nil.
func note[T any](v *T) (any, error) {
	if v == nil {
		return nil, nil
	}
	text, err := json.Marshal(v)
	return string(text), err
}

// NoteRefill writes r onto the claim with that UID.
func (c *Cluster) NoteRefill(ctx context.Context, claim catalog.Claim, r *catalog.Refill) error {
	doing := fmt.Sprintf("annotate claim %s/%s", claim.Namespace, claim.Name)
	value, err := note(r)
	if err != nil {
		return fmt.Errorf("%s: %w", doing, err)
	}
	change, err := json.Marshal(map[string]any{"metadata": map[string]any{
		"uid": claim.UID, "annotations": map[string]any{catalog.AnnotationRefill: value},
	}})
	if err != nil {
		return fmt.Errorf("%s: %w", doing, err)
	}
	err = again(ctx, func(ctx context.Context) error {
		_, err := c.core.CoreV1().PersistentVolumeClaims(claim.Namespace).Patch(ctx, claim.Name, types.MergePatchType, change, metav1.PatchOptions{})
		return err
	})
	if apierrors.IsNotFound(err) || apierrors.IsConflict(err) { // it was made anew
		if r == nil {
			return nil
		}
		return fmt.Errorf("%s: %w", doing, catalog.ErrGone)
	}
	return explain(err, doing, claimRight("patch", claim.Namespace))
}

// NotePause writes p onto the workload.
func (c *Cluster) NotePause(ctx context.Context, a catalog.App, p *catalog.Pause) error {
	value, err := note(p)
	if err != nil {
		return fmt.Errorf("annotate %s: %w", a, err)
	}
	return c.annotateApp(ctx, a, map[string]any{catalog.AnnotationRefill: value})
}

// AwaitRaised watches the workloads.
func (c *Cluster) AwaitRaised(ctx context.Context, apps []catalog.App) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	for _, a := range apps {
		go func() { cancel(c.raised(ctx, a)) }()
	}
	<-ctx.Done()
	return context.Cause(ctx)
}

// tidy takes off the manifest of a claim what was noted about another volume
// than that.
func tidy(notes map[string]string, volume string) {
	if _, counts := (catalog.Claim{Annotations: notes, Volume: volume}).Refill(); !counts {
		delete(notes, catalog.AnnotationRefill)
	}
}
