package kube

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"

	appsv1 "k8s.io/api/apps/v1"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"

	"github.com/backsnap/kubectl-backsnap/internal/catalog"
)

// Apps are the workloads of namespace that may mount claims, by kind and name:
// one List a kind. CronJobs that are suspended start nothing and are left out.
// Without the right to see them there are no budgets: they hold nothing back.
func (c *Cluster) Apps(ctx context.Context, namespace string) ([]catalog.App, error) {
	l := &appLists{}
	g := group{}
	ctx, g.cancel = context.WithCancelCause(ctx)
	defer g.cancel(nil)
	for _, read := range l.reads(ctx, c, namespace) {
		g.run(read)
	}
	if err := g.wait(); err != nil {
		return nil, untouched(err)
	}
	return l.apps(), nil
}

// appLists are what Apps lists.
type appLists struct {
	sets        []appsv1.StatefulSet
	deployments []appsv1.Deployment
	daemons     []appsv1.DaemonSet
	crons       []batchv1.CronJob
	scalers     []autoscalingv2.HorizontalPodAutoscaler
	budgets     []policyv1.PodDisruptionBudget
}

func (l *appLists) reads(ctx context.Context, c *Cluster, namespace string) []func() error {
	apps := c.core.AppsV1()
	listed := func(err error, group, resource string) error {
		return explain(err, fmt.Sprintf("list %s in %s", resource, namespace), catalog.Right{Verb: "list", Group: group, Resource: resource, Namespace: namespace})
	}
	all := metav1.ListOptions{}
	return []func() error{
		func() (err error) {
			l.sets, err = list(ctx, all, apps.StatefulSets(namespace).List, func(l *appsv1.StatefulSetList) []appsv1.StatefulSet { return l.Items })
			return listed(err, "apps", "statefulsets")
		},
		func() (err error) {
			l.deployments, err = list(ctx, all, apps.Deployments(namespace).List, func(l *appsv1.DeploymentList) []appsv1.Deployment { return l.Items })
			return listed(err, "apps", "deployments")
		},
		func() (err error) {
			l.daemons, err = list(ctx, all, apps.DaemonSets(namespace).List, func(l *appsv1.DaemonSetList) []appsv1.DaemonSet { return l.Items })
			return listed(err, "apps", "daemonsets")
		},
		func() (err error) {
			l.crons, err = list(ctx, all, c.core.BatchV1().CronJobs(namespace).List, func(l *batchv1.CronJobList) []batchv1.CronJob { return l.Items })
			return listed(err, "batch", "cronjobs")
		},
		func() (err error) {
			l.scalers, err = list(ctx, all, c.core.AutoscalingV2().HorizontalPodAutoscalers(namespace).List,
				func(l *autoscalingv2.HorizontalPodAutoscalerList) []autoscalingv2.HorizontalPodAutoscaler {
					return l.Items
				})
			return listed(err, "autoscaling", "horizontalpodautoscalers")
		},
		func() (err error) {
			l.budgets, err = list(ctx, all, c.core.PolicyV1().PodDisruptionBudgets(namespace).List,
				func(l *policyv1.PodDisruptionBudgetList) []policyv1.PodDisruptionBudget { return l.Items })
			return unlessForbidden(listed(err, "policy", "poddisruptionbudgets"))
		},
	}
}

func (l *appLists) apps() []catalog.App {
	var apps []catalog.App
	add := func(kind string, meta metav1.ObjectMeta, replicas *int32, template corev1.PodTemplateSpec) *catalog.App {
		app := catalog.App{
			Workload:  catalog.Workload{Kind: kind, Name: meta.Name},
			Namespace: meta.Namespace, UID: string(meta.UID), Labels: meta.Labels, Annotations: meta.Annotations,
			Owner: controller(meta), Replicas: 1, Claims: templateClaims(template),
		}
		if replicas != nil {
			app.Replicas = int(*replicas)
		}
		app.Autoscalers, app.Budgets = l.scalersOf(app.Workload), l.budgetsOf(template)
		apps = append(apps, app)
		return &apps[len(apps)-1]
	}
	for _, s := range l.sets {
		app := add("statefulset", s.ObjectMeta, s.Spec.Replicas, s.Spec.Template)
		for _, claim := range s.Spec.VolumeClaimTemplates {
			app.Templates = append(app.Templates, claim.Name+"-"+s.Name+"-")
		}
		policy := s.Spec.PersistentVolumeClaimRetentionPolicy
		app.DeletesClaims = policy != nil && policy.WhenScaled == appsv1.DeletePersistentVolumeClaimRetentionPolicyType
	}
	for _, d := range l.deployments {
		add("deployment", d.ObjectMeta, d.Spec.Replicas, d.Spec.Template)
	}
	for _, d := range l.daemons {
		add("daemonset", d.ObjectMeta, nil, d.Spec.Template)
	}
	for _, j := range l.crons {
		if j.Spec.Suspend == nil || !*j.Spec.Suspend {
			add("cronjob", j.ObjectMeta, nil, j.Spec.JobTemplate.Spec.Template)
		}
	}
	slices.SortFunc(apps, func(a, b catalog.App) int { return cmp.Compare(a.String(), b.String()) })
	return apps
}

// controller is who controls the object, for people; "" for nobody.
func controller(meta metav1.ObjectMeta) string {
	ref := metav1.GetControllerOfNoCopy(&meta)
	if ref == nil {
		return ""
	}
	group, _, found := strings.Cut(ref.APIVersion, "/")
	if !found {
		return ref.Kind + "/" + ref.Name
	}
	return fmt.Sprintf("%s/%s of %s", ref.Kind, ref.Name, group)
}

func templateClaims(template corev1.PodTemplateSpec) []string {
	var claims []string
	for _, v := range template.Spec.Volumes {
		if v.PersistentVolumeClaim != nil {
			claims = append(claims, v.PersistentVolumeClaim.ClaimName)
		}
	}
	return claims
}

func (l *appLists) scalersOf(w catalog.Workload) []string {
	var names []string
	for _, s := range l.scalers {
		if target := s.Spec.ScaleTargetRef; strings.EqualFold(target.Kind, w.Kind) && target.Name == w.Name {
			names = append(names, s.Name)
		}
	}
	return names
}

func (l *appLists) budgetsOf(template corev1.PodTemplateSpec) []string {
	var names []string
	for _, b := range l.budgets {
		selector, err := metav1.LabelSelectorAsSelector(b.Spec.Selector)
		if err == nil && !selector.Empty() && selector.Matches(labels.Set(template.Labels)) {
			names = append(names, b.Name)
		}
	}
	return names
}
