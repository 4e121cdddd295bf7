package kube

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	snapshotv1 "github.com/kubernetes-csi/external-snapshotter/client/v8/apis/volumesnapshot/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/client-go/rest"
	clienttesting "k8s.io/client-go/testing"

	"github.com/backsnap/kubectl-backsnap/internal/catalog"
)

const run = catalog.Run("20261122-011500-x7k2")

var (
	snapshotKind = schema.GroupResource{Group: snapshotGroup, Resource: "volumesnapshots"}
	created      = metav1.NewTime(time.Date(2026, 11, 22, 1, 15, 3, 0, time.UTC))
)

// wanted is a snapshot as a verb asks for it.
func wanted() catalog.Snapshot {
	return catalog.Snapshot{Namespace: "shop", Name: "data-" + string(run), Claim: "data", Run: run, Retain: "days", DeleteAfter: "2026-12-22", Class: "snap"}
}

// there is the object that comes of wanted, with its UID and resourceVersion.
func there(uid, version string) *snapshotv1.VolumeSnapshot {
	v, err := snapshotObject(wanted())
	if err != nil {
		panic(err)
	}
	v.UID, v.ResourceVersion, v.CreationTimestamp = types.UID(uid), version, created
	return v
}

func TestCreate(t *testing.T) {
	f := newFakes(nil, nil)
	var sent *snapshotv1.VolumeSnapshot
	f.snapshots.PrependReactor("create", "volumesnapshots", func(a clienttesting.Action) (bool, runtime.Object, error) {
		sent = a.(clienttesting.CreateAction).GetObject().(*snapshotv1.VolumeSnapshot)
		return true, there("uid-1", "7"), nil
	})

	got, err := f.Create(t.Context(), wanted())
	if err != nil {
		t.Fatal(err)
	}
	want := wanted()
	want.UID, want.ResourceVersion, want.Created = "uid-1", "7", created.UTC()
	equal(t, "snapshot", want, got)

	claim, class := "data", "snap"
	equal(t, "object", &snapshotv1.VolumeSnapshot{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: "shop", Name: "data-20261122-011500-x7k2",
			Labels: map[string]string{
				"app.kubernetes.io/managed-by": "backsnap",
				"backsnap.sh/run":              "20261122-011500-x7k2",
				"backsnap.sh/namespace":        "shop",
				"backsnap.sh/pvc":              "data",
				"backsnap.sh/retain":           "days",
				"backsnap.sh/delete-after":     "2026-12-22",
			},
			Annotations: catalog.HandsOff(),
		},
		Spec: snapshotv1.VolumeSnapshotSpec{
			Source:                  snapshotv1.VolumeSnapshotSource{PersistentVolumeClaimName: &claim},
			VolumeSnapshotClassName: &class,
		},
	}, sent)
}

// The server made the snapshot and the connection broke before it said so:
// the second attempt finds it.
func TestCreateTakesWhatAnEarlierAttemptMade(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFakes(nil, nil)
		attempts := 0
		f.snapshots.PrependReactor("create", "volumesnapshots", func(clienttesting.Action) (bool, runtime.Object, error) {
			if attempts++; attempts == 1 {
				if err := f.snapshots.Tracker().Add(there("uid-1", "7")); err != nil {
					t.Error(err)
				}
				return true, nil, syscall.ECONNRESET
			}
			return false, nil, nil
		})
		got, err := f.Create(t.Context(), wanted())
		if err != nil {
			t.Fatal(err)
		}
		want := wanted()
		want.UID, want.ResourceVersion, want.Created = "uid-1", "7", created.UTC()
		equal(t, "snapshot", want, got)
		equal(t, "attempts", 2, attempts)
	})
}

