package kube

import (
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	snapshotv1 "github.com/kubernetes-csi/external-snapshotter/client/v8/apis/volumesnapshot/v1"
	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	clienttesting "k8s.io/client-go/testing"

	"github.com/backsnap/kubectl-backsnap/internal/catalog"
)

// original is the content of copied().
func original() *snapshotv1.VolumeSnapshotContent {
	return &snapshotv1.VolumeSnapshotContent{
		ObjectMeta: metav1.ObjectMeta{
			Name:   "snapcontent-5a1c",
			Labels: map[string]string{"snapshot.storage.kubernetes.io/managed-by": "node-1", "app.kubernetes.io/instance": "shop"},
		},
		Spec: snapshotv1.VolumeSnapshotContentSpec{
			DeletionPolicy:          snapshotv1.VolumeSnapshotContentDelete,
			Driver:                  "csi.example",
			VolumeSnapshotClassName: new("fast"),
			SourceVolumeMode:        new(corev1.PersistentVolumeFilesystem),
			Source:                  snapshotv1.VolumeSnapshotContentSource{VolumeHandle: new("vol-1")},
			VolumeSnapshotRef:       corev1.ObjectReference{Namespace: "shop", Name: "data-mysql-0-20261122-011500-x7k2", UID: "5a1c"},
		},
		Status: &snapshotv1.VolumeSnapshotContentStatus{SnapshotHandle: new("snap-1")},
	}
}

// filesystem is copied() of a volume that holds a file system.
func filesystem() catalog.Snapshot {
	s := copied()
	s.Record = &catalog.Record{Claim: catalog.ClaimRecord{VolumeMode: "Filesystem"}}
	return s
}

func exposed() catalog.Snapshot {
	return catalog.Snapshot{Namespace: "backsnap", Name: copyName, Claim: "data-mysql-0", Role: catalog.RoleStatic, Run: copyRun}
}

func cloned() catalog.Claim {
	labels := catalog.Ours(catalog.RoleClone, copyRun)
	labels[catalog.LabelNamespace], labels[catalog.LabelClaim] = "shop", "data-mysql-0"
	return catalog.Claim{
		Namespace: "backsnap", Name: copyName, Labels: labels, Annotations: catalog.HandsOff(), Role: catalog.RoleClone,
		StorageClass: "fast", Request: 3<<30 + 512, AccessModes: []string{"ReadWriteOnce"}, VolumeMode: "Filesystem",
	}
}

func TestCopyObjects(t *testing.T) {
	golden(t, "static-content", staticContent(completed(filesystem(), original()), exposed()))
	golden(t, "static-snapshot", staticSnapshot(copied(), exposed()))
	golden(t, "clone", cloneObject(cloned(), copyName))
}

// Deleting a static content that was not retained would destroy the data of
// the restore point (tried on a cluster).
func TestStaticContentIsAlwaysRetained(t *testing.T) {
	for _, policy := range []snapshotv1.DeletionPolicy{snapshotv1.VolumeSnapshotContentDelete, snapshotv1.VolumeSnapshotContentRetain, ""} {
		from := original()
		from.Spec.DeletionPolicy = policy
		equal(t, string(policy), snapshotv1.VolumeSnapshotContentRetain, staticContent(completed(filesystem(), from), exposed()).Spec.DeletionPolicy)
	}
}

// becomesReady makes each snapshot that is created ready at once.
func becomesReady(f fakes) {
	f.snapshots.PrependReactor("create", "volumesnapshots", func(a clienttesting.Action) (bool, runtime.Object, error) {
		v := a.(clienttesting.CreateAction).GetObject().(*snapshotv1.VolumeSnapshot).DeepCopy()
		v.ResourceVersion, v.Status = "7", &snapshotv1.VolumeSnapshotStatus{ReadyToUse: new(true)}
		return true, v, f.snapshots.Tracker().Add(v)
	})
}

