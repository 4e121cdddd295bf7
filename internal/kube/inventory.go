package kube

import (
	"cmp"
	"context"
	"fmt"
	"sync"

	snapshotv1 "github.com/kubernetes-csi/external-snapshotter/client/v8/apis/volumesnapshot/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/backsnap/kubectl-backsnap/internal/catalog"
)

// Inventory lists each kind once, all at the same time. What only adds to the
// picture may be forbidden, and is then named among Unread: volumes (the driver
// is read from the claim), snapshot classes, namespaces; so may be the Secrets
// of the backup namespace. A namespace in scope that does not exist is a
// catalog.Failure of CodeNotFound, unless scope.Lost.
func (c *Cluster) Inventory(ctx context.Context, scope catalog.Scope) (catalog.Inventory, error) {
	var (
		v       = catalog.Inventory{}
		claims  []corev1.PersistentVolumeClaim
		volumes map[string]*corev1.PersistentVolume
		g       = group{}
	)
	ctx, g.cancel = context.WithCancelCause(ctx)
	defer g.cancel(nil)
	g.run(func() (err error) { claims, err = c.listClaims(ctx, scope); return err })
	g.run(func() (err error) { v.Pods, err = c.listPods(ctx, scope); return err })
	if scope.InNamespace {
		g.run(func() (err error) { v.Repositories, err = c.repositoriesBeside(ctx, scope); return err })
	} else {
		g.run(func() (err error) { volumes, err = c.listVolumes(ctx); return err })
		g.run(func() (err error) { v.Classes, err = c.listClasses(ctx); return err })
		g.run(func() (err error) { v.Namespaces, v.Lost, err = c.namespaces(ctx, scope); return err })
		g.run(func() (err error) {
			v.Repositories, err = c.repositories(ctx, scope.BackupNamespace, scope.Repositories)
			return err
		})
	}
	if err := g.wait(); err != nil {
		return catalog.Inventory{}, untouched(err)
	}
	for i := range claims {
		v.Claims = append(v.Claims, claim(&claims[i], volumes))
	}
	unread(&v, volumes)
	seen(&v)
	v.Sort()
	return v, nil
}

// unread names the kinds that were not read: they are nil.
func unread(v *catalog.Inventory, volumes map[string]*corev1.PersistentVolume) {
	if volumes == nil {
		v.Unread = append(v.Unread, catalog.KindVolumes)
	}
	if v.Classes == nil {
		v.Unread = append(v.Unread, catalog.KindClasses)
	}
	if v.Namespaces == nil {
		v.Unread = append(v.Unread, catalog.KindNamespaces)
		v.Namespaces = map[string]map[string]string{}
	}
}

// untouched is err, which only says that something could not be read, with the
// state that this leaves.
func untouched(err error) error {
	if f, ok := err.(*catalog.Failure); ok && f.State == "" {
		f.State = "nothing changed"
	}
	return err
}

// seen adds the namespaces of claims whose annotations may not be read.
func seen(v *catalog.Inventory) {
	for _, claim := range v.Claims {
		if _, found := v.Namespaces[claim.Namespace]; !found {
			v.Namespaces[claim.Namespace] = nil
		}
	}
}

// each lists a kind in every namespace of scope: in one call for all.
func each[T any](scope catalog.Scope, right catalog.Right, list func(namespace string) ([]T, error)) ([]T, error) {
	namespaces := scope.Namespaces
	if scope.All {
		namespaces = []string{metav1.NamespaceAll}
	}
	var all []T
	for _, namespace := range namespaces {
		items, err := list(namespace)
		if err != nil {
			right.Verb, right.Namespace = "list", cmp.Or(namespace, everywhere)
			return nil, explain(err, "list "+right.Resource, right)
		}
		all = append(all, items...)
	}
	return all, nil
}

