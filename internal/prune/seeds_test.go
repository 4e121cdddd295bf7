package prune_test

import (
	"errors"
	"testing"
	"testing/synctest"

	"github.com/google/go-cmp/cmp"

	"github.com/backsnap/kubectl-backsnap/internal/catalog"
	"github.com/backsnap/kubectl-backsnap/internal/prune"
)

// The tests of this file bear numbers of the study of the programs before ours,
// as those of package retention do; 5 is a test of package cli, 19 of package kube.

// backup-ns's sweep asks for the content first, and ends at the first snapshot
// that has none.
func TestSeed04AnUnboundSnapshotDoesNotStopASweep(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		unbound := due(point("data", 9))
		unbound.Content, unbound.Ready = "", false
		f := newFake(unbound, due(point("data", 10)), due(point("data", 11)), daily(point("data", 20)))
		_, outcomes := run(t, t.Context(), f, request())
		want := map[string]prune.Outcome{"data-10": prune.Deleted, "data-11": prune.Deleted} // what is not ready is not judged
		if diff := cmp.Diff(want, outcomes); diff != "" {
			t.Errorf("outcomes (-want +got):\n%s", diff)
		}
		// By name, it goes too.
		r := request()
		r.Selects = func(s catalog.Snapshot) bool { return s.Name == "data-09" }
		plan, _, err := prune.MakeNowPlan(t.Context(), f, r, "vs/data-09")
		if err != nil {
			t.Fatal(err)
		}
		if _, outcomes = runPlan(t, t.Context(), f, plan); outcomes["data-09"] != prune.Deleted {
			t.Errorf("by name: %v", outcomes)
		}
	})
}

// backup-ns's labels reach the content only by another job, a day later, and
// what was taken off stays there.
func TestSeed07ALabelThatIsTakenOffIsTakenOffTheContent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake(daily(point("data", 10)), daily(point("data", 20)))
		f.contents["content-data-10"].Labels[catalog.LabelDeleteAfter] = "2026-11-21"
		f.touch("data-20", func(s *catalog.Snapshot) { s.DeleteAfter, s.Marked = "20261130T090000Z", now }) // a mark that a period makes void
		result, _ := run(t, t.Context(), f, request())
		if err := errors.Join(result.Errs...); err != nil {
			t.Fatal(err)
		}
		for name, s := range f.snapshots {
			if diff := cmp.Diff(s.Labels(), f.contents[s.Content].Labels); diff != "" {
				t.Errorf("labels of the content of %s (-want +got):\n%s", name, diff)
			}
		}
		if _, there := f.contents["content-data-10"].Labels[catalog.LabelDeleteAfter]; there {
			t.Error("delete-after is there still")
		}
	})
}