func TestExpose(t *testing.T) {
	tests := []struct {
		name string
		s    catalog.Snapshot
		gets int // of the original content
	}{
		{"one that is to be read", filesystem(), 1},
		{"one whose content was read before", completed(filesystem(), original()), 0},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			f := newFakes(nil, []runtime.Object{original()})
			becomesReady(f)
			if err := f.Expose(t.Context(), test.s, exposed()); err != nil {
				t.Fatal(err)
			}
			gets := 0
			for _, a := range f.snapshots.Actions() {
				if a.Matches("get", "volumesnapshotcontents") {
					gets++
				}
			}
			equal(t, "contents read", test.gets, gets)
			content, err := f.snapshots.SnapshotV1().VolumeSnapshotContents().Get(t.Context(), copyName, metav1.GetOptions{})
			if err != nil {
				t.Fatal(err)
			}
			equal(t, "content", staticContent(completed(filesystem(), original()), exposed()), content)
			if _, err := f.snapshots.SnapshotV1().VolumeSnapshots("backsnap").Get(t.Context(), copyName, metav1.GetOptions{}); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestExposeAgain(t *testing.T) {
	other := staticContent(completed(filesystem(), original()), exposed())
	other.Spec.Source.SnapshotHandle = new("snap-2")
	deleting := staticContent(completed(filesystem(), original()), exposed())
	deleting.Spec.DeletionPolicy = snapshotv1.VolumeSnapshotContentDelete
	stranger := staticContent(completed(filesystem(), original()), exposed())
	stranger.Labels = nil
	ready := staticSnapshot(copied(), exposed())
	ready.Status = &snapshotv1.VolumeSnapshotStatus{ReadyToUse: new(true)}
	dynamic := ready.DeepCopy()
	dynamic.Spec.Source = snapshotv1.VolumeSnapshotSource{PersistentVolumeClaimName: new("data")}
	same := staticContent(completed(filesystem(), original()), exposed())
	tests := []struct {
		name  string
		there []runtime.Object
		err   error
	}{
		{name: "both are there", there: []runtime.Object{same, ready}},
		{name: "a content of another handle", there: []runtime.Object{other}, err: catalog.ErrTaken},
		{name: "a content that would delete the data", there: []runtime.Object{deleting}, err: catalog.ErrTaken},
		{name: "a content that is not ours", there: []runtime.Object{stranger}, err: catalog.ErrTaken},
		{name: "a snapshot of something else", there: []runtime.Object{same, dynamic}, err: catalog.ErrTaken},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			f := newFakes(nil, append([]runtime.Object{original()}, test.there...))
			if err := f.Expose(t.Context(), copied(), exposed()); !errors.Is(err, test.err) {
				t.Errorf("error %v, want %v", err, test.err)
			}
		})
	}
}

func TestExposeWhatIsNotTheSnapshots(t *testing.T) {
	tests := []struct {
		name   string
		change func(s *catalog.Snapshot, c *snapshotv1.VolumeSnapshotContent)
	}{
		{"a snapshot without content", func(s *catalog.Snapshot, _ *snapshotv1.VolumeSnapshotContent) { s.Content = "" }},
		{"a content of another snapshot", func(_ *catalog.Snapshot, c *snapshotv1.VolumeSnapshotContent) { c.Spec.VolumeSnapshotRef.Name = "x" }},
		{"a content of one with that name before", func(_ *catalog.Snapshot, c *snapshotv1.VolumeSnapshotContent) { c.Spec.VolumeSnapshotRef.UID = "x" }},
		{"a content without handle", func(_ *catalog.Snapshot, c *snapshotv1.VolumeSnapshotContent) { c.Status.SnapshotHandle = nil }},
		{"a content without status", func(_ *catalog.Snapshot, c *snapshotv1.VolumeSnapshotContent) { c.Status = nil }},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			s, c := copied(), original()
			test.change(&s, c)
			f := newFakes(nil, []runtime.Object{c})
			if err := f.Expose(t.Context(), s, exposed()); err == nil {
				t.Error("no error")
			}
			for _, a := range f.snapshots.Actions() {
				if a.GetVerb() == "create" {
					t.Errorf("%s was created", a.GetResource().Resource)
				}
			}
		})
	}
}

func TestCreateClone(t *testing.T) {
	same := cloneObject(cloned(), copyName)
	other := cloneObject(cloned(), "another")
	tests := []struct {
		name  string
		there []runtime.Object
		err   error
	}{
		{name: "it is made"},
		{name: "an earlier attempt has made it", there: []runtime.Object{same}},
		{name: "a clone of another snapshot", there: []runtime.Object{other}, err: catalog.ErrTaken},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			f := newFakes(test.there, nil)
			if err := f.CreateClone(t.Context(), cloned(), copyName); !errors.Is(err, test.err) {
				t.Errorf("error %v, want %v", err, test.err)
			}
		})
	}
}

