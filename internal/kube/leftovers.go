package kube

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	snapshotv1 "github.com/kubernetes-csi/external-snapshotter/client/v8/apis/volumesnapshot/v1"
	batchv1 "k8s.io/api/batch/v1"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/backsnap/kubectl-backsnap/internal/catalog"
	"github.com/backsnap/kubectl-backsnap/internal/restic"
)

// heldFor is how long others' finalizers alone may hold what we have deleted,
// before it counts as removed.
const heldFor = 30 * time.Second

// inRole selects what we made for that role.
func inRole(role catalog.Role) metav1.ListOptions {
	return metav1.ListOptions{LabelSelector: ours + "," + catalog.LabelRole + "=" + string(role)}
}

// Movers are what stands of copies in namespace, by name: one List a kind, of
// what carries our labels. Clones and static copies that may not be seen are
// left out, for they could not be removed either. A Job that does not say what
// it copies in words that we know is somebody else's to judge, and left out
// with all that has its name.
func (c *Cluster) Movers(ctx context.Context, namespace string) ([]restic.Mover, error) {
	var (
		jobs     []batchv1.Job
		clones   []corev1.PersistentVolumeClaim
		contents []snapshotv1.VolumeSnapshotContent
		g        = group{}
	)
	ctx, g.cancel = context.WithCancelCause(ctx)
	defer g.cancel(nil)
	g.run(func() (err error) { jobs, err = c.listJobs(ctx, namespace); return err })
	g.run(func() (err error) { clones, err = c.listClones(ctx, namespace); return unlessForbidden(err) })
	g.run(func() (err error) { contents, err = c.listContents(ctx, namespace); return unlessForbidden(err) })
	if err := g.wait(); err != nil {
		return nil, err
	}
	s := standing{namespace: namespace, found: map[string]*restic.Mover{}}
	for _, clone := range clones {
		s.of(clone.Name, clone.Labels).Clone = true
	}
	for _, content := range contents {
		s.of(content.Name, content.Labels).Static = true
	}
	for i := range jobs {
		s.addJob(&jobs[i])
	}
	var movers []restic.Mover
	for _, name := range slices.Sorted(maps.Keys(s.found)) {
		movers = append(movers, *s.found[name])
	}
	return movers, nil
}

// unlessForbidden is err, but nil where only a right is missing.
func unlessForbidden(err error) error {
	if catalog.CodeOf(err) == catalog.CodeForbidden {
		return nil
	}
	return err
}

// standing puts together what has one name.
type standing struct {
	namespace string
	found     map[string]*restic.Mover
}

// of is the mover of that name, whose object has those labels.
func (s standing) of(name string, labels map[string]string) *restic.Mover {
	m := s.found[name]
	if m == nil {
		m = &restic.Mover{
			Namespace: s.namespace, Name: name, Run: catalog.Run(labels[catalog.LabelRun]),
			Source: catalog.Source{Namespace: labels[catalog.LabelNamespace], Claim: labels[catalog.LabelClaim]},
		}
		s.found[name] = m
	}
	return m
}

func (s standing) addJob(job *batchv1.Job) {
	source, err := catalog.ReadSource(job.Annotations[catalog.AnnotationSource])
	if err != nil {
		delete(s.found, job.Name)
		return
	}
	m := s.of(job.Name, job.Labels)
	reason, _ := finished(job)
	m.Source, m.Job, m.Finished, m.Ending = source, true, reason != "", job.DeletionTimestamp != nil || reason == "" && doomed(job)
}

// doomed reports whether the Job has failed and waits for its pods to end, as
// it does for ever on a node that is lost.
func doomed(job *batchv1.Job) bool {
	return slices.ContainsFunc(job.Status.Conditions, func(c batchv1.JobCondition) bool {
		return c.Type == batchv1.JobFailureTarget && c.Status == corev1.ConditionTrue
	})
}

func (c *Cluster) listJobs(ctx context.Context, namespace string) ([]batchv1.Job, error) {
	jobs, err := list(ctx, inRole(catalog.RoleMover), c.core.BatchV1().Jobs(namespace).List,
		func(l *batchv1.JobList) []batchv1.Job { return l.Items })
	return jobs, explain(err, "list jobs in "+namespace, jobRight("list", namespace))
}

func (c *Cluster) listClones(ctx context.Context, namespace string) ([]corev1.PersistentVolumeClaim, error) {
	clones, err := list(ctx, inRole(catalog.RoleClone), c.core.CoreV1().PersistentVolumeClaims(namespace).List,
		func(l *corev1.PersistentVolumeClaimList) []corev1.PersistentVolumeClaim { return l.Items })
	return clones, explain(err, "list claims in "+namespace, claimRight("list", namespace))
}

// listContents are those of the static copies in namespace. A content is made
// before its snapshot and removed after it: where there is none there is no
// static copy.
func (c *Cluster) listContents(ctx context.Context, namespace string) ([]snapshotv1.VolumeSnapshotContent, error) {
	contents, err := list(ctx, inRole(catalog.RoleStatic), c.snapshots.SnapshotV1().VolumeSnapshotContents().List,
		func(l *snapshotv1.VolumeSnapshotContentList) []snapshotv1.VolumeSnapshotContent { return l.Items })
	elsewhere := func(c snapshotv1.VolumeSnapshotContent) bool { return c.Spec.VolumeSnapshotRef.Namespace != namespace }
	return slices.DeleteFunc(contents, elsewhere), explain(err, "list snapshot contents", contentRight("list"))
}