// ^C while the server is at it: what it makes is known, so that it can be
// removed.
func TestCreateIsNotInterrupted(t *testing.T) {
	ctx, interrupt := context.WithCancel(t.Context())
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		interrupt()
		v := there("uid-1", "7")
		v.TypeMeta = metav1.TypeMeta{Kind: "VolumeSnapshot", APIVersion: "snapshot.storage.k8s.io/v1"}
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(http.StatusCreated)
		_ = json.NewEncoder(w).Encode(v) // the client may have gone
	}))
	defer server.Close()
	c, err := Connect(&rest.Config{Host: server.URL}, "v1.2.3")
	if err != nil {
		t.Fatal(err)
	}
	got, err := c.Create(ctx, wanted())
	if err != nil {
		t.Fatal(err)
	}
	want := wanted()
	want.UID, want.ResourceVersion, want.Created = "uid-1", "7", created.UTC()
	equal(t, "snapshot", want, got)
}

func TestCreateTakesNobodyElsesSnapshot(t *testing.T) {
	for _, test := range []struct {
		name string
		make func(*snapshotv1.VolumeSnapshot)
	}{
		{"of another run", func(v *snapshotv1.VolumeSnapshot) { v.Labels[catalog.LabelRun] = "20261122-011500-abcd" }},
		{"of another claim", func(v *snapshotv1.VolumeSnapshot) { *v.Spec.Source.PersistentVolumeClaimName = "other" }},
		{"not managed by us", func(v *snapshotv1.VolumeSnapshot) { delete(v.Labels, catalog.LabelManagedBy) }},
		{"being deleted", func(v *snapshotv1.VolumeSnapshot) {
			v.DeletionTimestamp, v.Finalizers = &created, []string{"a/b"}
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			v := there("uid-1", "7")
			test.make(v)
			f := newFakes(nil, []runtime.Object{v})
			_, err := f.Create(t.Context(), wanted())
			if !errors.Is(err, errReplaced) {
				t.Errorf("error %v, want %v", err, errReplaced)
			}
		})
	}
}

// A server that stays away is given up after half a minute.
func TestOutage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFakes(nil, nil)
		f.snapshots.PrependReactor("create", "volumesnapshots", failing(syscall.ECONNREFUSED))
		began := time.Now()
		_, err := f.Create(t.Context(), wanted())
		if !errors.Is(err, syscall.ECONNREFUSED) {
			t.Errorf("error %v, want %v", err, syscall.ECONNREFUSED)
		}
		if took := time.Since(began); took > outage || took < outage-maxPause {
			t.Errorf("gave up after %s, want about %s", took, outage)
		}
	})
}

func TestFromObject(t *testing.T) {
	ready, content, message, size := true, "snapcontent-1", "quota exceeded", resource.MustParse("5Gi")
	epoch := metav1.NewTime(time.Unix(0, 0))
	full := catalog.Snapshot{
		Namespace: "shop", Name: "data-" + string(run), UID: "uid-1", ResourceVersion: "7", Claim: "data", Run: run,
		Retain: "days", DeleteAfter: "2026-12-22", Periods: map[catalog.Period]string{}, Class: "snap", Created: created.UTC(),
	}
	for _, test := range []struct {
		name string
		make func(*snapshotv1.VolumeSnapshot)
		want func(*catalog.Snapshot)
	}{
		{"just created", func(*snapshotv1.VolumeSnapshot) {}, func(*catalog.Snapshot) {}},
		{
			"ready",
			func(v *snapshotv1.VolumeSnapshot) {
				v.Status = &snapshotv1.VolumeSnapshotStatus{
					CreationTime: &started, ReadyToUse: &ready, BoundVolumeSnapshotContentName: &content, RestoreSize: &size,
				}
			},
			func(s *catalog.Snapshot) {
				s.Cut, s.Ready, s.Content, s.RestoreSize = started.UTC(), true, content, 5<<30
			},
		},
		{
			"a driver that gives no time of the cut says 1970",
			func(v *snapshotv1.VolumeSnapshot) {
				v.Status = &snapshotv1.VolumeSnapshotStatus{CreationTime: &epoch}
			},
			func(s *catalog.Snapshot) { s.Cut = created.UTC() },
		},
		{
			"failing for now",
			func(v *snapshotv1.VolumeSnapshot) {
				v.Status = &snapshotv1.VolumeSnapshotStatus{Error: &snapshotv1.VolumeSnapshotError{Message: &message}}
			},
			func(s *catalog.Snapshot) { s.Err = message },
		},
		{
			"the claim's whole name is in the source, where the label is shortened",
			func(v *snapshotv1.VolumeSnapshot) { v.Labels[catalog.LabelClaim] = "da-1234567890" },
			func(*catalog.Snapshot) {},
		},
		{
			"a record of a newer version is not judged",
			func(v *snapshotv1.VolumeSnapshot) { v.Annotations[catalog.AnnotationRecord] = `{"version":99}` },
			func(*catalog.Snapshot) {},
		},
		{
			"being deleted",
			func(v *snapshotv1.VolumeSnapshot) { v.DeletionTimestamp = &started },
			func(s *catalog.Snapshot) { s.Terminating = true },
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			v, want := there("uid-1", "7"), full
			test.make(v)
			test.want(&want)
			equal(t, "snapshot", want, fromObject(v))
		})
	}
}

