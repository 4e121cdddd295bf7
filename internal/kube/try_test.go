package kube

import (
	"errors"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	clienttesting "k8s.io/client-go/testing"

	"github.com/backsnap/kubectl-backsnap/internal/catalog"
	"github.com/backsnap/kubectl-backsnap/internal/restic"
)

// What is tried is the very object that would be made, and the server is told
// to store none of it.
func TestTry(t *testing.T) {
	no := errors.New("admission webhook denied the request")
	clone := catalog.Claim{Namespace: "backsnap", Name: "clone", StorageClass: "fast", Request: 1 << 30, VolumeMode: "Filesystem", AccessModes: []string{"ReadWriteOnce"}}
	job := restic.Job{Namespace: "backsnap", Name: "mover", Secret: "main"}
	for _, c := range []struct {
		resource string
		try      func(fakes) error
		make     func(fakes) error
	}{
		{"volumesnapshots", func(f fakes) error { return f.TrySnapshot(t.Context(), wanted()) }, func(f fakes) error { _, err := f.Create(t.Context(), wanted()); return err }},
		{"persistentvolumeclaims", func(f fakes) error { return f.TryClone(t.Context(), clone) }, func(f fakes) error { return f.CreateClone(t.Context(), clone, "clone") }},
		{"jobs", func(f fakes) error { return f.TryMover(t.Context(), job) }, func(f fakes) error { return f.StartMover(t.Context(), job) }},
	} {
		t.Run(c.resource, func(t *testing.T) {
			var sent []clienttesting.CreateActionImpl
			f := newFakes(nil, nil)
			for _, client := range []interface {
				PrependReactor(verb, resource string, reaction clienttesting.ReactionFunc)
			}{f.core, f.snapshots} {
				client.PrependReactor("create", c.resource, func(a clienttesting.Action) (bool, runtime.Object, error) {
					sent = append(sent, a.(clienttesting.CreateActionImpl))
					return true, nil, no
				})
			}
			if err := c.try(f); !errors.Is(err, no) {
				t.Errorf("error %v", err)
			}
			if err := c.make(f); !errors.Is(err, no) {
				t.Errorf("error %v", err)
			}
			if len(sent) != 2 {
				t.Fatalf("%d objects sent", len(sent))
			}
			if c.resource != "volumesnapshots" { // whose fake forgets the options; the real cluster shows it
				equal(t, "dry run", [][]string{{metav1.DryRunAll}, nil}, [][]string{sent[0].CreateOptions.DryRun, sent[1].CreateOptions.DryRun})
			}
			equal(t, "object", sent[1].Object, sent[0].Object)
		})
	}
}
