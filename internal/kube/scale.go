package kube

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	appsv1 "k8s.io/api/apps/v1"
	autoscalingv1 "k8s.io/api/autoscaling/v1"
	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"

	"github.com/backsnap/kubectl-backsnap/internal/catalog"
)

// scaling is what the two kinds of workloads that can be scaled have in common.
type scaling struct {
	resource string
	get      func(context.Context, string) (progress, error)
	patch    func(ctx context.Context, name string, change []byte) error
	scale    func(context.Context, string, metav1.GetOptions) (*autoscalingv1.Scale, error)
	rescale  func(context.Context, string, *autoscalingv1.Scale, metav1.UpdateOptions) (*autoscalingv1.Scale, error)
	watch    func(context.Context, metav1.ListOptions) (watch.Interface, error)
}

// progress is how far a workload's pods are.
type progress struct {
	uid                  string
	version              string // resourceVersion
	generation, observed int64
	replicas, ready      int
}

func (c *Cluster) scaling(a catalog.App) (scaling, error) {
	switch a.Kind {
	case "statefulset":
		door := c.core.AppsV1().StatefulSets(a.Namespace)
		return scaling{
			resource: "statefulsets", scale: door.GetScale, rescale: door.UpdateScale, watch: door.Watch,
			get: func(ctx context.Context, name string) (progress, error) {
				s, err := door.Get(ctx, name, metav1.GetOptions{})
				if err != nil {
					return progress{}, err
				}
				return progressOf(s), nil
			},
			patch: func(ctx context.Context, name string, change []byte) error {
				_, err := door.Patch(ctx, name, types.MergePatchType, change, metav1.PatchOptions{})
				return err
			},
		}, nil
	case "deployment":
		door := c.core.AppsV1().Deployments(a.Namespace)
		return scaling{
			resource: "deployments", scale: door.GetScale, rescale: door.UpdateScale, watch: door.Watch,
			get: func(ctx context.Context, name string) (progress, error) {
				d, err := door.Get(ctx, name, metav1.GetOptions{})
				if err != nil {
					return progress{}, err
				}
				return progressOf(d), nil
			},
			patch: func(ctx context.Context, name string, change []byte) error {
				_, err := door.Patch(ctx, name, types.MergePatchType, change, metav1.PatchOptions{})
				return err
			},
		}, nil
	}
	return scaling{}, fmt.Errorf("scale %s: not a kind that can be scaled", a)
}

// progressOf reads a workload; the zero value for anything else.
func progressOf(object any) progress {
	read := func(meta metav1.ObjectMeta, replicas *int32, observed int64, ready int32) progress {
		p := progress{uid: string(meta.UID), version: meta.ResourceVersion, generation: meta.Generation, observed: observed, replicas: 1, ready: int(ready)}
		if replicas != nil {
			p.replicas = int(*replicas)
		}
		return p
	}
	switch o := object.(type) {
	case *appsv1.StatefulSet:
		return read(o.ObjectMeta, o.Spec.Replicas, o.Status.ObservedGeneration, o.Status.ReadyReplicas)
	case *appsv1.Deployment:
		return read(o.ObjectMeta, o.Spec.Replicas, o.Status.ObservedGeneration, o.Status.ReadyReplicas)
	}
	return progress{}
}

func (s scaling) right(verb, sub string, a catalog.App) catalog.Right {
	return catalog.Right{Verb: verb, Group: "apps", Resource: s.resource + sub, Namespace: a.Namespace}
}

// Remember writes run and replicas onto the workload.
func (c *Cluster) Remember(ctx context.Context, a catalog.App, run catalog.Run, replicas int) error {
	return c.annotateApp(ctx, a, map[string]any{
		catalog.AnnotationInPlace: string(run), catalog.AnnotationReplicas: strconv.Itoa(replicas),
	})
}

