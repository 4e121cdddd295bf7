package kube

import (
	"context"
	"encoding/json"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/backsnap/kubectl-backsnap/internal/catalog"
)

func marksRight(verb, namespace string) catalog.Right {
	return catalog.Right{Verb: verb, Resource: "configmaps", Namespace: namespace}
}

// Marks are those of the repository's copies; none where there is no ConfigMap.
func (c *Cluster) Marks(ctx context.Context, r catalog.Repository) (catalog.Marks, error) {
	name := catalog.MarksName(r.Name)
	var there *corev1.ConfigMap
	err := again(ctx, func(ctx context.Context) (err error) {
		there, err = c.core.CoreV1().ConfigMaps(r.Namespace).Get(ctx, name, metav1.GetOptions{})
		return err
	})
	if apierrors.IsNotFound(err) {
		return catalog.ReadMarks(nil), nil
	}
	if err != nil {
		return catalog.Marks{}, explain(err, fmt.Sprintf("read marks %s/%s", r.Namespace, name), marksRight("get", r.Namespace))
	}
	return catalog.ReadMarks(there.Data), nil
}

// ChangeMarks changes marks of the repository's copies: entry by entry, so that
// what another run writes at the same moment stands. The ConfigMap is made
// where there is none and anything is to be set.
func (c *Cluster) ChangeMarks(ctx context.Context, r catalog.Repository, run catalog.Run, change catalog.MarkChange) error {
	if change.Empty() {
		return nil
	}
	name := catalog.MarksName(r.Name)
	doing := fmt.Sprintf("write marks %s/%s", r.Namespace, name)
	labels := catalog.Ours(catalog.RoleMarks, run)
	labels[catalog.LabelRepository] = r.Name
	patch, err := json.Marshal(map[string]any{"metadata": map[string]any{"labels": labels}, "data": change.Entries()})
	if err != nil {
		return fmt.Errorf("%s: %w", doing, err)
	}
	door := c.core.CoreV1().ConfigMaps(r.Namespace)
	for {
		err = again(ctx, func(ctx context.Context) error {
			_, err := door.Patch(ctx, name, types.MergePatchType, patch, metav1.PatchOptions{})
			return err
		})
		if !apierrors.IsNotFound(err) || len(change.Set)+len(change.Unpruned) == 0 {
			return explain(ignoreGone(err), doing, marksRight("patch", r.Namespace))
		}
		object := &corev1.ConfigMap{
			ObjectMeta: metav1.ObjectMeta{Namespace: r.Namespace, Name: name, Labels: labels, Annotations: catalog.HandsOff()},
			Data:       map[string]string{},
		}
		for key, text := range change.Entries() {
			if text != nil {
				object.Data[key] = *text
			}
		}
		err = again(ctx, func(ctx context.Context) error {
			_, err := door.Create(ctx, object, metav1.CreateOptions{})
			return err
		})
		if !apierrors.IsAlreadyExists(err) { // or another run has made it since
			return explain(err, doing, marksRight("create", r.Namespace))
		}
	}
}
