package kube

import (
	"bytes"
	"context"
	"fmt"
	"maps"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/backsnap/kubectl-backsnap/internal/catalog"
)

// secretOf is s as ours.
func secretOf(s *corev1.Secret) catalog.Secret {
	return catalog.Secret{
		Meta: catalog.Meta{Namespace: s.Namespace, Name: s.Name, Labels: s.Labels, Annotations: s.Annotations}, Data: s.Data,
	}
}

func meta(o catalog.Meta) metav1.ObjectMeta {
	return metav1.ObjectMeta{Namespace: o.Namespace, Name: o.Name, Labels: o.Labels, Annotations: o.Annotations}
}

func creating(dry bool) metav1.CreateOptions {
	if dry {
		return metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}}
	}
	return metav1.CreateOptions{}
}

// CreateNamespace makes the namespace. Who may read it and finds it needs no
// right to make one.
func (c *Cluster) CreateNamespace(ctx context.Context, n catalog.Meta, dry bool) (bool, error) {
	door := c.core.CoreV1().Namespaces()
	err := again(ctx, func(ctx context.Context) error { return getter(door.Get)(ctx, n.Name) })
	if err == nil {
		return false, nil
	}
	if !apierrors.IsNotFound(err) && !apierrors.IsForbidden(err) {
		return false, fmt.Errorf("read namespace %s: %w", n.Name, err)
	}
	err = again(ctx, func(ctx context.Context) error {
		_, err := door.Create(ctx, &corev1.Namespace{ObjectMeta: meta(n)}, creating(dry))
		return err
	})
	if apierrors.IsAlreadyExists(err) {
		return false, nil
	}
	return err == nil, explain(err, "create namespace "+n.Name, catalog.Right{Verb: "create", Resource: "namespaces"})
}

// CreateSecret makes the Secret.
func (c *Cluster) CreateSecret(ctx context.Context, s catalog.Secret, dry bool) (bool, error) {
	doing := fmt.Sprintf("create Secret %s/%s", s.Namespace, s.Name)
	right := func(verb string) catalog.Right {
		return catalog.Right{Verb: verb, Resource: "secrets", Namespace: s.Namespace}
	}
	door := c.core.CoreV1().Secrets(s.Namespace)
	err := again(ctx, func(ctx context.Context) error {
		_, err := door.Create(ctx, &corev1.Secret{ObjectMeta: meta(s.Meta), Data: s.Data}, creating(dry))
		return err
	})
	if !apierrors.IsAlreadyExists(err) {
		return err == nil, explain(err, doing, right("create"))
	}
	var there *corev1.Secret
	err = again(ctx, func(ctx context.Context) (err error) {
		there, err = door.Get(ctx, s.Name, metav1.GetOptions{})
		return err
	})
	if err != nil {
		return false, explain(err, doing, right("get"))
	}
	if !says(secretOf(there), s) {
		return false, fmt.Errorf("%s: %w", doing, catalog.ErrTaken)
	}
	return false, nil
}

// says reports whether there is what was asked for. The cluster's name that
// was written since is no difference.
func says(there, asked catalog.Secret) bool {
	a, b := there.Repository(), asked.Repository()
	return maps.EqualFunc(there.Data, asked.Data, bytes.Equal) && a.Name == b.Name && a.ServiceAccount == b.ServiceAccount && a.Claim == b.Claim &&
		(b.Cluster == "" || a.Cluster == b.Cluster)
}
