package kube

import (
	"context"
	"encoding/json"
	"errors"
	"testing"
	"testing/synctest"

	snapshotv1 "github.com/kubernetes-csi/external-snapshotter/client/v8/apis/volumesnapshot/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	clienttesting "k8s.io/client-go/testing"

	"github.com/backsnap/kubectl-backsnap/internal/catalog"
	"github.com/backsnap/kubectl-backsnap/internal/restic"
)

func restoredClaim() catalog.Claim {
	return catalog.Claim{
		Namespace: "shop", Name: "back", Labels: catalog.Ours("", "20261122-091500-x7k2"), Annotations: catalog.HandsOff(),
		StorageClass: "fast", Request: 1 << 30, AccessModes: []string{"ReadWriteOnce"}, VolumeMode: "Filesystem",
	}
}

// volumeOf is a volume that is bound to claim shop/filled.
func volumeOf(change func(*corev1.PersistentVolume)) *corev1.PersistentVolume {
	v := &corev1.PersistentVolume{
		ObjectMeta: metav1.ObjectMeta{Name: "pv", UID: "uid-pv", Annotations: map[string]string{annotationBoundByController: "yes"}},
		Spec: corev1.PersistentVolumeSpec{
			PersistentVolumeReclaimPolicy: corev1.PersistentVolumeReclaimDelete,
			ClaimRef:                      &corev1.ObjectReference{Kind: "PersistentVolumeClaim", APIVersion: "v1", Namespace: "shop", Name: "filled", UID: "uid-filled", ResourceVersion: "7"},
		},
	}
	if change != nil {
		change(v)
	}
	return v
}

func filledClaim() *corev1.PersistentVolumeClaim {
	return &corev1.PersistentVolumeClaim{
		ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "filled", UID: "uid-filled"},
		Spec:       corev1.PersistentVolumeClaimSpec{VolumeName: "pv"},
	}
}

