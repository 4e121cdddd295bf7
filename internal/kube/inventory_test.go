package kube

import (
	"context"
	"encoding/json"
	"errors"
	"strconv"
	"testing"
	"time"

	snapshotv1 "github.com/kubernetes-csi/external-snapshotter/client/v8/apis/volumesnapshot/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	clienttesting "k8s.io/client-go/testing"

	"github.com/backsnap/kubectl-backsnap/internal/catalog"
)

var (
	started = metav1.NewTime(time.Date(2026, 11, 22, 1, 0, 0, 0, time.UTC))
	always  = corev1.ContainerRestartPolicyAlways
	block   = corev1.PersistentVolumeBlock
	yes     = true
)

func named(namespace, name string) metav1.ObjectMeta {
	return metav1.ObjectMeta{Namespace: namespace, Name: name, UID: types.UID("uid-" + name)}
}

// aClaim is bound to the volume of its name, 1 Gi asked for and 2 Gi given.
func aClaim(namespace, name string) *corev1.PersistentVolumeClaim {
	class := "fast"
	return &corev1.PersistentVolumeClaim{
		ObjectMeta: named(namespace, name),
		Spec: corev1.PersistentVolumeClaimSpec{
			VolumeName:       "volume-of-" + name,
			StorageClassName: &class,
			AccessModes:      []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOnce},
			Resources: corev1.VolumeResourceRequirements{
				Requests: corev1.ResourceList{corev1.ResourceStorage: resource.MustParse("1Gi")},
			},
		},
		Status: corev1.PersistentVolumeClaimStatus{
			Phase:    corev1.ClaimBound,
			Capacity: corev1.ResourceList{corev1.ResourceStorage: resource.MustParse("2Gi")},
		},
	}
}

func aVolume(claim, driver string) *corev1.PersistentVolume {
	return &corev1.PersistentVolume{
		ObjectMeta: named("", "volume-of-"+claim),
		Spec: corev1.PersistentVolumeSpec{PersistentVolumeSource: corev1.PersistentVolumeSource{
			CSI: &corev1.CSIPersistentVolumeSource{Driver: driver, FSType: "ext4"},
		}},
	}
}

// wantClaim is aClaim as the catalog has it.
func wantClaim(namespace, name, driver string) catalog.Claim {
	c := catalog.Claim{
		Namespace: namespace, Name: name, UID: "uid-" + name, Phase: "Bound", Volume: "volume-of-" + name,
		StorageClass: "fast", Driver: driver, Request: 1 << 30, Capacity: 2 << 30,
		AccessModes: []string{"ReadWriteOnce"}, VolumeMode: "Filesystem",
	}
	if driver != "" {
		c.FileSystem = "ext4"
	}
	return c
}