func TestComplete(t *testing.T) {
	handle, size, at := "handle-1", int64(5<<30), time.Date(2026, 11, 22, 1, 15, 4, 123456789, time.UTC)
	nanoseconds := at.UnixNano()
	content := func() *snapshotv1.VolumeSnapshotContent {
		return &snapshotv1.VolumeSnapshotContent{
			ObjectMeta: metav1.ObjectMeta{Name: "snapcontent-1", Labels: map[string]string{labelNode: "node-1"}},
			Spec: snapshotv1.VolumeSnapshotContentSpec{
				Driver:            "csi.example",
				VolumeSnapshotRef: corev1.ObjectReference{Namespace: "shop", Name: wanted().Name, UID: "uid-1"},
			},
			Status: &snapshotv1.VolumeSnapshotContentStatus{SnapshotHandle: &handle, RestoreSize: &size, CreationTime: &nanoseconds},
		}
	}
	s := wanted()
	s.UID, s.Content, s.Cut = "uid-1", "snapcontent-1", at.Truncate(time.Second)

	t.Run("what the content knows", func(t *testing.T) {
		f := newFakes(nil, []runtime.Object{content()})
		got, err := f.Complete(t.Context(), s)
		if err != nil {
			t.Fatal(err)
		}
		want := s
		want.Driver, want.Handle, want.Node, want.RestoreSize, want.Cut = "csi.example", handle, "node-1", size, at
		equal(t, "snapshot", want, got)
	})
	t.Run("a driver without time and size leaves those of the snapshot", func(t *testing.T) {
		c, none := content(), int64(0)
		c.Status.CreationTime, c.Status.RestoreSize = &none, nil
		f := newFakes(nil, []runtime.Object{c})
		got, err := f.Complete(t.Context(), s)
		if err != nil {
			t.Fatal(err)
		}
		want := s
		want.Driver, want.Handle, want.Node = "csi.example", handle, "node-1"
		equal(t, "snapshot", want, got)
	})
	t.Run("forbidden: as it was", func(t *testing.T) {
		f := newFakes(nil, nil)
		refuse(f.snapshots, "get", "volumesnapshotcontents")
		got, err := f.Complete(t.Context(), s)
		if err != nil {
			t.Fatal(err)
		}
		equal(t, "snapshot", s, got)
	})
	for name, bind := range map[string]func(*corev1.ObjectReference){
		"of another namespace": func(r *corev1.ObjectReference) { r.Namespace = "crm" },
		"of another name":      func(r *corev1.ObjectReference) { r.Name = "other" },
		"of another UID":       func(r *corev1.ObjectReference) { r.UID = "uid-2" },
	} {
		t.Run(name, func(t *testing.T) {
			c := content()
			bind(&c.Spec.VolumeSnapshotRef)
			f := newFakes(nil, []runtime.Object{c})
			got, err := f.Complete(t.Context(), s)
			if err == nil {
				t.Error("a content that names another snapshot was taken")
			}
			equal(t, "snapshot", s, got)
		})
	}
}