func (f fakes) volume(t *testing.T) *corev1.PersistentVolume {
	t.Helper()
	v, err := f.core.CoreV1().PersistentVolumes().Get(t.Context(), "pv", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	v.ResourceVersion, v.ManagedFields = "", nil
	return v
}

func TestMakeClaim(t *testing.T) {
	for name, c := range map[string]struct {
		snapshot, volume string
		there            func(*corev1.PersistentVolumeClaim) // what has its name already
		fails            error
	}{
		"empty":                         {},
		"from a snapshot":               {snapshot: "data-1"},
		"of a volume":                   {volume: "pv"},
		"an answer was lost":            {snapshot: "data-1", there: func(*corev1.PersistentVolumeClaim) {}},
		"another's":                     {there: func(p *corev1.PersistentVolumeClaim) { p.Labels = nil }, fails: catalog.ErrTaken},
		"ours, but from something else": {snapshot: "data-1", there: func(p *corev1.PersistentVolumeClaim) { p.Spec.DataSource = nil }, fails: catalog.ErrTaken},
		"of another run":                {there: func(p *corev1.PersistentVolumeClaim) { p.Labels[catalog.LabelRun] = "x" }, fails: catalog.ErrTaken},
	} {
		t.Run(name, func(t *testing.T) {
			claim := restoredClaim()
			claim.Volume = c.volume
			var objects []runtime.Object
			if c.there != nil {
				object := restoredObject(restoredClaim(), c.snapshot)
				object.UID = "uid-there"
				c.there(object)
				objects = append(objects, object)
			}
			f := newFakes(objects, nil)
			uid, err := f.MakeClaim(t.Context(), claim, c.snapshot)
			if !errors.Is(err, c.fails) {
				t.Fatalf("got %v, want %v", err, c.fails)
			}
			if c.there != nil && err == nil && uid != "uid-there" {
				t.Errorf("uid %q", uid)
			}
			if c.there != nil || err != nil {
				return
			}
			got, err := f.core.CoreV1().PersistentVolumeClaims("shop").Get(t.Context(), "back", metav1.GetOptions{})
			if err != nil {
				t.Fatal(err)
			}
			if (got.Spec.DataSource != nil) != (c.snapshot != "") || got.Spec.VolumeName != c.volume {
				t.Errorf("source %v, volume %q", got.Spec.DataSource, got.Spec.VolumeName)
			}
		})
	}
}

// TestTryClaim makes nothing, and says what the server says.
func TestTryClaim(t *testing.T) {
	f := newFakes(nil, nil)
	var dry []string
	f.core.PrependReactor("create", "persistentvolumeclaims", func(a clienttesting.Action) (bool, runtime.Object, error) {
		dry = a.(clienttesting.CreateActionImpl).CreateOptions.DryRun
		return false, nil, nil
	})
	if err := f.TryClaim(t.Context(), restoredClaim()); err != nil {
		t.Fatal(err)
	}
	equal(t, "dry run", []string{metav1.DryRunAll}, dry)
	f.core.PrependReactor("create", "persistentvolumeclaims", func(clienttesting.Action) (bool, runtime.Object, error) {
		return true, nil, apierrors.NewAlreadyExists(corev1.Resource("persistentvolumeclaims"), "back")
	})
	if err := f.TryClaim(t.Context(), restoredClaim()); !errors.Is(err, catalog.ErrTaken) {
		t.Errorf("there already: %v", err)
	}
	refuse(f.core, "create", "persistentvolumeclaims")
	if err := f.TryClaim(t.Context(), restoredClaim()); catalog.CodeOf(err) != catalog.CodeForbidden {
		t.Errorf("forbidden: %v", err)
	}
}

func TestAwaitBound(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		object := restoredObject(restoredClaim(), "data-1")
		f := newFakes([]runtime.Object{object}, nil)
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		var troubles []restic.Trouble
		ended := make(chan error)
		go func() {
			ended <- f.AwaitBound(ctx, "shop", "back", func(t restic.Trouble) { troubles = append(troubles, t) })
		}()
		synctest.Wait()
		for _, name := range []string{"another", "back"} {
			event := &corev1.Event{
				ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: name}, Type: "Warning", Reason: "ProvisioningFailed", Message: "no room for " + name,
				InvolvedObject: corev1.ObjectReference{Kind: "PersistentVolumeClaim", Name: name},
			}
			if _, err := f.core.CoreV1().Events("shop").Create(ctx, event, metav1.CreateOptions{}); err != nil {
				t.Fatal(err)
			}
		}
		synctest.Wait()
		object.Status.Phase = corev1.ClaimBound
		if _, err := f.core.CoreV1().PersistentVolumeClaims("shop").UpdateStatus(ctx, object, metav1.UpdateOptions{}); err != nil {
			t.Fatal(err)
		}
		if err := <-ended; err != nil {
			t.Fatal(err)
		}
		equal(t, "troubles", []restic.Trouble{{Reason: "ProvisioningFailed", Message: "no room for back"}}, troubles)
		// Bound already.
		if err := f.AwaitBound(ctx, "shop", "back", func(restic.Trouble) {}); err != nil {
			t.Fatal(err)
		}
		if err := f.AwaitBound(ctx, "shop", "nothing", func(restic.Trouble) {}); !errors.Is(err, catalog.ErrGone) {
			t.Errorf("no such claim: %v", err)
		}
	})
}

