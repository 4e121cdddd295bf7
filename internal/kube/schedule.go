package kube

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"

	batchv1 "k8s.io/api/batch/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/dynamic"

	"github.com/backsnap/kubectl-backsnap/internal/catalog"
)

// scheduleKinds are those that a schedule is made of, in the order in which they
// are removed: first what begins work, last what work is allowed by.
var scheduleKinds = []struct {
	kind     string
	resource schema.GroupVersionResource
	cluster  bool // it is in no namespace
	foreign  bool // the kind is no part of Kubernetes: usual roles are without it
}{
	{"CronJob", schema.GroupVersionResource{Group: "batch", Version: "v1", Resource: "cronjobs"}, false, false},
	{"PrometheusRule", schema.GroupVersionResource{Group: "monitoring.coreos.com", Version: "v1", Resource: "prometheusrules"}, false, true},
	{"NetworkPolicy", schema.GroupVersionResource{Group: "networking.k8s.io", Version: "v1", Resource: "networkpolicies"}, false, false},
	{"ClusterRoleBinding", schema.GroupVersionResource{Group: "rbac.authorization.k8s.io", Version: "v1", Resource: "clusterrolebindings"}, true, false},
	{"ClusterRole", schema.GroupVersionResource{Group: "rbac.authorization.k8s.io", Version: "v1", Resource: "clusterroles"}, true, false},
	{"RoleBinding", schema.GroupVersionResource{Group: "rbac.authorization.k8s.io", Version: "v1", Resource: "rolebindings"}, false, false},
	{"Role", schema.GroupVersionResource{Group: "rbac.authorization.k8s.io", Version: "v1", Resource: "roles"}, false, false},
	{"ServiceAccount", schema.GroupVersionResource{Version: "v1", Resource: "serviceaccounts"}, false, false},
}

// resourceRight is the right to do verb with a kind of a schedule.
func resourceRight(verb string, of schema.GroupVersionResource, namespace string) catalog.Right {
	return catalog.Right{Verb: verb, Group: of.Group, Resource: of.Resource, Namespace: namespace}
}

func cronJobRight(verb, namespace string) catalog.Right {
	return catalog.Right{Verb: verb, Group: "batch", Resource: "cronjobs", Namespace: namespace}
}

// door is where objects of o's kind are made and removed.
func (c *Cluster) door(o *unstructured.Unstructured) (dynamic.ResourceInterface, schema.GroupVersionResource, error) {
	for _, k := range scheduleKinds {
		if k.kind == o.GetKind() {
			return c.doorTo(k.resource, o.GetNamespace()), k.resource, nil
		}
	}
	return nil, schema.GroupVersionResource{}, fmt.Errorf("%s %s: not a kind that a schedule is made of", o.GetKind(), o.GetName())
}

func (c *Cluster) doorTo(resource schema.GroupVersionResource, namespace string) dynamic.ResourceInterface {
	if namespace == "" {
		return c.dynamic.Resource(resource)
	}
	return c.dynamic.Resource(resource).Namespace(namespace)
}

// MakeManifest makes o; dry: the server only checks it. That another has its
// name is catalog.ErrTaken.
func (c *Cluster) MakeManifest(ctx context.Context, o *unstructured.Unstructured, dry bool) error {
	door, resource, err := c.door(o)
	if err != nil {
		return err
	}
	doing := fmt.Sprintf("create %s %s", o.GetKind(), o.GetName())
	err = again(ctx, func(ctx context.Context) error {
		_, err := door.Create(ctx, o, creating(dry))
		return err
	})
	if apierrors.IsAlreadyExists(err) {
		return fmt.Errorf("%s: %w", doing, catalog.ErrTaken)
	}
	return admitted(err, doing, resourceRight("create", resource, o.GetNamespace()))
}

// RemoveManifest deletes o, if it is still the one with its UID; of a CronJob
// its Jobs too. That it is gone already is no error.
func (c *Cluster) RemoveManifest(ctx context.Context, o *unstructured.Unstructured) error {
	door, resource, err := c.door(o)
	if err != nil {
		return err
	}
	err = again(ctx, func(ctx context.Context) error {
		return door.Delete(ctx, o.GetName(), metav1.DeleteOptions{
			Preconditions: &metav1.Preconditions{UID: new(o.GetUID())}, PropagationPolicy: new(metav1.DeletePropagationBackground),
		})
	})
	return explain(ignoreGone(err), fmt.Sprintf("delete %s %s", o.GetKind(), o.GetName()), resourceRight("delete", resource, o.GetNamespace()))
}

// ManifestsOf are the objects that carry the labels of that schedule, its
// CronJobs first and its ServiceAccount last, in those namespaces; "" among them
// are those in none.
func (c *Cluster) ManifestsOf(ctx context.Context, namespace, name string, namespaces []string) ([]*unstructured.Unstructured, error) {
	var found []*unstructured.Unstructured
	for _, k := range scheduleKinds {
		for _, place := range namespaces {
			if (place == "") != k.cluster {
				continue
			}
			objects, err := c.manifests(ctx, k.resource, place, catalog.OfSchedule(namespace, name))
			if k.foreign { // who may not list what he may not have made has made none
				err = unlessForbidden(err)
			}
			if err != nil {
				return nil, err
			}
			found = append(found, objects...)
		}
	}
	return found, nil
}