func (c *Cluster) listClaims(ctx context.Context, scope catalog.Scope) ([]corev1.PersistentVolumeClaim, error) {
	return each(scope, catalog.Right{Resource: "persistentvolumeclaims"}, func(namespace string) ([]corev1.PersistentVolumeClaim, error) {
		return list(ctx, metav1.ListOptions{}, c.core.CoreV1().PersistentVolumeClaims(namespace).List,
			func(l *corev1.PersistentVolumeClaimList) []corev1.PersistentVolumeClaim { return l.Items })
	})
}

// listPods are the pods that have a claim among their volumes, also those that
// have ended.
func (c *Cluster) listPods(ctx context.Context, scope catalog.Scope) ([]catalog.Pod, error) {
	return each(scope, catalog.Right{Resource: "pods"}, func(namespace string) ([]catalog.Pod, error) {
		return list(ctx, metav1.ListOptions{}, c.core.CoreV1().Pods(namespace).List,
			func(l *corev1.PodList) []catalog.Pod { return podsWithClaims(l.Items) })
	})
}

// listVolumes are the PersistentVolumes by name; nil if they may not be listed.
func (c *Cluster) listVolumes(ctx context.Context) (map[string]*corev1.PersistentVolume, error) {
	items, err := list(ctx, metav1.ListOptions{}, c.core.CoreV1().PersistentVolumes().List,
		func(l *corev1.PersistentVolumeList) []corev1.PersistentVolume { return l.Items })
	if apierrors.IsForbidden(err) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list persistentvolumes: %w", err)
	}
	volumes := make(map[string]*corev1.PersistentVolume, len(items))
	for i := range items {
		volumes[items[i].Name] = &items[i]
	}
	return volumes, nil
}

// listClasses are the snapshot classes; nil if they may not be listed.
func (c *Cluster) listClasses(ctx context.Context) ([]catalog.SnapshotClass, error) {
	right := catalog.Right{Verb: "list", Group: snapshotGroup, Resource: "volumesnapshotclasses"}
	items, err := list(ctx, metav1.ListOptions{}, c.snapshots.SnapshotV1().VolumeSnapshotClasses().List,
		func(l *snapshotv1.VolumeSnapshotClassList) []snapshotv1.VolumeSnapshotClass { return l.Items })
	if apierrors.IsForbidden(err) {
		return nil, nil
	}
	if err != nil {
		return nil, explain(err, "list snapshot classes", right)
	}
	classes := make([]catalog.SnapshotClass, 0, len(items))
	for _, class := range items {
		classes = append(classes, catalog.SnapshotClass{
			Name:           class.Name,
			Driver:         class.Driver,
			Default:        class.Annotations["snapshot.storage.kubernetes.io/is-default-class"] == "true",
			DeletionPolicy: string(class.DeletionPolicy),
		})
	}
	return classes, nil
}

// namespaces are the annotations of the namespaces in scope; nil if none may be
// read. Of several, one that may not be read is there with nil. Those that do
// not exist are lost.
func (c *Cluster) namespaces(ctx context.Context, scope catalog.Scope) (notes map[string]map[string]string, lost []string, err error) {
	if scope.All {
		notes, err = c.allNamespaces(ctx)
		return notes, nil, err
	}
	notes = map[string]map[string]string{}
	readable := false
	for _, name := range scope.Namespaces {
		var namespace *corev1.Namespace
		err := again(ctx, func(ctx context.Context) (err error) {
			namespace, err = c.core.CoreV1().Namespaces().Get(ctx, name, metav1.GetOptions{})
			return err
		})
		switch {
		case apierrors.IsForbidden(err):
			notes[name] = nil
		case apierrors.IsNotFound(err) && scope.Lost:
			lost, readable = append(lost, name), true
		case apierrors.IsNotFound(err):
			return nil, nil, &catalog.Failure{
				Code:    catalog.CodeNotFound,
				Message: "namespace " + name + " does not exist",
				State:   "nothing changed",
				Next:    "kubectl get namespaces",
			}
		case err != nil:
			return nil, nil, fmt.Errorf("get namespace %s: %w", name, err)
		default:
			notes[name], readable = annotations(namespace), true
		}
	}
	if !readable {
		return nil, nil, nil
	}
	return notes, lost, nil
}

