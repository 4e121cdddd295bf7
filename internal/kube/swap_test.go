package kube

import (
	"errors"
	"testing"
	"testing/synctest"

	appsv1 "k8s.io/api/apps/v1"
	autoscalingv1 "k8s.io/api/autoscaling/v1"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	storagev1 "k8s.io/api/storage/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	clienttesting "k8s.io/client-go/testing"

	"github.com/backsnap/kubectl-backsnap/internal/catalog"
)

func mounting(claim string) corev1.PodTemplateSpec {
	return corev1.PodTemplateSpec{
		ObjectMeta: metav1.ObjectMeta{Labels: map[string]string{"app": "mysql"}},
		Spec: corev1.PodSpec{Volumes: []corev1.Volume{{Name: "v", VolumeSource: corev1.VolumeSource{
			PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: claim},
		}}}},
	}
}

func called(name string) metav1.ObjectMeta {
	return metav1.ObjectMeta{Namespace: "shop", Name: name, UID: "uid-" + "of-app"}
}

func TestApps(t *testing.T) {
	owned := called("mysql")
	owned.OwnerReferences = []metav1.OwnerReference{{APIVersion: "db.example.com/v1", Kind: "Cluster", Name: "pg", Controller: new(true)}}
	f := newFakes([]runtime.Object{
		&appsv1.StatefulSet{ObjectMeta: owned, Spec: appsv1.StatefulSetSpec{
			Replicas: new(int32(3)), Template: mounting("shared"),
			VolumeClaimTemplates:                 []corev1.PersistentVolumeClaim{{ObjectMeta: metav1.ObjectMeta{Name: "data"}}},
			PersistentVolumeClaimRetentionPolicy: &appsv1.StatefulSetPersistentVolumeClaimRetentionPolicy{WhenScaled: appsv1.DeletePersistentVolumeClaimRetentionPolicyType},
		}},
		&appsv1.Deployment{ObjectMeta: called("web"), Spec: appsv1.DeploymentSpec{Template: mounting("www")}},
		&appsv1.DaemonSet{ObjectMeta: called("agent"), Spec: appsv1.DaemonSetSpec{Template: mounting("logs")}},
		&batchv1.CronJob{ObjectMeta: called("nightly"), Spec: batchv1.CronJobSpec{JobTemplate: batchv1.JobTemplateSpec{Spec: batchv1.JobSpec{Template: mounting("www")}}}},
		&batchv1.CronJob{ObjectMeta: called("resting"), Spec: batchv1.CronJobSpec{Suspend: new(true)}},
		&autoscalingv2.HorizontalPodAutoscaler{ObjectMeta: called("h"), Spec: autoscalingv2.HorizontalPodAutoscalerSpec{ScaleTargetRef: autoscalingv2.CrossVersionObjectReference{Kind: "Deployment", Name: "web"}}},
		&policyv1.PodDisruptionBudget{ObjectMeta: called("b"), Spec: policyv1.PodDisruptionBudgetSpec{Selector: &metav1.LabelSelector{MatchLabels: map[string]string{"app": "mysql"}}}},
		&policyv1.PodDisruptionBudget{ObjectMeta: called("other"), Spec: policyv1.PodDisruptionBudgetSpec{Selector: &metav1.LabelSelector{MatchLabels: map[string]string{"app": "x"}}}},
	}, nil)
	apps, err := f.Apps(t.Context(), "shop")
	if err != nil {
		t.Fatal(err)
	}
	app := func(kind, name string, replicas int, claims ...string) catalog.App {
		return catalog.App{Workload: catalog.Workload{Kind: kind, Name: name}, Namespace: "shop", UID: "uid-of-app", Replicas: replicas, Claims: claims, Budgets: []string{"b"}}
	}
	want := []catalog.App{app("cronjob", "nightly", 1, "www"), app("daemonset", "agent", 1, "logs"), app("deployment", "web", 1, "www"), app("statefulset", "mysql", 3, "shared")}
	want[2].Autoscalers = []string{"h"}
	want[3].Owner, want[3].Templates, want[3].DeletesClaims = "Cluster/pg of db.example.com", []string{"data-mysql-"}, true
	equal(t, "apps", want, apps)
	for claim, mounts := range map[string]bool{"data-mysql-0": true, "data-mysql-12": true, "shared": true, "data-mysql-": false, "data-mysql-x": false, "data-other-0": false} {
		equal(t, claim, mounts, apps[3].Mounts(claim))
	}
	refuse(f.core, "list", "statefulsets")
	if _, err := f.Apps(t.Context(), "shop"); catalog.CodeOf(err) != catalog.CodeForbidden {
		t.Errorf("without a right: %v", err)
	}
}