// verbs are what was asked of the client, watches and reads of lists aside.
func verbs(actions []clienttesting.Action) []string {
	var verbs []string
	for _, a := range actions {
		if a.GetVerb() != "watch" && a.GetVerb() != "list" {
			verbs = append(verbs, a.GetVerb()+" "+a.GetResource().Resource)
		}
	}
	return verbs
}

func TestRemoveClone(t *testing.T) {
	claim := cloneObject(cloned(), copyName)
	claim.Spec.VolumeName, claim.UID = "pv-1", "its"
	volume := func(policy corev1.PersistentVolumeReclaimPolicy, of types.UID) *corev1.PersistentVolume {
		return &corev1.PersistentVolume{
			ObjectMeta: metav1.ObjectMeta{Name: "pv-1"},
			Spec:       corev1.PersistentVolumeSpec{PersistentVolumeReclaimPolicy: policy, ClaimRef: &corev1.ObjectReference{UID: of}},
		}
	}
	tests := []struct {
		name    string
		there   []runtime.Object
		reclaim bool
		want    []string
	}{
		{"it goes", []runtime.Object{claim}, false, []string{"delete persistentvolumeclaims"}},
		{"it is gone", nil, false, []string{"delete persistentvolumeclaims"}},
		{
			"its volume would be retained", []runtime.Object{claim, volume("Retain", "its")}, true,
			[]string{"get persistentvolumeclaims", "get persistentvolumes", "patch persistentvolumes", "delete persistentvolumeclaims"},
		},
		{
			"its volume goes with it", []runtime.Object{claim, volume("Delete", "its")}, true,
			[]string{"get persistentvolumeclaims", "get persistentvolumes", "delete persistentvolumeclaims"},
		},
		{
			"its volume is another's by now", []runtime.Object{claim, volume("Retain", "another's")}, true,
			[]string{"get persistentvolumeclaims", "get persistentvolumes", "delete persistentvolumeclaims"},
		},
		{"it never had a volume", []runtime.Object{cloneObject(cloned(), copyName)}, true, []string{"get persistentvolumeclaims", "delete persistentvolumeclaims"}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			f := newFakes(test.there, nil)
			if err := f.RemoveClone(t.Context(), "backsnap", copyName, test.reclaim); err != nil {
				t.Fatal(err)
			}
			equal(t, "requests", test.want, verbs(f.core.Actions()))
		})
	}
}

func TestRemoveCloneWhoseVolumeCannotBeReleased(t *testing.T) {
	claim := cloneObject(cloned(), copyName)
	claim.Spec.VolumeName = "pv-1"
	f := newFakes([]runtime.Object{claim}, nil)
	refuse(f.core, "get", "persistentvolumes")
	err := f.RemoveClone(t.Context(), "backsnap", copyName, true)
	equal(t, "code", catalog.CodeForbidden, catalog.CodeOf(err))
	_, err = f.core.CoreV1().PersistentVolumeClaims("backsnap").Get(t.Context(), copyName, metav1.GetOptions{})
	equal(t, "the claim is gone", true, apierrors.IsNotFound(err))
}

// The content goes last: a controller does not let go of one whose snapshot is
// still there.
func TestRemoveStaticInOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		static := staticSnapshot(copied(), exposed())
		f := newFakes(nil, []runtime.Object{static, staticContent(completed(filesystem(), original()), exposed())})
		gone := false
		f.snapshots.PrependReactor("delete", "volumesnapshots", func(clienttesting.Action) (bool, runtime.Object, error) {
			time.AfterFunc(time.Minute, func() { // its finalizers
				gone = true
				if err := f.snapshots.Tracker().Delete(a("volumesnapshots"), "backsnap", copyName); err != nil {
					t.Error(err)
				}
			})
			return true, nil, nil
		})
		f.snapshots.PrependReactor("delete", "volumesnapshotcontents", func(clienttesting.Action) (bool, runtime.Object, error) {
			equal(t, "the snapshot is gone before its content", true, gone)
			return false, nil, nil
		})
		if err := f.RemoveStatic(t.Context(), "backsnap", copyName); err != nil {
			t.Fatal(err)
		}
		equal(t, "requests", []string{"delete volumesnapshots", "delete volumesnapshotcontents"}, verbs(f.snapshots.Actions()))
		time.Sleep(linger) // the watch ends
	})
}