// Label sets our keys and leaves all others, on both objects, and names the
// UID that it means.
func TestLabel(t *testing.T) {
	v := there("uid-1", "7")
	v.Labels["team"], v.Annotations["note"] = "db", "mine"
	v.Labels[catalog.LabelPin] = "by hand"
	f := newFakes(nil, []runtime.Object{v, &snapshotv1.VolumeSnapshotContent{ObjectMeta: metav1.ObjectMeta{Name: "snapcontent-1", Labels: map[string]string{"x": "y"}}}})
	s := wanted()
	s.UID, s.Content, s.Consistency = "uid-1", "snapcontent-1", catalog.Application
	s = s.WithPeriods(map[catalog.Period]string{catalog.Daily: "2026-11-22"})
	s.Record = &catalog.Record{Version: 1, Run: run, App: "statefulset/mysql", Claim: catalog.ClaimRecord{Name: "data"}}

	if _, err := f.Label(t.Context(), s); err != nil {
		t.Fatal(err)
	}

	labels := map[string]string{
		"app.kubernetes.io/managed-by": "backsnap", "backsnap.sh/run": string(run), "backsnap.sh/namespace": "shop", "backsnap.sh/pvc": "data",
		"backsnap.sh/retain": "days", "backsnap.sh/delete-after": "2026-12-22", "backsnap.sh/consistency": "application", "backsnap.sh/daily": "2026-11-22",
	}
	record, err := json.Marshal(s.Record)
	if err != nil {
		t.Fatal(err)
	}
	notes := catalog.HandsOff()
	notes[catalog.AnnotationRecord] = string(record)
	equal(t, "patch", map[string]any{"metadata": map[string]any{"uid": "uid-1", "labels": anyMap(labels), "annotations": anyMap(notes)}}, patchOf(t, f, "volumesnapshots"))
	equal(t, "mirrored patch", map[string]any{"metadata": map[string]any{"labels": anyMap(labels), "annotations": anyMap(notes)}}, patchOf(t, f, "volumesnapshotcontents"))

	got, err := f.snapshots.SnapshotV1().VolumeSnapshots("shop").Get(t.Context(), s.Name, metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	labels["team"], labels[catalog.LabelPin], notes["note"] = "db", "by hand", "mine"
	equal(t, "labels", labels, got.Labels)
	equal(t, "annotations", notes, got.Annotations)
}

func anyMap(m map[string]string) map[string]any {
	out := map[string]any{}
	for k, v := range m {
		out[k] = v
	}
	return out
}

func patchOf(t *testing.T, f fakes, resource string) (patch map[string]any) {
	t.Helper()
	for _, action := range f.snapshots.Actions() {
		if p, ok := action.(clienttesting.PatchAction); ok && p.GetResource().Resource == resource {
			if p.GetPatchType() != types.MergePatchType {
				t.Errorf("patch of %s is a %s", resource, p.GetPatchType())
			}
			if err := json.Unmarshal(p.GetPatch(), &patch); err != nil {
				t.Error(err)
			}
		}
	}
	return patch
}

func TestLabelFailures(t *testing.T) {
	s := wanted()
	s.UID, s.Content = "uid-1", "snapcontent-1"
	for _, test := range []struct {
		name  string
		spoil func(fakes)
		is    error
		code  catalog.Code
	}{
		{"the content may not be written: it is told", func(f fakes) { refuse(f.snapshots, "patch", "volumesnapshotcontents") }, catalog.ErrUnmirrored, ""},
		{"another snapshot has the name", func(f fakes) {
			f.snapshots.PrependReactor("patch", "volumesnapshots", failing(apierrors.NewConflict(snapshotKind, s.Name, errors.New("uid mismatch"))))
		}, errReplaced, ""},
		{"another snapshot has the name, as a server says it of custom resources", func(f fakes) {
			f.snapshots.PrependReactor("patch", "volumesnapshots", failing(apierrors.NewInvalid(
				schema.GroupKind{Group: snapshotGroup, Kind: "VolumeSnapshot"}, s.Name,
				field.ErrorList{field.Invalid(field.NewPath("metadata", "uid"), "uid-1", "field is immutable")})))
		}, errReplaced, ""},
		{"it may not be written", func(f fakes) { refuse(f.snapshots, "patch", "volumesnapshots") }, denied("patch", snapshotGroup, "volumesnapshots"), catalog.CodeForbidden},
	} {
		t.Run(test.name, func(t *testing.T) {
			f := newFakes(nil, []runtime.Object{there("uid-1", "7")})
			test.spoil(f)
			_, err := f.Label(t.Context(), s)
			if test.is == nil && err != nil {
				t.Errorf("error %v", err)
			}
			if test.is != nil && (err == nil || !errors.Is(err, test.is) && errors.Unwrap(err).Error() != test.is.Error()) {
				t.Errorf("error %v, want %v", err, test.is)
			}
			equal(t, "code", test.code, catalog.CodeOf(err))
		})
	}
}

func TestDelete(t *testing.T) {
	s := wanted()
	s.UID = "uid-1"
	for _, test := range []struct {
		name   string
		answer error
		fails  bool
	}{
		{"done", nil, false},
		{"gone already", apierrors.NewNotFound(snapshotKind, s.Name), false},
		{"another has the name", apierrors.NewConflict(snapshotKind, s.Name, errors.New("uid")), false},
		{"forbidden", denied("delete", snapshotGroup, "volumesnapshots"), true},
	} {
		t.Run(test.name, func(t *testing.T) {
			f := newFakes(nil, []runtime.Object{there("uid-1", "7")})
			var sent metav1.DeleteOptions
			f.snapshots.PrependReactor("delete", "volumesnapshots", func(a clienttesting.Action) (bool, runtime.Object, error) {
				sent = a.(clienttesting.DeleteActionImpl).DeleteOptions
				return true, nil, test.answer
			})
			if err := f.Delete(t.Context(), s); (err != nil) != test.fails {
				t.Errorf("error %v", err)
			}
			uid := types.UID("uid-1")
			equal(t, "options", metav1.DeleteOptions{Preconditions: &metav1.Preconditions{UID: &uid}}, sent)
		})
	}
}

// Without a UID nothing is written: the object may be anybody's.
func TestNoUID(t *testing.T) {
	f := newFakes(nil, []runtime.Object{there("uid-1", "7")})
	_, err := f.Label(t.Context(), wanted())
	if err := errors.Join(err, f.Delete(t.Context(), wanted())); !errors.Is(err, errNoUID) {
		t.Errorf("error %v, want %v", err, errNoUID)
	}
	equal(t, "calls", 0, len(f.snapshots.Actions()))
}

func TestSnapshots(t *testing.T) {
	mine, static, foreign := there("uid-1", "7"), there("uid-2", "8"), there("uid-3", "9")
	static.Namespace, static.Name = "backsnap", "copy"
	static.Labels[catalog.LabelRole] = "static"
	foreign.Name = "foreign"
	delete(foreign.Labels, catalog.LabelManagedBy)
	f := newFakes(nil, []runtime.Object{mine, static, foreign})
	got, err := f.Snapshots(t.Context(), catalog.Scope{All: true})
	if err != nil {
		t.Fatal(err)
	}
	equal(t, "snapshots", []catalog.Snapshot{fromObject(static), fromObject(mine)}, got)
}