// TestVolumeOfASwap follows a volume from its mark to the end.
func TestVolumeOfASwap(t *testing.T) {
	f := newFakes([]runtime.Object{volumeOf(nil)}, nil)
	mark := catalog.SwapVolume{
		Volume: catalog.Volume{Name: "pv", Run: "20261122-091500-x7k2", Claim: catalog.Claim{UID: "uid-filled"}}, Role: catalog.RoleNew, Turn: catalog.Forth,
		Namespace: "shop", Of: "data", Manifest: `{"metadata":{"name":"data"}}`,
	}
	other := mark
	other.Claim.UID = "another"
	if err := f.MarkVolume(t.Context(), other); err == nil {
		t.Error("marked a volume of another claim")
	}
	if err := f.OfferVolume(t.Context(), mark, catalog.Claim{Namespace: "shop", Name: "data"}); err == nil {
		t.Error("offered a volume that is not retained")
	}
	for range 2 { // an answer may be lost
		if err := f.MarkVolume(t.Context(), mark); err != nil {
			t.Fatal(err)
		}
	}
	want := mark
	want.Claim = catalog.Claim{Namespace: "shop", Name: "filled", UID: "uid-filled"}
	want.Policy, want.Reclaim = "Retain", "Delete"
	found := func() catalog.SwapVolume {
		t.Helper()
		all, err := f.SwapVolumes(t.Context(), "shop")
		if err != nil || len(all) != 1 {
			t.Fatalf("found %v, %v", all, err)
		}
		return all[0]
	}
	equal(t, "marked", want, found())

	for range 2 {
		if err := f.OfferVolume(t.Context(), mark, catalog.Claim{Namespace: "shop", Name: "data"}); err != nil {
			t.Fatal(err)
		}
	}
	want.Claim = catalog.Claim{Namespace: "shop", Name: "data"}
	equal(t, "offered", want, found())

	for range 2 {
		if err := f.SettleVolume(t.Context(), "pv", false, "20261123T092000Z"); err != nil {
			t.Fatal(err)
		}
	}
	want.Turn, want.DeleteAfter = "", "20261123T092000Z"
	equal(t, "settled and kept", want, found())
	for range 2 {
		if err := f.SettleVolume(t.Context(), "pv", true, ""); err != nil {
			t.Fatal(err)
		}
	}
	want.Policy, want.DeleteAfter = "Delete", ""
	equal(t, "settled and in use", want, found())

	if err := f.LetVolume(t.Context(), "pv", "Delete"); err != nil {
		t.Fatal(err)
	}
	if v := f.volume(t); len(v.Labels)+len(v.Annotations) > 0 {
		t.Errorf("labels %v, annotations %v", v.Labels, v.Annotations)
	}
	if err := f.SettleVolume(t.Context(), "gone", true, ""); err != nil {
		t.Errorf("a volume that is gone: %v", err)
	}
	if err := f.AwaitVolumeGone(t.Context(), "gone"); err != nil {
		t.Error(err)
	}
}