// Holdings are the namespaces in scope whose Lease a run holds, by name.
func (c *Cluster) Holdings(ctx context.Context, scope catalog.Scope) ([]catalog.Holding, error) {
	held, err := c.Leases(ctx, scope)
	return slices.DeleteFunc(held, func(h catalog.Holding) bool { return h.Lease != catalog.LeaseName }), err
}

// Leases are all that runs hold in scope, by namespace and name.
func (c *Cluster) Leases(ctx context.Context, scope catalog.Scope) ([]catalog.Holding, error) {
	right := catalog.Right{Group: coordinationv1.GroupName, Resource: "leases"}
	leases, err := each(scope, right, func(namespace string) ([]coordinationv1.Lease, error) {
		return list(ctx, metav1.ListOptions{LabelSelector: ours}, c.core.CoordinationV1().Leases(namespace).List,
			func(l *coordinationv1.LeaseList) []coordinationv1.Lease { return l.Items })
	})
	if err != nil {
		return nil, err
	}
	var held []catalog.Holding
	for _, lease := range leases {
		if lease.Spec.HolderIdentity == nil || *lease.Spec.HolderIdentity == "" {
			continue
		}
		h := catalog.Holding{
			Namespace: lease.Namespace, Lease: lease.Name, Run: catalog.Run(*lease.Spec.HolderIdentity), Holder: lease.Annotations[catalog.AnnotationHolder],
		}
		if lease.Spec.AcquireTime != nil {
			h.Since = lease.Spec.AcquireTime.UTC()
		}
		if lease.Spec.RenewTime != nil && lease.Spec.LeaseDurationSeconds != nil {
			h.Until = lease.Spec.RenewTime.Add(time.Duration(*lease.Spec.LeaseDurationSeconds) * time.Second).UTC()
		}
		held = append(held, h)
	}
	slices.SortFunc(held, func(a, b catalog.Holding) int {
		return cmp.Or(strings.Compare(a.Namespace, b.Namespace), strings.Compare(a.Lease, b.Lease))
	})
	return held, nil
}

// TryRemove is a deletion that the server checks and does not do.
func (c *Cluster) TryRemove(ctx context.Context, o catalog.Object) error {
	try := metav1.DeleteOptions{DryRun: []string{metav1.DryRunAll}}
	var remove func(context.Context, string, metav1.DeleteOptions) error
	var right catalog.Right
	switch o.Kind {
	case catalog.KindJob:
		remove, right = c.core.BatchV1().Jobs(o.Namespace).Delete, jobRight("delete", o.Namespace)
	case catalog.KindClaim:
		remove, right = c.core.CoreV1().PersistentVolumeClaims(o.Namespace).Delete, claimRight("delete", o.Namespace)
	case catalog.KindSnapshot:
		remove, right = c.snapshots.SnapshotV1().VolumeSnapshots(o.Namespace).Delete, snapshotRight("delete", o.Namespace)
	default:
		return fmt.Errorf("delete %s/%s: not a kind that we make", o.Kind, o.Name)
	}
	err := again(ctx, func(ctx context.Context) error { return remove(ctx, o.Name, try) })
	return explain(ignoreGone(err), fmt.Sprintf("delete %s/%s", o.Kind, o.Name), right)
}

// heldBy are the finalizers of an object that is being deleted, if all of them
// are others' than Kubernetes' own; else nil.
func heldBy(object metav1.Object) []string {
	finalizers := object.GetFinalizers()
	if object.GetDeletionTimestamp() == nil || len(finalizers) == 0 || slices.ContainsFunc(finalizers, kubernetesOwn) {
		return nil
	}
	return finalizers
}

// kubernetesOwn reports whether a controller of Kubernetes removes the
// finalizer when it has done its work: `foregroundDeletion`,
// `kubernetes.io/pvc-protection`, `snapshot.storage.kubernetes.io/...`.
func kubernetesOwn(finalizer string) bool {
	domain, _, found := strings.Cut(finalizer, "/")
	return !found || domain == "kubernetes.io" || strings.HasSuffix(domain, ".kubernetes.io") || strings.HasSuffix(domain, ".k8s.io")
}

// hold gives up waiting for an object that others hold. Its methods are called
// one after the other.
type hold struct {
	giveUp context.CancelCauseFunc
	timer  *time.Timer
}

// see is told each time which others' finalizers hold the object.
func (h *hold) see(finalizers []string) {
	switch {
	case len(finalizers) == 0:
		h.forget()
	case h.timer == nil:
		h.timer = time.AfterFunc(heldFor, func() { h.giveUp(&catalog.Held{Finalizers: finalizers}) })
	}
}

func (h *hold) forget() {
	if h.timer != nil {
		h.timer.Stop()
		h.timer = nil
	}
}