// TestHandOver is the way of a volume from one claim to the next.
func TestHandOver(t *testing.T) {
	f := newFakes([]runtime.Object{volumeOf(nil), filledClaim()}, nil)
	filled := catalog.Claim{Namespace: "shop", Name: "filled", UID: "uid-filled"}
	labels := catalog.Ours(catalog.RoleClone, "20261122-091500-x7k2")
	labels[catalog.LabelNamespace] = "scratch"
	want := catalog.Volume{Name: "pv", Run: "20261122-091500-x7k2", Reclaim: "Delete", Claim: filled}
	for range 2 { // an answer may be lost
		kept, err := f.KeepVolume(t.Context(), filled, labels)
		if err != nil {
			t.Fatal(err)
		}
		equal(t, "kept", want, kept)
	}
	equal(t, "volume that is kept", volumeOf(func(v *corev1.PersistentVolume) {
		v.Labels = labels
		v.Annotations[catalog.AnnotationReclaim] = "Delete"
		v.Spec.PersistentVolumeReclaimPolicy = corev1.PersistentVolumeReclaimRetain
	}), f.volume(t))
	for namespace, n := range map[string]int{"scratch": 1, "shop": 0} {
		kept, err := f.KeptVolumes(t.Context(), namespace)
		if err != nil || len(kept) != n {
			t.Errorf("kept for %s: %+v, %v", namespace, kept, err)
		}
		if n == 1 {
			equal(t, "kept volume", want, kept[0])
		}
	}

	for range 2 {
		if err := f.HandVolume(t.Context(), want, catalog.Claim{Namespace: "scratch", Name: "back"}); err != nil {
			t.Fatal(err)
		}
	}
	equal(t, "claim of the volume", &corev1.ObjectReference{Kind: "PersistentVolumeClaim", APIVersion: "v1", Namespace: "scratch", Name: "back"}, f.volume(t).Spec.ClaimRef)
	if err := f.HandVolume(t.Context(), want, catalog.Claim{Namespace: "scratch", Name: "third"}); err == nil {
		t.Error("a volume of another claim was handed over")
	}

	// It comes to nothing: a volume that waits for a claim would stay for ever.
	if err := f.LetVolume(t.Context(), "pv", "Delete"); err != nil {
		t.Fatal(err)
	}
	got := f.volume(t)
	equal(t, "reclaim policy", corev1.PersistentVolumeReclaimDelete, got.Spec.PersistentVolumeReclaimPolicy)
	equal(t, "claim of a volume that is to go", types.UID("uid-pv"), got.Spec.ClaimRef.UID)
	if _, ours := got.Labels[catalog.LabelRole]; ours || len(got.Annotations) > 0 {
		t.Errorf("labels %v, annotations %v", got.Labels, got.Annotations)
	}
	if err := f.LetVolume(t.Context(), "gone", "Delete"); err != nil {
		t.Errorf("a volume that is gone: %v", err)
	}
}

// A volume that is bound keeps its claim, whatever its reclaim policy is to be.
func TestLetBoundVolume(t *testing.T) {
	f := newFakes([]runtime.Object{volumeOf(nil)}, nil)
	if err := f.LetVolume(t.Context(), "pv", "Delete"); err != nil {
		t.Fatal(err)
	}
	equal(t, "claim", volumeOf(nil).Spec.ClaimRef, f.volume(t).Spec.ClaimRef)
}

// Somebody changes the volume in between: it is read again.
func TestChangedVolume(t *testing.T) {
	f := newFakes([]runtime.Object{volumeOf(nil), filledClaim()}, nil)
	conflicts := 0
	f.core.PrependReactor("patch", "persistentvolumes", func(a clienttesting.Action) (bool, runtime.Object, error) {
		var change struct{ Metadata struct{ UID string } }
		if err := json.Unmarshal(a.(clienttesting.PatchAction).GetPatch(), &change); err != nil || change.Metadata.UID != "uid-pv" {
			t.Errorf("patch names UID %q, %v", change.Metadata.UID, err)
		}
		if conflicts++; conflicts == 1 {
			return true, nil, apierrors.NewConflict(corev1.Resource("persistentvolumes"), "pv", errors.New("changed"))
		}
		return false, nil, nil
	})
	if err := f.LetVolume(t.Context(), "pv", "Retain"); err != nil || conflicts != 2 {
		t.Errorf("%d attempts, %v", conflicts, err)
	}
}