func a(resource string) schema.GroupVersionResource {
	return schema.GroupVersionResource{Group: snapshotGroup, Version: "v1", Resource: resource}
}

func TestRemoveStaticOfWhichOnlyTheContentIsLeft(t *testing.T) {
	f := newFakes(nil, []runtime.Object{staticContent(completed(filesystem(), original()), exposed())})
	if err := f.RemoveStatic(t.Context(), "backsnap", copyName); err != nil {
		t.Fatal(err)
	}
	equal(t, "requests", []string{"delete volumesnapshots", "delete volumesnapshotcontents"}, verbs(f.snapshots.Actions()))
}

func TestAddCopy(t *testing.T) {
	finished := time.Date(2026, 11, 22, 1, 20, 0, 0, time.UTC)
	made := catalog.Copy{Repository: "main", Snapshot: "7f3a", Bytes: 10, Added: 5, Finished: finished}
	older := catalog.Copy{Repository: "main", Snapshot: "0000"}
	second := catalog.Copy{Repository: "second", Snapshot: "1111"}
	tests := []struct {
		name      string
		known     []catalog.Copy // s.Copies
		version   string         // s.ResourceVersion
		there     []catalog.Copy
		uid       string // of what is there; "" for nothing
		conflicts int
		want      []catalog.Copy
		requests  []string
		err       error
	}{
		{
			name: "the first", version: "1", uid: "5a1c",
			want: []catalog.Copy{made}, requests: []string{"patch volumesnapshots"},
		},
		{
			name: "beside another repository's, in place of an older one", known: []catalog.Copy{older, second}, version: "1", uid: "5a1c",
			want: []catalog.Copy{second, made}, requests: []string{"patch volumesnapshots"},
		},
		{
			name: "the snapshot has changed since it was read", version: "1", uid: "5a1c", there: []catalog.Copy{second}, conflicts: 1,
			want: []catalog.Copy{second, made}, requests: []string{"patch volumesnapshots", "get volumesnapshots", "patch volumesnapshots"},
		},
		{
			name: "of a snapshot that was not read", uid: "5a1c", there: []catalog.Copy{second},
			want: []catalog.Copy{second, made}, requests: []string{"get volumesnapshots", "patch volumesnapshots"},
		},
		{
			name: "of a snapshot that is gone", version: "1",
			requests: []string{"patch volumesnapshots"}, err: catalog.ErrGone,
		},
		{
			name: "another snapshot has the name", version: "1", uid: "another", conflicts: 1,
			requests: []string{"patch volumesnapshots", "get volumesnapshots"}, err: catalog.ErrGone,
		},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			s := copied()
			s.ResourceVersion, s.Copies = test.version, test.known
			var objects []runtime.Object
			if test.uid != "" {
				there := copied()
				there.Copies = test.there
				notes, err := there.Annotations()
				if err != nil {
					t.Fatal(err)
				}
				objects = append(objects, &snapshotv1.VolumeSnapshot{ObjectMeta: metav1.ObjectMeta{
					Namespace: s.Namespace, Name: s.Name, UID: types.UID(test.uid), ResourceVersion: "1", Annotations: notes,
				}})
			}
			f := newFakes(nil, objects)
			conflicts := test.conflicts
			var patch []byte
			f.snapshots.PrependReactor("patch", "volumesnapshots", func(action clienttesting.Action) (bool, runtime.Object, error) {
				if conflicts--; conflicts >= 0 {
					return true, nil, apierrors.NewConflict(schema.GroupResource{Resource: "volumesnapshots"}, s.Name, nil)
				}
				patch = action.(clienttesting.PatchAction).GetPatch()
				return false, nil, nil
			})
			err := f.AddCopy(t.Context(), s, made)
			if !errors.Is(err, test.err) {
				t.Fatalf("error %v, want %v", err, test.err)
			}
			equal(t, "requests", test.requests, verbs(f.snapshots.Actions()))
			if test.err == nil {
				equal(t, "copies", test.want, copiesIn(t, patch))
			}
		})
	}
}