func TestInventory(t *testing.T) {
	onNode := &corev1.VolumeNodeAffinity{Required: &corev1.NodeSelector{NodeSelectorTerms: []corev1.NodeSelectorTerm{{
		MatchExpressions: []corev1.NodeSelectorRequirement{{Key: "zone", Operator: corev1.NodeSelectorOpIn, Values: []string{"a"}}},
	}}}}
	local := aVolume("data-mysql-0", "csi.example")
	local.Spec.NodeAffinity = onNode
	raw := aClaim("shop", "raw")
	raw.Spec.VolumeMode = &block
	raw.Annotations = map[string]string{corev1.BetaStorageClassAnnotation: "old"}
	clone := aClaim("shop", "clone")
	clone.Labels = catalog.Ours(catalog.RoleClone, "20261122-011500-x7k2")
	clone.DeletionTimestamp, clone.Finalizers = &started, []string{"kubernetes.io/pvc-protection"}
	pending := aClaim("shop", "pending")
	pending.Spec.VolumeName, pending.Status = "", corev1.PersistentVolumeClaimStatus{Phase: corev1.ClaimPending}
	lost := aClaim("shop", "lost")
	lost.Status.Phase = corev1.ClaimLost
	unseen := aClaim("shop", "unseen") // its volume is newer than the list of volumes
	unseen.Annotations = map[string]string{"volume.kubernetes.io/storage-provisioner": "csi.example"}
	f := newFakes([]runtime.Object{
		&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "shop", Annotations: map[string]string{"backsnap.sh/retain": "7d"}}},
		aClaim("shop", "data-mysql-0"), local,
		raw, aVolume("raw", "csi.example"), clone, pending, lost, aVolume("lost", "csi.example"), unseen, aClaim("shop", "host"),
		&corev1.PersistentVolume{ObjectMeta: named("", "volume-of-host")},
		aClaim("other", "data"),
		mysqlPod(), &corev1.Pod{ObjectMeta: named("shop", "stateless")},
		&corev1.Secret{
			ObjectMeta: metav1.ObjectMeta{
				Namespace: "backsnap", Name: "main-secret",
				Labels:      map[string]string{catalog.LabelRepository: "main"},
				Annotations: map[string]string{catalog.AnnotationCluster: "prod"},
			},
			Data: map[string][]byte{
				"RESTIC_REPOSITORY": []byte("rest:https://user:secret@backup.example/repo"),
				"RESTIC_PASSWORD":   []byte("secret"),
			},
		},
		&corev1.Secret{ObjectMeta: named("backsnap", "unlabelled")},
	}, []runtime.Object{
		&snapshotv1.VolumeSnapshotClass{
			ObjectMeta: metav1.ObjectMeta{Name: "snap", Annotations: map[string]string{"snapshot.storage.kubernetes.io/is-default-class": "true"}},
			Driver:     "csi.example", DeletionPolicy: snapshotv1.VolumeSnapshotContentDelete,
		},
		&snapshotv1.VolumeSnapshotClass{ObjectMeta: metav1.ObjectMeta{Name: "keep"}, Driver: "csi.example", DeletionPolicy: snapshotv1.VolumeSnapshotContentRetain},
	})

	got, err := f.Inventory(t.Context(), catalog.Scope{Namespaces: []string{"shop"}, BackupNamespace: "backsnap"})
	if err != nil {
		t.Fatal(err)
	}

	wantData := wantClaim("shop", "data-mysql-0", "csi.example")
	wantData.NodeAffinity = json.RawMessage(`{"required":{"nodeSelectorTerms":[{"matchExpressions":[{"key":"zone","operator":"In","values":["a"]}]}]}}`)
	wantRaw := wantClaim("shop", "raw", "csi.example")
	wantRaw.VolumeMode, wantRaw.StorageClass = "Block", "old"
	wantRaw.Annotations = raw.Annotations
	wantClone := wantClaim("shop", "clone", "")
	wantClone.Role, wantClone.Labels, wantClone.Terminating = catalog.RoleClone, clone.Labels, true
	wantPending := wantClaim("shop", "pending", "")
	wantPending.Phase, wantPending.Volume, wantPending.Capacity = "Pending", "", 0
	wantLost, wantUnseen := wantClaim("shop", "lost", ""), wantClaim("shop", "unseen", "")
	wantLost.Phase, wantUnseen.Annotations, wantUnseen.Driver = "Lost", unseen.Annotations, "csi.example"
	equal(t, "inventory", catalog.Inventory{
		Namespaces: map[string]map[string]string{"shop": {"backsnap.sh/retain": "7d"}},
		Claims:     []catalog.Claim{wantClone, wantData, wantClaim("shop", "host", ""), wantLost, wantPending, wantRaw, wantUnseen},
		Pods:       []catalog.Pod{wantMysqlPod()},
		Classes: []catalog.SnapshotClass{
			{Name: "keep", Driver: "csi.example", DeletionPolicy: "Retain"},
			{Name: "snap", Driver: "csi.example", Default: true, DeletionPolicy: "Delete"},
		},
		Repositories: []catalog.Repository{{
			Name: "main", Namespace: "backsnap", Secret: "main-secret", Address: "rest:https://backup.example/repo",
			Cluster: "prod", Keys: []string{"RESTIC_PASSWORD", "RESTIC_REPOSITORY"},
		}},
	}, got)
}