// manifests are the objects of one kind with these labels. A kind that the
// server does not know has none.
func (c *Cluster) manifests(ctx context.Context, resource schema.GroupVersionResource, place string, labels map[string]string) ([]*unstructured.Unstructured, error) {
	options := metav1.ListOptions{LabelSelector: metav1.FormatLabelSelector(&metav1.LabelSelector{MatchLabels: labels})}
	objects, err := list(ctx, options, c.doorTo(resource, place).List, func(l *unstructured.UnstructuredList) []*unstructured.Unstructured {
		page := make([]*unstructured.Unstructured, len(l.Items))
		for i := range l.Items {
			page[i] = &l.Items[i]
		}
		return page
	})
	if apierrors.IsNotFound(err) {
		return nil, nil
	}
	return objects, explain(err, "list "+resource.Resource, resourceRight("list", resource, place))
}

// Schedules are the CronJobs of schedules in scope, by namespace and name.
func (c *Cluster) Schedules(ctx context.Context, scope catalog.Scope) ([]catalog.Schedule, error) {
	found, err := each(scope, catalog.Right{Group: "batch", Resource: "cronjobs"}, func(namespace string) ([]catalog.Schedule, error) {
		return list(ctx, inRole(catalog.RoleSchedule), c.core.BatchV1().CronJobs(namespace).List, func(l *batchv1.CronJobList) []catalog.Schedule {
			page := make([]catalog.Schedule, len(l.Items))
			for i := range l.Items {
				page[i] = scheduleOf(&l.Items[i])
			}
			return page
		})
	})
	slices.SortFunc(found, func(a, b catalog.Schedule) int {
		return cmp.Or(cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Name, b.Name))
	})
	return found, err
}

func scheduleOf(j *batchv1.CronJob) catalog.Schedule {
	s := catalog.Schedule{
		Namespace: j.Namespace, Name: j.Name, Of: j.Labels[catalog.LabelSchedule], Cron: j.Spec.Schedule,
		Target: j.Annotations[catalog.AnnotationTarget], Suspended: j.Spec.Suspend != nil && *j.Spec.Suspend,
	}
	if j.Spec.TimeZone != nil {
		s.Zone = *j.Spec.TimeZone
	}
	if at := j.Status.LastSuccessfulTime; at != nil {
		s.LastOK = at.UTC()
	}
	if at := j.Status.LastScheduleTime; at != nil {
		s.Last = at.UTC()
	}
	return s
}

// SuspendSchedule sets whether a CronJob makes Jobs by itself.
func (c *Cluster) SuspendSchedule(ctx context.Context, namespace, cronJob string, suspended bool) error {
	change := fmt.Appendf(nil, `{"spec":{"suspend":%t}}`, suspended)
	err := again(ctx, func(ctx context.Context) error {
		_, err := c.core.BatchV1().CronJobs(namespace).Patch(ctx, cronJob, types.MergePatchType, change, metav1.PatchOptions{})
		return err
	})
	return explain(err, fmt.Sprintf("change CronJob %s/%s", namespace, cronJob), cronJobRight("patch", namespace))
}

// StartSchedule makes a Job of a CronJob, as kubectl create job --from does.
func (c *Cluster) StartSchedule(ctx context.Context, namespace, cronJob, job string) error {
	var from *batchv1.CronJob
	err := again(ctx, func(ctx context.Context) (err error) {
		from, err = c.core.BatchV1().CronJobs(namespace).Get(ctx, cronJob, metav1.GetOptions{})
		return err
	})
	if err != nil {
		return explain(err, fmt.Sprintf("read CronJob %s/%s", namespace, cronJob), cronJobRight("get", namespace))
	}
	notes := map[string]string{"cronjob.kubernetes.io/instantiate": "manual"}
	for key, value := range from.Spec.JobTemplate.Annotations {
		notes[key] = value
	}
	made := &batchv1.Job{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: namespace, Name: job, Labels: from.Spec.JobTemplate.Labels, Annotations: notes,
			OwnerReferences: []metav1.OwnerReference{*metav1.NewControllerRef(from, batchv1.SchemeGroupVersion.WithKind("CronJob"))},
		},
		Spec: from.Spec.JobTemplate.Spec,
	}
	err = again(ctx, func(ctx context.Context) error {
		_, err := c.core.BatchV1().Jobs(namespace).Create(ctx, made, metav1.CreateOptions{})
		return err
	})
	if apierrors.IsAlreadyExists(err) && strings.HasPrefix(job, cronJob) {
		return nil // the answer to the first attempt was lost: the name is random
	}
	return admitted(err, fmt.Sprintf("create job %s/%s", namespace, job), jobRight("create", namespace))
}