// A claim that is made again is the one that it was, but for its volume.
func TestRemakeClaim(t *testing.T) {
	claim := &corev1.PersistentVolumeClaim{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: "shop", Name: "data", UID: "uid-data", ResourceVersion: "7", Labels: map[string]string{"app": "mysql"}, Finalizers: []string{"kubernetes.io/pvc-protection"},
			Annotations:     map[string]string{"team": "a", "pv.kubernetes.io/bind-completed": "yes", "volume.kubernetes.io/selected-node": "n"},
			OwnerReferences: []metav1.OwnerReference{{Kind: "StatefulSet", Name: "mysql"}},
		},
		Spec: corev1.PersistentVolumeClaimSpec{
			VolumeName: "pv-old", StorageClassName: new("fast"), AccessModes: []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOnce},
			DataSource: &corev1.TypedLocalObjectReference{Kind: "VolumeSnapshot", Name: "s"},
		},
	}
	f := newFakes([]runtime.Object{claim}, nil)
	read, manifest, err := f.ReadClaim(t.Context(), "shop", "data")
	if err != nil {
		t.Fatal(err)
	}
	equal(t, "volume", "pv-old", read.Volume)
	if err := f.RemakeClaim(t.Context(), manifest, "pv-new"); !errors.Is(err, catalog.ErrTaken) {
		t.Errorf("beside the old one: %v", err)
	}
	if err := f.RemoveClaim(t.Context(), "shop", "data", "uid-data"); err != nil {
		t.Fatal(err)
	}
	if _, _, err := f.ReadClaim(t.Context(), "shop", "data"); !errors.Is(err, catalog.ErrGone) {
		t.Errorf("read what is gone: %v", err)
	}
	for range 2 {
		if err := f.RemakeClaim(t.Context(), manifest, "pv-new"); err != nil {
			t.Fatal(err)
		}
	}
	got, err := f.core.CoreV1().PersistentVolumeClaims("shop").Get(t.Context(), "data", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	want := claim.DeepCopy()
	want.TypeMeta = metav1.TypeMeta{APIVersion: "v1", Kind: "PersistentVolumeClaim"}
	want.UID, want.ResourceVersion, want.Finalizers = "", "", nil
	want.Annotations = map[string]string{"team": "a"}
	want.Spec.VolumeName, want.Spec.DataSource = "pv-new", nil
	got.ManagedFields = nil
	equal(t, "claim", want, got)
}

// scaled lets f answer for the scale of statefulset mysql.
func (f fakes) scaled(replicas int32) *autoscalingv1.Scale {
	scale := &autoscalingv1.Scale{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "mysql", ResourceVersion: "5"}, Spec: autoscalingv1.ScaleSpec{Replicas: replicas}}
	f.core.PrependReactor("*", "statefulsets", func(a clienttesting.Action) (bool, runtime.Object, error) {
		if a.GetSubresource() != "scale" {
			return false, nil, nil
		}
		if u, ok := a.(clienttesting.UpdateAction); ok {
			scale.Spec = u.GetObject().(*autoscalingv1.Scale).Spec
		}
		return true, scale.DeepCopy(), nil
	})
	return scale
}

var mysqlApp = catalog.App{Workload: catalog.Workload{Kind: "statefulset", Name: "mysql"}, Namespace: "shop", UID: "uid-of-app"}