func mysqlPod() *corev1.Pod {
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: "shop", Name: "mysql-0", UID: "uid-mysql-0", Labels: map[string]string{"app": "mysql"},
			OwnerReferences: []metav1.OwnerReference{{Kind: "StatefulSet", Name: "mysql", Controller: &yes}},
		},
		Spec: corev1.PodSpec{
			NodeName: "node-1",
			InitContainers: []corev1.Container{
				{Name: "chown", VolumeMounts: []corev1.VolumeMount{{Name: "data", MountPath: "/data"}}},
				{Name: "agent", Image: "agent:1", RestartPolicy: &always},
			},
			Containers: []corev1.Container{{
				Name: "mysql", Image: "mysql:8.4",
				Ports: []corev1.ContainerPort{{Name: "sql", ContainerPort: 3306}},
				Env: []corev1.EnvVar{
					{Name: "POD", ValueFrom: &corev1.EnvVarSource{FieldRef: &corev1.ObjectFieldSelector{FieldPath: "metadata.name"}}},
					{Name: "MYSQL_ROOT_PASSWORD", ValueFrom: &corev1.EnvVarSource{SecretKeyRef: &corev1.SecretKeySelector{Key: "password"}}},
				},
				VolumeMounts: []corev1.VolumeMount{
					{Name: "data", MountPath: "/var/lib/mysql", SubPathExpr: "$(POD)/$(OTHER)"},
					{Name: "data", MountPath: "/read-only", SubPath: "etc", ReadOnly: true},
					{Name: "config", MountPath: "/etc/mysql"},
				},
				VolumeDevices: []corev1.VolumeDevice{{Name: "scratch", DevicePath: "/dev/scratch"}},
			}},
			Volumes: []corev1.Volume{
				{Name: "data", VolumeSource: corev1.VolumeSource{PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: "data-mysql-0"}}},
				{Name: "scratch", VolumeSource: corev1.VolumeSource{Ephemeral: &corev1.EphemeralVolumeSource{}}},
				{Name: "config", VolumeSource: corev1.VolumeSource{ConfigMap: &corev1.ConfigMapVolumeSource{}}},
			},
		},
		Status: corev1.PodStatus{
			Phase: corev1.PodRunning, StartTime: &started,
			Conditions:            []corev1.PodCondition{{Type: corev1.ContainersReady, Status: corev1.ConditionTrue}},
			InitContainerStatuses: []corev1.ContainerStatus{{Name: "agent", Ready: true}},
			ContainerStatuses:     []corev1.ContainerStatus{{Name: "mysql", Ready: true}},
		},
	}
}

func wantMysqlPod() catalog.Pod {
	return catalog.Pod{
		Namespace: "shop", Name: "mysql-0", UID: "uid-mysql-0", Labels: map[string]string{"app": "mysql"},
		Owner: catalog.Workload{Kind: "statefulset", Name: "mysql"},
		Phase: "Running", Ready: true, Node: "node-1", Started: started.Time,
		Containers: []catalog.Container{
			{Name: "agent", Image: "agent:1", Ready: true},
			{
				Name: "mysql", Image: "mysql:8.4", Ready: true,
				Ports: []catalog.Port{{Name: "sql", Number: 3306}},
				Env:   []string{"POD", "MYSQL_ROOT_PASSWORD"},
				Mounts: []catalog.Mount{
					{Claim: "data-mysql-0", Path: "/var/lib/mysql", SubPath: "mysql-0/$(OTHER)"},
					{Claim: "data-mysql-0", Path: "/read-only", SubPath: "etc", ReadOnly: true},
					{Claim: "mysql-0-scratch", Path: "/dev/scratch"},
				},
			},
		},
	}
}

