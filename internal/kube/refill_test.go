package kube

import (
	"errors"
	"testing"
	"testing/synctest"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/backsnap/kubectl-backsnap/internal/catalog"
)

// TestNotesOfARefill: they are written, read and taken off again, and nothing
// else on claim and workload changes.
func TestNotesOfARefill(t *testing.T) {
	claim := &corev1.PersistentVolumeClaim{
		ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "data", UID: "uid-data", Annotations: map[string]string{"team": "a"}},
		Spec:       corev1.PersistentVolumeClaimSpec{VolumeName: "pv"},
	}
	f := newFakes([]runtime.Object{claim, &appsv1.StatefulSet{ObjectMeta: called("mysql")}}, nil)
	of := catalog.Claim{Namespace: "shop", Name: "data", UID: "uid-data"}
	want := catalog.Refill{Run: "20261122-091500-x7k2", Volume: "pv", Stage: catalog.StagePartial, Repository: "main", Copy: "7f3a"}
	if err := f.NoteRefill(t.Context(), of, &want); err != nil {
		t.Fatal(err)
	}
	read, manifest, err := f.ReadClaim(t.Context(), "shop", "data")
	if err != nil {
		t.Fatal(err)
	}
	got, ok := read.Refill()
	equal(t, "noted", want, got)
	equal(t, "read", true, ok)

	// Of another volume behind the claim the note says nothing.
	if err := f.RemoveClaim(t.Context(), "shop", "data", "uid-data"); err != nil {
		t.Fatal(err)
	}
	if err := f.NoteRefill(t.Context(), of, nil); err != nil {
		t.Errorf("taken off what is gone: %v", err)
	}
	if err := f.NoteRefill(t.Context(), of, &want); !errors.Is(err, catalog.ErrGone) {
		t.Errorf("noted on what is gone: %v", err)
	}
	for volume, kept := range map[string]bool{"pv-new": false, "pv": true} {
		if err := f.RemakeClaim(t.Context(), manifest, volume); err != nil {
			t.Fatal(err)
		}
		if read, _, err = f.ReadClaim(t.Context(), "shop", "data"); err != nil {
			t.Fatal(err)
		}
		_, noted := read.Refill()
		_, there := read.Annotations[catalog.AnnotationRefill]
		equal(t, volume, []any{kept, kept, "a"}, []any{noted, there, read.Annotations["team"]})
		if err := f.RemoveClaim(t.Context(), "shop", "data", read.UID); err != nil {
			t.Fatal(err)
		}
	}

	app := mysqlApp
	for _, pause := range []*catalog.Pause{{Run: "20261122-091500-x7k2", Replicas: 3}, nil} {
		if err := f.NotePause(t.Context(), app, pause); err != nil {
			t.Fatal(err)
		}
		s, err := f.core.AppsV1().StatefulSets("shop").Get(t.Context(), "mysql", metav1.GetOptions{})
		if err != nil {
			t.Fatal(err)
		}
		app.Annotations = s.Annotations
		read, noted := app.Pause()
		equal(t, "noted", pause != nil, noted)
		if pause != nil {
			equal(t, "pause", *pause, read)
		}
	}
}

func TestAwaitRaised(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		set := &appsv1.StatefulSet{ObjectMeta: called("mysql"), Spec: appsv1.StatefulSetSpec{Replicas: new(int32(0))}}
		set.ResourceVersion = "5"
		f := newFakes([]runtime.Object{set}, nil)
		f.scaled(0)
		done := make(chan error, 1)
		go func() { done <- f.AwaitRaised(t.Context(), []catalog.App{mysqlApp}) }()
		synctest.Wait()
		select {
		case err := <-done:
			t.Fatalf("raised too early: %v", err)
		default:
		}
		set = set.DeepCopy()
		set.Spec.Replicas, set.ResourceVersion = new(int32(1)), "6"
		if _, err := f.core.AppsV1().StatefulSets("shop").Update(t.Context(), set, metav1.UpdateOptions{}); err != nil {
			t.Fatal(err)
		}
		if err := <-done; !errors.Is(err, catalog.ErrRaised) {
			t.Errorf("raised: %v", err)
		}
	})
}
