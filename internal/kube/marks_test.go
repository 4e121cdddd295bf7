package kube

import (
	"encoding/json"
	"testing"
	"time"

	snapshotv1 "github.com/kubernetes-csi/external-snapshotter/client/v8/apis/volumesnapshot/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	clienttesting "k8s.io/client-go/testing"

	"github.com/backsnap/kubectl-backsnap/internal/catalog"
)

// Marks stand in one ConfigMap a repository. What one run changes leaves what
// others have written.
func TestMarks(t *testing.T) {
	f := newFakes(nil, nil)
	r := catalog.Repository{Name: "main", Namespace: "backsnap"}
	at := time.Date(2026, 11, 22, 9, 20, 0, 0, time.UTC)
	mark := catalog.Mark{Marked: at, After: at.Add(24 * time.Hour), Namespace: "shop"}
	read := func() catalog.Marks {
		t.Helper()
		marks, err := f.Marks(t.Context(), r)
		if err != nil {
			t.Fatal(err)
		}
		return marks
	}
	change := func(c catalog.MarkChange) {
		t.Helper()
		if err := f.ChangeMarks(t.Context(), r, copyRun, c); err != nil {
			t.Fatal(err)
		}
	}
	none := catalog.Marks{Of: map[string]catalog.Mark{}, Unpruned: map[string]bool{}}
	equal(t, "no ConfigMap", none, read())
	change(catalog.MarkChange{Drop: []string{"aa"}, Pruned: []string{""}})
	if maps, err := f.core.CoreV1().ConfigMaps("backsnap").List(t.Context(), metav1.ListOptions{}); err != nil || len(maps.Items) != 0 {
		t.Errorf("one was made to take nothing out: %v, %v", maps, err)
	}
	change(catalog.MarkChange{Set: map[string]catalog.Mark{"aa": mark, "bb": mark}, Unpruned: []string{"", "shop"}})
	there, err := f.core.CoreV1().ConfigMaps("backsnap").Get(t.Context(), "backsnap-marks-main", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	equal(t, "entries", map[string]string{"aa": "20261122T092000Z 20261123T092000Z shop", "bb": "20261122T092000Z 20261123T092000Z shop", "unpruned": "true", "unpruned.shop": "true"}, there.Data)
	labels := catalog.Ours(catalog.RoleMarks, copyRun)
	labels[catalog.LabelRepository] = "main"
	equal(t, "labels", labels, there.Labels)
	change(catalog.MarkChange{Set: map[string]catalog.Mark{"cc": mark}, Drop: []string{"aa", "dd"}, Pruned: []string{"shop"}})
	equal(t, "changed", catalog.Marks{Of: map[string]catalog.Mark{"bb": mark, "cc": mark}, Unpruned: map[string]bool{"": true}}, read())
	change(catalog.MarkChange{})

	there.Data = map[string]string{"aa": "soon", "bb": mark.String()}
	if _, err := f.core.CoreV1().ConfigMaps("backsnap").Update(t.Context(), there, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	equal(t, "one that cannot be read is none", catalog.Marks{Of: map[string]catalog.Mark{"bb": mark}, Unpruned: map[string]bool{}}, read())
}

// Another run may make the ConfigMap at the same moment.
func TestMarksAreMadeByTwo(t *testing.T) {
	f := newFakes(nil, nil)
	r := catalog.Repository{Name: "main", Namespace: "backsnap"}
	f.core.PrependReactor("create", "configmaps", func(a clienttesting.Action) (bool, runtime.Object, error) {
		other := a.(clienttesting.CreateAction).GetObject().(*corev1.ConfigMap).DeepCopy()
		other.Data = map[string]string{"unpruned": "true"}
		if err := f.core.Tracker().Add(other); err != nil {
			t.Error(err)
		}
		return true, nil, apierrors.NewAlreadyExists(schema.GroupResource{Resource: "configmaps"}, other.Name)
	})
	if err := f.ChangeMarks(t.Context(), r, copyRun, catalog.MarkChange{Unpruned: []string{"shop"}}); err != nil {
		t.Fatal(err)
	}
	got, err := f.Marks(t.Context(), r)
	if err != nil {
		t.Fatal(err)
	}
	equal(t, "marks", catalog.Marks{Of: map[string]catalog.Mark{}, Unpruned: map[string]bool{"": true, "shop": true}}, got)
	refuse(f.core, "get", "configmaps")
	if _, err := f.Marks(t.Context(), r); catalog.CodeOf(err) != catalog.CodeForbidden {
		t.Errorf("without the right: %v", err)
	}
}

// A copy that was forgotten goes off the record, and no other one does.
func TestDropCopies(t *testing.T) {
	main, again, second := catalog.Copy{Repository: "main", Snapshot: "aa"}, catalog.Copy{Repository: "main", Snapshot: "bb"}, catalog.Copy{Repository: "second", Snapshot: "aa"}
	for _, test := range []struct {
		name      string
		there     []catalog.Copy
		uid       string // of what is there; "" for nothing
		conflicts int
		want      []catalog.Copy
		requests  []string
	}{
		{name: "the last one", there: []catalog.Copy{main}, uid: "5a1c", requests: []string{"get volumesnapshots", "patch volumesnapshots"}},
		{
			name: "beside others'", there: []catalog.Copy{main, second}, uid: "5a1c",
			want: []catalog.Copy{second}, requests: []string{"get volumesnapshots", "patch volumesnapshots"},
		},
		{name: "made again since", there: []catalog.Copy{again}, uid: "5a1c", want: []catalog.Copy{again}, requests: []string{"get volumesnapshots"}},
		{
			name: "changed meanwhile", there: []catalog.Copy{main, second}, uid: "5a1c", conflicts: 1,
			want: []catalog.Copy{second}, requests: []string{"get volumesnapshots", "patch volumesnapshots", "get volumesnapshots", "patch volumesnapshots"},
		},
		{name: "another has its name", there: []catalog.Copy{main}, uid: "other", want: []catalog.Copy{main}, requests: []string{"get volumesnapshots"}},
		{name: "gone", requests: []string{"get volumesnapshots"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			s := copied()
			var objects []runtime.Object
			if test.uid != "" {
				text, err := json.Marshal(test.there)
				if err != nil {
					t.Fatal(err)
				}
				objects = append(objects, &snapshotv1.VolumeSnapshot{ObjectMeta: metav1.ObjectMeta{
					Namespace: s.Namespace, Name: s.Name, UID: types.UID(test.uid), ResourceVersion: "1", Annotations: map[string]string{catalog.AnnotationCopies: string(text), "a": "b"},
				}})
			}
			f := newFakes(nil, objects)
			conflicts := test.conflicts
			f.snapshots.PrependReactor("patch", "volumesnapshots", func(clienttesting.Action) (bool, runtime.Object, error) {
				conflicts--
				return conflicts >= 0, nil, apierrors.NewConflict(schema.GroupResource{Resource: "volumesnapshots"}, s.Name, nil)
			})
			if err := f.DropCopies(t.Context(), s, "main", []string{"aa", "cc"}); err != nil {
				t.Fatal(err)
			}
			equal(t, "requests", test.requests, verbs(f.snapshots.Actions()))
			if test.uid == "" {
				return
			}
			there, err := f.snapshots.SnapshotV1().VolumeSnapshots(s.Namespace).Get(t.Context(), s.Name, metav1.GetOptions{})
			if err != nil {
				t.Fatal(err)
			}
			equal(t, "copies", test.want, fromObject(there).Copies)
			equal(t, "another annotation", "b", there.Annotations["a"])
		})
	}
}
