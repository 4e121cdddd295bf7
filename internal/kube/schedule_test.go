package kube

import (
	"bytes"
	"testing"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	dynamicfake "k8s.io/client-go/dynamic/fake"

	"github.com/backsnap/kubectl-backsnap/internal/catalog"
)

// Where Secrets may not be listed, those of named repositories are read by name.
func TestRepositoriesByName(t *testing.T) {
	secret := func(name string, labels map[string]string) runtime.Object {
		return &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: "backsnap", Name: name, Labels: labels}}
	}
	f := newFakes([]runtime.Object{
		secret("main", map[string]string{catalog.LabelRepository: "main"}), secret("other", map[string]string{catalog.LabelRepository: "other"}), secret("token", nil),
	}, nil)
	refuse(f.core, "list", "secrets")
	for _, test := range []struct {
		name  string
		named []string
		want  []string
	}{
		{"none is named", nil, nil},
		{"one of two", []string{"main"}, []string{"main"}},
		{"one that is not there", []string{"main", "gone"}, []string{"main"}},
		{"a Secret of something else", []string{"token"}, nil},
	} {
		found, err := f.Repositories(t.Context(), "backsnap", test.named...)
		var got []string
		for _, r := range found {
			got = append(got, r.Name)
		}
		if err != nil {
			t.Errorf("%s: %v", test.name, err)
		}
		equal(t, test.name, test.want, got)
	}
	refuse(f.core, "get", "secrets")
	if found, err := f.Repositories(t.Context(), "backsnap", "main"); err != nil || len(found) != 0 {
		t.Errorf("without any right: %v, %v", found, err)
	}
}

// scheduled are the parts of a schedule in two namespaces and none, and one of
// another.
func scheduled(t *testing.T) fakes {
	t.Helper()
	kinds := map[schema.GroupVersionResource]string{}
	for _, k := range scheduleKinds {
		kinds[k.resource] = k.kind + "List"
	}
	object := func(api, kind, namespace, name string, labels map[string]string) runtime.Object {
		o := &unstructured.Unstructured{}
		o.SetAPIVersion(api)
		o.SetKind(kind)
		o.SetNamespace(namespace)
		o.SetName(name)
		o.SetLabels(labels)
		return o
	}
	nightly, weekly := catalog.OfSchedule("shop", "nightly"), catalog.OfSchedule("shop", "weekly")
	f := newFakes(nil, nil)
	f.dynamic = dynamicfake.NewSimpleDynamicClientWithCustomListKinds(runtime.NewScheme(), kinds,
		object("v1", "ServiceAccount", "shop", "backsnap-nightly", nightly),
		object("rbac.authorization.k8s.io/v1", "Role", "shop", "backsnap:shop:nightly", nightly),
		object("rbac.authorization.k8s.io/v1", "Role", "backsnap", "backsnap:shop:nightly", nightly),
		object("rbac.authorization.k8s.io/v1", "ClusterRole", "", "backsnap:shop:nightly", nightly),
		object("batch/v1", "CronJob", "shop", "nightly", nightly),
		object("batch/v1", "CronJob", "shop", "weekly", weekly),
	)
	return f
}

func names(objects []*unstructured.Unstructured) (names []string) {
	for _, o := range objects {
		names = append(names, o.GetNamespace()+"/"+o.GetKind()+"/"+o.GetName())
	}
	return names
}