func (c *Cluster) allNamespaces(ctx context.Context) (map[string]map[string]string, error) {
	notes := map[string]map[string]string{}
	items, err := list(ctx, metav1.ListOptions{}, c.core.CoreV1().Namespaces().List,
		func(l *corev1.NamespaceList) []corev1.Namespace { return l.Items })
	if apierrors.IsForbidden(err) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list namespaces: %w", err)
	}
	for i := range items {
		notes[items[i].Name] = annotations(&items[i])
	}
	return notes, nil
}

// annotations are never nil: nil says that they may not be read.
func annotations(namespace *corev1.Namespace) map[string]string {
	if namespace.Annotations == nil {
		return map[string]string{}
	}
	return namespace.Annotations
}

// repositories are the restic repositories whose Secrets lie in namespace;
// none if that may not be read, is not there, or namespace is "".
func (c *Cluster) repositories(ctx context.Context, namespace string, named []string) ([]catalog.Repository, error) {
	if namespace == "" {
		return nil, nil
	}
	secrets, err := c.listSecrets(ctx, namespace, named)
	if apierrors.IsForbidden(err) || apierrors.IsNotFound(err) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list secrets in %s: %w", namespace, err)
	}
	return toRepositories(secrets), nil
}

// repositoriesBeside are those whose Secrets lie in the namespaces of scope.
// They were asked for: that they may not be read is an error.
func (c *Cluster) repositoriesBeside(ctx context.Context, scope catalog.Scope) ([]catalog.Repository, error) {
	return each(scope, catalog.Right{Resource: "secrets"}, func(namespace string) ([]catalog.Repository, error) {
		secrets, err := c.listSecrets(ctx, namespace, scope.Repositories)
		return toRepositories(secrets), err
	})
}

// listSecrets are those of repositories. Who may not list them may still read
// the named ones, each by its name.
func (c *Cluster) listSecrets(ctx context.Context, namespace string, named []string) ([]corev1.Secret, error) {
	secrets, err := list(ctx, metav1.ListOptions{LabelSelector: catalog.LabelRepository}, c.core.CoreV1().Secrets(namespace).List,
		func(l *corev1.SecretList) []corev1.Secret { return l.Items })
	if !apierrors.IsForbidden(err) || len(named) == 0 || namespace == metav1.NamespaceAll {
		return secrets, err
	}
	for _, name := range named {
		var secret *corev1.Secret
		one := again(ctx, func(ctx context.Context) (err error) {
			secret, err = c.core.CoreV1().Secrets(namespace).Get(ctx, name, metav1.GetOptions{})
			return err
		})
		switch {
		case one == nil && secret.Labels[catalog.LabelRepository] != "":
			secrets = append(secrets, *secret)
		case apierrors.IsForbidden(one):
			return nil, err // that of the list says what would do
		case one != nil && !apierrors.IsNotFound(one):
			return nil, one
		}
	}
	return secrets, nil
}

func toRepositories(secrets []corev1.Secret) []catalog.Repository {
	var repositories []catalog.Repository
	for _, secret := range secrets {
		repositories = append(repositories, secretOf(&secret).Repository())
	}
	return repositories
}

// group runs calls at the same time. The first that fails cancels the others.
type group struct {
	wg     sync.WaitGroup
	cancel context.CancelCauseFunc
	once   sync.Once
	err    error
}

func (g *group) run(call func() error) {
	g.wg.Go(func() {
		if err := call(); err != nil {
			g.once.Do(func() { g.err = err; g.cancel(err) })
		}
	})
}

// wait is the first error, once all have ended.
func (g *group) wait() error {
	g.wg.Wait()
	return g.err
}