// copiesIn reads a patch, and checks that it fails on another object.
func copiesIn(t *testing.T, patch []byte) []catalog.Copy {
	t.Helper()
	var said struct {
		Metadata struct {
			UID, ResourceVersion string
			Annotations          map[string]string
		}
	}
	if err := json.Unmarshal(patch, &said); err != nil {
		t.Fatal(err)
	}
	equal(t, "UID", "5a1c", said.Metadata.UID)
	equal(t, "resourceVersion", "1", said.Metadata.ResourceVersion)
	var copies []catalog.Copy
	if err := json.Unmarshal([]byte(said.Metadata.Annotations[catalog.AnnotationCopies]), &copies); err != nil {
		t.Fatal(err)
	}
	return copies
}

func TestStorageClass(t *testing.T) {
	f := newFakes([]runtime.Object{
		&storagev1.StorageClass{ObjectMeta: metav1.ObjectMeta{Name: "plain"}},
		&storagev1.StorageClass{
			ObjectMeta:        metav1.ObjectMeta{Name: "local"},
			VolumeBindingMode: new(storagev1.VolumeBindingWaitForFirstConsumer),
			ReclaimPolicy:     new(corev1.PersistentVolumeReclaimRetain),
		},
	}, nil)
	for _, want := range []catalog.StorageClass{{Name: "plain"}, {Name: "local", WaitsForConsumer: true, Retains: true}} {
		got, err := f.StorageClass(t.Context(), want.Name)
		if err != nil {
			t.Fatal(err)
		}
		equal(t, "class", want, got)
	}
	if _, err := f.StorageClass(t.Context(), "gone"); err == nil {
		t.Error("no error for a class that is not there")
	}
}

func TestNameCluster(t *testing.T) {
	secret := func(name string) *corev1.Secret {
		s := &corev1.Secret{
			ObjectMeta: metav1.ObjectMeta{
				Namespace: "backsnap", Name: "main-secret", Labels: map[string]string{catalog.LabelRepository: "main"},
			},
			Data: map[string][]byte{"RESTIC_REPOSITORY": []byte("rest:https://jo:geheim@host/{namespace}"), "RESTIC_PASSWORD": []byte("p")},
		}
		if name != "" {
			s.Annotations = map[string]string{catalog.AnnotationCluster: name}
		}
		return s
	}
	for _, test := range []struct{ name, there, want string }{
		{"none stands there", "", "prod-eu"},
		{"one stands there", "old", "old"},
	} {
		t.Run(test.name, func(t *testing.T) {
			f := newFakes([]runtime.Object{secret(test.there)}, nil)
			got, err := f.NameCluster(t.Context(), catalog.Repository{Namespace: "backsnap", Secret: "main-secret"}, "prod-eu")
			if err != nil {
				t.Fatal(err)
			}
			equal(t, "name", test.want, got)
			found, err := f.Repositories(t.Context(), "backsnap")
			if err != nil {
				t.Fatal(err)
			}
			equal(t, "repositories", []catalog.Repository{{
				Name: "main", Namespace: "backsnap", Secret: "main-secret", Cluster: test.want,
				Address: "rest:https://host/{namespace}", Keys: []string{"RESTIC_PASSWORD", "RESTIC_REPOSITORY"},
			}}, found)
			for _, action := range f.core.Actions() {
				if patch, ok := action.(clienttesting.PatchAction); ok && strings.Contains(string(patch.GetPatch()), "RESTIC") {
					t.Error("the patch writes entries of the Secret")
				}
			}
		})
	}
}

func TestClusterUID(t *testing.T) {
	f := newFakes([]runtime.Object{&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "kube-system", UID: "41d493cf-1"}}}, nil)
	uid, err := f.ClusterUID(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	equal(t, "uid", "41d493cf-1", uid)
}

func TestNothingThatIsMadeCarriesAnotherTeamsLabels(t *testing.T) {
	known := []string{
		catalog.LabelManagedBy, catalog.LabelRole, catalog.LabelRun, catalog.LabelNamespace, catalog.LabelClaim,
		"snapshot.storage.kubernetes.io/managed-by",
	}
	for key := range staticContent(completed(filesystem(), original()), exposed()).Labels {
		if !slices.Contains(known, key) {
			t.Errorf("label %s was copied", key)
		}
	}
}
