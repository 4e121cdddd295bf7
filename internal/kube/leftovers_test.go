package kube

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"

	snapshotv1 "github.com/kubernetes-csi/external-snapshotter/client/v8/apis/volumesnapshot/v1"
	batchv1 "k8s.io/api/batch/v1"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	clienttesting "k8s.io/client-go/testing"

	"github.com/backsnap/kubectl-backsnap/internal/catalog"
	"github.com/backsnap/kubectl-backsnap/internal/restic"
)

// left is the metadata of what was made for a copy of shop/data.
func left(name string, role catalog.Role) metav1.ObjectMeta {
	labels := catalog.Ours(role, copyRun)
	labels[catalog.LabelNamespace], labels[catalog.LabelClaim] = "shop", "data"
	return metav1.ObjectMeta{Namespace: "backsnap", Name: name, Labels: labels}
}

// content is a static one whose snapshot lies in namespace.
func content(name, namespace string) *snapshotv1.VolumeSnapshotContent {
	meta := left(name, catalog.RoleStatic)
	meta.Namespace = ""
	return &snapshotv1.VolumeSnapshotContent{
		ObjectMeta: meta, Spec: snapshotv1.VolumeSnapshotContentSpec{VolumeSnapshotRef: corev1.ObjectReference{Namespace: namespace, Name: name}},
	}
}

// standingObjects are the parts of several copies, and what is not ours.
func standingObjects() (objects, snapshots []runtime.Object) {
	labelled := func(name string, source string, conditions ...batchv1.JobCondition) *batchv1.Job {
		job := moverJob(conditions...)
		job.Name, job.Labels = name, catalog.Ours(catalog.RoleMover, copyRun)
		job.Annotations = map[string]string{catalog.AnnotationSource: source}
		return job
	}
	stranger := moverJob()
	stranger.Name = "stranger"
	leaving := labelled("leaving", "")
	leaving.DeletionTimestamp, leaving.Finalizers = new(metav1.Now()), []string{"foregroundDeletion"}
	foreign := &corev1.PersistentVolumeClaim{ObjectMeta: left("foreign", catalog.RoleClone)}
	delete(foreign.Labels, catalog.LabelManagedBy)
	return []runtime.Object{
			labelled("a", `{"namespace":"shop","claim":"data","snapshot":"s","uid":"u","repository":"main"}`, ended(batchv1.JobComplete, "")),
			&corev1.PersistentVolumeClaim{ObjectMeta: left("a", catalog.RoleClone)},
			labelled("b", "", ended(batchv1.JobFailed, "")), labelled("c", "", ended(batchv1.JobFailureTarget, "")),
			labelled("d", "[of a later version]", ended(batchv1.JobComplete, "")),
			&corev1.PersistentVolumeClaim{ObjectMeta: left("d", catalog.RoleClone)},
			&corev1.PersistentVolumeClaim{ObjectMeta: left("e", catalog.RoleClone)},
			stranger, leaving, foreign,
		}, []runtime.Object{
			&snapshotv1.VolumeSnapshot{ObjectMeta: left("a", catalog.RoleStatic)}, content("a", "backsnap"),
			content("g", "backsnap"), content("h", "elsewhere"),
			&snapshotv1.VolumeSnapshot{ObjectMeta: left("restore-point", "")},
		}
}

func TestMovers(t *testing.T) {
	f := newFakes(standingObjects())
	got, err := f.Movers(t.Context(), "backsnap")
	if err != nil {
		t.Fatal(err)
	}
	of := catalog.Source{Namespace: "shop", Claim: "data"}
	equal(t, "movers", []restic.Mover{
		{
			Namespace: "backsnap", Name: "a", Run: copyRun, Job: true, Finished: true, Clone: true, Static: true,
			Source: catalog.Source{Namespace: "shop", Claim: "data", Snapshot: "s", UID: "u", Repository: "main"},
		},
		{Namespace: "backsnap", Name: "b", Run: copyRun, Job: true, Finished: true},
		{Namespace: "backsnap", Name: "c", Run: copyRun, Job: true, Ending: true},
		{Namespace: "backsnap", Name: "e", Run: copyRun, Source: of, Clone: true},
		{Namespace: "backsnap", Name: "g", Run: copyRun, Source: of, Static: true},
		{Namespace: "backsnap", Name: "leaving", Run: copyRun, Job: true, Ending: true},
	}, got)
}

// Who may see Jobs only, sees the Jobs.
func TestMoversOfWhoMaySeeLittle(t *testing.T) {
	f := newFakes(standingObjects())
	refuse(f.core, "list", "persistentvolumeclaims")
	refuse(f.snapshots, "list", "volumesnapshotcontents")
	got, err := f.Movers(t.Context(), "backsnap")
	if err != nil {
		t.Fatal(err)
	}
	equal(t, "movers", 4, len(got))
	refuse(f.core, "list", "jobs")
	_, err = f.Movers(t.Context(), "backsnap")
	equal(t, "code", catalog.CodeForbidden, catalog.CodeOf(err))
}