func TestScale(t *testing.T) {
	f := newFakes([]runtime.Object{&appsv1.StatefulSet{ObjectMeta: called("mysql")}}, nil)
	scale := f.scaled(2)
	conflicts := 0
	f.core.PrependReactor("update", "statefulsets", func(clienttesting.Action) (bool, runtime.Object, error) {
		if conflicts++; conflicts > 1 {
			return false, nil, nil
		}
		return true, nil, apierrors.NewConflict(appsv1.Resource("statefulsets"), "mysql", errors.New("changed"))
	})
	if err := f.Scale(t.Context(), mysqlApp, 0); err != nil || scale.Spec.Replicas != 0 || conflicts != 2 {
		t.Errorf("%d replicas, %d attempts, %v", scale.Spec.Replicas, conflicts, err)
	}
	if n, err := f.Replicas(t.Context(), mysqlApp); n != 0 || err != nil {
		t.Errorf("%d replicas, %v", n, err)
	}
	annotations := func() map[string]string {
		s, err := f.core.AppsV1().StatefulSets("shop").Get(t.Context(), "mysql", metav1.GetOptions{})
		if err != nil {
			t.Fatal(err)
		}
		return s.Annotations
	}
	if err := f.Remember(t.Context(), mysqlApp, "20261122-091500-x7k2", 2); err != nil {
		t.Fatal(err)
	}
	remembered := mysqlApp
	remembered.Annotations = annotations()
	if n, ok := remembered.Remembered("20261122-091500-x7k2"); n != 2 || !ok {
		t.Errorf("remembered %v", remembered.Annotations)
	}
	if _, ok := remembered.Remembered("another"); ok {
		t.Error("another run's are remembered")
	}
	if err := f.Forget(t.Context(), mysqlApp); err != nil || len(annotations()) > 0 {
		t.Errorf("annotations %v, %v", annotations(), err)
	}
	if err := f.Scale(t.Context(), catalog.App{Workload: catalog.Workload{Kind: "daemonset", Name: "x"}}, 0); err == nil {
		t.Error("scaled a daemonset")
	}
}

func TestAwaitIdle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		using := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "mysql-0"}, Spec: mounting("data").Spec}
		f := newFakes([]runtime.Object{
			using, &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "other"}, Spec: mounting("x").Spec},
			&storagev1.VolumeAttachment{ObjectMeta: metav1.ObjectMeta{Name: "a"}, Spec: storagev1.VolumeAttachmentSpec{NodeName: "n", Source: storagev1.VolumeAttachmentSource{PersistentVolumeName: new("pv")}}},
			&appsv1.StatefulSet{ObjectMeta: called("mysql"), Spec: appsv1.StatefulSetSpec{Replicas: new(int32(0))}},
		}, nil)
		scale := f.scaled(0)
		done := make(chan error, 1)
		go func() {
			done <- f.AwaitIdle(t.Context(), "shop", []string{"data"}, []string{"pv"}, []catalog.App{mysqlApp})
		}()
		for _, remove := range []func() error{
			func() error {
				return f.core.CoreV1().Pods("shop").Delete(t.Context(), "mysql-0", metav1.DeleteOptions{})
			},
			func() error {
				return f.core.StorageV1().VolumeAttachments().Delete(t.Context(), "a", metav1.DeleteOptions{})
			},
		} {
			synctest.Wait()
			select {
			case err := <-done:
				t.Fatalf("idle too early: %v", err)
			default:
			}
			if err := remove(); err != nil {
				t.Fatal(err)
			}
		}
		if err := <-done; err != nil {
			t.Error(err)
		}
		scale.Spec.Replicas = 3
		using.ResourceVersion = ""
		if _, err := f.core.CoreV1().Pods("shop").Create(t.Context(), using, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
		if err := f.AwaitIdle(t.Context(), "shop", []string{"data"}, nil, []catalog.App{mysqlApp}); !errors.Is(err, catalog.ErrRaised) {
			t.Errorf("scaled up meanwhile: %v", err)
		}
	})
}

func TestAwaitReady(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &appsv1.StatefulSet{ObjectMeta: called("mysql"), Spec: appsv1.StatefulSetSpec{Replicas: new(int32(1))}}
		s.Generation, s.Status.ObservedGeneration, s.Status.ReadyReplicas = 4, 3, 1 // of before
		f := newFakes([]runtime.Object{s}, nil)
		done := make(chan error, 1)
		go func() { done <- f.AwaitReady(t.Context(), mysqlApp, 1) }()
		for _, ready := range []int32{0, 1} {
			synctest.Wait()
			select {
			case err := <-done:
				t.Fatalf("ready too early: %v", err)
			default:
			}
			s = s.DeepCopy()
			s.Status.ObservedGeneration, s.Status.ReadyReplicas = 4, ready
			if _, err := f.core.AppsV1().StatefulSets("shop").UpdateStatus(t.Context(), s, metav1.UpdateOptions{}); err != nil {
				t.Fatal(err)
			}
		}
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}