func TestKeepVolumeOfAnother(t *testing.T) {
	for name, c := range map[string]struct {
		claim  func(*corev1.PersistentVolumeClaim)
		volume func(*corev1.PersistentVolume)
		gone   bool
	}{
		"another claim of that name": {claim: func(p *corev1.PersistentVolumeClaim) { p.UID = "new" }, gone: true},
		"no volume yet":              {claim: func(p *corev1.PersistentVolumeClaim) { p.Spec.VolumeName = "" }, gone: true},
		"a volume of another claim":  {volume: func(v *corev1.PersistentVolume) { v.Spec.ClaimRef.UID = "other" }},
	} {
		claim := filledClaim()
		if c.claim != nil {
			c.claim(claim)
		}
		f := newFakes([]runtime.Object{volumeOf(c.volume), claim}, nil)
		_, err := f.KeepVolume(t.Context(), catalog.Claim{Namespace: "shop", Name: "filled", UID: "uid-filled"}, nil)
		if err == nil || errors.Is(err, catalog.ErrGone) != c.gone {
			t.Errorf("%s: %v", name, err)
		}
		equal(t, "volume", volumeOf(c.volume), f.volume(t))
	}
}

func TestKeptVolumesMayBeHidden(t *testing.T) {
	f := newFakes([]runtime.Object{volumeOf(nil)}, nil)
	refuse(f.core, "list", "persistentvolumes")
	if kept, err := f.KeptVolumes(t.Context(), "shop"); err != nil || kept != nil {
		t.Errorf("got %v, %v", kept, err)
	}
}

// A claim that has got another's name is left alone.
func TestRemoveClaim(t *testing.T) {
	f := newFakes([]runtime.Object{filledClaim()}, nil)
	var preconditions *metav1.Preconditions
	f.core.PrependReactor("delete", "persistentvolumeclaims", func(a clienttesting.Action) (bool, runtime.Object, error) {
		preconditions = a.(clienttesting.DeleteActionImpl).DeleteOptions.Preconditions
		if *preconditions.UID != "uid-filled" {
			return true, nil, apierrors.NewConflict(corev1.Resource("persistentvolumeclaims"), "filled", errors.New("the UID differs"))
		}
		return false, nil, nil
	})
	if err := f.RemoveClaim(t.Context(), "shop", "filled", "old"); err != nil {
		t.Errorf("another's: %v", err)
	}
	if _, err := f.core.CoreV1().PersistentVolumeClaims("shop").Get(t.Context(), "filled", metav1.GetOptions{}); err != nil {
		t.Errorf("another's claim: %v", err)
	}
	if err := f.RemoveClaim(t.Context(), "shop", "filled", "uid-filled"); err != nil {
		t.Error(err)
	}
	if _, err := f.core.CoreV1().PersistentVolumeClaims("shop").Get(t.Context(), "filled", metav1.GetOptions{}); !apierrors.IsNotFound(err) {
		t.Errorf("the claim is there: %v", err)
	}
}

func TestCurrent(t *testing.T) {
	s := copied()
	object, err := snapshotObject(s)
	if err != nil {
		t.Fatal(err)
	}
	object.UID = types.UID(s.UID)
	ready := true
	object.Status = &snapshotv1.VolumeSnapshotStatus{ReadyToUse: &ready}
	f := newFakes(nil, []runtime.Object{object})
	refuse(f.snapshots, "get", "volumesnapshotcontents")
	if _, err := f.Current(t.Context(), s); err == nil {
		t.Error("a snapshot that is bound to nothing is taken")
	}
	object.Status.BoundVolumeSnapshotContentName = &s.Content
	f = newFakes(nil, []runtime.Object{object})
	refuse(f.snapshots, "get", "volumesnapshotcontents")
	got, err := f.Current(t.Context(), s)
	if err != nil || !got.Ready || got.Content != s.Content {
		t.Errorf("got %+v, %v", got, err)
	}
	other := s
	other.UID = "another"
	gone := s
	gone.Name = "gone"
	for _, s := range []catalog.Snapshot{other, gone} {
		if _, err := f.Current(t.Context(), s); !errors.Is(err, catalog.ErrGone) {
			t.Errorf("%s with UID %s: %v", s.Name, s.UID, err)
		}
	}
}