func TestHoldings(t *testing.T) {
	lease := func(namespace, name, holder string) *coordinationv1.Lease {
		l := &coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{
			Namespace: namespace, Name: name, Labels: catalog.Ours("", catalog.Run(holder)),
			Annotations: map[string]string{catalog.AnnotationHolder: "pid 1"},
		}}
		if holder != "" {
			l.Spec.HolderIdentity = &holder
		}
		if name == "other" {
			l.Spec.RenewTime, l.Spec.LeaseDurationSeconds = new(metav1.NewMicroTime(time.Date(2026, 11, 22, 1, 15, 0, 0, time.UTC))), new(int32(15))
		}
		return l
	}
	f := newFakes([]runtime.Object{
		lease("shop", catalog.LeaseName, string(copyRun)), lease("crm", catalog.LeaseName, "20261122-011500-aaaa"),
		lease("free", catalog.LeaseName, ""), lease("shop", "other", string(copyRun)),
	}, nil)
	got, err := f.Holdings(t.Context(), catalog.Scope{All: true})
	if err != nil {
		t.Fatal(err)
	}
	equal(t, "holdings", []catalog.Holding{
		{Namespace: "crm", Lease: catalog.LeaseName, Run: "20261122-011500-aaaa", Holder: "pid 1"},
		{Namespace: "shop", Lease: catalog.LeaseName, Run: copyRun, Holder: "pid 1"},
	}, got)
	all, err := f.Leases(t.Context(), catalog.Scope{Namespaces: []string{"shop"}})
	if err != nil {
		t.Fatal(err)
	}
	renewed := time.Date(2026, 11, 22, 1, 15, 0, 0, time.UTC)
	equal(t, "leases", []catalog.Holding{
		{Namespace: "shop", Lease: catalog.LeaseName, Run: copyRun, Holder: "pid 1"},
		{Namespace: "shop", Lease: "other", Run: copyRun, Holder: "pid 1", Until: renewed.Add(15 * time.Second)},
	}, all)
	for after, over := range map[time.Duration]bool{14 * time.Second: false, 16 * time.Second: true} {
		equal(t, after.String(), []bool{false, over}, []bool{all[0].Over(renewed.Add(after)), all[1].Over(renewed.Add(after))})
	}
}

func TestTryRemove(t *testing.T) {
	f := newFakes(nil, nil)
	for _, kind := range []string{catalog.KindJob, catalog.KindClaim, catalog.KindSnapshot} {
		if err := f.TryRemove(t.Context(), catalog.Object{Kind: kind, Namespace: "backsnap", Name: "a"}); err != nil {
			t.Errorf("%s: %v", kind, err)
		}
	}
	for _, action := range append(f.core.Actions(), f.snapshots.Actions()...) {
		equal(t, action.GetResource().Resource, []string{metav1.DryRunAll}, action.(clienttesting.DeleteActionImpl).DeleteOptions.DryRun)
	}
	equal(t, "requests", 3, len(f.core.Actions())+len(f.snapshots.Actions()))
	if err := f.TryRemove(t.Context(), catalog.Object{Kind: "node", Name: "a"}); err == nil {
		t.Error("a node is none of ours")
	}
}

// What others' finalizers alone hold for half a minute counts as removed; what
// a controller of Kubernetes is still at is waited for.
func TestRemoveIsHeldByOthers(t *testing.T) {
	for name, c := range map[string]struct {
		finalizers []string
		held       bool
	}{
		"another's":          {[]string{"example.com/hold"}, true},
		"Kubernetes' own":    {[]string{"foregroundDeletion"}, false},
		"both":               {[]string{"batch.kubernetes.io/job-tracking", "example.com/hold"}, false},
		"a CSI controller's": {[]string{"snapshot.storage.kubernetes.io/pvc-as-source-protection"}, false},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newFakes([]runtime.Object{moverJob()}, nil)
				s := newStage(f)
				f.core.PrependReactor("delete", "jobs", func(clienttesting.Action) (bool, runtime.Object, error) { return true, nil, nil })
				began := time.Now()
				go func() {
					leaving := moverJob()
					leaving.DeletionTimestamp, leaving.Finalizers = new(metav1.Now()), c.finalizers
					s.jobs.Add(leaving)
					time.Sleep(2 * time.Minute)
					if !c.held {
						s.jobs.Delete(leaving)
					}
				}()
				err := f.RemoveMover(t.Context(), "backsnap", copyName)
				var held *catalog.Held
				if errors.As(err, &held) != c.held || !c.held && err != nil {
					t.Fatalf("error %v", err)
				}
				took := 2 * time.Minute
				if c.held {
					took = heldFor
					equal(t, "finalizers", c.finalizers, held.Finalizers)
				}
				equal(t, "took", took, time.Since(began))
				time.Sleep(5 * time.Minute) // the stage's goroutine ends
			})
		})
	}
}