// All namespaces are one List a kind, and none a namespace.
func TestInventoryOfAllNamespaces(t *testing.T) {
	f := newFakes([]runtime.Object{
		&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "crm"}},
		&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "shop", Annotations: map[string]string{"a": "b"}}},
		aClaim("shop", "data"), aClaim("crm", "data"),
	}, nil)
	got, err := f.Inventory(t.Context(), catalog.Scope{All: true})
	if err != nil {
		t.Fatal(err)
	}
	equal(t, "inventory", catalog.Inventory{
		Namespaces: map[string]map[string]string{"crm": {}, "shop": {"a": "b"}},
		Classes:    []catalog.SnapshotClass{},
		Claims:     []catalog.Claim{wantClaim("crm", "data", ""), wantClaim("shop", "data", "")},
	}, got)
	equal(t, "calls", 5, len(f.core.Actions())+len(f.snapshots.Actions()))
}

// Without cluster-wide rights the driver comes from the claim, and the
// namespace's annotations are unknown, not absent.
func TestInventoryWithFewRights(t *testing.T) {
	provisioned := aClaim("shop", "data")
	provisioned.Annotations = map[string]string{"volume.kubernetes.io/storage-provisioner": "csi.example"}
	inTree := aClaim("shop", "old")
	inTree.Annotations = map[string]string{"volume.beta.kubernetes.io/storage-provisioner": "kubernetes.io/host-path"}
	f := newFakes([]runtime.Object{provisioned, inTree, aVolume("data", "never.seen")}, nil)
	refuse(f.core, "list", "persistentvolumes")
	refuse(f.core, "get", "namespaces")
	refuse(f.core, "list", "secrets")
	refuse(f.snapshots, "list", "volumesnapshotclasses")

	got, err := f.Inventory(t.Context(), catalog.Scope{Namespaces: []string{"shop"}, BackupNamespace: "backsnap"})
	if err != nil {
		t.Fatal(err)
	}
	data, old := wantClaim("shop", "data", ""), wantClaim("shop", "old", "")
	data.Driver, data.Annotations, old.Annotations = "csi.example", provisioned.Annotations, inTree.Annotations
	equal(t, "inventory", catalog.Inventory{
		Namespaces: map[string]map[string]string{"shop": nil},
		Claims:     []catalog.Claim{data, old},
		Unread:     []string{"namespaces", "persistentvolumes", "volumesnapshotclasses"},
	}, got)
}

// In the namespaces alone no kind of the cluster is read, and the Secrets must be.
func TestInventoryInNamespace(t *testing.T) {
	f := newFakes([]runtime.Object{aClaim("shop", "data"), aVolume("data", "csi.example"), aRepository("shop", "own"), aRepository("backsnap", "main")}, nil)
	scope := catalog.Scope{Namespaces: []string{"shop"}, BackupNamespace: "backsnap", InNamespace: true}
	got, err := f.Inventory(t.Context(), scope)
	if err != nil {
		t.Fatal(err)
	}
	equal(t, "inventory", catalog.Inventory{
		Namespaces:   map[string]map[string]string{"shop": nil},
		Claims:       []catalog.Claim{wantClaim("shop", "data", "")},
		Repositories: []catalog.Repository{{Name: "own", Namespace: "shop", Secret: "own"}},
		Unread:       []string{"namespaces", "persistentvolumes", "volumesnapshotclasses"},
	}, got)
	for _, fake := range []interface{ Actions() []clienttesting.Action }{f.core, f.snapshots} {
		for _, action := range fake.Actions() {
			if action.GetNamespace() == "" {
				t.Errorf("%s %s is a question about the whole cluster", action.GetVerb(), action.GetResource().Resource)
			}
		}
	}
	refuse(f.core, "list", "secrets")
	_, err = f.Inventory(t.Context(), scope)
	equal(t, "code", catalog.CodeForbidden, catalog.CodeOf(err))
}

func aRepository(namespace, name string) *corev1.Secret {
	return &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name, Labels: map[string]string{catalog.LabelRepository: name}}}
}

// Namespaces that may not be listed are those of the claims.
func TestInventoryOfNamespacesUnseen(t *testing.T) {
	f := newFakes([]runtime.Object{aClaim("shop", "data"), aClaim("crm", "data")}, nil)
	refuse(f.core, "list", "namespaces")
	got, err := f.Inventory(t.Context(), catalog.Scope{All: true})
	if err != nil {
		t.Fatal(err)
	}
	equal(t, "namespaces", map[string]map[string]string{"crm": nil, "shop": nil}, got.Namespaces)
}