// Forget takes them off again.
func (c *Cluster) Forget(ctx context.Context, a catalog.App) error {
	return c.annotateApp(ctx, a, map[string]any{catalog.AnnotationInPlace: nil, catalog.AnnotationReplicas: nil})
}

func (c *Cluster) annotateApp(ctx context.Context, a catalog.App, notes map[string]any) error {
	s, err := c.scaling(a)
	if err != nil {
		return err
	}
	change, err := json.Marshal(map[string]any{"metadata": map[string]any{"uid": a.UID, "annotations": notes}})
	if err != nil {
		return fmt.Errorf("annotate %s: %w", a, err)
	}
	err = again(ctx, func(ctx context.Context) error { return s.patch(ctx, a.Name, change) })
	return explain(err, "annotate "+a.String(), s.right("patch", "", a))
}

// Replicas is how many the workload is to have now.
func (c *Cluster) Replicas(ctx context.Context, a catalog.App) (int, error) {
	s, err := c.scaling(a)
	if err != nil {
		return 0, err
	}
	scale, err := s.read(ctx, a)
	if err != nil {
		return 0, err
	}
	return int(scale.Spec.Replicas), nil
}

func (s scaling) read(ctx context.Context, a catalog.App) (scale *autoscalingv1.Scale, err error) {
	err = again(ctx, func(ctx context.Context) (err error) {
		scale, err = s.scale(ctx, a.Name, metav1.GetOptions{})
		return err
	})
	return scale, explain(err, "read scale of "+a.String(), s.right("get", "/scale", a))
}

// Scale writes the workload's scale, as often as it takes until nobody else
// changes it in between.
func (c *Cluster) Scale(ctx context.Context, a catalog.App, replicas int) error {
	s, err := c.scaling(a)
	if err != nil {
		return err
	}
	for {
		scale, err := s.read(ctx, a)
		if err != nil || int(scale.Spec.Replicas) == replicas {
			return err
		}
		scale.Spec.Replicas = int32(replicas)
		err = again(ctx, func(ctx context.Context) error {
			_, err := s.rescale(ctx, a.Name, scale, metav1.UpdateOptions{})
			return err
		})
		if !apierrors.IsConflict(err) {
			return explain(err, fmt.Sprintf("scale %s to %d", a, replicas), s.right("update", "/scale", a))
		}
	}
}

// AwaitIdle watches pods, attachments and workloads.
func (c *Cluster) AwaitIdle(ctx context.Context, namespace string, claims, volumes []string, apps []catalog.App) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	for _, a := range apps {
		go func() {
			if err := c.raised(ctx, a); err != nil {
				cancel(err)
			}
		}()
	}
	if err := c.unmounted(ctx, namespace, claims); err != nil || len(volumes) == 0 {
		return err
	}
	return c.detached(ctx, volumes)
}

// raised returns with ErrRaised when the workload is to have replicas. What
// the watch tells of the time before it was asked for is passed over.
func (c *Cluster) raised(ctx context.Context, a catalog.App) error {
	s, err := c.scaling(a)
	if err != nil {
		return err
	}
	since := ""
	return observe(ctx, s.watch, only(a.Name), observer{
		opened: func() error {
			scale, err := s.read(ctx, a)
			if err == nil && scale.Spec.Replicas > 0 {
				err = fmt.Errorf("%s: %w to %d", a, catalog.ErrRaised, scale.Spec.Replicas)
			}
			if err == nil {
				since = scale.ResourceVersion
			}
			return err
		},
		event: func(e watch.Event) error {
			if p := progressOf(e.Object); p.replicas > 0 && newer(p.version, since) && e.Type != watch.Deleted {
				return fmt.Errorf("%s: %w to %d", a, catalog.ErrRaised, p.replicas)
			}
			return nil
		},
		done: never,
	})
}