// The parts of a schedule are found where they are looked for: what begins work
// first, what it is allowed by last.
func TestManifestsOf(t *testing.T) {
	f := scheduled(t)
	refuse(f.dynamic.(*dynamicfake.FakeDynamicClient), "list", "prometheusrules")
	for _, test := range []struct {
		places, want []string
	}{
		{[]string{"shop"}, []string{"shop/CronJob/nightly", "shop/Role/backsnap:shop:nightly", "shop/ServiceAccount/backsnap-nightly"}},
		{[]string{"", "backsnap", "shop"}, []string{
			"shop/CronJob/nightly", "/ClusterRole/backsnap:shop:nightly", "backsnap/Role/backsnap:shop:nightly", "shop/Role/backsnap:shop:nightly", "shop/ServiceAccount/backsnap-nightly",
		}},
	} {
		found, err := f.ManifestsOf(t.Context(), "shop", "nightly", test.places)
		if err != nil {
			t.Fatal(err)
		}
		equal(t, "found", test.want, names(found))
	}
	refuse(f.dynamic.(*dynamicfake.FakeDynamicClient), "list", "roles")
	if _, err := f.ManifestsOf(t.Context(), "shop", "nightly", []string{"shop"}); catalog.CodeOf(err) != catalog.CodeForbidden {
		t.Errorf("roles that may not be listed: %v", err)
	}
}

// A Job that is started by hand is the CronJob's: its history counts it.
func TestStartSchedule(t *testing.T) {
	labels := catalog.OfSchedule("shop", "nightly")
	f := newFakes([]runtime.Object{&batchv1.CronJob{
		ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "nightly", UID: "1", Labels: labels},
		Spec:       batchv1.CronJobSpec{JobTemplate: batchv1.JobTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: labels}, Spec: batchv1.JobSpec{BackoffLimit: new(int32(2))}}},
	}}, nil)
	if err := f.StartSchedule(t.Context(), "shop", "nightly", "nightly-1"); err != nil {
		t.Fatal(err)
	}
	job, err := f.core.BatchV1().Jobs("shop").Get(t.Context(), "nightly-1", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	job.ManagedFields, job.TypeMeta = nil, metav1.TypeMeta{} // the fake fills them in
	equal(t, "job", &batchv1.Job{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: "shop", Name: "nightly-1", Labels: labels, Annotations: map[string]string{"cronjob.kubernetes.io/instantiate": "manual"},
			OwnerReferences: []metav1.OwnerReference{{APIVersion: "batch/v1", Kind: "CronJob", Name: "nightly", UID: "1", Controller: new(true), BlockOwnerDeletion: new(true)}},
		},
		Spec: batchv1.JobSpec{BackoffLimit: new(int32(2))},
	}, job)
}

// The end of a Job that is followed is that of its last pod.
func TestFollowJob(t *testing.T) {
	job := func(condition batchv1.JobConditionType, reason string) *batchv1.Job {
		return &batchv1.Job{
			ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "nightly-1"},
			Status:     batchv1.JobStatus{Conditions: []batchv1.JobCondition{{Type: condition, Status: corev1.ConditionTrue, Reason: reason, Message: "it did"}}},
		}
	}
	pod := func(exit int32) *corev1.Pod {
		return &corev1.Pod{
			ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "nightly-1-a", Labels: map[string]string{batchv1.JobNameLabel: "nightly-1"}},
			Status: corev1.PodStatus{Phase: corev1.PodFailed, ContainerStatuses: []corev1.ContainerStatus{
				{State: corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{ExitCode: exit}}},
			}},
		}
	}
	for _, test := range []struct {
		name    string
		objects []runtime.Object
		code    int
		log     string
		err     string
	}{
		{"good", []runtime.Object{job(batchv1.JobComplete, ""), pod(0)}, 0, "fake logs", ""},
		{"partial", []runtime.Object{job(batchv1.JobFailed, "PodFailurePolicy"), pod(3)}, 3, "fake logs", ""},
		{"no pod was ever made", []runtime.Object{job(batchv1.JobFailed, "DeadlineExceeded")}, 1, "", "job shop/nightly-1 failed: DeadlineExceeded: it did"},
	} {
		t.Run(test.name, func(t *testing.T) {
			var log bytes.Buffer
			code, err := newFakes(test.objects, nil).FollowJob(t.Context(), "shop", "nightly-1", &log)
			said := ""
			if err != nil {
				said = err.Error()
			}
			equal(t, "code", test.code, code)
			equal(t, "log", test.log, log.String())
			equal(t, "error", test.err, said)
		})
	}
}