// The order of scope's namespaces is not that of the inventory.
func TestInventoryIsSorted(t *testing.T) {
	f := newFakes([]runtime.Object{
		&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "shop"}}, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "crm"}},
		aClaim("shop", "data"), aClaim("crm", "data"),
	}, nil)
	got, err := f.Inventory(t.Context(), catalog.Scope{Namespaces: []string{"shop", "crm"}})
	if err != nil {
		t.Fatal(err)
	}
	equal(t, "claims", []catalog.Claim{wantClaim("crm", "data", ""), wantClaim("shop", "data", "")}, got.Claims)
}

func TestInventoryFailures(t *testing.T) {
	shop := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "shop"}}
	missingAPI := &apierrors.StatusError{ErrStatus: metav1.Status{
		Status: metav1.StatusFailure, Code: 404, Reason: metav1.StatusReasonNotFound, Message: "the server could not find the requested resource",
	}}
	for _, test := range []struct {
		name  string
		scope catalog.Scope
		spoil func(fakes)
		want  catalog.Failure
	}{
		{
			name:  "no snapshot API",
			scope: catalog.Scope{Namespaces: []string{"shop"}},
			spoil: func(f fakes) { f.snapshots.PrependReactor("list", "volumesnapshotclasses", failing(missingAPI)) },
			want: catalog.Failure{
				Code: catalog.CodeNoAPI, Message: "the server has no VolumeSnapshot API", Cause: missingAPI, State: "nothing changed",
				Next: "install the snapshot CRDs and the snapshot-controller: https://github.com/kubernetes-csi/external-snapshotter",
			},
		},
		{
			name:  "pods may not be listed in the namespace",
			scope: catalog.Scope{Namespaces: []string{"shop"}},
			spoil: func(f fakes) { refuse(f.core, "list", "pods") },
			want: catalog.Failure{
				Code: catalog.CodeForbidden, Message: "list pods: you may not list pods in shop", Cause: denied("list", "", "pods"),
				State: "nothing changed",
				Next:  "ask for that right, and see whether you have it: kubectl auth can-i list pods -n shop",

				Manifest: catalog.Roles([]catalog.Right{{Verb: "list", Resource: "pods", Namespace: "shop"}}),
			},
		},
		{
			name:  "claims may not be listed everywhere",
			scope: catalog.Scope{All: true},
			spoil: func(f fakes) { refuse(f.core, "list", "persistentvolumeclaims") },
			want: catalog.Failure{
				Code: catalog.CodeForbidden, Message: "list persistentvolumeclaims: you may not list persistentvolumeclaims in all namespaces",
				Cause: denied("list", "", "persistentvolumeclaims"),
				State: "nothing changed",
				Next:  "ask for that right, and see whether you have it: kubectl auth can-i list persistentvolumeclaims -A",

				Manifest: catalog.Roles([]catalog.Right{{Verb: "list", Resource: "persistentvolumeclaims"}}),
			},
		},
		{
			name:  "the namespace does not exist",
			scope: catalog.Scope{Namespaces: []string{"shpo"}},
			spoil: func(fakes) {},
			want: catalog.Failure{
				Code: catalog.CodeNotFound, Message: "namespace shpo does not exist", State: "nothing changed", Next: "kubectl get namespaces",
			},
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			f := newFakes([]runtime.Object{shop}, nil)
			test.spoil(f)
			_, err := f.Inventory(t.Context(), test.scope)
			equal(t, "failure", error(&test.want), err)
		})
	}
}

// A namespace that is lost is said to be, where that is no error; one that may
// not be read is not.
func TestLostNamespaces(t *testing.T) {
	f := newFakes([]runtime.Object{&corev1.Namespace{ObjectMeta: named("", "shop")}}, nil)
	scope := catalog.Scope{Namespaces: []string{"lost", "shop"}, Lost: true}
	v, err := f.Inventory(t.Context(), scope)
	equal(t, "error", error(nil), err)
	equal(t, "lost", []string{"lost"}, v.Lost)
	scope.Namespaces = []string{"lost"}
	v, err = f.Inventory(t.Context(), scope)
	equal(t, "error", error(nil), err)
	equal(t, "lost alone", []string{"lost"}, v.Lost)
	equal(t, "unread", []string(nil), v.Unread)
	refuse(f.core, "get", "namespaces")
	v, err = f.Inventory(t.Context(), scope)
	equal(t, "error", error(nil), err)
	equal(t, "lost, unread", []string(nil), v.Lost)
	equal(t, "unread", []string{catalog.KindNamespaces}, v.Unread)
}