// unmounted returns when no pod has any of the claims among its volumes, not
// even one that has ended: until then the claims cannot go. It names those
// that have when ctx is done.
func (c *Cluster) unmounted(ctx context.Context, namespace string, claims []string) error {
	door := c.core.CoreV1().Pods(namespace)
	right := catalog.Right{Verb: "watch", Resource: "pods", Namespace: namespace}
	left := map[string]bool{}
	see := func(p *corev1.Pod, gone bool) {
		delete(left, p.Name)
		for _, mount := range claimVolumes(p) {
			if !gone && slices.Contains(claims, mount.Claim) {
				left[p.Name] = true
			}
		}
	}
	err := observe(ctx, door.Watch, metav1.ListOptions{}, observer{
		opened: func() error {
			pods, err := list(ctx, metav1.ListOptions{}, door.List, func(l *corev1.PodList) []corev1.Pod { return l.Items })
			clear(left)
			for i := range pods {
				see(&pods[i], false)
			}
			return err
		},
		event: func(e watch.Event) error {
			if p, ok := e.Object.(*corev1.Pod); ok {
				see(p, e.Type == watch.Deleted)
			}
			return nil
		},
		done: func() bool { return len(left) == 0 },
	})
	if err != nil && len(left) > 0 {
		return fmt.Errorf("pods %s still have the claims: %w", strings.Join(slices.Sorted(maps.Keys(left)), ", "), err)
	}
	return explain(err, "watch pods in "+namespace, right)
}

// detached returns when none of the volumes is attached to a node. Drivers
// that attach nothing have no attachments.
func (c *Cluster) detached(ctx context.Context, volumes []string) error {
	door := c.core.StorageV1().VolumeAttachments()
	left := map[string]string{} // attachment -> node
	see := func(a *storagev1.VolumeAttachment, gone bool) {
		delete(left, a.Name)
		if name := a.Spec.Source.PersistentVolumeName; !gone && name != nil && slices.Contains(volumes, *name) {
			left[a.Name] = a.Spec.NodeName
		}
	}
	err := observe(ctx, door.Watch, metav1.ListOptions{}, observer{
		opened: func() error {
			all, err := list(ctx, metav1.ListOptions{}, door.List, func(l *storagev1.VolumeAttachmentList) []storagev1.VolumeAttachment { return l.Items })
			clear(left)
			for i := range all {
				see(&all[i], false)
			}
			return err
		},
		event: func(e watch.Event) error {
			if a, ok := e.Object.(*storagev1.VolumeAttachment); ok {
				see(a, e.Type == watch.Deleted)
			}
			return nil
		},
		done: func() bool { return len(left) == 0 },
	})
	if err != nil && len(left) > 0 {
		return fmt.Errorf("volumes are still attached to %s: %w", strings.Join(slices.Sorted(maps.Values(left)), ", "), err)
	}
	return explain(err, "watch volumeattachments", catalog.Right{Verb: "watch", Group: "storage.k8s.io", Resource: "volumeattachments"})
}

// AwaitReady watches the workload. What its status says of an earlier scale
// does not count.
func (c *Cluster) AwaitReady(ctx context.Context, a catalog.App, replicas int) error {
	s, err := c.scaling(a)
	if err != nil {
		return err
	}
	var now progress
	since := int64(0)
	err = observe(ctx, s.watch, only(a.Name), observer{
		opened: func() error {
			return again(ctx, func(ctx context.Context) (err error) {
				now, err = s.get(ctx, a.Name)
				since = now.generation
				return err
			})
		},
		event: func(e watch.Event) error {
			if e.Type == watch.Deleted {
				return fmt.Errorf("%s: %w", a, catalog.ErrGone)
			}
			if p := progressOf(e.Object); p.generation >= since {
				now = p
			}
			return nil
		},
		done: func() bool { return now.observed >= since && now.ready >= replicas },
	})
	if err != nil && ctx.Err() != nil {
		return fmt.Errorf("%d of %d pods of %s are ready: %w", now.ready, replicas, a, err)
	}
	return explain(err, "watch "+a.String(), s.right("watch", "", a))
}