func failing(err error) clienttesting.ReactionFunc {
	return func(clienttesting.Action) (bool, runtime.Object, error) { return true, nil, err }
}

// Quotas and webhooks say Forbidden as well: that is no missing right.
func TestForbiddenByAdmissionIsNoMissingRight(t *testing.T) {
	err := apierrors.NewForbidden(schema.GroupResource{Resource: "pods"}, "x", errors.New("exceeded quota: tiny"))
	got := explain(err, "create pod", catalog.Right{Verb: "create", Resource: "pods", Namespace: "shop"})
	equal(t, "error", `create pod: pods "x" is forbidden: exceeded quota: tiny`, got.Error())
	equal(t, "code", catalog.Code(""), catalog.CodeOf(got))
}

// A list comes in pages, and starts over without them when the continue token
// has expired half-way.
func TestListInPages(t *testing.T) {
	var limits []int64
	expired := false
	page := func(_ context.Context, options metav1.ListOptions) (*corev1.PodList, error) {
		limits = append(limits, options.Limit)
		if options.Limit == 0 {
			return &corev1.PodList{Items: make([]corev1.Pod, 1200)}, nil
		}
		from, _ := strconv.Atoi(options.Continue)
		if from == 1000 && expired {
			return nil, apierrors.NewResourceExpired("too old")
		}
		l := &corev1.PodList{Items: make([]corev1.Pod, min(int(options.Limit), 1200-from))}
		if end := from + len(l.Items); end < 1200 {
			l.Continue = strconv.Itoa(end)
		}
		return l, nil
	}
	count := func() int {
		limits = nil
		items, err := list(t.Context(), metav1.ListOptions{}, page, func(l *corev1.PodList) []corev1.Pod { return l.Items })
		if err != nil {
			t.Fatal(err)
		}
		return len(items)
	}
	equal(t, "pods", 1200, count())
	equal(t, "limits", []int64{500, 500, 500}, limits)
	expired = true
	equal(t, "pods after expiry", 1200, count())
	equal(t, "limits with expiry", []int64{500, 500, 500, 0}, limits)
}

func TestOwner(t *testing.T) {
	for _, test := range []struct {
		name        string
		kind, owner string
		hash        string
		want        string
	}{
		{"no controller: the pod itself", "", "", "", "pod/web-x"},
		{"a Deployment, through its ReplicaSet", "ReplicaSet", "web-5d9f", "5d9f", "deployment/web"},
		{"a ReplicaSet of its own has no hash", "ReplicaSet", "web", "", "replicaset/web"},
		{"a ReplicaSet of another maker is not named after the hash", "ReplicaSet", "web-abc", "5d9f", "replicaset/web-abc"},
		{"a StatefulSet", "StatefulSet", "db", "", "statefulset/db"},
		{"a DaemonSet", "DaemonSet", "agent", "5d9f", "daemonset/agent"},
		{"a Job", "Job", "load", "", "job/load"},
		{"an operator's own kind", "Cluster", "pg", "", "cluster/pg"},
		{"a static pod's copy belongs to its node: the pod itself", "Node", "node-1", "", "pod/web-x"},
	} {
		t.Run(test.name, func(t *testing.T) {
			p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "web-x"}}
			if test.kind != "" {
				p.OwnerReferences = []metav1.OwnerReference{{Kind: test.kind, Name: test.owner, Controller: &yes}}
			}
			if test.hash != "" {
				p.Labels = map[string]string{"pod-template-hash": test.hash}
			}
			equal(t, "owner", test.want, owner(p).String())
		})
	}
}
